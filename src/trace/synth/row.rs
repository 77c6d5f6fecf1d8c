//! A quantity as its quantiles, as tables of statistics give them, and how values are drawn from it.
//!
//! Between two quantiles the logarithm of a value is linear in the normal score: a log-normal quantity needs two of them, and
//! any other is followed as closely as it was measured. A draw is a normal score, so draws can depend on each other.

use crate::rng::Stream;
use rand::RngExt;
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

    /// Returns the mean of what is drawn.
    pub(super) fn mean(&self) -> f64 {
        let (sum, weights) = integrate(|z| self.at(z));
        sum / weights
    }

    /// Returns the mean score of what is drawn, each weighted by its value: where a few long sessions make most of the
    /// requests, it says how long.
    pub(super) fn mean_score(&self) -> f64 {
        let (sum, _) = integrate(|z| z * self.at(z));
        let (weights, _) = integrate(|z| self.at(z));
        sum / weights
    }
}

/// Returns the sum of a function of normal scores, and that of their weights.
fn integrate(of: impl Fn(f64) -> f64) -> (f64, f64) {
    let steps = (0..=GRID).map(|step| {
        let z = FAR * (2.0 * f64::from(step) / f64::from(GRID) - 1.0);
        (z, libm::exp(-0.5 * z * z))
    });
    steps.fold((0.0, 0.0), |(sum, weights), (z, weight)| {
        (sum + weight * of(z), weights + weight)
    })
}

/// Returns a normal score.
pub(super) fn normal(stream: &mut Stream) -> f64 {
    let z: f64 = StandardNormal.sample(stream);
    z.clamp(-FAR, FAR)
}

/// What a session is like as a whole, each as a share of all sessions that are lower.
///
/// Sessions are few and their sizes differ by orders of magnitude, so independent draws would leave any hundred of them unlike
/// the next hundred. These shares are spread evenly instead: each is a sequence of equal steps round a circle, begun anywhere,
/// with steps (fractions of square roots of primes) that keep the sequences unlike each other. So the first sessions of
/// any number are already a fair sample, and each still depends on the seed and its number alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) kind: f64,
    pub(super) turns: f64,
    pub(super) first: f64,
    pub(super) output: f64,
    pub(super) growth: f64,
    pub(super) wait: f64,
    pub(super) full: f64,
    pub(super) large: f64,
    pub(super) agents: f64,
    pub(super) breaks: f64,
}

impl Session {
    /// Returns what the session of a number is like; `stream` is that of the seed, the same for all of them.
    pub(super) fn new(stream: &mut Stream, index: u64) -> Session {
        let mut next = |prime: f64| {
            let step = (prime.sqrt().fract() * 2f64.powi(64)) as u64;
            let begin: u64 = stream.random();
            let at = begin.wrapping_add(step.wrapping_mul(index.wrapping_add(1)));
            // Half of the smallest step away from both ends.
            ((at >> 12) as f64 + 0.5) / 2f64.powi(52)
        };
        Session {
            kind: next(2.0),
            turns: next(3.0),
            first: next(5.0),
            output: next(7.0),
            growth: next(11.0),
            wait: next(13.0),
            full: next(17.0),
            large: next(19.0),
            agents: next(23.0),
            breaks: next(29.0),
        }
    }
}

/// Normal scores that depend on the session and on the one before.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    session: f64,
    before: f64,
}

impl Walk {
    /// Begins with the session's share of all sessions.
    pub(super) fn new(session: f64, stream: &mut Stream) -> Walk {
        Walk {
            session: score(session),
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
pub(super) fn score(share: f64) -> f64 {
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
