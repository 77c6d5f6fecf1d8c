//! `laptime anonymize`: a trace that replays the same and can be shown to others.

use super::output::Target;
use super::talk::{self, Reading};
use super::traces;
use crate::error::Error;
use crate::report::text::counted;
use crate::trace::anonymize::{self, Key};
use crate::trace::read;
use clap::{Args, ValueEnum};
use rand::TryRng;
use rand::rngs::SysRng;
use std::path::{Path, PathBuf};

const NOTE: &str = "\
What is left: lengths, waits, recorded times, and which prompts begin alike. `hashed` also keeps what sessions have in
common, as hashes with a secret key; the key is drawn at random and forgotten, so two runs give unlike hashes and nobody
can try out what a hash stands for. Files that shall stay comparable need the same --key-file, which must be kept secret.
`sizes` keeps nothing that sessions have in common, and replays the same under --share none.

Examples:
  laptime anonymize runs/ -o shared.jsonl.zst --level hashed
  head -c 32 /dev/urandom > team.key && laptime anonymize run.jsonl -o shared.jsonl --level hashed --key-file team.key";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = NOTE)]
pub(super) struct Anonymize {
    /// Traces to reduce, native or foreign; a folder stands for all in it.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The trace to write, or `-` for the standard output.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How much to leave.
    #[arg(long, value_enum)]
    level: Level,
    /// A file with a secret of at least 16 bytes: what is hashed with it stays comparable.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block_size: Option<u32>,
    /// Show no progress and no notes; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Level {
    /// Keyed hashes of what sessions have in common.
    Hashed,
    /// Nothing but sizes and times.
    Sizes,
}

impl Anonymize {
    /// Reads, reduces and writes.
    pub(super) fn run(self) -> Result<(), Error> {
        let level = match self.level {
            Level::Hashed => anonymize::Level::Hashed,
            Level::Sizes => anonymize::Level::Sizes,
        };
        let key = match &self.key_file {
            Some(path) => from_file(path)?,
            None => drawn()?,
        };
        let target = Target::open(&self.output)?;
        let mut reading = Reading::new(self.quiet);
        let options = traces::options(self.block_size);
        let loaded = read::load_printed(&self.paths, &options, &mut |at| reading.tell(at));
        reading.finish();
        let (trace, prints) = loaded.map_err(|error| traces::wrong(&error))?;
        traces::tell(&trace.sources, &trace.skipped, self.quiet);
        target.write_packed(|out| anonymize::write(&trace, &prints, level, &key, out))?;
        let what = format!(
            "{} and {} written to {}, {}",
            counted(trace.sessions.len() as u64, "session"),
            counted(trace.calls() as u64, "call"),
            self.output.display(),
            level.name()
        );
        talk::note(self.quiet, &what);
        Ok(())
    }
}

fn from_file(path: &Path) -> Result<Key, Error> {
    let bytes = std::fs::read(path).map_err(|error| {
        Error::usage(format!("cannot read the key {}: {error}", path.display()))
    })?;
    Key::from_secret(&bytes).ok_or_else(|| {
        Error::usage(format!(
            "the key {} has {} bytes, expected at least 16",
            path.display(),
            bytes.len()
        ))
        .with_help("head -c 32 /dev/urandom > FILE makes one")
    })
}

fn drawn() -> Result<Key, Error> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
        Error::usage(format!("the system gives no random key: {error}"))
            .with_help("pass --key-file")
    })?;
    Ok(Key::new(bytes))
}
