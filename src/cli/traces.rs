//! Reading traces for any command: what cannot be used is told, and nothing usable left is an error.

use super::talk;
use crate::error::Error;
use crate::trace::compile::Compiler;
use crate::trace::record::Record;
use crate::trace::{Source, Trace};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// How many bad lines of a file are told one by one.
const TOLD: usize = 5;

/// Reads every file into one trace and tells what could not be used.
pub(super) fn load(
    paths: &[PathBuf],
    _block_size: Option<u32>,
    quiet: bool,
) -> Result<Trace, Error> {
    let trace = read(paths)?;
    for source in &trace.sources {
        tell_problems(source);
        for loss in &source.losses {
            talk::note(quiet, &format!("{}: {loss}", source.name));
        }
    }
    if trace.sessions.is_empty() {
        let names: Vec<&str> = trace
            .sources
            .iter()
            .map(|source| source.name.as_str())
            .collect();
        return Err(Error::input(format!(
            "no session could be read from {}",
            names.join(", ")
        ))
        .with_help("`laptime inspect PATH` says what a file holds"));
    }
    Ok(trace)
}

fn tell_problems(source: &Source) {
    for problem in source.problems.iter().take(TOLD) {
        talk::warning(&format!("{problem}; the line was left out"));
    }
    let more = source.problems.len().saturating_sub(TOLD);
    if more > 0 {
        talk::warning(&format!(
            "{}: {more} more lines could not be used",
            source.name
        ));
    }
}

fn read(paths: &[PathBuf]) -> Result<Trace, Error> {
    let mut compiler = Compiler::default();
    for path in paths {
        read_file(&mut compiler, path)?;
    }
    Ok(compiler.finish())
}

fn read_file(compiler: &mut Compiler, path: &Path) -> Result<(), Error> {
    let name = path.display().to_string();
    let bytes =
        fs::read(path).map_err(|error| Error::input(format!("cannot read {name}: {error}")))?;
    compiler.begin(Source {
        name: name.clone(),
        format: "laptime".to_string(),
        digest: format!("xxh3:{:032x}", xxh3_128(&bytes)),
        losses: Vec::new(),
        problems: Vec::new(),
    });
    for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let added = serde_json::from_str::<Record>(line)
            .map_err(|error| error.to_string())
            .and_then(|record| compiler.add(&record));
        if let Err(why) = added {
            compiler
                .source()
                .problems
                .push(format!("{name}:{}: {why}", number + 1));
        }
    }
    Ok(())
}
