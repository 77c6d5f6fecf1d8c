//! The rig on which the trace was recorded, as far as the trace tells: every call takes the time it took then.
//!
//! It has no memory and no batch, so neighbours cost nothing. The recording does not say what an engine did meanwhile;
//! the whole time of a call counts as decoding. It knows the order in which a fleet takes up sessions: run r replays
//! session r modulo their number, starting with its main thread, and a conversation calls its steps in order.

use super::Backend;
use crate::call::{Call, CallParts, Outcome, Reply, TokenClasses};
use crate::ids::{CallId, RunId, ThreadId};
use crate::trace::{Recorded as Measured, Trace};
use crate::units::{Span, Time, Tokens};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Answers calls with their recorded timings.
#[derive(Debug)]
pub struct Recorded {
    /// What was measured, by session, thread and step.
    sessions: Vec<Vec<Vec<Measured>>>,
    /// The name of each run's main thread; the others follow it.
    mains: FxHashMap<RunId, ThreadId>,
    /// The step that each conversation calls next.
    next_step: FxHashMap<ThreadId, u32>,
    /// Calls in flight, by their end.
    ends: BinaryHeap<Reverse<(Time, CallId)>>,
    replies: FxHashMap<CallId, Reply>,
}

impl Recorded {
    /// Returns the backend that answers as `trace` was answered when it was recorded.
    pub fn new(trace: &Trace) -> Recorded {
        let sessions = trace.sessions.iter().map(|session| {
            let measured = |thread: &crate::trace::Thread| {
                thread.steps.iter().map(|step| step.recorded).collect()
            };
            session.threads.iter().map(measured).collect()
        });
        Recorded {
            sessions: sessions.collect(),
            mains: FxHashMap::default(),
            next_step: FxHashMap::default(),
            ends: BinaryHeap::new(),
            replies: FxHashMap::default(),
        }
    }

    /// Returns how many steps have no recorded time; they take none.
    pub fn steps_without_time(&self) -> usize {
        self.count(|step| step.model().is_none())
    }

    /// Returns how many steps do not say what came from a cache; an engine that forgets nothing is assumed.
    pub fn steps_without_cached(&self) -> usize {
        self.count(|step| step.cached().is_none())
    }

    fn count(&self, lacks: impl Fn(&Measured) -> bool) -> usize {
        let steps = self.sessions.iter().flatten().flatten();
        steps.filter(|step| lacks(step)).count()
    }

    /// Returns what was measured when this call was recorded, and goes on to the conversation's next step.
    fn measured(&mut self, call: &Call) -> Measured {
        let main = *self.mains.entry(call.run).or_insert(call.thread);
        let session = &self.sessions[call.run.index() % self.sessions.len()];
        let step = self.next_step.entry(call.thread).or_default();
        let measured = session[(call.thread.0 - main.0) as usize][*step as usize];
        *step += 1;
        measured
    }
}

/// Splits what was not cached by why it was computed, as far as a recording can tell.
fn classes(call: &Call, cached: Tokens) -> TokenClasses {
    let uncached = call.seen.saturating_sub(cached);
    let beyond = call.prompt_tokens - cached.max(call.seen);
    let broken = call.again.min(beyond);
    TokenClasses {
        new: beyond - broken,
        evicted: Tokens::ZERO,
        uncached,
        broken,
    }
}

impl Backend for Recorded {
    fn submit(&mut self, now: Time, call: Call) {
        let measured = self.measured(&call);
        let lasted = measured.model().unwrap_or(Span::ZERO);
        let cached = measured
            .cached()
            .unwrap_or(call.seen_computed)
            .min(call.prompt_tokens);
        let parts = CallParts {
            decode: lasted,
            ..CallParts::default()
        };
        let reply = Reply {
            bound: None,
            call: call.id,
            retry_after: None,
            prompt: call.prompt_tokens,
            outcome: Outcome::Ok,
            submitted: now,
            admitted: Some(now),
            first_token: measured.first_token().map(|after| now + after.min(lasted)),
            finished: now + lasted,
            cached,
            output: call.output_tokens,
            classes: classes(&call, cached),
            parts,
        };
        reply.check(&call);
        self.ends.push(Reverse((reply.finished, call.id)));
        self.replies.insert(call.id, reply);
    }

    fn next_event(&mut self) -> Option<Time> {
        self.ends.peek().map(|Reverse((at, _))| *at)
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        while let Some(&Reverse((at, call))) = self.ends.peek() {
            if at > now {
                break;
            }
            self.ends.pop();
            replies.push(
                self.replies
                    .remove(&call)
                    .expect("a call in flight has a reply"),
            );
        }
    }
}
