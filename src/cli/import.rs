//! `laptime import`: foreign traces to the native format, with a report of what was lost.

use crate::error::Error;
use clap::Args;
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// Traces to import.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The native trace to write, or `-` for the standard output.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Say what was lost as JSON.
    #[arg(long)]
    json: bool,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
}

impl Import {
    /// Imports and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        Err(Error::usage(format!(
            "importing {} to {} is not built into this version",
            self.paths[0].display(),
            self.output.display()
        )))
    }
}
