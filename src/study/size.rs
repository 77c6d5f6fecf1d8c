//! How many agents hold a target: a search over sizes, and what binds where it ends.
//!
//! Sizes are tried in powers of two and where the engine changes its ways, then between the largest that holds and the next
//! that does not. Figures over few laps jump about, and a curve may dip where lanes and sessions fit each other; so every
//! size near the limit is tried, and a gap between sizes is passed over only where both its ends are well beyond it. The way
//! up ends where it leads far beyond the limit: no fleet is easier on its rig than half of it by so much.

use super::explain::{Change, Lever, uncertainty};
use super::figures::{Figures, Ground, RigSpec};
use super::probe::Curve;
use super::rig::RigError;
use super::target::Target;
use crate::fleet::Plan;
use crate::metrics::lap::Binds;
use crate::units::Span;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Sizes whose strain is between 1 and this may hide one that holds.
const NEAR: f64 = 1.35;
/// No larger size is tried beyond two in a row whose strain is above this.
const FAR: f64 = 2.0;
/// How many sizes on the way up are tried at a time.
const RUNGS: usize = 4;
/// Up to as many sizes between two that were tried are tried all where one end is near the limit.
const FEW: u32 = 8;
/// Gaps beyond the edge of less than this part of the size are left closed.
const NARROW: u32 = 48;

/// What was tried: the strain of each size, which holds where it is at most 1.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Search {
    /// By size.
    pub strains: BTreeMap<u32, f64>,
}

impl Search {
    fn try_these<E>(
        &mut self,
        sizes: &[u32],
        try_all: &mut impl FnMut(&[u32]) -> Result<Vec<f64>, E>,
    ) -> Result<(), E> {
        let strains = try_all(sizes)?;
        self.strains.extend(sizes.iter().copied().zip(strains));
        Ok(())
    }

    /// Returns whether larger sizes are beyond hope: the two largest are far beyond the limit, and the largest is the worst
    /// of all. Of a rate of work there is more with more agents; there the smallest is the worst.
    fn is_lost(&self) -> bool {
        let mut down = self.strains.values().rev();
        let (Some(last), Some(before)) = (down.next(), down.next()) else {
            return false;
        };
        *before > FAR && *last > FAR && self.strains.values().all(|strain| strain <= last)
    }

    /// Returns the largest size that holds.
    pub fn best(&self) -> Option<u32> {
        let holding = self
            .strains
            .iter()
            .rev()
            .find(|(_, strain)| holds(**strain));
        holding.map(|(size, _)| *size)
    }

    /// Returns the sizes below the best that were tried and do not hold.
    pub fn holes(&self) -> Vec<u32> {
        let best = self.best().unwrap_or(0);
        let below = self.strains.range(..best);
        below
            .filter(|(_, strain)| !holds(**strain))
            .map(|(size, _)| *size)
            .collect()
    }
}

fn holds(strain: f64) -> bool {
    strain <= 1.0
}

/// Tries sizes from 1 to `max` until the largest that holds is found; `try_all` gives the strain of each size asked for.
///
/// `hints` are sizes at which the curve may change its course.
pub fn search<E>(
    max: u32,
    hints: &[u32],
    mut try_all: impl FnMut(&[u32]) -> Result<Vec<f64>, E>,
) -> Result<Search, E> {
    let powers = (0..32).map(|power| 1 << power);
    let around = hints
        .iter()
        .flat_map(|&hint| [hint, hint.saturating_add(1)]);
    let mut ladder: Vec<u32> = powers.chain(around).chain([max]).collect();
    ladder.retain(|size| (1..=max).contains(size));
    ladder.sort_unstable();
    ladder.dedup();
    let mut found = Search::default();
    for rungs in ladder.chunks(RUNGS) {
        found.try_these(rungs, &mut try_all)?;
        if found.is_lost() {
            break;
        }
    }
    loop {
        let next = open_gaps(&found);
        if next.is_empty() {
            return Ok(found);
        }
        found.try_these(&next, &mut try_all)?;
    }
}

/// Returns the sizes to try next: in every gap in which the largest size that holds may still lie.
fn open_gaps(found: &Search) -> Vec<u32> {
    let best = found.best().unwrap_or(0);
    let tried: Vec<(u32, f64)> = found.strains.range(best..).map(|(a, b)| (*a, *b)).collect();
    let mut next = Vec::new();
    for (place, pair) in tried.windows(2).enumerate() {
        let ((low, before), (high, after)) = (pair[0], pair[1]);
        let near = before.min(after) < NEAR;
        if high - low < 2 || !near {
            continue;
        }
        // A dip beyond the edge that is narrower than a few in a hundred of many agents is no size to plan with.
        let closed = place > 0 && high - low <= low / NARROW;
        // Right above the best size the edge lies; bisect, and try the last few one by one.
        if place == 0 && high - low > FEW {
            next.push(low + (high - low) / 2);
        } else if high - low <= FEW && !closed {
            next.extend(low + 1..high);
        } else if !closed {
            next.extend((1..4).map(|part| low + (high - low) * part / 4));
        }
    }
    next
}

