//! More sessions of the same kind: drawn from measured statistics, with a seed, one after the other.
//!
//! What is written are records of the native format, as importers write them. A session depends on the seed and its number
//! alone, so more sessions begin with those of fewer, and memory holds one at a time.

mod children;
mod dependence;
mod fit;
mod preset;
mod row;
mod session;

use super::format;
use super::record::{Header, Record, Segment};
use crate::rng;
pub use fit::fit;
use preset::HeadPart;
pub use preset::{Kind, Mix};
use row::Session;
use session::Maker;
use std::io::{self, Write};
use xxhash_rust::xxh3::xxh3_64;

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Sessions.
    pub sessions: u64,
    /// Requests.
    pub calls: u64,
}

/// Writes sessions as a native trace; `progress` is told how many there are so far.
pub fn write(
    mix: &Mix,
    sessions: u64,
    seed: u64,
    progress: &mut dyn FnMut(u64),
    out: &mut dyn Write,
) -> io::Result<Written> {
    let names: Vec<&str> = mix.0.iter().map(|(_, kind)| kind.name.as_str()).collect();
    let header = Header {
        format: format::FORMAT.to_string(),
        version: format::VERSION,
        producer: Some(format!("laptime {}", env!("CARGO_PKG_VERSION"))),
        source_format: Some("synthetic".to_string()),
        note: Some(format!(
            "drawn at random: {}, seed {seed}",
            names.join(" and ")
        )),
        privacy: Some("sizes".to_string()),
        ..Header::default()
    };
    format::write(out, &Record::Header(Box::new(header)))?;
    for (_, kind) in &mix.0 {
        let children = kind.agents.iter().flat_map(|agents| &agents.head);
        write_heads(&kind.name, &kind.head, out)?;
        write_heads(
            &child_name(&kind.name),
            &children.cloned().collect::<Vec<_>>(),
            out,
        )?;
    }
    let mut written = Written::default();
    for index in 0..sessions {
        let mut stream = rng::stream(seed, "synth", index);
        let session = Session::new(&mut rng::stream(seed, "synth-sessions", 0), index);
        let kind = pick(mix, session.kind);
        let mut failed = None;
        let mut calls = 0;
        Maker::new(kind, index, session, &mut stream).make(&mut |record| {
            calls += u64::from(matches!(record, Record::Step(_)));
            if failed.is_none() {
                failed = format::write(out, &record).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        written.sessions += 1;
        written.calls += calls;
        progress(written.sessions);
    }
    out.flush()?;
    Ok(written)
}

/// Returns the kind of a session, by a number from 0 to 1.
fn pick(mix: &Mix, at: f64) -> &Kind {
    let mut sum = 0.0;
    let found = mix.0.iter().find(|(share, _)| {
        sum += share;
        at < sum
    });
    &found.or(mix.0.last()).expect("a mix has a kind").1
}

/// Returns the name of the heads of a kind's sub-agents.
fn child_name(kind: &str) -> String {
    format!("{kind}-agent")
}

/// Returns the name of a part of a head, and its size.
fn head_segment(owner: &str, part: &HeadPart, version: u32) -> (String, u64) {
    let versions = part.versions.max(1);
    let version = version % versions;
    let share = (f64::from(version) + 0.5) / f64::from(versions);
    let tokens = part.tokens.quantile(share).round().max(1.0) as u64;
    (format!("{owner}/{}/{}", part.kind, version + 1), tokens)
}

/// Writes all versions of a head, so that sessions of other files with the same version share it.
fn write_heads(owner: &str, parts: &[HeadPart], out: &mut dyn Write) -> io::Result<()> {
    for part in parts {
        for version in 0..part.versions.max(1) {
            let (id, tokens) = head_segment(owner, part, version);
            let segment = Segment {
                hash: Some(format!(
                    "{:016x}",
                    xxh3_64(format!("{id} {tokens}").as_bytes())
                )),
                id,
                kind: part.kind.clone(),
                tokens,
                ..Segment::default()
            };
            format::write(out, &Record::Segment(Box::new(segment)))?;
        }
    }
    Ok(())
}
