//! The plainest question: what happens when these sessions run on that rig?
//!
//! Ties trace, fleet, rig, driver and metrics together. Everything a result document says is in [`Replay`] and the
//! [`Workload`] that several rigs share.

use super::bound::Served;
use super::economy::{Economy, Prices};
use super::live::LiveNotes;
use crate::event::{Event, Sink};
use crate::fleet::{Fleet, Plan};
use crate::metrics::{Metrics, RunMetrics};
use crate::operating_point::OperatingPoint;
use crate::rig::power::Energy;
use crate::rig::{Backend, Rig};
use crate::sim;
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was replayed, apart from the rig.
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    /// The files, by name and digest.
    pub traces: Vec<(String, String)>,
    /// The sessions' names, by their place in the trace.
    pub sessions: Vec<Arc<str>>,
    /// How many runs, at once and in all, and how agents behave.
    pub plan: Plan,
    /// How many runs in all.
    pub runs: u32,
    /// How many calls that makes when none is made again.
    pub calls: u64,
    /// What random choices began from.
    pub seed: u64,
    /// Settings that made the trace another than the recorded one, by their full keys.
    pub settings: BTreeMap<String, String>,
    /// What electricity, machines and APIs cost.
    pub prices: Prices,
}

impl Workload {
    /// Returns the workload that `plan` makes of `trace`.
    pub fn new(trace: &Trace, plan: Plan, seed: u64) -> Workload {
        let runs = plan.runs_of(trace);
        let steps: Vec<u64> = trace
            .sessions
            .iter()
            .map(|session| {
                session
                    .threads
                    .iter()
                    .map(|one| one.steps.len() as u64)
                    .sum()
            })
            .collect();
        let (rounds, rest) = (runs as usize / steps.len(), runs as usize % steps.len());
        let calls = steps.iter().sum::<u64>() * rounds as u64 + steps[..rest].iter().sum::<u64>();
        let named = |source: &crate::trace::Source| (source.name.clone(), source.digest.clone());
        Workload {
            traces: trace.sources.iter().map(named).collect(),
            sessions: trace
                .sessions
                .iter()
                .map(|session| session.id.clone())
                .collect(),
            plan,
            runs,
            calls,
            seed,
            settings: BTreeMap::new(),
            prices: Prices::default(),
        }
    }
}

/// What came of it on one rig.
#[derive(Clone, Debug)]
pub struct Replay<'w> {
    /// What was replayed.
    pub workload: &'w Workload,
    /// What the figures hold for.
    pub point: OperatingPoint,
    /// The figures.
    pub metrics: RunMetrics,
    /// The energy it took, where that is known.
    pub energy: Option<Energy>,
    /// What it cost.
    pub economy: Economy,
    /// What is told of a live replay beside them.
    pub live: Option<Box<LiveNotes>>,
}

/// Hands every event to two sinks.
#[derive(Debug)]
struct Both<'s, A, B>(&'s mut A, &'s mut B);

impl<A: Sink, B: Sink> Sink for Both<'_, A, B> {
    fn event(&mut self, event: Event) {
        self.0.event(event.clone());
        self.1.event(event);
    }
}

/// Replays `workload`, which must be of `trace`, on a simulated rig. `also` takes the events as well.
pub fn replay<'w>(
    trace: &Trace,
    workload: &'w Workload,
    mut rig: Rig,
    also: &mut impl Sink,
) -> Replay<'w> {
    let room = usize::try_from(workload.calls).unwrap_or(0);
    let mut metrics = Metrics::with_capacity(room, workload.runs as usize);
    let mut fleet = Fleet::new(trace, workload.plan);
    let mut served = Served::with_capacity(room);
    let mut figures = Both(&mut metrics, &mut served);
    sim::run(&mut fleet, &mut rig.backend, &mut Both(also, &mut figures));
    let busy = rig.backend.busy();
    // What is no longer needed makes room for what follows.
    drop((fleet, rig.backend));
    let mut metrics = metrics.finish();
    if let Some(shape) = rig.cache {
        let best = served.best(&trace.content, shape);
        metrics.summary.tokens.cached_optimal = Some(best.optimal);
        metrics.summary.tokens.cached_unbounded = Some(best.unbounded);
    }
    let summary = &mut metrics.summary;
    let energy = rig
        .draw
        .zip(busy)
        .and_then(|(draw, busy)| draw.energy(busy, summary.wall));
    let economy = Economy::of(
        workload.prices,
        rig.price.as_ref(),
        energy.as_ref(),
        summary,
    );
    summary.energy = energy.map(|energy| energy.total());
    summary.cost = economy.total;
    Replay {
        workload,
        point: rig.point,
        metrics,
        energy,
        economy,
        live: None,
    }
}
