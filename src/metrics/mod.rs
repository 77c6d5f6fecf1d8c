//! Folds the events of a replay into rows and a summary.
//!
//! [`Metrics`] takes events as they happen; [`Metrics::finish`] gives the [`RunMetrics`]: every call, lap and run, and
//! the figures over all of them. Rows are kept packed, so that a million calls fit in 200 MB. Nothing here reads a
//! clock, a file or a trace, and the same events give the same figures everywhere.

pub mod lap;
pub mod stats;
mod summary;

pub use crate::call::FAILURES;
use crate::call::{BoundBy, Call, CallParts, Outcome, Reply, TokenClasses};
use crate::event::{Event, GapParts, LapKey, RunOutcome, Sink};
use crate::ids::{CallId, LaneId, RunId};
use crate::units::{Span, Time, Tokens};
use lap::LapParts;
use stats::Quantiles;
use std::collections::BTreeMap;
pub use summary::{Summary, TokenTotals};

/// One call and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallRow {
    /// Its name.
    pub call: CallId,
    /// The lap it belongs to.
    pub lap: LapKey,
    /// For the first call of a sub-agent: the parent's call after which it was started.
    pub parent: Option<CallId>,
    /// The prompt's length.
    pub prompt: Tokens,
    /// Prompt tokens taken from a cache.
    pub cached: Tokens,
    /// Tokens of the answer.
    pub output: Tokens,
    /// Prompt tokens that were computed, by why; all zero for a call that was refused.
    pub classes: TokenClasses,
    /// When it was made.
    pub submitted: Time,
    /// When the engine first worked on it.
    pub admitted: Option<Time>,
    /// When the first token of the answer appeared.
    pub first_token: Option<Time>,
    /// When it ended.
    pub finished: Time,
    /// How it ended.
    pub outcome: Outcome,
    /// Where its time went.
    pub parts: CallParts,
}

impl CallRow {
    /// Returns the prompt tokens that did not come from a cache.
    pub fn computed(&self) -> Tokens {
        self.prompt - self.cached
    }

    /// Returns the time from submission to the first token.
    pub fn ttft(&self) -> Option<Span> {
        self.first_token.map(|at| at - self.submitted)
    }

    /// Returns the mean time between tokens of the answer, of which there must be two.
    pub fn itl(&self) -> Option<Span> {
        let gaps = self.output.0.checked_sub(1).filter(|&gaps| gaps > 0)?;
        let writing = self.finished - self.first_token?;
        Some(Span((writing.0 + gaps / 2) / gaps))
    }
}

/// One lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LapRow<'m> {
    /// Which.
    pub lap: LapKey,
    /// Its first call.
    pub call: CallId,
    /// The calls that repeated the first because it had failed for now.
    pub retries: &'m [CallId],
    /// The submission of its first call.
    pub start: Time,
    /// Where its time went.
    pub parts: LapParts,
}

impl LapRow<'_> {
    /// Returns when it ended: its start and all its parts.
    pub fn end(&self) -> Time {
        self.start + self.parts.total()
    }
}

/// One run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunRow {
    /// Which.
    pub run: RunId,
    /// The session's place in the trace.
    pub session: u32,
    /// The lane it was in.
    pub lane: LaneId,
    /// When it began.
    pub start: Time,
    /// When and how it ended; nothing when it was interrupted.
    pub end: Option<(Time, RunOutcome)>,
    /// The time in which calls were out, summed over its conversations.
    pub model: Span,
    /// The time of tools, summed over its conversations.
    pub tool: Span,
    /// The laps of all its conversations.
    pub laps: u32,
    /// The time its main thread's laps cover.
    pub main: Span,
}

/// Rows beyond these are made room for as they come.
pub(crate) const MOST_ROOM: usize = 1 << 22;
const NO_ID: u32 = u32::MAX;
const NO_TIME: u64 = u64::MAX;

/// A call as it is kept: 144 bytes.
#[derive(Clone, Copy, Debug)]
struct PackedCall {
    lap: LapKey,
    parent: u32,
    submitted: Time,
    admitted: u64,
    first_token: u64,
    parts: CallParts,
    prompt: u32,
    cached: u32,
    output: u32,
    new: u32,
    evicted: u32,
    uncached: u32,
    broken: u32,
    /// Nothing until it has ended.
    outcome: Option<Outcome>,
}