/// The sizes if the rig is as slow, and as fast, as it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The smaller.
    pub low: u32,
    /// The larger.
    pub high: u32,
    /// How that is known, to be read after "as".
    pub by: &'static str,
}

/// How many agents one rig carries.
#[derive(Clone, Debug)]
pub struct Sized {
    /// The rig.
    pub rig: RigSpec,
    /// What was tried, and how far from the limit it is.
    pub search: Search,
    /// The figures of what was tried.
    pub curve: BTreeMap<u32, Figures>,
    /// The sizes that the rig may carry, as far as it is known; nothing where that is not.
    pub range: Option<Range>,
    /// What one change would do one agent beyond the edge, the most helpful first; empty where nothing fails.
    pub beyond: Vec<(Lever, f64)>,
    /// How it was measured; nothing where it was simulated.
    pub measured: Option<Measured>,
}

/// How the sizes of a real engine were measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// The strain of each size, as often as it was measured.
    pub curve: Curve,
    /// How many measurements were there already.
    pub kept: u32,
    /// How long the others took.
    pub spent: Span,
    /// How long they were allowed to take.
    pub budget: Span,
    /// Why it ended before all was known, if it did.
    pub cut: Option<String>,
}

impl Sized {
    /// Returns the answer for a real engine: of each size the repeat in the middle stands for all.
    pub fn measured(name: &str, measured: Measured, found: BTreeMap<u32, Vec<Figures>>) -> Sized {
        let middle = |(size, mut all): (u32, Vec<Figures>)| {
            let strains = &measured.curve.strains[&size];
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by(|&a, &b| strains[a].total_cmp(&strains[b]));
            (size, all.swap_remove(order[(order.len() - 1) / 2]))
        };
        Sized {
            rig: (name.to_string(), Vec::new()),
            search: measured.curve.means(),
            range: measured.curve.range(),
            curve: found.into_iter().map(middle).collect(),
            beyond: Vec::new(),
            measured: Some(measured),
        }
    }

    /// Returns the largest size that holds, and its figures.
    pub fn best(&self) -> Option<(u32, &Figures)> {
        let best = self.search.best()?;
        Some((best, &self.curve[&best]))
    }

    /// Returns the smallest size beyond the best, which fails, and its figures.
    pub fn edge(&self) -> Option<(u32, &Figures)> {
        let best = self.search.best().unwrap_or(0);
        let next = self.curve.range(best + 1..).next();
        next.map(|(size, figures)| (*size, figures))
    }

    /// Returns what binds at the smallest size beyond the best.
    pub fn binds(&self) -> Option<Binds> {
        self.edge()?.1.summary.mostly_on_rig()
    }
}

/// Finds how many agents of `plan` a rig carries within `targets`; `tried` is told of every replay.
pub fn size(
    ground: &Ground<'_>,
    rig: &RigSpec,
    plan: Plan,
    targets: &[Target],
    max: u32,
    tried: &(dyn Fn() + Sync),
) -> Result<Sized, RigError> {
    let (search, curve) = one_search(ground, rig, plan, targets, max, tried)?;
    let ends = curve
        .values()
        .next()
        .and_then(|one| uncertainty(&one.point));
    let range = ends.map(|ends| {
        let end = |change: &Change| {
            let (search, _) = one_search(ground, &change.of(rig), plan, targets, max, tried)?;
            Ok::<u32, RigError>(search.best().unwrap_or(0))
        };
        let (slow, fast) = rayon::join(|| end(&ends.slow), || end(&ends.fast));
        let (slow, fast) = (slow?, fast?);
        Ok::<_, RigError>(Range {
            low: slow.min(fast),
            high: slow.max(fast),
            by: ends.by,
        })
    });
    let mut sized = Sized {
        rig: rig.clone(),
        search,
        curve,
        range: range.transpose()?,
        beyond: Vec::new(),
        measured: None,
    };
    if let Some((edge, figures)) = sized.edge() {
        let plan = Plan {
            agents: edge,
            ..plan
        };
        let solo = sized.curve.get(&1);
        let levers: Vec<(Lever, Change)> = Lever::ON_RIG
            .into_iter()
            .filter_map(|lever| Some((lever, lever.change(figures, ground.catalog)?)))
            .collect();
        let one = |(lever, change): (Lever, Change)| {
            tried();
            // A change that the rig cannot have helps nobody.
            let changed = change.evaluate(ground, rig, plan).ok()?;
            Some((lever, strain(targets, &changed, solo)))
        };
        let mut beyond: Vec<(Lever, f64)> = levers.into_par_iter().filter_map(one).collect();
        beyond.sort_by(|a, b| a.1.total_cmp(&b.1));
        sized.beyond = beyond;
    }
    Ok(sized)
}

