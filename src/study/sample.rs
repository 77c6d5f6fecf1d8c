//! Two results of one trace, row against row: how far a difference may be chance.
//!
//! Rows of one run are alike, so whole runs are drawn, with all their rows; only where there are fewer than
//! [`FEWEST_RUNS`] of them are rows drawn one by one. Draws come from a seeded stream: the same results, the same interval.

use super::figures::{Figures, RunKey};
use super::target::{Figure, Over};
use crate::ids::RunId;
use crate::metrics::CallRow;
use crate::rng;
use crate::units::Span;
use rand::Rng;
use std::collections::BTreeMap;

/// Below so many runs, rows are drawn instead.
pub const FEWEST_RUNS: usize = 5;
/// How often is drawn, with few rows.
const DRAWS: usize = 2000;
/// About how many rows are drawn in all at most.
const MOST_ROWS: usize = 20_000_000;

/// Values of two results, in pairs of the same row, in groups that are drawn together.
#[derive(Clone, PartialEq, Debug)]
pub struct Pairs {
    groups: Vec<Vec<(f64, f64)>>,
    /// Whether a group is a run; else it is a single row.
    pub by_run: bool,
}

type Places = BTreeMap<RunKey, BTreeMap<(u32, u32), f64>>;

fn places(of: &Figures, over: Over) -> Option<Places> {
    let mut places = Places::new();
    if over == Over::Run {
        let spans = of.run_spans().into_iter();
        let one = |span: Span| BTreeMap::from([((0, 0), span.secs())]);
        return Some(spans.map(|(key, span)| (key, one(span))).collect());
    }
    let keys = of.run_keys();
    let rows = of.rows.as_ref()?;
    let mut put = |run: RunId, place: (u32, u32), span: Option<Span>| {
        if let (Some(key), Some(span)) = (keys.get(&run), span) {
            let run = places.entry(key.clone()).or_default();
            run.insert(place, span.secs());
        }
    };
    if over == Over::Lap {
        for lap in &rows.laps {
            let key = lap.lap;
            put(key.run, (key.thread, key.lap), Some(lap.parts.total()));
        }
    } else {
        let value = |row: &CallRow| {
            if over == Over::Ttft {
                row.ttft()
            } else {
                row.itl()
            }
        };
        for row in &rows.calls {
            put(row.lap.run, (row.lap.thread, row.lap.lap), value(row));
        }
    }
    Some(places)
}

impl Pairs {
    /// Pairs the rows that a figure is a statistic of; nothing where it is of none, or no row is in both results.
    pub fn of(a: &Figures, b: &Figures, figure: &Figure) -> Option<Pairs> {
        let over = figure.over()?;
        let (a, b) = (places(a, over)?, places(b, over)?);
        let mut groups: Vec<Vec<(f64, f64)>> = Vec::new();
        for (key, rows) in &a {
            let Some(others) = b.get(key) else { continue };
            let pairs = rows
                .iter()
                .filter_map(|(place, value)| Some((*value, *others.get(place)?)));
            let group: Vec<(f64, f64)> = pairs.collect();
            if !group.is_empty() {
                groups.push(group);
            }
        }
        let by_run = groups.len() >= FEWEST_RUNS;
        if !by_run {
            groups = groups
                .into_iter()
                .flatten()
                .map(|pair| vec![pair])
                .collect();
        }
        (!groups.is_empty()).then_some(Pairs { groups, by_run })
    }

    /// Returns how many things were drawn from.
    pub fn units(&self) -> usize {
        self.groups.len()
    }

    /// Returns the share of rows in which the second result has less, ties counted half.
    pub fn lower(&self) -> f64 {
        let all: Vec<&(f64, f64)> = self.groups.iter().flatten().collect();
        let score = |(a, b): &&(f64, f64)| match b.total_cmp(a) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.0,
        };
        all.iter().map(score).sum::<f64>() / all.len() as f64
    }

    /// Returns the ratio of the second result's figure to the first's, over the rows that both have.
    pub fn effect(&self, figure: &Figure) -> f64 {
        ratio(figure, self.groups.iter().map(|group| (group, false)))
    }

    fn draws(&self) -> usize {
        let rows: usize = self.groups.iter().map(Vec::len).sum();
        DRAWS.min(MOST_ROWS / rows).max(100)
    }

    /// Returns the interval in which the ratio lies in 95 of 100 draws of groups, with replacement.
    pub fn interval(&self, figure: &Figure, seed: u64) -> Option<(f64, f64)> {
        let count = self.groups.len();
        if count < 2 {
            return None;
        }
        let mut random = rng::stream(seed, "bootstrap", 0);
        let mut one = |_| {
            let picked: Vec<usize> = (0..count).map(|_| below(&mut random, count)).collect();
            ratio(
                figure,
                picked.iter().map(|&place| (&self.groups[place], false)),
            )
        };
        let mut ratios: Vec<f64> = (0..self.draws()).map(&mut one).collect();
        ratios.retain(|ratio| ratio.is_finite());
        ratios.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| ratios.get((share * (ratios.len() as f64 - 1.0)).round() as usize);
        Some((*at(0.025)?, *at(0.975)?))
    }

    /// Returns how often chance alone, which result a group came from being a coin's toss, gives at least this ratio.
    pub fn chance(&self, figure: &Figure, seed: u64) -> f64 {
        let found = self.effect(figure);
        let mut random = rng::stream(seed, "swaps", 0);
        let draws = self.draws();
        let hits = (0..draws).filter(|_| {
            let tossed = self
                .groups
                .iter()
                .map(|group| (group, random.next_u32() & 1 == 1));
            ratio(figure, tossed) >= found
        });
        (hits.count() + 1) as f64 / (draws + 1) as f64
    }
}

/// Returns a number below `limit`; the bias of a few in 2^64 is nobody's concern.
pub(super) fn below(random: &mut rng::Stream, limit: usize) -> usize {
    (random.next_u64() % limit as u64) as usize
}

/// Returns the ratio of the second members' figure to the first's, over groups of pairs; those that are swapped count the other
/// way round.
fn ratio<'p>(figure: &Figure, pairs: impl Iterator<Item = (&'p Vec<(f64, f64)>, bool)>) -> f64 {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (group, swapped) in pairs {
        for &(first, second) in group {
            a.push(if swapped { second } else { first });
            b.push(if swapped { first } else { second });
        }
    }
    debug_assert_eq!(a.len(), b.len());
    figure.statistic(&mut b) / figure.statistic(&mut a)
}
