//! Foreign formats: each importer turns one file into the records of the native format.
//!
//! Which format a file has is decided by its content, never by its name. An importer hands its records to a [`Feed`],
//! which is either compiled at once or written as a native file, so both ways see the same records.

pub(super) mod mmbt;
pub(super) mod mooncake;
pub(super) mod weka;

mod lenient;
mod logs;
mod stamp;

use super::error::TraceError;
use super::input::{Broken, Input};
use super::read::ReadOptions;
use super::record::Record;
use serde_json::Value;
use std::io::{BufRead, Read};
use std::path::PathBuf;

/// The formats that can be read.
const OWN_AND_HASHED: [&str; 4] = [
    "laptime traces (JSONL)",
    "MMBT harness transcripts (transcript.jsonl)",
    "kv-cache-tester session hashes (JSON)",
    "Mooncake request traces (JSONL)",
];

/// Returns the formats that can be read, for people.
pub fn formats() -> Vec<&'static str> {
    [&OWN_AND_HASHED[..], &logs::FORMATS[..]].concat()
}

/// How much of a file is looked at to tell its format.
const PROBE: u64 = 64 << 10;
/// How many lines may be damaged before the first that tells the format.
const PROBE_LINES: usize = 20;
/// How many complaints about one file are kept word for word.
const MAX_PROBLEMS: usize = 20;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Native,
    Mmbt,
    Weka,
    Mooncake,
    Log(logs::Log),
}

impl Format {
    /// Returns the format's name for people and for [`super::Source::format`].
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Native => "laptime",
            Format::Mmbt => "mmbt",
            Format::Weka => "kv-cache-tester",
            Format::Mooncake => "mooncake",
            Format::Log(log) => log.name(),
        }
    }

    /// Returns the format of a file, or a phrase that says what it seems to be instead.
    pub(super) fn detect(input: &Input) -> Result<Result<Format, String>, TraceError> {
        let io = |error| TraceError::io("read", &input.path, error);
        let mut start = Vec::new();
        let reader = input.open().map_err(io)?;
        // A damaged end within the probe leaves a shorter probe.
        if let Err(error) = reader.take(PROBE).read_to_end(&mut start)
            && start.is_empty()
        {
            return Ok(Err(format!("its packed data cannot be read ({error})")));
        }
        Ok(recognise(&start).and_then(|format| match format {
            Format::Log(log) => log.belongs(input).map_or(Ok(format), Err),
            _ => Ok(format),
        }))
    }

    /// Returns the format of a name, for those who know what they have.
    pub(super) fn named(name: &str) -> Option<Format> {
        let own = [Format::Native, Format::Mmbt, Format::Weka, Format::Mooncake];
        let mut all = own.into_iter().chain(logs::Log::ALL.map(Format::Log));
        all.find(|format| format.name() == name)
    }

    /// Returns the files that are read together with a file.
    pub(super) fn companions(self, input: &Input) -> Vec<PathBuf> {
        match self {
            Format::Log(log) => log.companions(input),
            _ => Vec::new(),
        }
    }

    /// Reads a file and hands its records to `feed`.
    pub(super) fn read(
        self,
        input: &Input,
        options: &ReadOptions,
        feed: &mut Feed<'_>,
    ) -> Result<(), TraceError> {
        match self {
            Format::Native => super::format::read(input, feed),
            Format::Mmbt => mmbt::read(input, feed),
            Format::Weka => weka::read(input, feed),
            Format::Mooncake => mooncake::read(input, options, feed),
            Format::Log(log) => log.read(input, feed),
        }
    }
}

/// Tells a format from the first bytes of a file.
fn recognise(start: &[u8]) -> Result<Format, String> {
    let text = start.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(start);
    let mut seen = None;
    let lines = text.split(|&byte| byte == b'\n');
    for line in lines.take(PROBE_LINES) {
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"\0").map_or(line, |_| {
            let from = line.iter().position(|&byte| byte != 0);
            &line[from.unwrap_or(line.len())..]
        });
        let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let has = |key: &str| object.contains_key(key);
        let kind = object.get("type").and_then(Value::as_str);
        if has("k") {
            return Ok(Format::Native);
        } else if has("requests") && (has("hash_id_scope") || has("block_size") || has("id")) {
            return Ok(Format::Weka);
        } else if has("input_length") || (has("hash_ids") && !has("in")) {
            return Ok(Format::Mooncake);
        } else if has("iter") && matches!(kind, Some("model" | "tool" | "error" | "abort")) {
            return Ok(Format::Mmbt);
        } else if let Some(log) = logs::object(&object) {
            return log.map(Format::Log);
        }
        seen.get_or_insert_with(|| resemblance(&object));
    }
    // A session of block hashes is one document: its first line is longer than the probe, or is a lone brace.
    let contains = |key: &[u8]| text.windows(key.len()).any(|window| window == key);
    if contains(b"\"requests\"") && (contains(b"\"hash_ids\"") || contains(b"\"hash_id_scope\"")) {
        return Ok(Format::Weka);
    }
    if contains(b"\"input_length\"") && contains(b"\"hash_ids\"") {
        return Ok(Format::Mooncake);
    }
    if let Some(log) = logs::document(text) {
        return log.map(Format::Log);
    }
    // A small document on several lines.
    if let Ok(Value::Object(object)) = serde_json::from_slice(text) {
        return Err(resemblance(&object));
    }
    Err(seen.unwrap_or_else(|| match text.trim_ascii() {
        [] => "it is empty".to_string(),
        [b'{' | b'[', ..] => "JSON of an unknown kind".to_string(),
        _ => "it does not begin with JSON".to_string(),
    }))
}

