//! Foreign formats: each importer turns one file into the records of the native format.
//!
//! Which format a file has is decided by its content, never by its name. An importer hands its records to a [`Feed`],
//! which is either compiled at once or written as a native file, so both ways see the same records.

pub(super) mod mmbt;
pub(super) mod mooncake;
pub(super) mod weka;

mod aiperf;
mod azure;
mod bailian;
mod burstgpt;
mod capture;
mod detect;
mod dynamo;
mod growth;
mod lenient;
mod logs;
mod otel;
mod pieces;
mod stamp;
mod table;
mod timeline;
mod tracelab;

use super::error::TraceError;
use super::input::{Broken, Input};
use super::read::ReadOptions;
use super::record::Record;
use std::io::{BufRead, Read};
use std::path::PathBuf;

/// The formats that are no logs of coding agents.
const RECORDED_ELSEWHERE: [&str; 14] = [
    "laptime traces (JSONL)",
    "MMBT harness transcripts (transcript.jsonl)",
    "kv-cache-tester session hashes (JSON)",
    "Mooncake request traces (JSONL)",
    "OpenTelemetry GenAI spans (OTLP JSON)",
    "HAR captures",
    "logs of model requests with their answers (JSONL; chat completions, Responses, Anthropic Messages, Ollama)",
    "Bailian traces (JSONL)",
    "Dynamo request and agent traces (JSONL)",
    "TraceLab rounds (JSONL)",
    "TraceLab workloads (CSV)",
    "Azure LLM inference traces (CSV)",
    "BurstGPT traces (CSV)",
    "AIPerf inputs (JSON, JSONL)",
];

/// Returns the formats that can be read, for people.
pub fn formats() -> Vec<&'static str> {
    [&RECORDED_ELSEWHERE[..], &logs::FORMATS[..]].concat()
}

/// How many complaints about one file are kept word for word.
const MAX_PROBLEMS: usize = 20;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Native,
    Mmbt,
    Weka,
    Mooncake,
    Otel,
    Har,
    Requests,
    Bailian,
    Dynamo,
    TraceLab,
    TraceLabWorkload,
    Azure,
    BurstGpt,
    AiPerf,
    Log(logs::Log),
}

impl Format {
    /// Every format that is no log of a coding agent.
    const ELSEWHERE: [Format; 14] = [
        Format::Native,
        Format::Mmbt,
        Format::Weka,
        Format::Mooncake,
        Format::Otel,
        Format::Har,
        Format::Requests,
        Format::Bailian,
        Format::Dynamo,
        Format::TraceLab,
        Format::TraceLabWorkload,
        Format::Azure,
        Format::BurstGpt,
        Format::AiPerf,
    ];

    /// Returns the format's name for people and for [`super::Source::format`].
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Native => "laptime",
            Format::Mmbt => "mmbt",
            Format::Weka => "kv-cache-tester",
            Format::Mooncake => "mooncake",
            Format::Otel => "OpenTelemetry GenAI",
            Format::Har => "HAR",
            Format::Requests => "request log",
            Format::Bailian => "bailian",
            Format::Dynamo => "dynamo",
            Format::TraceLab => "tracelab",
            Format::TraceLabWorkload => "tracelab workload",
            Format::Azure => "azure",
            Format::BurstGpt => "burstgpt",
            Format::AiPerf => "aiperf",
            Format::Log(log) => log.name(),
        }
    }

    /// Returns the format of a name, for those who know what they have.
    pub(super) fn named(name: &str) -> Option<Format> {
        let logs = logs::Log::ALL.map(Format::Log);
        let mut all = Format::ELSEWHERE.into_iter().chain(logs);
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
            Format::Otel => otel::read(input, feed),
            Format::Har => capture::read_har(input, feed),
            Format::Requests => capture::read_log(input, feed),
            Format::Bailian => bailian::read(input, options.block_size, feed),
            Format::Dynamo => dynamo::read(input, feed),
            Format::TraceLab => tracelab::read(input, feed),
            Format::TraceLabWorkload => tracelab::read_workload(input, feed),
            Format::Azure => azure::read(input, feed),
            Format::BurstGpt => burstgpt::read(input, feed),
            Format::AiPerf => aiperf::read(input, feed),
            Format::Log(log) => log.read(input, feed),
        }
    }
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
