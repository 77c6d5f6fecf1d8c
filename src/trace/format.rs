//! The native format on disk: JSONL, one record a line, described in `docs/trace-format.md`.
//!
//! Reading goes on after a line that cannot be used, and kinds of lines that this version does not know are passed over
//! (and kept when a file is written again). Writing is a line at a time, so a file can be cut after any line.

use super::error::TraceError;
use super::import::{Feed, parse_error};
use super::input::Input;
use super::record::{Header, Record, StepRecord};
use serde::Deserialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

/// What the `format` field of a header says.
pub const FORMAT: &str = "laptime-trace";
/// The version of the format that is written, and the latest that is read.
pub const VERSION: u32 = 1;

/// The beginning that nearly all lines have; it spares them the search for their kind.
const STEP: &[u8] = b"{\"k\":\"step\",";
const KINDS: [&str; 7] = [
    "header", "segment", "session", "agent", "step", "tool", "event",
];

/// Reads a native file.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    let mut headed = false;
    while let Some(line) = lines.next() {
        let parsed = match line {
            Ok(line) => match parse(line) {
                Ok(None) => {
                    feed.unknown(line);
                    continue;
                }
                Ok(Some(record)) => Ok(record),
                Err(why) => Err(why),
            },
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let number = lines.number;
        let place = || format!("line {number}");
        match parsed {
            Err(why) => feed.problem(&place(), &why),
            Ok(Record::Header(first)) => {
                check(&first, input, number)?;
                if headed {
                    feed.problem(&place(), "a second header; it was left out");
                    continue;
                }
                headed = true;
                feed.put(place, Record::Header(first));
            }
            Ok(record) => feed.put(place, record),
        }
    }
    if !headed {
        feed.problem("line 1", "the header is missing; read as version 1");
    }
    Ok(())
}

fn check(header: &Header, input: &Input, line: u64) -> Result<(), TraceError> {
    if header.format != FORMAT {
        return Err(TraceError::Unknown {
            path: input.path.clone(),
            found: format!(
                "line {line} says format `{}`, expected `{FORMAT}`",
                header.format.chars().take(40).collect::<String>()
            ),
        });
    }
    if header.version > VERSION {
        return Err(TraceError::Version {
            path: input.path.clone(),
            line,
            found: u64::from(header.version),
            expected: VERSION,
        });
    }
    Ok(())
}

/// The kind of a line.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    k: Cow<'a, str>,
}

/// Reads a line; nothing when its kind is not known here.
fn parse(line: &mut [u8]) -> Result<Option<Record>, String> {
    let complaint = |error: serde_json::Error| parse_error(&error);
    if line.starts_with(STEP) {
        // The comma becomes the brace of a step that names no kind.
        let last = STEP.len() - 1;
        line[last] = b'{';
        let step = serde_json::from_slice::<StepRecord>(&line[last..]);
        line[last] = b',';
        return step
            .map(|step| Some(Record::Step(Box::new(step))))
            .map_err(complaint);
    }
    let kind: Kind<'_> = serde_json::from_slice(line).map_err(complaint)?;
    if !KINDS.contains(&kind.k.as_ref()) {
        return Ok(None);
    }
    serde_json::from_slice(line).map(Some).map_err(complaint)
}

/// Writes a record as a line.
pub fn write(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// Writes `answer` to `out`, packed as the name of its file says: `.gz`, `.zst`, or not at all.
pub fn pack(
    name: &Path,
    out: &mut dyn Write,
    answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let suffix = name.extension().and_then(|suffix| suffix.to_str());
    match suffix.map(str::to_ascii_lowercase).as_deref() {
        Some("gz") => {
            let level = flate2::Compression::default();
            let mut packed = flate2::write::GzEncoder::new(out, level);
            answer(&mut packed)?;
            packed.finish().map(drop)
        }
        Some("zst") => {
            let mut packed = zstd::Encoder::new(out, 3)?;
            answer(&mut packed)?;
            packed.finish().map(drop)
        }
        _ => answer(out),
    }
}
