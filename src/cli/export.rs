//! `laptime export`: traces in the dialects that other tools read.

use super::output::Target;
use super::talk::{self, Reading};
use super::traces;
use crate::error::Error;
use crate::report::text::counted;
use crate::trace::Trace;
use crate::trace::export::{mooncake, weka};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  laptime export run.jsonl --to mooncake -o run.mooncake.jsonl
  laptime export runs/ --to weka -o sessions/        one JSON document for each session";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// Traces to export, native or foreign; a folder stands for all in it.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The dialect.
    #[arg(long, value_enum)]
    to: Dialect,
    /// The file to write, or `-` for the standard output; a folder for several kv-cache-tester sessions.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Tokens in a block: of hashed traces that are read, and of Mooncake rows that are written.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
    /// Show no progress and no notes; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Dialect {
    /// Mooncake rows (JSONL), as AIPerf and Dynamo read them.
    Mooncake,
    /// Sessions of the kv-cache-tester (JSON), as AIPerf reads them too.
    Weka,
}

impl Export {
    /// Reads and writes.
    pub(super) fn run(self) -> Result<(), Error> {
        let mut reading = Reading::new(self.quiet);
        let options = traces::options(self.block_size);
        let loaded = crate::trace::read::load(&self.paths, &options, &mut |at| reading.tell(at));
        reading.finish();
        let trace = loaded.map_err(|error| traces::wrong(&error))?;
        traces::tell(&trace.sources, &trace.skipped, self.quiet);
        let block = self.block_size.unwrap_or(mooncake::BLOCK);
        let losses = match self.to {
            Dialect::Mooncake => {
                let target = Target::open(&self.output)?;
                target.write_packed(|out| mooncake::write(&trace, block, out))?;
                mooncake::losses(&trace, block)
            }
            Dialect::Weka => {
                self.documents(&trace)?;
                weka::losses(&trace)
            }
        };
        for loss in losses {
            talk::note(self.quiet, &format!("not exported: {loss}"));
        }
        let what = format!(
            "{} and {} written to {}",
            counted(trace.sessions.len() as u64, "session"),
            counted(trace.calls() as u64, "call"),
            self.output.display()
        );
        talk::note(self.quiet, &what);
        Ok(())
    }

    /// Writes one document a file: beside each other in a folder where there are several.
    fn documents(&self, trace: &Trace) -> Result<(), Error> {
        let single = trace.sessions.len() == 1 && !self.output.is_dir();
        if !single {
            if self.output.as_os_str() == "-" || self.output.is_file() {
                return Err(Error::usage(format!(
                    "{} sessions do not fit into one file of this dialect",
                    trace.sessions.len()
                ))
                .with_help("name a folder with -o"));
            }
            std::fs::create_dir_all(&self.output)
                .map_err(|source| Error::write(&self.output, source))?;
        }
        for (number, session) in trace.sessions.iter().enumerate() {
            let path = if single {
                self.output.clone()
            } else {
                self.output.join(format!("trace_{:04}.json", number + 1))
            };
            let document = weka::document(&trace.content, session);
            Target::open(&path)?.write_packed(|out| writeln!(out, "{document}"))?;
        }
        Ok(())
    }
}