/// A lap as it is kept; what its calls say is not said again.
#[derive(Clone, Copy, Debug)]
struct PackedLap {
    call: CallId,
    gap: GapParts,
}

fn small(tokens: Tokens) -> u32 {
    u32::try_from(tokens.0).expect("a prompt is shorter than four thousand million tokens")
}

impl PackedCall {
    fn made(at: Time, call: &Call, lap: LapKey, parent: Option<CallId>) -> PackedCall {
        PackedCall {
            lap,
            parent: parent.map_or(NO_ID, |parent| parent.0),
            submitted: at,
            admitted: NO_TIME,
            first_token: NO_TIME,
            parts: CallParts::default(),
            prompt: small(call.prompt_tokens),
            cached: 0,
            output: 0,
            new: 0,
            evicted: 0,
            uncached: 0,
            broken: 0,
            outcome: None,
        }
    }

    fn end(&mut self, reply: &Reply) {
        assert!(self.outcome.is_none(), "{:?} ended twice", reply.call);
        assert_eq!(
            (self.submitted, reply.parts.total()),
            (reply.submitted, reply.finished - reply.submitted),
            "the parts of {:?} do not sum to it",
            reply.call
        );
        self.admitted = reply.admitted.map_or(NO_TIME, |at| at.0);
        self.first_token = reply.first_token.map_or(NO_TIME, |at| at.0);
        self.parts = reply.parts;
        self.prompt = small(reply.prompt);
        self.cached = small(reply.cached);
        self.output = small(reply.output);
        self.new = small(reply.classes.new);
        self.evicted = small(reply.classes.evicted);
        self.uncached = small(reply.classes.uncached);
        self.broken = small(reply.classes.broken);
        self.outcome = Some(reply.outcome);
    }

    fn row(&self, call: CallId) -> Option<CallRow> {
        let tokens = |count: u32| Tokens(u64::from(count));
        let time = |nanos: u64| (nanos != NO_TIME).then_some(Time(nanos));
        Some(CallRow {
            call,
            lap: self.lap,
            parent: (self.parent != NO_ID).then_some(CallId(self.parent)),
            prompt: tokens(self.prompt),
            cached: tokens(self.cached),
            output: tokens(self.output),
            classes: TokenClasses {
                new: tokens(self.new),
                evicted: tokens(self.evicted),
                uncached: tokens(self.uncached),
                broken: tokens(self.broken),
            },
            submitted: self.submitted,
            admitted: time(self.admitted),
            first_token: time(self.first_token),
            finished: self.submitted + self.parts.total(),
            outcome: self.outcome?,
            parts: self.parts,
        })
    }
}

/// Takes the events of one replay.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By call id: calls are numbered in the order in which they are made.
    calls: Vec<PackedCall>,
    laps: Vec<PackedLap>,
    /// In the order in which they start.
    runs: Vec<RunRow>,
    /// The place in `runs` of each run, by id.
    places: Vec<u32>,
    /// The first call of the lap that each conversation is in.
    open: BTreeMap<(RunId, u32), CallId>,
    /// Further calls of the few laps that have some.
    retries: BTreeMap<LapKey, Vec<CallId>>,
    idle_cut: Span,
    last_end: Time,
    /// What bound the calls, and how many did not say.
    bound: BoundBy,
    unbound: u32,
}

impl Metrics {
    /// Returns metrics with room for the calls and runs that are expected, within reason.
    pub fn with_capacity(calls: usize, runs: usize) -> Metrics {
        Metrics {
            runs: Vec::with_capacity(runs.min(MOST_ROOM)),
            calls: Vec::with_capacity(calls.min(MOST_ROOM)),
            laps: Vec::with_capacity(calls.min(MOST_ROOM)),
            ..Metrics::default()
        }
    }

    /// Ends the taking of events and returns what they come to.
    pub fn finish(mut self) -> RunMetrics {
        let mut order: Vec<u32> = (0..self.calls.len() as u32).collect();
        order.sort_unstable_by_key(|&call| {
            let row = &self.calls[call as usize];
            (row.submitted, row.lap.run, call)
        });
        self.runs.sort_unstable_by_key(|row| row.run);
        let calls = &self.calls;
        self.laps.sort_unstable_by_key(|packed| {
            let row = &calls[packed.call.index()];
            (row.submitted, row.lap)
        });
        let mut metrics = RunMetrics {
            calls: self.calls,
            order,
            laps: self.laps,
            retries: self.retries,
            runs: self.runs,
            summary: Summary::empty(),
        };
        metrics.summary = metrics.summarised(self.idle_cut, self.last_end);
        let all_told = self.unbound == 0 && metrics.summary.calls > 0;
        metrics.summary.bound = all_told.then_some(self.bound);
        metrics
    }

