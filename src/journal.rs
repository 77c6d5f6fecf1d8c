//! Events on disk: one JSON object a line, in the order in which they happened.
//!
//! The lines are versioned twins of [`Event`], so that the core's types may change without the file's. Times are
//! integer nanoseconds. A failed write is kept and told at the end: an event's sink cannot fail.

use crate::call::{Call, Reply, TokenClasses};
use crate::event::{Event, LapKey, Sink};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The name and version of the format, in the file's first line.
pub const SCHEMA: &str = "laptime.journal/1";

/// Writes events as they happen.
#[derive(Debug)]
pub struct Journal<W> {
    out: W,
    failed: Option<io::Error>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the file's")]
struct Lap {
    run: u32,
    thread: u32,
    lap: u32,
}

impl From<LapKey> for Lap {
    fn from(key: LapKey) -> Lap {
        Lap {
            run: key.run.0,
            thread: key.thread,
            lap: key.lap,
        }
    }
}

#[derive(Serialize)]
struct Classes {
    new: u64,
    evicted: u64,
    uncached: u64,
    broken: u64,
}

impl From<TokenClasses> for Classes {
    fn from(classes: TokenClasses) -> Classes {
        Classes {
            new: classes.new.0,
            evicted: classes.evicted.0,
            uncached: classes.uncached.0,
            broken: classes.broken.0,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Header {
        schema: &'static str,
    },
    RunStarted {
        at_ns: u64,
        run: u32,
        session: u32,
        lane: u32,
    },
    Called {
        at_ns: u64,
        call: u32,
        #[serde(flatten)]
        lap: Lap,
        parent_call: Option<u32>,
        prompt_tokens: u64,
        output_tokens: u64,
        seen_tokens: u64,
        again_tokens: u64,
    },
    Answered {
        at_ns: u64,
        call: u32,
        outcome: &'static str,
        submitted_ns: u64,
        admitted_ns: Option<u64>,
        first_token_ns: Option<u64>,
        cached_tokens: u64,
        output_tokens: u64,
        computed: Classes,
        parts_ns: BTreeMap<&'static str, u64>,
    },
    LapEnded {
        at_ns: u64,
        #[serde(flatten)]
        lap: Lap,
        client_ns: u64,
        tool_ns: u64,
        wait_ns: u64,
        subagent_ns: u64,
        cut_ns: u64,
    },
    RunEnded {
        at_ns: u64,
        run: u32,
        outcome: &'static str,
    },
}

impl Line {
    fn called(at_ns: u64, call: &Call, lap: LapKey, parent_call: Option<u32>) -> Line {
        Line::Called {
            at_ns,
            call: call.id.0,
            lap: lap.into(),
            parent_call,
            prompt_tokens: call.prompt_tokens.0,
            output_tokens: call.output_tokens.0,
            seen_tokens: call.seen.0,
            again_tokens: call.again.0,
        }
    }

    fn answered(reply: &Reply) -> Line {
        let parts = reply.parts.named();
        Line::Answered {
            at_ns: reply.finished.0,
            call: reply.call.0,
            outcome: reply.outcome.word(),
            submitted_ns: reply.submitted.0,
            admitted_ns: reply.admitted.map(|at| at.0),
            first_token_ns: reply.first_token.map(|at| at.0),
            cached_tokens: reply.cached.0,
            output_tokens: reply.output.0,
            computed: reply.classes.into(),
            parts_ns: parts.map(|(name, span)| (name, span.0)).into(),
        }
    }
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Line {
        match *event {
            Event::RunStarted {
                at,
                run,
                session,
                lane,
            } => Line::RunStarted {
                at_ns: at.0,
                run: run.0,
                session,
                lane: lane.0,
            },
            Event::Called {
                at,
                ref call,
                lap,
                parent,
            } => Line::called(at.0, call, lap, parent.map(|call| call.0)),
            Event::Answered { ref reply } => Line::answered(reply),
            Event::LapEnded { at, lap, gap, cut } => Line::LapEnded {
                at_ns: at.0,
                lap: lap.into(),
                client_ns: gap.client.0,
                tool_ns: gap.tool.0,
                wait_ns: gap.wait.0,
                subagent_ns: gap.subagent.0,
                cut_ns: cut.0,
            },
            Event::RunEnded { at, run, outcome } => Line::RunEnded {
                at_ns: at.0,
                run: run.0,
                outcome: outcome.word(),
            },
        }
    }
}

impl<W: Write> Journal<W> {
    /// Begins a journal; its first line names the format.
    pub fn new(out: W) -> Journal<W> {
        let mut journal = Journal { out, failed: None };
        journal.line(&Line::Header { schema: SCHEMA });
        journal
    }

    /// Ends the journal and returns what it was written to, or the first write that failed.
    pub fn finish(mut self) -> io::Result<W> {
        match self.failed {
            Some(error) => Err(error),
            None => self.out.flush().map(|()| self.out),
        }
    }

    fn line(&mut self, line: &Line) {
        if self.failed.is_none() {
            let written = serde_json::to_writer(&mut self.out, line)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"));
            self.failed = written.err();
        }
    }
}

impl<W: Write> Sink for Journal<W> {
    fn event(&mut self, event: Event) {
        self.line(&Line::from(&event));
    }
}
