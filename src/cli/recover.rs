//! `laptime recover`: a result from the journal of a live replay that ended badly.

use super::output::{self, Target};
use super::talk;
use crate::error::Error;
use crate::journal;
use crate::report::{json, text};
use crate::study::live::recovered;
use crate::study::replay::Replay;
use clap::Args;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Recover {
    /// The journal, or the folder that was given to --out.
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Write the result document to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

impl Recover {
    /// Reads, and reports what had been measured.
    pub(super) fn run(self) -> Result<(), Error> {
        let path = if self.journal.is_dir() {
            self.journal.join("journal.jsonl")
        } else {
            self.journal
        };
        let wrong = |why: String| {
            Error::input(format!("{}: {why}", path.display()))
                .with_help("expected the journal of `laptime replay --url ... --out DIR`")
        };
        let file = File::open(&path).map_err(|error| wrong(error.to_string()))?;
        let contents = journal::read(BufReader::new(file)).map_err(wrong)?;
        if let Some(cut) = &contents.cut {
            talk::warning(&format!("{}: {cut}; the rest is left out", path.display()));
        }
        let (workload, point, metrics, live) = recovered(contents);
        let replays = [Replay {
            workload: &workload,
            point,
            metrics,
            live: Some(Box::new(live)),
        }];
        let target = self.json.as_deref().map(Target::open).transpose()?;
        let silent = target.as_ref().is_some_and(Target::is_stdout);
        if let Some(target) = target {
            target.write(|mut out| json::write(&mut out, &replays, true))?;
        }
        if silent {
            return Ok(());
        }
        output::print(&text::render(&replays, output::look()))
    }
}