    fn called(&mut self, at: Time, call: &Call, lap: LapKey, parent: Option<CallId>) {
        assert_eq!(
            call.id.index(),
            self.calls.len(),
            "calls are numbered in the order in which they are made"
        );
        self.calls.push(PackedCall::made(at, call, lap, parent));
        match self.open.get(&(lap.run, lap.thread)) {
            None => {
                self.open.insert((lap.run, lap.thread), call.id);
            }
            Some(first) => {
                assert_eq!(
                    self.calls[first.index()].lap,
                    lap,
                    "one lap follows another"
                );
                self.retries.entry(lap).or_default().push(call.id);
            }
        }
    }

    fn answered(&mut self, reply: &Reply) {
        let row = &mut self.calls[reply.call.index()];
        row.end(reply);
        let run = row.lap.run;
        match reply.bound {
            Some(bound) => {
                debug_assert_eq!(
                    bound.total(),
                    reply.parts.total(),
                    "what bound {:?} does not sum to it",
                    reply.call
                );
                self.bound += bound;
            }
            None => self.unbound += 1,
        }
        self.run(run).model += reply.finished - reply.submitted;
        self.last_end = self.last_end.max(reply.finished);
    }

    fn lap_ended(&mut self, at: Time, lap: LapKey, gap: GapParts) {
        let call = self
            .open
            .remove(&(lap.run, lap.thread))
            .expect("a lap that ends began with a call");
        let packed = PackedLap { call, gap };
        let retries = self.retries.get(&lap).map_or(&[][..], Vec::as_slice);
        let parts = parts_of(&self.calls, packed, retries);
        debug_assert_eq!(
            parts.total(),
            at - self.calls[call.index()].submitted,
            "the parts of {lap:?} do not sum to it"
        );
        self.laps.push(packed);
        self.last_end = self.last_end.max(at);
        let run = self.run(lap.run);
        run.laps += 1;
        run.tool += gap.tool;
        if lap.thread == 0 {
            run.main += parts.total();
        }
    }

    fn run(&mut self, run: RunId) -> &mut RunRow {
        let place = self.places.get(run.index());
        place
            .and_then(|&place| self.runs.get_mut(place as usize))
            .expect("a run starts before anything else happens in it")
    }
}

impl Sink for Metrics {
    fn event(&mut self, event: Event) {
        match event {
            Event::RunStarted {
                at,
                run,
                session,
                lane,
            } => {
                let row = RunRow {
                    run,
                    session,
                    lane,
                    start: at,
                    end: None,
                    model: Span::ZERO,
                    tool: Span::ZERO,
                    laps: 0,
                    main: Span::ZERO,
                };
                if self.places.len() <= run.index() {
                    self.places.resize(run.index() + 1, NO_ID);
                }
                let place = &mut self.places[run.index()];
                assert_eq!(*place, NO_ID, "{run:?} started twice");
                *place = self.runs.len() as u32;
                self.runs.push(row);
            }
            Event::Called {
                at,
                call,
                lap,
                parent,
            } => self.called(at, &call, lap, parent),
            Event::Answered { reply } => self.answered(&reply),
            Event::LapEnded { at, lap, gap, cut } => {
                self.idle_cut += cut;
                self.lap_ended(at, lap, gap);
            }
            Event::RunEnded { at, run, outcome } => {
                self.last_end = self.last_end.max(at);
                let row = self.run(run);
                row.end = Some((at, outcome));
                debug_assert!(
                    row.start + row.main <= at,
                    "the main thread's laps overlap or outlast {run:?}"
                );
            }
        }
    }
}

fn parts_of(calls: &[PackedCall], packed: PackedLap, retries: &[CallId]) -> LapParts {
    let mut parts = LapParts {
        calls: calls[packed.call.index()].parts,
        gap: packed.gap,
    };
    for retry in retries {
        parts.calls += calls[retry.index()].parts;
    }
    parts
}

