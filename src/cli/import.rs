//! `laptime import`: foreign traces to the native format, with a report of what was lost.

use super::output::Target;
use super::talk::{self, Reading};
use super::traces;
use crate::error::Error;
use crate::report::inspection;
use crate::report::text::counted;
use crate::trace::TraceError;
use crate::trace::read;
use clap::Args;
use std::io;
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// Traces to import, native or foreign; a folder stands for all in it.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The native trace to write, or `-` for the standard output.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Say on the standard output what was lost, as JSON.
    #[arg(long)]
    json: bool,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
    /// Show no progress and no notes; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

impl Import {
    /// Imports and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let target = Target::open(&self.output)?;
        if self.json && target.is_stdout() {
            return Err(Error::usage(
                "the trace and the report cannot both go to the standard output",
            )
            .with_help("name a file with -o, or leave out --json"));
        }
        let mut reading = Reading::new(self.quiet);
        let mut report = None;
        let options = traces::options(self.block_size);
        let written = target.write_packed(|mut out| {
            let done = read::import(&self.paths, &options, &mut |at| reading.tell(at), &mut out);
            reading.finish();
            // A trace that cannot be read says so itself; only a failed write is the target's.
            match done {
                Err(TraceError::Io {
                    action: "write",
                    source,
                    ..
                }) => return Err(source),
                other => report = Some(other),
            }
            match report {
                Some(Err(_)) => Err(io::ErrorKind::InvalidData.into()),
                _ => Ok(()),
            }
        });
        let report = match report {
            Some(Err(error)) => return Err(traces::wrong(&error)),
            Some(Ok(report)) => written.map(|()| report)?,
            None => return written,
        };
        traces::tell(&report.sources, &report.skipped, self.quiet && !self.json);
        let what = format!(
            "{} and {} written to {}",
            counted(report.sessions as u64, "session"),
            counted(report.calls as u64, "call"),
            self.output.display()
        );
        talk::note(self.quiet, &what);
        if self.json {
            let stdout = Target::open("-".as_ref())?;
            stdout.write(|mut out| inspection::write_import(&mut out, &report))?;
        }
        Ok(())
    }
}
