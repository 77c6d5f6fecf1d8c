//! A recorder between agents and their engine: everything passes as it is, and what it was becomes a trace.
//!
//! `forward.rs` passes bytes on and hands copies to a thread of its own, `writer.rs`, which reads them, has
//! `recorder.rs` make records of them, and writes those at once. What takes time thus takes none of the agent's.
//! `docs/record.md` says what is recorded, how conversations are told apart, and what is never stored.

pub mod answered;
pub mod asked;
mod forward;
pub mod recorder;
pub mod threads;
mod writer;

use crate::listen::{self, Bounds};
use crate::trace::format;
use crate::trace::record::{Header, Record};
use recorder::Privacy;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::net::TcpListener;

pub use forward::Upstream;

/// How a recorder behaves.
#[derive(Debug)]
pub struct Settings {
    /// Where requests go.
    pub upstream: Upstream,
    /// What becomes of text.
    pub privacy: Privacy,
    /// What is taken in.
    pub bounds: Bounds,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Answers.
    pub steps: u64,
    /// Sessions.
    pub sessions: u64,
    /// What stopped the writing, if anything did.
    pub failed: Option<io::Error>,
}

/// Writes the line with which a recording begins.
pub fn head(file: &mut File, settings: &Settings, started_unix_us: Option<u64>) -> io::Result<()> {
    let hashed = settings.privacy != Privacy::Full;
    let header = Header {
        format: format::FORMAT.to_string(),
        version: format::VERSION,
        producer: Some(format!("laptime record {}", env!("CARGO_PKG_VERSION"))),
        started_unix_us,
        resolution_us: Some(1),
        privacy: Some(if hashed { "hashed" } else { "full" }.to_string()),
        tokenizer: Some(
            "totals as each step's `tokens_how` says; within a prompt shared out by bytes"
                .to_string(),
        ),
        losses: vec![
            "waits between requests are derived from when they passed; their causes were not seen"
                .to_string(),
            "which conversation a request belongs to was told by its content".to_string(),
        ],
        ..Header::default()
    };
    let mut line = Vec::new();
    format::write(&mut line, &Record::Header(Box::new(header)))?;
    file.write_all(&line)
}

/// Records what passes through `listener` into `file` until `stop` is done.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    file: File,
    tell: impl Fn(&str) + Send + 'static,
    stop: impl Future<Output = ()>,
) -> io::Result<Recorded> {
    let Settings {
        upstream,
        privacy,
        bounds,
    } = settings;
    let upstream = Arc::new(upstream);
    let (notes, writing) = writer::start(file, privacy, Arc::clone(&upstream), tell)?;
    let most = bounds.body;
    {
        let notes = notes.clone();
        let handler =
            move |request| forward::answer(Arc::clone(&upstream), notes.clone(), most, request);
        listen::serve(listener, bounds, handler, stop).await;
    }
    // Connections that are still open hold notes as well; what they say from here on is not waited for.
    notes.finish();
    let done = tokio::task::spawn_blocking(move || writing.join());
    let done = done.await.map_err(io::Error::other)?;
    done.map_err(|_| io::Error::other("the writing thread broke down"))
}
