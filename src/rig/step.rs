//! The engine loop in virtual time: the clock and the accounts around an engine's plan.
//!
//! Decode steps in which nothing changes are made in one go. A call that arrives meanwhile cuts the run at the next
//! step boundary; because engine time is integer, where a run is cut makes no difference to when its steps end.

use super::book::{Book, SeqId};
use super::cost::{Graph, StepCost};
use super::engine::{Engine, Row, Step};
use super::fine::Fine;
use super::meter::{Bound, Busy, Heat, Limits, stretched};
use super::{Backend, Load, Open, Written};
use crate::call::{Call, Outcome, Reply};
use crate::ids::CallId;
use crate::trace::content::Content;
use crate::units::Time;
use std::sync::Arc;

/// A step, or a run of equal decode steps, that is being made.
#[derive(Clone, Debug)]
struct Running {
    from: Fine,
    end: Fine,
    /// How often the step will be made.
    times: u64,
    /// What the step is made of, to tell how long a number of repetitions lasts.
    graphs: Vec<Graph>,
    /// How many thousandths as long it takes as on a machine that has rested.
    stretch: u64,
}

/// An engine with its clock.
#[derive(Clone, Debug)]
pub struct StepLoop<E> {
    engine: E,
    cost: StepCost,
    book: Book,
    step: Step,
    running: Option<Running>,
    /// When state that the engine loads will be there, while it has nothing else to do.
    wake: Option<Fine>,
    /// Scratch for what one row would make alone.
    alone: Vec<Graph>,
    /// An emptied list of passes, to be filled again.
    spare: Vec<Graph>,
    /// When the engine last finished a step; it is idle from then on while nothing runs.
    clock: Fine,
    /// When the latest call came in. A step that is to hold it does not begin before.
    latest: Fine,
    refused: Vec<Reply>,
    complete: Vec<SeqId>,
    /// Whether runs of decode steps are made in one go; off only to check that it makes no difference.
    coalesce: bool,
    /// What limits how much the engine takes in, to tell why requests wait.
    limits: Limits,
    /// How warm the machine is, where sustained load is to slow it.
    heat: Option<Heat>,
    /// Every pass made so far and how often in a row, where somebody wants to know.
    passes: Option<Vec<(Graph, u64)>>,
    /// Every token written so far, where somebody waits for it.
    written: Option<Vec<Written>>,
}

impl<E: Engine> StepLoop<E> {
    /// Returns an engine at rest.
    pub fn new(engine: E, cost: StepCost) -> StepLoop<E> {
        let book = Book::new(cost.gain());
        StepLoop {
            engine,
            cost,
            book,
            step: Step::default(),
            running: None,
            wake: None,
            alone: Vec::new(),
            spare: Vec::new(),
            clock: Fine::ZERO,
            latest: Fine::ZERO,
            refused: Vec::new(),
            complete: Vec::new(),
            coalesce: true,
            limits: Limits::default(),
            heat: None,
            passes: None,
            written: None,
        }
    }

    /// Returns the same engine noting every pass it makes.
    #[must_use]
    pub fn noting(self) -> StepLoop<E> {
        StepLoop {
            passes: Some(Vec::new()),
            ..self
        }
    }

