//! `laptime synth`: more sessions of the same kind, drawn from statistics.

use super::output::Target;
use super::talk::{self, Reading};
use super::traces;
use crate::error::Error;
use crate::report::text::counted;
use crate::trace::read;
use crate::trace::synth::{self, Kind, Mix, Written};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Presets: claude-code (fresh and resumed sessions as recorded), claude-code-fresh, claude-code-resumed, local-minimal,
pr-audit, ticket-triage, explore-fanout; or a preset file of your own (docs/synth.md).

Examples:
  laptime synth --preset claude-code --sessions 1000 -o many.jsonl.zst
  laptime synth --like runs/ --sessions 200 --seed 7 -o more.jsonl
  laptime synth --preset pr-audit -o - | laptime inspect /dev/stdin";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Synth {
    /// A preset, or a file that holds one.
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "like",
        conflicts_with = "like"
    )]
    preset: Option<String>,
    /// Traces to make more of, native or foreign; a folder stands for all in it.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    like: Vec<PathBuf>,
    /// The trace to write, or `-` for the standard output.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How many sessions.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    sessions: u64,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
    /// Show no progress and no notes; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

impl Synth {
    /// Draws and writes.
    pub(super) fn run(self) -> Result<(), Error> {
        let mix = match &self.preset {
            Some(name) => preset(name)?,
            None => self.fitted()?,
        };
        let target = Target::open(&self.output)?;
        let mut written = Written::default();
        target.write_packed(|out| {
            written = synth::write(&mix, self.sessions, self.seed, &mut |_| {}, out)?;
            Ok(())
        })?;
        let what = format!(
            "{} and {} written to {}",
            counted(written.sessions, "session"),
            counted(written.calls, "call"),
            self.output.display()
        );
        talk::note(self.quiet, &what);
        Ok(())
    }

    fn fitted(&self) -> Result<Mix, Error> {
        let mut reading = Reading::new(self.quiet);
        let options = traces::options(self.block_size);
        let loaded = read::load(&self.like, &options, &mut |at| reading.tell(at));
        reading.finish();
        let trace = loaded.map_err(|error| traces::wrong(&error))?;
        traces::tell(&trace.sources, &trace.skipped, self.quiet);
        let agents = trace
            .sessions
            .iter()
            .map(|session| session.threads.len() - 1);
        if agents.sum::<usize>() > 0 {
            talk::note(
                self.quiet,
                "sub-agents are not fitted; the sessions written have none",
            );
        }
        synth::fit(&trace).ok_or_else(|| {
            Error::usage(
                "no session has a request that follows another, so there is nothing to learn from",
            )
            .with_help("give recordings of whole sessions, or name a --preset")
        })
    }
}

/// Returns a preset by its name, or from its file.
fn preset(name: &str) -> Result<Mix, Error> {
    if let Some(mix) = Mix::preset(name) {
        return Ok(mix);
    }
    let path = PathBuf::from(name);
    if path.is_file() {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::usage(format!("{}: {error}", path.display())))?;
        let kind = Kind::read(&text).map_err(|why| {
            Error::usage(format!("{}: {why}", path.display()))
                .with_help("docs/synth.md says what a preset file holds")
        })?;
        return Ok(Mix::of(kind));
    }
    let names: Vec<String> = Mix::presets().into_iter().map(|(name, _)| name).collect();
    Err(
        Error::usage(format!("there is no preset and no file `{name}`"))
            .with_help(format!("presets are {}", names.join(", "))),
    )
}
