//! `laptime inspect`: what is in a trace.

use super::output::{self, Target};
use super::traces;
use crate::error::Error;
use crate::report::json;
use crate::report::text::counted;
use crate::trace::Trace;
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
        let Some(target) = json else {
            return output::print(&summary(&trace));
        };
        let silent = target.is_stdout();
        let answer = serde_json::json!({
            "schema": "laptime.inspection/1",
            "sessions": trace.sessions.len(),
            "calls": trace.calls(),
        });
        target.write(|mut out| json::write_value(&mut out, &answer))?;
        if silent {
            Ok(())
        } else {
            output::print(&summary(&trace))
        }
    }
}

fn summary(trace: &Trace) -> String {
    format!(
        "{}, {}\n",
        counted(trace.sessions.len() as u64, "session"),
        counted(trace.calls() as u64, "call")
    )
}