/// Returns the strain of the target that is worst off.
pub fn strain(targets: &[Target], found: &Figures, solo: Option<&Figures>) -> f64 {
    let strains = targets.iter().map(|one| one.strain(found, solo));
    strains.fold(0.0, f64::max)
}

fn one_search(
    ground: &Ground<'_>,
    rig: &RigSpec,
    plan: Plan,
    targets: &[Target],
    max: u32,
    tried: &(dyn Fn() + Sync),
) -> Result<(Search, BTreeMap<u32, Figures>), RigError> {
    let at = |agents: u32| {
        tried();
        ground.evaluate(rig, Plan { agents, ..plan })
    };
    let solo = at(1)?;
    let hints: Vec<u32> = super::explain::slots(&solo.point)
        .into_iter()
        .chain([ground.trace.sessions.len() as u32])
        .collect();
    let mut curve = BTreeMap::from([(1, solo.clone())]);
    let search = search(max, &hints, |sizes| {
        let new: Vec<u32> = sizes.iter().copied().filter(|size| *size > 1).collect();
        let made: Result<Vec<Figures>, RigError> = new.par_iter().map(|&size| at(size)).collect();
        curve.extend(new.into_iter().zip(made?));
        let strains = sizes
            .iter()
            .map(|size| strain(targets, &curve[size], Some(&solo)));
        Ok::<_, RigError>(strains.collect())
    })?;
    Ok((search, curve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::Rng;
    use std::convert::Infallible;

    fn found(max: u32, curve: impl Fn(u32) -> f64) -> (Option<u32>, usize) {
        let all = |sizes: &[u32]| Ok::<_, Infallible>(sizes.iter().map(|n| curve(*n)).collect());
        let Ok(search) = search(max, &[], all);
        (search.best(), search.strains.len())
    }

    fn by_trying_all(max: u32, curve: impl Fn(u32) -> f64) -> Option<u32> {
        (1..=max).rev().find(|n| curve(*n) <= 1.0)
    }

    #[test]
    fn a_monotonic_curve_takes_few_tries() {
        for edge in 0..=64 {
            let curve = |n: u32| {
                if n <= edge {
                    f64::from(n) / 65.0
                } else {
                    1.0 + f64::from(n - edge)
                }
            };
            let (best, tries) = found(64, curve);
            assert_eq!(best.unwrap_or(0), edge);
            assert!(tries <= 24, "{tries} tries for an edge at {edge}");
        }
        let (best, tries) = found(4096, |n| f64::from(n) / 777.0);
        assert!(
            best == Some(777) && tries < 60,
            "{best:?} after {tries} tries"
        );
    }

    #[test]
    fn curves_that_jump_about_give_what_trying_all_gives() {
        for seed in 0..2000 {
            let mut random = rng::stream(seed, "curve", 0);
            let jumps: Vec<f64> = (0..=64)
                .map(|_| (random.next_u64() % 1000) as f64 / 1000.0)
                .collect();
            let (slope, sway) = (20.0 + (random.next_u64() % 40) as f64, 0.12);
            let curve =
                |n: u32| f64::from(n) / slope * (1.0 - sway / 2.0 + sway * jumps[n as usize]);
            assert_eq!(found(64, curve).0, by_trying_all(64, curve), "seed {seed}");
        }
    }

    #[test]
    fn a_rate_that_takes_many_agents_is_found() {
        assert_eq!(found(64, |n| 40.0 / f64::from(n)).0, Some(64));
        // Laps fall behind before there is enough work at the same time.
        let both = |n: u32| (40.0 / f64::from(n)).max(f64::from(n) / 48.0);
        assert_eq!(found(64, both).0, Some(48));
    }

    #[test]
    fn a_dip_beyond_the_first_failure_is_found() {
        // Ten lanes and ten sessions fit each other; nine and eleven do not.
        let curve = |n: u32| match n {
            0..=7 => 0.9,
            10 => 0.95,
            _ => 1.1 + f64::from(n) / 100.0,
        };
        assert_eq!(found(64, curve).0, Some(10));
    }
}