/// Says what a JSON object seems to be, for people who gave the wrong file.
fn resemblance(object: &serde_json::Map<String, Value>) -> String {
    let has = |key: &str| object.contains_key(key);
    let known = if has("sessionId") && has("uuid") {
        "a line of a Claude Code or Qwen Code session log, without what it says"
    } else if has("resourceSpans") {
        "OpenTelemetry spans"
    } else if has("schema_version") && has("run_name") {
        "a receipt of the MMBT harness; its transcript.jsonl is the recording"
    } else if has("run_name") || has("finish_reason") || has("total_prompt_tokens") {
        "a summary of a run"
    } else {
        let keys: Vec<&str> = object.keys().take(4).map(String::as_str).collect();
        return format!("JSON with the fields {}", keys.join(", "));
    };
    format!("it looks like {known}")
}

/// What takes the records of a file.
pub(super) trait Sink {
    /// Takes a record; says what is wrong with one that cannot be used as it stands.
    fn record(&mut self, record: Record) -> Result<(), String>;

    /// Takes a line of a native file whose kind is unknown.
    fn unknown(&mut self, line: &[u8]);
}

/// Where an importer puts what it reads, and what it has to say about it.
pub(super) struct Feed<'a> {
    sink: &'a mut dyn Sink,
    progress: &'a mut dyn FnMut(u64),
    /// The number of steps so far.
    steps: u64,
    /// What the format does not say.
    pub(super) losses: Vec<String>,
    problems: Vec<String>,
    more_problems: u64,
}

impl<'a> Feed<'a> {
    /// Returns a feed for one file; `progress` is told the number of steps now and then.
    pub(super) fn new(sink: &'a mut dyn Sink, progress: &'a mut dyn FnMut(u64)) -> Feed<'a> {
        Feed {
            sink,
            progress,
            steps: 0,
            losses: Vec::new(),
            problems: Vec::new(),
            more_problems: 0,
        }
    }

    /// Passes a record on; `place` says where it came from, such as `line 12`.
    pub(super) fn put(&mut self, place: impl FnOnce() -> String, record: Record) {
        if matches!(record, Record::Step(_)) {
            self.steps += 1;
            if self.steps.is_multiple_of(8192) {
                (self.progress)(self.steps);
            }
        }
        if let Err(why) = self.sink.record(record) {
            self.problem(&place(), &why);
        }
    }

    /// Passes on a line that only later versions understand.
    pub(super) fn unknown(&mut self, line: &[u8]) {
        self.sink.unknown(line);
    }

    /// Notes what cannot be used.
    pub(super) fn problem(&mut self, place: &str, why: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{place}: {}", shorten(why)));
        } else {
            self.more_problems += 1;
        }
    }

    /// Notes a line that cannot be read; returns whether to go on.
    pub(super) fn broken(&mut self, broken: &Broken) -> bool {
        self.problem(&format!("line {}", broken.line), &broken.why);
        !broken.last
    }

    /// Returns what cannot be used, with the number of complaints beyond those kept.
    pub(super) fn into_problems(self) -> Vec<String> {
        let mut problems = self.problems;
        if self.more_problems > 0 {
            problems.push(format!("... and {} more", self.more_problems));
        }
        problems
    }
}

/// Cuts a complaint that quotes a monstrous value.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}

/// Returns what a parser says, without the place inside the line that people do not need.
pub(super) fn parse_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, place)) => match place.rsplit_once("column ") {
            Some((_, column)) => format!("{what} at column {column}"),
            None => what.to_string(),
        },
        None => text,
    }
}

/// Returns seconds as whole microseconds, where they are a span.
pub(super) fn micros(secs: f64) -> Option<u64> {
    let micros = (secs * 1e6).round();
    // Ten thousand years are no wait; nor is less than nothing.
    (0.0..3e17).contains(&micros).then_some(micros as u64)
}

/// Reads a whole document, up to the largest size one may have.
pub(super) fn read_document(reader: &mut dyn BufRead) -> (Vec<u8>, Option<std::io::Error>) {
    let mut bytes = Vec::new();
    let error = reader
        .take(super::input::MAX_DOCUMENT)
        .read_to_end(&mut bytes)
        .err();
    (bytes, error)
}
