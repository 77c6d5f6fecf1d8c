//! How values of given sessions depend on each other: what sessions share, what lasts, and what a recording's end cut off.

use super::preset::Alike;
use super::row::score;

/// The fewest sessions, or pairs, of which a correlation says something.
const FEWEST: usize = 12;
/// The share of variance between sessions, and the correlation that lasts, of the recorded sessions of Claude Code.
const USUAL: (f64, f64) = (0.13, 0.16);

/// One session as far as values in it depend on others.
#[derive(Default)]
pub(super) struct Own {
    pub(super) turns: f64,
    pub(super) first: f64,
    /// The logarithms of answers, with those of what is new in the next prompt where that goes on.
    pub(super) pairs: Vec<(f64, f64)>,
}

/// Returns how values of sessions depend on each other; where there are too few, as in recorded sessions of Claude Code.
pub(super) fn alike(said: &str, sessions: &[Own]) -> Alike {
    let pairs: Vec<(f64, f64)> = sessions.iter().flat_map(|own| own.pairs.clone()).collect();
    let (answers, new): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    let long: Vec<&Own> = sessions.iter().filter(|own| own.pairs.len() >= 4).collect();
    let of =
        |what: &dyn Fn(&Own) -> f64| -> Vec<f64> { long.iter().map(|own| what(own)).collect() };
    let turns = of(&|own| own.turns);
    let grown = of(&|own| mean(own.pairs.iter().map(|pair| pair.1)));
    let first = of(&|own| own.first);
    let (session, before) = persistence(sessions).unwrap_or(USUAL);
    // Together they explain less than all of how many requests there are.
    let part = |found: Option<f64>| found.unwrap_or(0.0).clamp(-0.65, 0.65);
    Alike {
        source: format!("{said}; `breaks` as in recorded sessions of Claude Code"),
        session,
        before,
        growth_and_output: correlation(&answers, &new).map_or(0.75, |found| found.clamp(0.0, 0.95)),
        growth_and_turns: part(correlation(&grown, &turns)),
        first_and_turns: part(correlation(&first, &turns)),
        breaks: 1.0,
    }
}

/// Returns by how much the scores of what is new in the first requests of sessions are higher than those of all.
pub(super) fn early(sessions: &[Own], requests: usize) -> Option<f64> {
    let places = sessions.iter().flat_map(|own| 0..own.pairs.len());
    let values = sessions.iter().flat_map(|own| &own.pairs);
    let scores = scores(&values.map(|pair| pair.1).collect::<Vec<_>>());
    let first: Vec<f64> = places
        .zip(scores)
        .filter_map(|(place, score)| (place < requests).then_some(score))
        .collect();
    (first.len() >= FEWEST).then(|| mean(first.into_iter()))
}

/// Returns lengths as likely as those of runs of which some were cut off before their end: those would have lasted like the
/// others that lasted as long (Kaplan and Meier). What was cut off longest has lasted as long as it was seen.
pub(super) fn lasting(whole: &[f64], cut: &[f64]) -> Vec<f64> {
    const PARTS: usize = 400;
    let mut all: Vec<(f64, bool)> = whole.iter().map(|&length| (length, true)).collect();
    all.extend(cut.iter().map(|&length| (length, false)));
    // Of equal ones, those that ended come first: the others lasted longer.
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let Some(&(longest, _)) = all.last().filter(|_| !whole.is_empty()) else {
        return Vec::new();
    };
    let mut found = Vec::with_capacity(PARTS);
    let mut lasts = 1.0;
    for (place, &(length, ended)) in all.iter().enumerate() {
        if ended {
            lasts *= 1.0 - 1.0 / (all.len() - place) as f64;
        }
        let upto = ((1.0 - lasts) * PARTS as f64).round() as usize;
        found.resize(upto.max(found.len()), length);
    }
    found.resize(PARTS, longest);
    found
}

/// Returns the share of the variance of answers that lies between sessions, and how far one answer is like the one before
/// it beside that.
fn persistence(sessions: &[Own]) -> Option<(f64, f64)> {
    let groups: Vec<Vec<f64>> = sessions
        .iter()
        .filter(|own| own.pairs.len() >= 4)
        .map(|own| own.pairs.iter().map(|pair| pair.0).collect())
        .collect();
    if groups.len() < FEWEST {
        return None;
    }
    let count: usize = groups.iter().map(Vec::len).sum();
    let (mut within, mut lagged, mut means) = (0.0, 0.0, Vec::new());
    for group in &groups {
        let middle = mean(group.iter().copied());
        within += group
            .iter()
            .map(|value| (value - middle).powi(2))
            .sum::<f64>();
        let pairs = group.windows(2);
        lagged += pairs
            .map(|pair| (pair[0] - middle) * (pair[1] - middle))
            .sum::<f64>();
        means.push((group.len() as f64, middle));
    }
    let within = within / (count - groups.len()) as f64;
    let all = means
        .iter()
        .map(|(count, middle)| count * middle)
        .sum::<f64>()
        / count as f64;
    let between = means
        .iter()
        .map(|(count, middle)| count * (middle - all).powi(2));
    // What the means of so few values differ by chance is no difference of sessions.
    let between = (between.sum::<f64>() - within * (groups.len() - 1) as f64) / count as f64;
    let between = between.max(0.0);
    let lagged = lagged / (count - groups.len()) as f64;
    let whole = (within + between).max(f64::MIN_POSITIVE);
    let lasting = (lagged / within.max(f64::MIN_POSITIVE)).clamp(0.0, 0.9);
    Some(((between / whole).min(0.9), lasting))
}

/// Returns the correlation of the normal scores of two lists.
fn correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    if one.len() < FEWEST {
        return None;
    }
    let (one, other) = (scores(one), scores(other));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let size = (product(&one, &one) * product(&other, &other)).sqrt();
    (size > 0.0).then(|| product(&one, &other) / size)
}

/// Returns the normal scores of the ranks of values, equal ones in their order.
fn scores(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut found = vec![0.0; values.len()];
    for (rank, place) in order.into_iter().enumerate() {
        found[place] = score((rank as f64 + 0.5) / values.len() as f64);
    }
    found
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_cut_off_last_like_those_that_were_not() {
        // The textbook case: of four, one ends at 1, one is cut at 2, one ends at 3 and one at 4. A quarter has ended at 1; of
        // the rest, half ends at 3 and half at 4.
        let found = lasting(&[1.0, 3.0, 4.0], &[2.0]);
        // In eighths: two end at 1, three at 3 and three at 4.
        let eighths = |length: f64| {
            let near = |found: &&f64| (**found - length).abs() < 1e-9;
            8 * found.iter().filter(near).count() / found.len()
        };
        assert_eq!([eighths(1.0), eighths(3.0), eighths(4.0)], [2, 3, 3]);
        assert!(lasting(&[], &[5.0]).is_empty());
    }

    #[test]
    fn what_sessions_share_is_told_from_what_lasts() {
        // Sessions that differ and whose values do not: all variance lies between them.
        let sessions: Vec<Own> = (0..20)
            .map(|at| Own {
                turns: f64::from(at),
                first: f64::from(-at),
                pairs: (0..10)
                    .map(|turn| (f64::from(at) + f64::from(turn % 2), 1.0))
                    .collect(),
            })
            .collect();
        let found = alike("a test", &sessions);
        assert!(found.session > 0.85, "{}", found.session);
        assert!(found.before.abs() < 1e-9);
        assert!((found.first_and_turns + 0.65).abs() < 1e-9);
    }
}
