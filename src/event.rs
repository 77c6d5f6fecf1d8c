//! All that can happen in a replay, in the order it happens.
//!
//! Drivers and fleet emit events; metrics fold them, a journal keeps them. An event says what happened and when, never
//! what it means.

use crate::call::{Call, Reply};
use crate::ids::{CallId, LaneId, RunId};
use crate::units::{Span, Time};
use std::ops::AddAssign;

/// Where the time between an answer and the next request of its conversation went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GapParts {
    /// The client's own overhead, and pauses before a retry.
    pub client: Span,
    /// Tools, and waits of unknown cause that follow a tool call.
    pub tool: Span,
    /// People.
    pub wait: Span,
    /// Standing still until sub-agents have ended.
    pub subagent: Span,
}

impl GapParts {
    /// Returns the sum of all parts.
    pub fn total(&self) -> Span {
        self.client + self.tool + self.wait + self.subagent
    }
}

impl AddAssign for GapParts {
    fn add_assign(&mut self, other: GapParts) {
        self.client += other.client;
        self.tool += other.tool;
        self.wait += other.wait;
        self.subagent += other.subagent;
    }
}

/// Which lap of which conversation something belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LapKey {
    /// The run.
    pub run: RunId,
    /// The conversation's place in its session: 0 is the main thread.
    pub thread: u32,
    /// The lap's number in its conversation, from 0.
    pub lap: u32,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunOutcome {
    /// Every recorded step was replayed.
    Completed,
    /// It stopped at a refused call, as it was told to.
    Stopped,
}

impl RunOutcome {
    /// Every one.
    pub const ALL: [RunOutcome; 2] = [RunOutcome::Completed, RunOutcome::Stopped];

    /// Returns the word used in result documents.
    pub fn word(self) -> &'static str {
        match self {
            RunOutcome::Completed => "completed",
            RunOutcome::Stopped => "stopped",
        }
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A lane took up a run of the session with this place in the trace.
    RunStarted {
        /// When.
        at: Time,
        /// Which run.
        run: RunId,
        /// The session's place in the trace.
        session: u32,
        /// The lane.
        lane: LaneId,
    },
    /// A request was made.
    Called {
        /// When.
        at: Time,
        /// The request.
        call: Call,
        /// The lap it belongs to.
        lap: LapKey,
        /// For the first request of a sub-agent: the parent's request after which it was started.
        parent: Option<CallId>,
    },
    /// A request ended, well or badly.
    Answered {
        /// The end.
        reply: Reply,
    },
    /// A lap ended: the next request of the conversation is about to be made, or there is none.
    LapEnded {
        /// When.
        at: Time,
        /// Which lap.
        lap: LapKey,
        /// Where the time since its last answer went.
        gap: GapParts,
        /// How much of its recorded waits the idle cap cut off.
        cut: Span,
    },
    /// A run ended: its main thread and all children it waits for have.
    RunEnded {
        /// When.
        at: Time,
        /// Which run.
        run: RunId,
        /// How.
        outcome: RunOutcome,
    },
}

/// Takes events as they happen.
pub trait Sink {
    /// Takes the next event.
    fn event(&mut self, event: Event);
}

impl Sink for Vec<Event> {
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}
