//! The rows of result documents read back: runs, laps and calls, each held to what it says of itself.

use super::{from_word, maybe, span, time};
use crate::call::{BoundBy, CallParts, Outcome, TokenClasses};
use crate::event::{GapParts, LapKey, RunOutcome};
use crate::ids::{CallId, LaneId, RunId};
use crate::metrics::lap::LapParts;
use crate::metrics::{CallRow, RunRow};
use crate::study::figures::Lap;
use crate::units::{Span, Tokens};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct RunIn {
    run: u32,
    pub(super) session: String,
    lane: u32,
    start_s: f64,
    end_s: Option<f64>,
    model_s: f64,
    tool_s: f64,
    laps: u32,
    outcome: String,
}

#[derive(Deserialize)]
pub(super) struct LapIn {
    run: u32,
    thread: u32,
    lap: u32,
    start_s: f64,
    end_s: f64,
    calls: Vec<u32>,
    parts_s: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
pub(super) struct CallIn {
    call: u32,
    run: u32,
    thread: u32,
    lap: u32,
    parent_call: Option<u32>,
    prompt_tokens: u64,
    /// Null where a real engine does not tell it; counted as none.
    cached_tokens: Option<u64>,
    output_tokens: u64,
    submitted_s: f64,
    admitted_s: Option<f64>,
    first_token_s: Option<f64>,
    finished_s: f64,
    outcome: String,
    parts_s: BTreeMap<String, f64>,
    tokens: Option<ClassesIn>,
}

#[derive(Deserialize, Clone, Copy, Default)]
struct ClassesIn {
    new: Option<u64>,
    reread_evicted: Option<u64>,
    reread_uncached: Option<u64>,
    reread_broken: Option<u64>,
}

impl RunIn {
    pub(super) fn row(
        &self,
        sessions: &[String],
        main: &BTreeMap<u32, Span>,
    ) -> Result<RunRow, String> {
        let outcomes = [RunOutcome::Completed, RunOutcome::Stopped].map(|it| (it.word(), it));
        let what = format!("run {}", self.run);
        let start = time(self.start_s, &what)?;
        let end = match maybe(self.end_s, &what)? {
            Some(at) if at < start => return Err(format!("{what} ends before it starts")),
            Some(at) => Some((
                at,
                from_word(&self.outcome, &what, outcomes).unwrap_or(RunOutcome::Stopped),
            )),
            None => None,
        };
        let session = sessions.iter().position(|name| *name == self.session);
        Ok(RunRow {
            run: RunId(self.run),
            session: session.unwrap_or(0) as u32,
            lane: LaneId(self.lane),
            start,
            end,
            model: span(self.model_s, &what)?,
            tool: span(self.tool_s, &what)?,
            laps: self.laps,
            main: main.get(&self.run).copied().unwrap_or_default(),
        })
    }
}

fn part(parts: &BTreeMap<String, f64>, name: &str) -> Result<Span, String> {
    parts
        .get(name)
        .map_or(Ok(Span::ZERO), |secs| span(*secs, name))
}

fn call_parts(parts: &BTreeMap<String, f64>) -> Result<CallParts, String> {
    Ok(CallParts {
        client: part(parts, "client")?,
        queue: part(parts, "queue")?,
        kv_transfer: part(parts, "kv_transfer")?,
        prefill_new: part(parts, "prefill_new")?,
        reread_evicted: part(parts, "reread_evicted")?,
        reread_uncached: part(parts, "reread_uncached")?,
        reread_broken: part(parts, "reread_broken")?,
        decode: part(parts, "decode")?,
        contention: part(parts, "contention")?,
    })
}

pub(super) fn lap_parts(parts: &BTreeMap<String, f64>) -> Result<LapParts, String> {
    Ok(LapParts {
        calls: call_parts(parts)?,
        // The client's overhead during calls and between them is one part in a document.
        gap: GapParts {
            client: Span::ZERO,
            tool: part(parts, "tool")?,
            wait: part(parts, "wait")?,
            subagent: part(parts, "subagent")?,
        },
    })
}

/// Reads what bound the calls, by name; one that the document leaves out bound nothing.
pub(super) fn bound_by(bounds: &BTreeMap<String, f64>) -> Result<BoundBy, String> {
    Ok(BoundBy {
        weights: part(bounds, "weights_bandwidth")?,
        kv: part(bounds, "kv_bandwidth")?,
        compute: part(bounds, "compute")?,
        overhead: part(bounds, "host_overhead")?,
        transfer: part(bounds, "kv_transfer")?,
        slots: part(bounds, "slots")?,
        kv_memory: part(bounds, "kv_memory")?,
        turn: part(bounds, "turn")?,
    })
}

impl LapIn {
    pub(super) fn row(&self) -> Result<Lap, String> {
        let what = format!("lap {} of run {}", self.lap, self.run);
        let parts = lap_parts(&self.parts_s)?;
        let (start, end) = (time(self.start_s, &what)?, time(self.end_s, &what)?);
        if end.since(start) != parts.total() || end < start {
            return Err(format!(
                "the parts of {what} sum to {}, and it took {}",
                parts.total(),
                end.since(start)
            ));
        }
        let call = self
            .calls
            .first()
            .ok_or_else(|| format!("{what} has no calls"))?;
        Ok(Lap {
            lap: LapKey {
                run: RunId(self.run),
                thread: self.thread,
                lap: self.lap,
            },
            call: CallId(*call),
            start,
            parts,
        })
    }
}

impl CallIn {
    pub(super) fn row(&self) -> Result<CallRow, String> {
        use Outcome::{Ok as Answered, RefusedContext, RefusedMemory, Truncated, Unavailable};
        let outcomes = [
            Answered,
            Truncated,
            RefusedContext,
            RefusedMemory,
            Unavailable,
        ]
        .map(|it| (it.word(), it));
        let what = format!("call {}", self.call);
        let (submitted, finished) = (
            time(self.submitted_s, &what)?,
            time(self.finished_s, &what)?,
        );
        let first_token = maybe(self.first_token_s, &what)?;
        let parts = call_parts(&self.parts_s)?;
        let within = first_token.is_none_or(|at| submitted <= at && at <= finished);
        if finished < submitted || finished.since(submitted) != parts.total() || !within {
            return Err(format!(
                "the parts of {what} sum to {}, and it took {}",
                parts.total(),
                finished.since(submitted)
            ));
        }
        let cached = self.cached_tokens.unwrap_or(0);
        let classes = self.tokens.unwrap_or_default();
        let tokens = |count: Option<u64>| Tokens(count.unwrap_or(0));
        if cached > self.prompt_tokens {
            return Err(format!("{what} has more cached than prompt tokens"));
        }
        Ok(CallRow {
            call: CallId(self.call),
            lap: LapKey {
                run: RunId(self.run),
                thread: self.thread,
                lap: self.lap,
            },
            parent: self.parent_call.map(CallId),
            prompt: Tokens(self.prompt_tokens),
            cached: Tokens(cached),
            output: Tokens(self.output_tokens),
            classes: TokenClasses {
                new: tokens(classes.new),
                evicted: tokens(classes.reread_evicted),
                uncached: tokens(classes.reread_uncached),
                broken: tokens(classes.reread_broken),
            },
            submitted,
            admitted: maybe(self.admitted_s, &what)?,
            first_token,
            finished,
            outcome: from_word(&self.outcome, &what, outcomes)?,
            parts,
        })
    }
}
