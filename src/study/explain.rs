//! Where the time went, what is to blame, and what one change at a time would do, each change simulated.
//!
//! A *cause* is judged by taking it away: what would runs take if nothing were evicted, if tools took no time, if the
//! greediest session were not there? A *lever* is a change that one could make. Both are told as the share of run time that
//! they save, over the runs that both replays have; the interval covers the rig's error, and chance where there are runs
//! enough to tell.

pub mod blame;
mod change;

use super::figures::{Figures, Ground, RigSpec};
use super::rig::{RECORDED, RigError};
use super::sample::{FEWEST_RUNS, Pairs};
use super::target::Figure;
use crate::fleet::Plan;
use crate::known::Trust;
use crate::metrics::lap::LapParts;
use crate::operating_point::OperatingPoint;
use crate::units::Span;
use rayon::prelude::*;
use std::collections::BTreeMap;

pub use change::{Change, Lever, slots};
use change::{more_slots, whole};

/// As good as without end, for a rig.
const PLENTY: f64 = 64.0;

/// How a rig may differ from what is predicted of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Uncertainty {
    /// The rig as slow as it may be.
    pub slow: Change,
    /// The rig as fast as it may be.
    pub fast: Change,
    /// How that is known, to be read after "as".
    pub by: &'static str,
}

/// Returns how a rig may differ: by its held-out error, or, for a roofline, by the efficiencies that are published.
///
/// A roofline takes 0.78 of bandwidth and 0.5 of arithmetic; 0.65 to 0.87 and 0.4 to 0.65 are published (see
/// [`crate::rig::roofline::typical`]).
pub fn uncertainty(point: &OperatingPoint) -> Option<Uncertainty> {
    if let Some((low, high)) = point.error_interval {
        return Some(Uncertainty {
            slow: Change::set("rig.time_scale", &high.to_string()),
            fast: Change::set("rig.time_scale", &low.to_string()),
            by: "held-out measurements allow",
        });
    }
    let scales = |bandwidth: &str, compute: &str| {
        Change::Set(vec![
            ("rig.bandwidth_scale".to_string(), bandwidth.to_string()),
            ("rig.compute_scale".to_string(), compute.to_string()),
        ])
    };
    let roofline = point.trust == Trust::Estimate && point.name != RECORDED;
    roofline.then(|| Uncertainty {
        slow: scales("0.83", "0.8"),
        fast: scales("1.12", "1.3"),
        by: "the efficiencies published for such machines allow",
    })
}

/// What makes a loop slower than it need be on its rig.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The cache loses what is needed again, or its memory holds calls back.
    CacheTooSmall,
    /// The prefix cache is switched off.
    CacheOff,
    /// Prompts do not continue what was computed.
    BrokenPrefix,
    /// One session takes more than its part of the engine.
    GreedyNeighbour,
    /// Calls wait for a place.
    TooFewSlots,
    /// Tools.
    SlowTools,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 6] = [
        Cause::CacheTooSmall,
        Cause::CacheOff,
        Cause::BrokenPrefix,
        Cause::GreedyNeighbour,
        Cause::TooFewSlots,
        Cause::SlowTools,
    ];

    /// Returns its name.
    pub fn word(self) -> &'static str {
        match self {
            Cause::CacheTooSmall => "cache too small",
            Cause::CacheOff => "prefix cache off",
            Cause::BrokenPrefix => "broken prefix",
            Cause::GreedyNeighbour => "greedy neighbour",
            Cause::TooFewSlots => "too few slots",
            Cause::SlowTools => "tools",
        }
    }

    /// Returns the change that takes it away; nothing where it cannot be there.
    fn removal(self, base: &Figures, rig: &RigSpec) -> Option<Change> {
        let point = &base.point;
        if point.name == RECORDED && self != Cause::SlowTools {
            return None;
        }
        match self {
            Cause::CacheTooSmall => Some(endless_cache(point, rig)),
            Cause::CacheOff => {
                let off = point.settings.get("engine.prefix_caching");
                let off = off.is_some_and(|value| value == "off");
                off.then(|| Change::set("engine.prefix_caching", "on"))
            }
            Cause::BrokenPrefix => Some(Change::KeptPrefix),
            Cause::GreedyNeighbour => {
                let many = base.workload.plan.agents > 1 && base.workload.sessions.len() > 1;
                let greedy = many.then(|| blame::greediest(base)).flatten()?;
                Some(Change::Without(greedy))
            }
            Cause::TooFewSlots => more_slots(point, PLENTY as u64),
            Cause::SlowTools => (base.summary.tool.secs() > 0.0).then_some(Change::NoTools),
        }
    }
}

/// Returns the change that leaves the cache room for everything, whatever it is that bounds it.
fn endless_cache(point: &OperatingPoint, rig: &RigSpec) -> Change {
    let mut changes = vec![("rig.memory_scale".to_string(), PLENTY.to_string())];
    let chosen = |key: &str| rig.1.iter().any(|(one, _)| one == key);
    let bounds = [
        "engine.num_gpu_blocks_override",
        "engine.ctx_size",
        "engine.max_tokens",
        "engine.prompt_cache_size",
        "engine.prompt_cache_bytes",
    ];
    for key in bounds {
        if let Some(bound) = whole(point, key).filter(|_| chosen(key) || key.contains("cache_size"))
        {
            changes.push((key.to_string(), (bound * PLENTY as u64).to_string()));
        }
    }
    if point.settings.contains_key("engine.cache_ram") {
        changes.push(("engine.cache_ram".to_string(), "-1".to_string()));
    }
    Change::Set(changes)
}