/// What a replay came to: rows, and the figures over all of them.
#[derive(Clone, Debug)]
pub struct RunMetrics {
    calls: Vec<PackedCall>,
    order: Vec<u32>,
    laps: Vec<PackedLap>,
    retries: BTreeMap<LapKey, Vec<CallId>>,
    /// The runs, in the order of their names.
    pub runs: Vec<RunRow>,
    /// The figures over all rows.
    pub summary: Summary,
}

impl RunMetrics {
    /// Returns the calls that have ended, ordered by submission, then run, then name.
    pub fn calls(&self) -> impl Iterator<Item = CallRow> + '_ {
        self.order
            .iter()
            .filter_map(|&call| self.calls[call as usize].row(CallId(call)))
    }

    /// Returns the laps that have ended, ordered by start, then run, then conversation.
    pub fn laps(&self) -> impl ExactSizeIterator<Item = LapRow<'_>> {
        self.laps.iter().map(|&packed| self.lap(packed))
    }

    fn lap(&self, packed: PackedLap) -> LapRow<'_> {
        let first = &self.calls[packed.call.index()];
        let retries = self.retries.get(&first.lap).map_or(&[][..], Vec::as_slice);
        LapRow {
            lap: first.lap,
            call: packed.call,
            retries,
            start: first.submitted,
            parts: parts_of(&self.calls, packed, retries),
        }
    }

    /// Returns the place in the trace of the session that a run replays.
    pub fn session_of(&self, run: RunId) -> usize {
        let at = self
            .runs
            .binary_search_by_key(&run, |row| row.run)
            .expect("every row belongs to a run");
        self.runs[at].session as usize
    }

    /// Returns the longest laps, longest first; of equals the earlier.
    pub fn slowest_laps(&self, count: usize) -> Vec<LapRow<'_>> {
        let mut laps: Vec<(Span, usize)> = self
            .laps()
            .enumerate()
            .map(|(place, lap)| (lap.parts.total(), place))
            .collect();
        laps.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let chosen = laps.into_iter().take(count);
        chosen
            .map(|(_, place)| self.lap(self.laps[place]))
            .collect()
    }

    fn summarised(&self, idle_cut: Span, last_end: Time) -> Summary {
        let mut summary = Summary {
            runs: self.runs.len() as u32,
            laps: self.laps.len() as u32,
            idle_cut,
            ..Summary::empty()
        };
        let (mut ttft, mut itl) = (Vec::new(), Vec::new());
        let mut first = None;
        for row in self.calls() {
            first.get_or_insert(row.submitted);
            summary.calls += 1;
            for (count, failure) in summary.failures.iter_mut().zip(FAILURES) {
                *count += u32::from(row.outcome == failure);
            }
            summary.failed_calls += u32::from(row.outcome.failed());
            summary.tokens.prompt += row.prompt;
            summary.tokens.cached += row.cached;
            summary.tokens.computed += row.computed();
            summary.tokens.output += row.output;
            summary.classes += row.classes;
            ttft.extend(row.ttft());
            itl.extend(row.itl());
        }
        summary.wall = first.map_or(Span::ZERO, |first| last_end - first);
        summary.ttft = Quantiles::of(&mut ttft);
        summary.itl = Quantiles::of(&mut itl);
        let mut laps = Vec::with_capacity(self.laps.len());
        for lap in self.laps() {
            laps.push(lap.parts.total());
            if lap.lap.thread == 0 {
                summary.parts += lap.parts;
            }
        }
        summary.lap = Quantiles::of(&mut laps);
        let lasted = |run: &RunRow| run.end.map(|(end, _)| end - run.start);
        let mut runs: Vec<Span> = self.runs.iter().filter_map(lasted).collect();
        summary.run = Quantiles::of(&mut runs);
        summary.model = self.runs.iter().map(|run| run.model).sum();
        summary.tool = self.runs.iter().map(|run| run.tool).sum();
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_calls_fit_in_200_megabytes() {
        let row = size_of::<PackedCall>() + size_of::<PackedLap>() + size_of::<u32>();
        assert!(row <= 200, "{row} bytes for each call and its lap");
    }

    #[test]
    fn nothing_that_happened_gives_no_figures() {
        let metrics = Metrics::default().finish();
        assert_eq!(metrics.summary, Summary::empty());
        assert_eq!(metrics.calls().count() + metrics.laps().len(), 0);
    }
}
