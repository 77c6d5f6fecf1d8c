//! Events on disk: one JSON object a line, in the order in which they happened.
//!
//! The lines are versioned twins of [`Event`], so that the core's types may change without the file's. Times are
//! integer nanoseconds. A failed write is kept and told at the end: an event's sink cannot fail. The journal of a live
//! replay begins with its [`Head`] and holds what was seen of every call, so that a result can be made of it again.

mod read;

use crate::agent::{Conduct, History, OnRefusal, Pace};
use crate::call::{Call, Reply, TokenClasses};
use crate::event::{Event, LapKey, Sink};
use crate::fleet::{Plan, Share};
use crate::live::Log;
use crate::live::measured::Measured;
use crate::operating_point::{Kind, OperatingPoint};
pub use read::{Contents, read};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A word that is known when it is written, and whatever stands there when it is read.
type Word = Cow<'static, str>;

/// The name and version of the format, in the file's first line.
pub const SCHEMA: &str = "laptime.journal/1";

/// Writes events as they happen.
#[derive(Debug)]
pub struct Journal<W> {
    out: W,
    failed: Option<io::Error>,
}

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Header {
        schema: Word,
    },
    Replay(Box<Begun>),
    Measured(Box<Seen>),
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
        outcome: Word,
        submitted_ns: u64,
        admitted_ns: Option<u64>,
        first_token_ns: Option<u64>,
        /// As the engine counted them; absent from journals of before live replays.
        prompt_tokens: Option<u64>,
        cached_tokens: u64,
        output_tokens: u64,
        computed: Classes,
        parts_ns: BTreeMap<Word, u64>,
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
        outcome: Word,
    },
}

/// What a live replay is told to be, at the head of its journal.
#[derive(Clone, PartialEq, Debug)]
pub struct Head {
    /// The files, by name and digest.
    pub traces: Vec<(String, String)>,
    /// The sessions' names, by their place in the trace.
    pub sessions: Vec<String>,
    /// How many runs, at once and in all, and how agents behave.
    pub plan: Plan,
    /// How many runs in all.
    pub runs: u32,
    /// How many calls that makes when none is made again.
    pub calls: u64,
    /// What random choices began from.
    pub seed: u64,
    /// Settings that made the trace another than the recorded one.
    pub settings: BTreeMap<String, String>,
    /// What things cost, by the full keys of settings.
    pub prices: BTreeMap<String, f64>,
    /// What answers.
    pub point: OperatingPoint,
    /// How prompts were put: `tokens` or `chat`.
    pub form: String,
}

#[derive(Serialize, Deserialize)]
struct Begun {
    traces: Vec<(String, String)>,
    sessions: Vec<String>,
    agents: u32,
    runs: u32,
    calls: u64,
    seed: u64,
    share: Word,
    pace: Word,
    pace_scale: f64,
    idle_cap_ns: u64,
    on_refusal: Word,
    history: Word,
    warm_start: bool,
    retries: u32,
    settings: BTreeMap<String, String>,
    /// Absent from journals of before there were prices.
    #[serde(default)]
    prices: BTreeMap<String, f64>,
    rig: String,
    engine: Option<String>,
    engine_version: Option<String>,
    model: Option<String>,
    engine_settings: BTreeMap<String, String>,
    known_by: String,
    form: String,
}

impl From<&Head> for Begun {
    fn from(head: &Head) -> Begun {
        let (conduct, point) = (&head.plan.conduct, &head.point);
        Begun {
            traces: head.traces.clone(),
            sessions: head.sessions.clone(),
            agents: head.plan.agents,
            runs: head.runs,
            calls: head.calls,
            seed: head.seed,
            share: head.plan.share.word().into(),
            pace: conduct.pace.word().into(),
            pace_scale: conduct.pace_scale,
            idle_cap_ns: conduct.idle_cap.0,
            on_refusal: conduct.on_refusal.word().into(),
            history: conduct.history.word().into(),
            warm_start: conduct.warm_start,
            retries: conduct.retries.limit,
            settings: head.settings.clone(),
            prices: head.prices.clone(),
            rig: point.name.clone(),
            engine: point.engine.clone(),
            engine_version: point.engine_version.clone(),
            model: point.model.clone(),
            engine_settings: point.settings.clone(),
            known_by: point.known_by.clone(),
            form: head.form.clone(),
        }
    }
}

/// What was seen of a call, with the moments of its pieces since it was made.
#[derive(Serialize, Deserialize)]
struct Seen {
    call: u32,
    due_ns: u64,
    made_ns: u64,
    started_ns: u64,
    connect_ns: Option<u64>,
    sent_ns: Option<u64>,
    first_byte_ns: Option<u64>,
    pieces_ns: Vec<u64>,
    piece_tokens: Option<Vec<u32>>,
    finished_ns: u64,
    outcome: Word,
    status: Option<u16>,
    finish_reason: Option<String>,
    error: Option<String>,
    retry_after_ns: Option<u64>,
    prompt_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    reading_ns: Option<u64>,
}

impl Seen {
    fn of(call: &Call, seen: &Measured) -> Seen {
        let pieces = seen.pieces.iter();
        Seen {
            call: call.id.0,
            due_ns: seen.due.0,
            made_ns: seen.made.0,
            started_ns: seen.started.0,
            connect_ns: seen.connect.map(|span| span.0),
            sent_ns: seen.sent.map(|at| at.0),
            first_byte_ns: seen.first_byte.map(|at| at.0),
            pieces_ns: pieces
                .clone()
                .map(|(at, _)| at.since(seen.made).0)
                .collect(),
            piece_tokens: pieces.map(|(_, held)| *held).collect(),
            finished_ns: seen.finished.0,
            outcome: seen.outcome.word().into(),
            status: seen.status,
            finish_reason: seen.finish_reason.clone(),
            error: seen.error.clone(),
            retry_after_ns: seen.retry_after.map(|span| span.0),
            prompt_tokens: seen.prompt,
            output_tokens: seen.output,
            cached_tokens: seen.cached,
            reading_ns: seen.reading.map(|span| span.0),
        }
    }
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
            outcome: reply.outcome.word().into(),
            submitted_ns: reply.submitted.0,
            admitted_ns: reply.admitted.map(|at| at.0),
            first_token_ns: reply.first_token.map(|at| at.0),
            prompt_tokens: Some(reply.prompt.0),
            cached_tokens: reply.cached.0,
            output_tokens: reply.output.0,
            computed: reply.classes.into(),
            parts_ns: parts.map(|(name, span)| (name.into(), span.0)).into(),
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
                outcome: outcome.word().into(),
            },
        }
    }
}

impl<W: Write> Journal<W> {
    /// Begins a journal; its first line names the format.
    pub fn new(out: W) -> Journal<W> {
        let mut journal = Journal { out, failed: None };
        journal.line(&Line::Header {
            schema: SCHEMA.into(),
        });
        journal
    }

    /// Notes what a live replay is told to be.
    pub fn begin(&mut self, head: &Head) {
        self.line(&Line::Replay(Box::new(head.into())));
        self.flush();
    }

    /// Sees to it that what was written so far outlives this process.
    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
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

impl<W: Write> Log for Journal<W> {
    fn measured(&mut self, call: &Call, seen: &Measured) {
        self.line(&Line::Measured(Box::new(Seen::of(call, seen))));
        self.flush();
    }
}
