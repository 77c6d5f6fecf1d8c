//! Many cells, one row each, and the best of them where wishes contradict each other.

use super::figures::Figures;
use super::target::Figure;

/// The figures that every row has, in the order of its columns.
const FIGURES: [&str; 36] = [
    "runs",
    "laps",
    "calls",
    "failed_calls",
    "wall_s",
    "run_s.mean",
    "run_s.p50",
    "run_s.p90",
    "run_s.p95",
    "run_s.max",
    "lap_s.p50",
    "lap_s.p95",
    "lap_s.max",
    "ttft_s.p50",
    "ttft_s.p95",
    "itl_s.p50",
    "runs_per_h",
    "output_per_s",
    "tokens.prompt",
    "tokens.cached",
    "tokens.computed",
    "tokens.reread",
    "tokens.output",
    "parts_s.client",
    "parts_s.queue",
    "parts_s.kv_transfer",
    "parts_s.prefill_new",
    "parts_s.reread_evicted",
    "parts_s.reread_uncached",
    "parts_s.reread_broken",
    "parts_s.decode",
    "parts_s.contention",
    "parts_s.tool",
    "parts_s.subagent",
    "energy_wh_per_run",
    "cost_usd_per_run",
];

/// Returns the figures of a row: the usual ones, then those asked for beside them.
pub fn figures(more: &[Figure]) -> Vec<Figure> {
    let usual = FIGURES.iter().filter_map(|name| Figure::parse(name).ok());
    let mut all: Vec<Figure> = usual.collect();
    for figure in more {
        if !all.contains(figure) {
            all.push(figure.clone());
        }
    }
    all
}

/// Returns the values of a result, in the order of [`figures`].
pub fn values(of: &Figures, figures: &[Figure]) -> Vec<Option<f64>> {
    figures.iter().map(|figure| figure.value(of)).collect()
}

/// Returns the places of the rows that no other row beats in all respects: at least as good in each, better in one.
///
/// `wishes` are columns, and whether more is better there. A row that lacks one of them is beaten by any.
pub fn front(rows: &[Vec<Option<f64>>], wishes: &[(usize, bool)]) -> Vec<usize> {
    let cost = |row: &Vec<Option<f64>>| -> Option<Vec<f64>> {
        let one =
            |&(column, more): &(usize, bool)| Some(if more { -row[column]? } else { row[column]? });
        wishes.iter().map(one).collect()
    };
    let costs: Vec<Option<Vec<f64>>> = rows.iter().map(cost).collect();
    let mut order: Vec<usize> = (0..rows.len())
        .filter(|&place| costs[place].is_some())
        .collect();
    // Whoever comes first is not beaten by who comes later, so only the front must be asked.
    let key = |place: usize| costs[place].as_deref().unwrap_or_default();
    order.sort_by(|&a, &b| {
        let pairs = key(a).iter().zip(key(b));
        let unequal = pairs.map(|(a, b)| a.total_cmp(b)).find(|it| it.is_ne());
        unequal.unwrap_or(a.cmp(&b))
    });
    let mut front: Vec<usize> = Vec::new();
    for place in order {
        let own = key(place);
        let beats = |other: &[f64]| other.iter().zip(own).all(|(a, b)| a <= b) && other != own;
        if !front.iter().any(|&other| beats(key(other))) {
            front.push(place);
        }
    }
    front.sort_unstable();
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::Rng;

    #[test]
    fn the_front_is_what_nothing_beats() {
        for seed in 0..100 {
            let mut random = rng::stream(seed, "front", 0);
            let mut one = || Some(f64::from(random.next_u32() % 20));
            let rows: Vec<Vec<Option<f64>>> = (0..60).map(|_| vec![one(), one()]).collect();
            // Less of the first, more of the second.
            let beats =
                |a: &[Option<f64>], b: &[Option<f64>]| a[0] <= b[0] && a[1] >= b[1] && a != b;
            let unbeaten = |place: &usize| !rows.iter().any(|other| beats(other, &rows[*place]));
            let expected: Vec<usize> = (0..rows.len()).filter(unbeaten).collect();
            assert_eq!(
                front(&rows, &[(0, false), (1, true)]),
                expected,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn rows_without_the_figure_are_not_on_the_front() {
        let rows = [vec![Some(1.0)], vec![None], vec![Some(1.0)]];
        assert_eq!(front(&rows, &[(0, false)]), [0, 2]);
    }
}
