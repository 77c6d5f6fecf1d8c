//! `laptime inspect`: what is in a trace.

use super::output::{self, Target};
use super::traces;
use crate::error::Error;
use crate::report::inspection;
use crate::trace::inspect;
use clap::Args;
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Inspect {
    /// Traces to look at.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Write the answer as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
    /// Show no progress; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

impl Inspect {
    /// Reads, looks and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let trace = traces::load(&self.paths, self.block_size, self.quiet)?;
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let found = inspect::inspect(&trace);
        let silent = json.as_ref().is_some_and(Target::is_stdout);
        if let Some(target) = json {
            target.write(|mut out| inspection::write(&mut out, &trace, &found))?;
        }
        if silent {
            return Ok(());
        }
        output::print(&inspection::render(&trace, &found, output::look()))
    }
}
