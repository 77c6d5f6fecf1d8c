//! `laptime report`: results as a table, as one document or as a page; of a live replay that ended badly, from its journal.

use super::output::{self, Target};
use super::talk;
use crate::error::Error;
use crate::journal;
use crate::report::json::{RESULT, RESULTS};
use crate::report::{html, json, shown, text};
use crate::study::live::{Recovered, recovered};
use clap::Args;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  laptime report result.json -o report.html
  laptime report measured/ --json result.json      # a replay that was killed, from its journal";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Report {
    /// Results, journals of live replays, or folders that were given to --out.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Write a page that needs nothing beside it to PATH, or to the standard output for `-`.
    #[arg(short, long, value_name = "PAGE.html")]
    output: Option<PathBuf>,
    /// Write the result document to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// What a path held.
enum Found {
    Result(Box<Value>),
    Journal(Box<Recovered>),
}

impl Report {
    /// Reads, and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let page = self.output.as_deref().map(Target::open).transpose()?;
        let both = [&json, &page].map(|one| one.as_ref().is_some_and(Target::is_stdout));
        if both == [true, true] {
            let what = "the page and the document cannot both go to the standard output";
            return Err(Error::usage(what).with_help("name a file with -o"));
        }
        let mut found = Vec::new();
        for path in &self.paths {
            read(path, &mut found)?;
        }
        let results = found.iter().map(value).collect::<Result<Vec<Value>, _>>()?;
        if let Some(json) = json {
            json.write(|mut out| shown::write(&mut out, &results))?;
        }
        if let Some(page) = page {
            let text = html::page(&results);
            page.write(|out| out.write_all(text.as_bytes()))?;
        }
        if both.contains(&true) {
            return Ok(());
        }
        let mut told = String::new();
        for (found, result) in found.iter().zip(&results) {
            told += &match found {
                Found::Journal(recovered) => text::render(&[recovered.replay()], output::look()),
                Found::Result(_) => shown::render(result),
            };
        }
        output::print(&told)
    }
}

/// Reads what is at `path`: one result or several, or the journal of one.
fn read(path: &Path, found: &mut Vec<Found>) -> Result<(), Error> {
    let path = &if path.is_dir() {
        let names = ["result.json", "journal.jsonl"];
        let inside = names.map(|name| path.join(name));
        let there = inside.iter().find(|path| path.is_file());
        there.unwrap_or(&inside[0]).clone()
    } else {
        path.to_path_buf()
    };
    let wrong = |why: String| {
        Error::input(format!("{}: {why}", path.display())).with_help(
            "expected what `laptime replay --json` writes, or the journal of `laptime replay --url ... --out DIR`",
        )
    };
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let Ok(whole) = serde_json::from_slice::<Value>(&bytes) else {
        let contents = journal::read(&bytes[..]).map_err(wrong)?;
        if let Some(cut) = &contents.cut {
            talk::warning(&format!("{}: {cut}; the rest is left out", path.display()));
        }
        found.push(Found::Journal(Box::new(recovered(contents))));
        return Ok(());
    };
    let schema = whole["schema"].as_str().unwrap_or_default();
    if schema == RESULTS {
        let several = whole["results"].as_array().cloned().unwrap_or_default();
        found.extend(several.into_iter().map(|one| Found::Result(Box::new(one))));
    } else if schema == RESULT {
        found.push(Found::Result(Box::new(whole)));
    } else {
        return Err(wrong(format!(
            "schema `{schema}`, expected `{RESULT}` or `{RESULTS}`"
        )));
    }
    Ok(())
}

/// Returns the result document of what was found.
fn value(found: &Found) -> Result<Value, Error> {
    match found {
        Found::Result(value) => Ok((**value).clone()),
        Found::Journal(recovered) => {
            let mut text = Vec::new();
            json::write(&mut text, &[recovered.replay()], true).map_err(Error::stdout)?;
            let parsed = serde_json::from_slice(&text);
            parsed.map_err(|error| Error::input(format!("a result that cannot be read: {error}")))
        }
    }
}