    /// Returns the passes made since the last time, each with how often it was made in a row.
    pub fn take_passes(&mut self) -> Vec<(Graph, u64)> {
        self.passes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns the same engine walking every step, the oracle for runs made in one go.
    #[must_use]
    pub fn walking(self) -> StepLoop<E> {
        StepLoop {
            coalesce: false,
            ..self
        }
    }

    /// Returns the engine, to look at.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Asserts that the engine's accounts are in order.
    pub fn check(&self) {
        self.engine.check(&self.book);
    }

    /// Begins the next step if none is being made and there is something to do.
    fn begin(&mut self) {
        if self.running.is_some() || self.wake.is_some() || self.book.is_empty() {
            return;
        }
        self.clock = self.clock.max(self.latest);
        self.step.clear();
        self.engine.plan(self.clock, &mut self.book, &mut self.step);
        for &(seq, outcome) in &self.step.failed {
            self.refused
                .push(self.book.refuse(seq, self.clock, outcome));
        }
        for &(seq, length) in &self.step.transfers {
            // Transfers follow each other; while another's state moves, a request stands.
            self.book.charge_standing(seq, self.clock);
            self.clock += length;
            self.book.meter.moved(length);
            self.book.charge_transfer(seq, self.clock);
        }
        if self.step.rows.is_empty() {
            assert!(self.step.standing.is_empty(), "a rig with work never idles");
            self.wake = self.engine.next_ready();
            return;
        }
        let mut graphs = std::mem::take(&mut self.spare);
        graphs.clear();
        self.engine.graphs(&self.step.rows, &self.book, &mut graphs);
        let times = if self.coalesce {
            self.step.repeat.max(1)
        } else {
            1
        };
        let reads = graphs.iter().any(|graph| !graph.chunks.is_empty());
        let heat = self.heat.as_ref().filter(|_| reads);
        let stretch = heat.map_or(1000, |heat| heat.stretch(self.clock));
        self.book.meter.begin(self.clock, self.why_others_wait());
        self.running = Some(Running {
            from: self.clock,
            end: self.clock + stretched(self.cost.steps(&graphs, times), stretch),
            times,
            graphs,
            stretch,
        });
        if let Some(ready) = self.engine.next_ready().filter(|_| times > 1) {
            self.cut(|end| end >= ready);
        }
    }

    /// Returns why requests wait that have no part in the step that was just planned.
    fn why_others_wait(&self) -> Bound {
        let inside = (self.step.rows.len() + self.step.standing.len()) as u64;
        let tokens: u64 = self
            .step
            .rows
            .iter()
            .map(|row| row.chunk.unwrap_or(1))
            .sum();
        let reads = self.step.rows.iter().any(|row| row.chunk.is_some());
        if self.book.len() as u64 <= inside {
            Bound::Turn
        } else if self.limits.slots.is_some_and(|slots| inside >= slots) {
            Bound::Slots
        } else if self.limits.step_tokens.map_or(reads, |most| tokens >= most) {
            Bound::Turn
        } else {
            Bound::Memory
        }
    }

    /// Cuts the run that is being made at the first step boundary that is `late` enough; all after it are, too.
    fn cut(&mut self, late: impl Fn(Fine) -> bool) {
        let Some(running) = &mut self.running else {
            return;
        };
        // The number of steps is monotone in time: look for the smallest that suffices.
        let (mut low, mut high) = (1, running.times);
        while low < high {
            let middle = low + (high - low) / 2;
            let end = running.from + self.cost.steps(&running.graphs, middle);
            if late(end) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low < running.times {
            running.times = low;
            running.end = running.from + self.cost.steps(&running.graphs, low);
        }
    }

    /// Returns how long `times` steps take in which a row stands alone.
    fn alone(&mut self, row: Row, times: u64) -> Fine {
        if row.chunk.is_none() && self.engine.one_pass() && self.cost.one_token() {
            let context = self.book.seq(row.seq).known();
            return self.cost.decode_alone(context, times);
        }
        self.alone.clear();
        self.engine.graphs(&[row], &self.book, &mut self.alone);
        self.cost.steps(&self.alone, times)
    }

    /// Ends the step that is being made: charges it and lets the engine take note.
    fn finish_step(&mut self, replies: &mut Vec<Reply>) {
        let running = self.running.take().expect("a step is being made");
        let end = running.end;
        let length = end - running.from;
        for place in 0..self.step.rows.len() {
            let row = self.step.rows[place];
            self.book.charge_standing(row.seq, running.from);
            let alone = self.alone(row, running.times);
            let alone = stretched(alone, running.stretch);
            match row.chunk {
                Some(tokens) => self.book.charge_chunk(row.seq, tokens, alone, length, end),
                None => self
                    .book
                    .charge_decode(row.seq, running.times, alone, length, end),
            }
        }
        for &seq in &self.step.standing {
            self.book.charge_standing(seq, end);
        }
        self.clock = end;
        self.book
            .meter
            .end(&self.cost, &running.graphs, running.times, length);
        let reads = running.graphs.iter().any(|graph| !graph.chunks.is_empty());
        if let Some(heat) = self.heat.as_mut().filter(|_| reads) {
            heat.worked(running.from, end);
        }
        if let Some(written) = &mut self.written {
            let answered = self.step.rows.iter().map(|row| self.book.seq(row.seq));
            written.extend(answered.filter(|seq| seq.generated > 0).map(|seq| Written {
                call: seq.call.id,
                at: end.time(),
                tokens: seq.generated,
            }));
        }
        if let Some(passes) = &mut self.passes {
            passes.extend(
                running
                    .graphs
                    .iter()
                    .map(|graph| (graph.clone(), running.times)),
            );
        }
        self.spare = running.graphs;
        self.engine.settle(
            &self.step,
            running.times,
            &mut self.book,
            &mut self.complete,
        );
        for seq in self.complete.drain(..) {
            replies.push(self.book.close(seq, end));
        }
    }
}

impl<E: Engine> Backend for StepLoop<E> {
    fn submit(&mut self, now: Time, call: Call) {
        let at = Fine::at(now);
        self.latest = self.latest.max(at);
        // No boundary may be visible before the call is made.
        self.cut(|end| end.time() >= now);
        self.wake = None;
        let seq = self.book.open(call, at);
        if let Err(outcome) = self.engine.arrive(seq, &mut self.book) {
            self.refused.push(self.book.refuse(seq, at, outcome));
        }
    }

    fn next_event(&mut self) -> Option<Time> {
        if self.refused.is_empty() {
            self.begin();
        }
        if let Some(refused) = self.refused.first() {
            return Some(refused.finished);
        }
        let end = self.running.as_ref().map(|running| running.end);
        end.or(self.wake).map(Fine::time)
    }

    fn equip(&mut self, limits: Limits, heat: Option<Heat>) {
        (self.limits, self.heat) = (limits, heat);
    }

    fn busy(&self) -> Option<Busy> {
        Some(self.book.meter.busy())
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        let from = replies.len();
        replies.append(&mut self.refused);
        loop {
            let end = self.running.as_ref().map(|running| running.end);
            if end.or(self.wake).is_none_or(|next| next.time() > now) {
                break;
            }
            match self.wake.take() {
                Some(ready) => self.clock = self.clock.max(ready),
                None => self.finish_step(replies),
            }
            if self.clock.time() < now {
                // Nothing can be submitted before `now` any more, so the next step begins at once.
                self.begin();
            }
        }
        replies[from..].sort_by_key(|reply| (reply.finished, reply.call));
    }

    fn open(&mut self) -> Option<&mut dyn Open> {
        Some(self)
    }
}

impl<E: Engine> Open for StepLoop<E> {
    fn content(&mut self) -> &mut Content {
        // Copied once, when the server still holds what the engine was built with.
        Arc::make_mut(self.engine.content())
    }

    fn watch(&mut self) {
        self.coalesce = false;
        self.written.get_or_insert_default();
    }

    fn take_written(&mut self, written: &mut Vec<Written>) {
        written.append(self.written.get_or_insert_default());
    }

    fn give_up(&mut self, now: Time, call: CallId) {
        let found = self.book.iter().find(|(_, seq)| seq.call.id == call);
        let Some((id, waits)) = found.map(|(id, seq)| (id, !seq.admitted())) else {
            return;
        };
        if waits && self.engine.withdraw(id) {
            let at = Fine::at(now);
            let gone = self.book.refuse(id, at, Outcome::Unavailable);
            self.refused.push(gone);
        } else {
            let seq = self.book.seq_mut(id);
            seq.output_limit = seq.output_limit.min(seq.generated.max(1));
        }
    }

    fn load(&mut self) -> Load {
        let running = self.book.iter().filter(|(_, seq)| seq.admitted()).count();
        Load {
            running,
            waiting: self.book.len() - running,
            used: self.engine.used(),
        }
    }
}
