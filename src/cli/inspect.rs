//! `laptime inspect`: what is in a trace.

use super::output::{self, Target};
use super::{rigs, traces};
use crate::error::Error;
use crate::report::inspection::{self, Memory};
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
    /// Say how much memory a model would need to keep all of it.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR")]
    catalog: Vec<PathBuf>,
    /// Show no progress; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

impl Inspect {
    /// Reads, looks and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let memory = self.memory()?;
        let trace = traces::load(&self.paths, self.block_size, self.quiet)?;
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let found = inspect::inspect(&trace);
        let silent = json.as_ref().is_some_and(Target::is_stdout);
        if let Some(target) = json {
            target.write(|mut out| inspection::write(&mut out, &trace, &found, memory.as_ref()))?;
        }
        if silent {
            return Ok(());
        }
        let text = inspection::render(&trace, &found, memory.as_ref(), output::look());
        output::print(&text)
    }

    /// Returns what the model that was named keeps of a conversation.
    fn memory(&self) -> Result<Option<Memory>, Error> {
        let Some(name) = &self.model else {
            return Ok(None);
        };
        let catalog = rigs::catalog(&self.catalog)?;
        let model = catalog.model(name).map_err(|error| {
            Error::usage(error.to_string())
                .with_help("laptime list models shows those that are known")
        })?;
        Ok(Some(Memory {
            model: model.name.clone(),
            per_token: model.kv_bytes_per_token.value,
            per_sequence: model.state_bytes_per_sequence.value,
        }))
    }
}
