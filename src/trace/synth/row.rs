//! A quantity as its quantiles, as tables of statistics give them, and how values are drawn from it.
//!
//! Between two quantiles the logarithm of a value is linear in the normal score: a log-normal quantity needs two of them, and
//! any other is followed as closely as it was measured. A draw is a normal score, so draws can depend on each other.

use crate::rng::Stream;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// The normal score beyond which nothing is drawn: one value in thirty thousand.
const FAR: f64 = 4.0;
/// The number of steps in which a mean is integrated.
const GRID: u32 = 400;

/// A positive quantity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Told", into = "Told")]
pub struct Row {
    source: String,
    none: f64,
    /// Normal scores with the logarithms of values, both rising.
    knots: Vec<(f64, f64)>,
}

/// A row as a file says it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// Where the figures are from.
    source: String,
    /// Per cents, each with the value that as many are not above.
    at: Vec<(f64, f64)>,
    /// The mean: the tail above the quantile before the last is made as heavy as that takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    /// The share of values that are nothing at all, beside the others.
    #[serde(default)]
    none: f64,
}

impl TryFrom<Told> for Row {
    type Error = String;

    fn try_from(told: Told) -> Result<Row, String> {
        let rising = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        let sane = told.at.iter().all(|&(percent, value)| {
            (0.0..=100.0).contains(&percent) && value > 0.0 && value.is_finite()
        });
        if told.at.is_empty() || !sane || !told.at.windows(2).all(rising) {
            let what = "`at` needs pairs of a per cent and a positive value, both rising";
            return Err(format!("{what} (in the row of `{}`)", told.source));
        }
        if !(0.0..=1.0).contains(&told.none) {
            return Err(format!("`none` is a share, found {}", told.none));
        }
        let knots = told
            .at
            .iter()
            .map(|&(percent, value)| (score(percent / 100.0), libm::log(value)));
        let mut row = Row {
            source: told.source,
            none: told.none,
            knots: knots.collect(),
        };
        if let Some(mean) = told.mean {
            row.weigh(mean);
        }
        Ok(row)
    }
}

impl From<Row> for Told {
    fn from(row: Row) -> Told {
        let at = row
            .knots
            .iter()
            .map(|&(score, log)| (100.0 * below(score), libm::exp(log)));
        Told {
            source: row.source,
            at: at.collect(),
            mean: None,
            none: row.none,
        }
    }
}

impl Row {
    /// Returns the row of measured values; nothing where none of them is positive.
    pub(super) fn of(source: &str, mut values: Vec<f64>) -> Option<Row> {
        let all = values.len();
        values.retain(|&value| value > 0.0);
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let largest = *values.last()?;
        let mean = values.iter().sum::<f64>() / count as f64;
        let last = 100.0 * (1.0 - 0.5 / count as f64);
        let mut at: Vec<(f64, f64)> = Vec::new();
        for percent in [
            0.5, 1.0, 2.5, 5.0, 10.0, 17.5, 25.0, 37.5, 50.0, 62.5, 75.0, 82.5, 90.0, 95.0, 97.5,
            99.0, 99.5,
        ] {
            let rank = (percent / 100.0 * count as f64).ceil().max(1.0) as usize;
            if percent < last {
                at.push((percent, values[rank.min(count) - 1]));
            }
        }
        at.push((last.max(99.6), largest));
        let told = Told {
            source: source.to_string(),
            at,
            mean: Some(mean),
            none: (all - count) as f64 / all as f64,
        };
        Row::try_from(told).ok()
    }

    /// Returns the value at a normal score.
    pub(super) fn at(&self, score: f64) -> f64 {
        let above = self.knots.partition_point(|knot| knot.0 < score);
        let log = match (
            above.checked_sub(1).map(|below| self.knots[below]),
            self.knots.get(above),
        ) {
            (Some(low), Some(high)) => {
                low.1 + (high.1 - low.1) * (score - low.0) / (high.0 - low.0)
            }
            (Some(only), None) => only.1,
            (None, Some(only)) => only.1,
            (None, None) => 0.0,
        };
        libm::exp(log)
    }

