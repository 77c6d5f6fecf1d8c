//! Reading traces for any command: what cannot be used is told, and nothing usable left is an error.

use super::talk::{self, Reading};
use crate::error::Error;
use crate::report::text::counted;
use crate::trace::read::{self, ReadOptions};
use crate::trace::{Source, Trace, TraceError};
use std::path::PathBuf;

/// How many bad lines of a file are told one by one.
const TOLD: usize = 5;

/// Returns how to read, as far as the command line says.
pub(super) fn options(block_size: Option<u32>) -> ReadOptions {
    ReadOptions { block_size }
}

/// Reads every file and folder into one trace and tells what could not be used.
pub(super) fn load(
    paths: &[PathBuf],
    block_size: Option<u32>,
    quiet: bool,
) -> Result<Trace, Error> {
    let mut reading = Reading::new(quiet);
    let loaded = read::load(paths, &options(block_size), &mut |at| reading.tell(at));
    reading.finish();
    let trace = loaded.map_err(|error| wrong(&error))?;
    tell(&trace.sources, &trace.skipped, quiet);
    Ok(trace)
}

/// Returns the error that says why a trace cannot be read.
pub(super) fn wrong(error: &TraceError) -> Error {
    Error::input(error.to_string()).with_help(error.help())
}

/// Tells what was lost, left out or skipped.
pub(super) fn tell(sources: &[Source], skipped: &[String], quiet: bool) {
    for (loss, name, files) in losses(sources) {
        let of = if files > 1 {
            format!("{name} and {}", counted(files - 1, "more file"))
        } else {
            name.to_string()
        };
        talk::note(quiet, &format!("{of}: {loss}"));
    }
    for source in sources {
        let problems = source.problems.iter();
        let problems: Vec<String> = problems
            .map(|one| format!("{}, {one}", source.name))
            .collect();
        some(&problems, |more| {
            let lines = counted(more, "more line");
            format!("{}: {lines} could not be used", source.name)
        });
    }
    some(skipped, |more| {
        format!("{} skipped", counted(more, "more file"))
    });
}

/// Returns each kind of loss once: as its first file has it, that file's name, and how many files have the like.
///
/// Losses are of one kind when they differ in their numbers only.
fn losses(sources: &[Source]) -> Vec<(&str, &str, u64)> {
    let kind = |loss: &str| loss.replace(|c: char| c.is_ascii_digit(), "");
    let mut kinds: Vec<(String, &str, &str, u64)> = Vec::new();
    for source in sources {
        for loss in &source.losses {
            let this = kind(loss);
            match kinds.iter_mut().find(|(other, ..)| *other == this) {
                Some((.., files)) => *files += 1,
                None => kinds.push((this, loss, &source.name, 1)),
            }
        }
    }
    let shown = kinds.into_iter();
    shown
        .map(|(_, loss, name, files)| (loss, name, files))
        .collect()
}

/// Warns of the first few, and of how many more there are.
fn some(all: &[String], rest: impl Fn(u64) -> String) {
    for one in all.iter().take(TOLD) {
        talk::warning(one);
    }
    if all.len() > TOLD {
        talk::warning(&rest((all.len() - TOLD) as u64));
    }
}