/// What a change saves.
#[derive(Clone, PartialEq, Debug)]
pub struct Effect<W> {
    /// What it is.
    pub what: W,
    /// The change that was simulated.
    pub change: Change,
    /// The share of run time that it saves; negative where it costs.
    pub saved: f64,
    /// Where that share may lie; nothing where nothing is known of it.
    pub interval: Option<(f64, f64)>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What was explained.
    pub base: Figures,
    /// Where the time of all conversations' laps went, standing still for sub-agents aside; of the main ones alone, with
    /// it, where a document left the rows out.
    pub parts: LapParts,
    /// What is to blame, worst first.
    pub causes: Vec<Effect<Cause>>,
    /// What could be changed, most helpful first.
    pub levers: Vec<Effect<Lever>>,
    /// The slowest laps, and why.
    pub slow: Vec<blame::SlowLap>,
}

/// Explains a result without simulating anything.
pub fn told_by(base: Figures) -> Explained {
    let parts = base.rows.as_ref().map_or(base.summary.parts, |rows| {
        let mut parts = LapParts::default();
        for lap in &rows.laps {
            parts += lap.parts;
        }
        parts.gap.subagent = Span::ZERO;
        parts
    });
    Explained {
        parts,
        slow: blame::slowest(&base, 5),
        causes: Vec::new(),
        levers: Vec::new(),
        base,
    }
}

/// Explains what `rig` made of `plan`; `tried` is told of every replay. `base` is that result, where it was measured.
pub fn explain(
    ground: &Ground<'_>,
    rig: &RigSpec,
    plan: Plan,
    base: Option<Figures>,
    tried: &(dyn Fn() + Sync),
) -> Result<Explained, RigError> {
    tried();
    let simulated = ground.evaluate(rig, plan)?;
    let ends = uncertainty(&simulated.point);
    let ends = ends.map_or(Vec::new(), |ends| vec![ends.slow, ends.fast]);
    let bases: Result<Vec<(RigSpec, Figures)>, RigError> = ends
        .par_iter()
        .map(|end| {
            tried();
            let off = end.of(rig);
            let figures = ground.evaluate(&off, plan)?;
            Ok((off, figures))
        })
        .collect();
    let bases = bases?;
    let seed = ground.seed;
    let effect = |change: &Change| -> Option<(f64, Option<(f64, f64)>)> {
        tried();
        // A change that the rig cannot have is none.
        let changed = change.evaluate(ground, rig, plan).ok()?;
        let saved = saving(&simulated, &changed)?;
        let mut seen = vec![saved];
        for (off, base) in &bases {
            tried();
            seen.extend(saving(base, &change.evaluate(ground, off, plan).ok()?));
        }
        let chance = by_chance(&simulated, &changed, seed);
        let known = !bases.is_empty() || chance.is_some();
        seen.extend(chance.into_iter().flat_map(|(low, high)| [low, high]));
        let low = seen.iter().copied().fold(f64::INFINITY, f64::min);
        let high = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some((saved, known.then_some((low, high))))
    };
    let causes = Cause::ALL.into_par_iter().filter_map(|what| {
        let change = what.removal(&simulated, rig)?;
        let (saved, interval) = effect(&change)?;
        Some(Effect {
            what,
            change,
            saved,
            interval,
        })
    });
    let mut causes: Vec<Effect<Cause>> = causes.collect();
    let levers = Lever::ALL.into_par_iter().filter_map(|what| {
        let change = what.change(&simulated, ground.catalog)?;
        let (saved, interval) = effect(&change)?;
        Some(Effect {
            what,
            change,
            saved,
            interval,
        })
    });
    let mut levers: Vec<Effect<Lever>> = levers.collect();
    causes.sort_by(|a, b| b.saved.total_cmp(&a.saved).then(a.what.cmp(&b.what)));
    levers.sort_by(|a, b| b.saved.total_cmp(&a.saved).then(a.what.cmp(&b.what)));
    Ok(Explained {
        causes,
        levers,
        ..told_by(base.unwrap_or(simulated))
    })
}

/// Returns the share of time that the runs of both replays take less; nothing where a change makes more calls fail.
fn saving(base: &Figures, changed: &Figures) -> Option<f64> {
    let (before, after) = (base.run_spans(), changed.run_spans());
    let both: BTreeMap<_, _> = before
        .iter()
        .filter(|(key, _)| after.contains_key(key))
        .collect();
    let was: f64 = both.values().map(|span| span.secs()).sum();
    let is: f64 = both.keys().map(|key| after[*key].secs()).sum();
    // Calls that are refused take no time, and that is nothing saved.
    let refuses = changed.summary.failed_calls > base.summary.failed_calls;
    (was > 0.0 && !refuses).then_some(1.0 - is / was)
}

fn by_chance(base: &Figures, changed: &Figures, seed: u64) -> Option<(f64, f64)> {
    let mean = Figure::parse("run_s.mean").ok()?;
    let pairs = Pairs::of(base, changed, &mean)?;
    let (low, high) = pairs
        .interval(&mean, seed)
        .filter(|_| pairs.units() >= FEWEST_RUNS)?;
    Some((1.0 - high, 1.0 - low))
}