    /// Returns the value that as many are not above as the share says.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        self.at(score(share))
    }

    /// Returns a value, or nothing for the share of nothing.
    pub(super) fn draw(&self, stream: &mut Stream) -> f64 {
        self.place(normal(stream))
    }

    /// Returns the value of a normal score, the share of nothing taken from the lowest ones.
    pub(super) fn place(&self, z: f64) -> f64 {
        if self.none <= 0.0 {
            return self.at(z);
        }
        let share = below(z);
        if share <= self.none {
            return 0.0;
        }
        self.quantile((share - self.none) / (1.0 - self.none))
    }

    /// Moves the last value so that the mean becomes `wanted`, as far as values keep rising.
    fn weigh(&mut self, wanted: f64) {
        let Some(&[(_, from), (_, told)]) = self.knots.last_chunk::<2>() else {
            return;
        };
        // A recorded largest value is one draw; the tail may well reach farther.
        let (mut low, mut high) = (from, told + 3.0);
        let last = self.knots.len() - 1;
        for _ in 0..60 {
            self.knots[last].1 = f64::midpoint(low, high);
            if self.mean() < wanted {
                low = self.knots[last].1;
            } else {
                high = self.knots[last].1;
            }
        }
    }

    fn mean(&self) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for step in 0..=GRID {
            let z = FAR * (2.0 * f64::from(step) / f64::from(GRID) - 1.0);
            let weight = libm::exp(-0.5 * z * z);
            sum += weight * self.at(z);
            weights += weight;
        }
        sum / weights
    }
}

/// Returns a normal score.
pub(super) fn normal(stream: &mut Stream) -> f64 {
    let z: f64 = StandardNormal.sample(stream);
    z.clamp(-FAR, FAR)
}

/// Normal scores that depend on the session and on the one before.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    session: f64,
    before: f64,
}

impl Walk {
    pub(super) fn new(stream: &mut Stream) -> Walk {
        Walk {
            session: normal(stream),
            before: normal(stream),
        }
    }

    /// Returns the score of the session.
    pub(super) fn session(&self) -> f64 {
        self.session
    }

    /// Returns the next score: `shared` is what sessions explain of the variance, `lasting` the correlation of one score with
    /// the next beside that.
    pub(super) fn next(&mut self, stream: &mut Stream, shared: f64, lasting: f64) -> f64 {
        self.before = lasting * self.before + (1.0 - lasting * lasting).sqrt() * normal(stream);
        shared.sqrt() * self.session + (1.0 - shared).sqrt() * self.before
    }
}

/// Returns the share of normal scores that are lower.
pub(super) fn below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Returns the normal score that a share of all is below.
fn score(share: f64) -> f64 {
    let (mut low, mut high) = (-FAR, FAR);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn row(at: &[(f64, f64)], mean: Option<f64>) -> Row {
        let told = Told {
            source: "a test".to_string(),
            at: at.to_vec(),
            mean,
            none: 0.0,
        };
        Row::try_from(told).unwrap()
    }

    #[test]
    fn draws_have_the_quantiles_and_the_mean_they_were_told() {
        let row = row(
            &[
                (10.0, 100.0),
                (50.0, 300.0),
                (90.0, 1_000.0),
                (99.99, 20_000.0),
            ],
            Some(520.0),
        );
        let mut stream = rng::stream(1, "test", 0);
        let mut drawn: Vec<f64> = (0..20_000).map(|_| row.draw(&mut stream)).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        for (found, expected) in [
            (drawn[2_000], 100.0),
            (drawn[10_000], 300.0),
            (drawn[18_000], 1_000.0),
            (mean, 520.0),
        ] {
            assert!(
                (found / expected - 1.0).abs() < 0.05,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn two_quantiles_make_a_log_normal() {
        // One standard deviation lies at 84.134 per cent.
        let row = row(&[(50.0, 1.0), (84.134_474_6, std::f64::consts::E)], None);
        assert!((row.at(0.5) - libm::exp(0.5)).abs() < 1e-6);
    }

    #[test]
    fn rows_that_fall_are_refused() {
        let told = Told {
            source: "x".to_string(),
            at: vec![(10.0, 5.0), (50.0, 4.0)],
            mean: None,
            none: 0.0,
        };
        assert!(Row::try_from(told).unwrap_err().contains("rising"));
    }
}
