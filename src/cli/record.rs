//! `laptime record`: a proxy between agents and their engine that writes down what passes as a trace.

use super::{edge, talk};
use crate::error::{Error, Exit};
use crate::listen::{self, Bounds};
use crate::proxy::recorder::Privacy;
use crate::proxy::{self, Settings, Upstream};
use crate::report::text::counted;
use crate::units::Bytes;
use clap::Args;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  laptime record --upstream http://127.0.0.1:8080 -o run.jsonl
  laptime record --upstream https://api.openai.com/v1 --listen 9000 -o run.jsonl --hashed
  laptime replay --trace run.jsonl --rig dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Record {
    /// The engine or provider that answers.
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// Where agents are to connect: ADDRESS:PORT, or a port on loopback; 0 takes any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000", value_parser = listen::address)]
    listen: SocketAddr,
    /// The trace to write; it must not exist yet.
    #[arg(short, long, value_name = "TRACE")]
    output: PathBuf,
    /// Keep no text: hashes under a key that is thrown away, and sizes.
    #[arg(long)]
    hashed: bool,
    /// The longest request.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = Bytes::parse)]
    max_body: Bytes,
    /// Connections at the same time; further ones wait.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,
    /// Say nothing but warnings and errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Record {
    /// Records until it is interrupted.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let upstream = Upstream::new(&self.upstream).map_err(|why| {
            let what = format!("`{}` is no upstream: {why}", self.upstream);
            Error::usage(what).with_help("give the engine's address, such as http://127.0.0.1:8080")
        })?;
        let privacy = if self.hashed {
            Privacy::Hashed(key()?)
        } else {
            Privacy::Full
        };
        let settings = Settings {
            upstream,
            privacy,
            bounds: Bounds {
                connections: self.max_connections as usize,
                body: self.max_body.0,
            },
        };
        let recorded = edge::runtime()?.block_on(async {
            let listener = TcpListener::bind(self.listen).await;
            let listener = listener.map_err(|error| edge::cannot_listen(self.listen, &error))?;
            let mut file = create(&self.output)?;
            let wrong = |error| Error::write(&self.output, error);
            proxy::head(&mut file, &settings, edge::now_unix_us()).map_err(wrong)?;
            let at = edge::announce(
                &listener,
                self.listen,
                "whoever can reach it can use the upstream",
            );
            let to = &self.upstream;
            talk::note(
                self.quiet,
                &format!("what passes from http://{at} to {to} is recorded"),
            );
            talk::note(self.quiet, "Ctrl-C ends the recording");
            let stop = edge::interrupted();
            let tell = talk::warning;
            proxy::run(listener, settings, file, tell, stop)
                .await
                .map_err(wrong)
        })?;
        let calls = counted(recorded.steps, "call");
        let sessions = counted(recorded.sessions, "session");
        let output = self.output.display();
        if let Some(error) = recorded.failed {
            return Err(Error::write(&self.output, error));
        }
        let written = format!("{calls} of {sessions} written to {output}");
        talk::note(self.quiet, &written);
        Ok(Exit::Interrupted)
    }
}

fn create(path: &Path) -> Result<File, Error> {
    let packed = path
        .extension()
        .is_some_and(|end| end == "gz" || end == "zst");
    if packed {
        return Err(Error::usage(format!("{} would be packed", path.display())).with_help(
            "a packed file cannot be cut anywhere; record plainly, then `laptime import TRACE -o TRACE.zst`",
        ));
    }
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::usage(format!("{} exists already", path.display()))
            .with_help("name another file with -o, or remove it; a recording is never overwritten"),
        _ => Error::write(path, error),
    })
}

/// Returns a key that nobody else has and that nobody keeps.
fn key() -> Result<[u8; 32], Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| Error::usage(format!("the system gives no random numbers: {error}")))?;
    Ok(key)
}
