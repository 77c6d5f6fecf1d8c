//! From measured times to the coefficients of a rig.
//!
//! An observation is what an engine did and how long it took. What it did are the passes that the engine model itself
//! makes for the same calls, so that a fit and a prediction can never disagree about the schedule. Coefficients are
//! fitted by non-negative least squares on relative errors, outliers losing weight; parameters that are not linear are
//! searched on a grid, anew for whatever is left out. Values in, values out: no files, no printing.

pub mod law;
pub mod nnls;
pub mod passes;
pub mod rig;
pub mod schedule;

use crate::rig::cost::{Coefficients, FEATURES, Form, Graph, INTAKE};

/// Something that was timed.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What it is left out together with.
    pub group: usize,
    /// The passes that the engine made, each with how often in a row.
    pub passes: Vec<(Graph, u64)>,
    /// Tokens of the prompts that were taken in one after the other before it began.
    pub intake: u64,
    /// How long it took.
    pub measured_s: f64,
    /// How much its squared relative error counts.
    pub weight: f64,
    /// What a pass costs that overlaps the next one, on this observation's hardware; see [`Form::overlap`].
    pub overlap: f64,
}

/// What a fit may choose, and what is given.
#[derive(Clone, PartialEq, Debug)]
pub struct Freedom {
    /// Parameters that are not linear; `half_tokens` is searched and `overlap` is each observation's own.
    pub form: Form,
    /// The values of [`Form::half_tokens`] that are tried.
    pub half_tokens: Vec<f64>,
    /// Which linear coefficients are fitted.
    pub free: [bool; FEATURES],
    /// The least value of each that is fitted (what physics allows), and the value of each that is not.
    pub least: [f64; FEATURES],
    /// Seconds that every measured time may be off by, beside its relative error.
    pub slack_s: f64,
    /// What is expected before anything is measured; nothing where measurements alone decide.
    pub prior: Option<Prior>,
}

/// Coefficients that are expected, and how much that counts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prior {
    /// The value of each linear coefficient; a free one without a positive value has no expectation.
    pub values: [f64; FEATURES],
    /// How many observations of weight 1 a coefficient that is off by its own size weighs.
    pub weights: [f64; FEATURES],
    /// The share of the quickest time that could be all a coefficient's, within which it does not matter by how many times
    /// it is off.
    pub small: f64,
}

/// Relative errors beyond this count by their size when grids are searched, not by its square.
const LARGE_ERROR: f64 = 0.03;
/// Residuals beyond this many robust standard deviations lose weight in a fit.
const OUTLIER: f64 = 1.5;
/// The standard deviation of a normal distribution whose median absolute deviation is 1.
const MAD: f64 = 1.4826;
const ROUNDS: usize = 30;

/// Observations with their features at every point of the grid, so that subsets are fitted without replaying anything.
#[derive(Clone, Debug)]
pub struct Problem {
    freedom: Freedom,
    /// By grid point, by observation.
    features: Vec<Vec<[f64; FEATURES]>>,
    measured_s: Vec<f64>,
    weights: Vec<f64>,
    groups: Vec<usize>,
    /// Whether prompts were read: what only decodes has errors of another size, and is judged apart.
    reads: Vec<bool>,
}

impl Problem {
    /// Returns the problem of fitting what `freedom` leaves open to `observations`.
    pub fn new(observations: &[Observation], freedom: Freedom) -> Problem {
        assert!(
            !freedom.half_tokens.is_empty(),
            "a grid has at least one point"
        );
        let at = |half_tokens: f64| -> Vec<[f64; FEATURES]> {
            observations
                .iter()
                .map(|one| {
                    let form = Form {
                        half_tokens,
                        overlap: one.overlap,
                        ..freedom.form
                    };
                    let mut features = features(&one.passes, &form);
                    features[INTAKE] = one.intake as f64;
                    features
                })
                .collect()
        };
        Problem {
            features: freedom.half_tokens.iter().map(|&half| at(half)).collect(),
            measured_s: observations.iter().map(|one| one.measured_s).collect(),
            weights: observations.iter().map(|one| one.weight).collect(),
            groups: observations.iter().map(|one| one.group).collect(),
            reads: observations.iter().map(reads).collect(),
            freedom,
        }
    }

    /// Returns the coefficients that fit best.
    pub fn fit(&self) -> Coefficients {
        self.fit_where(|_| true)
    }

    /// Returns the coefficients that fit best when a group is left out.
    pub fn fit_without(&self, group: usize) -> Coefficients {
        self.fit_where(|index| self.groups[index] != group)
    }

    /// Returns the predicted time of each observation, in the order in which they were given.
    ///
    /// # Panics
    /// When the coefficients' half-saturation is not on the grid.
    pub fn predict(&self, coefficients: &Coefficients) -> Vec<f64> {
        let grid = &self.freedom.half_tokens;
        let at = grid
            .iter()
            .position(|half| half.to_bits() == coefficients.half_tokens.to_bits())
            .expect("the coefficients were fitted on this grid");
        let linear = coefficients.linear();
        self.features[at]
            .iter()
            .map(|features| dot(features, &linear))
            .collect()
    }

    /// Returns the predicted time of each observation with its group left out of the fit.
    pub fn held_out(&self) -> Vec<f64> {
        let mut predicted = vec![0.0; self.groups.len()];
        let mut groups = self.groups.clone();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let all = self.predict(&self.fit_without(group));
            for (index, time) in all.into_iter().enumerate() {
                if self.groups[index] == group {
                    predicted[index] = time;
                }
            }
        }
        predicted
    }

    fn fit_where(&self, part: impl Fn(usize) -> bool) -> Coefficients {
        let rows: Vec<usize> = (0..self.measured_s.len()).filter(|&at| part(at)).collect();
        assert!(!rows.is_empty(), "a fit needs observations");
        let mut best: Option<(f64, Coefficients)> = None;
        for (at, &half_tokens) in self.freedom.half_tokens.iter().enumerate() {
            let linear = self.linear(at, &rows);
            let loss = self.loss(at, &rows, &linear);
            if best.is_none_or(|(least, _)| loss < least * (1.0 - 1e-6)) {
                let form = Form {
                    half_tokens,
                    ..self.freedom.form
                };
                best = Some((loss, Coefficients::from_linear(linear, form)));
            }
        }
        best.expect("a grid has at least one point").1
    }

    /// Returns the best linear coefficients at a point of the grid.
    fn linear(&self, at: usize, rows: &[usize]) -> [f64; FEATURES] {
        let free: Vec<usize> = (0..FEATURES)
            .filter(|&column| self.freedom.free[column])
            .collect();
        let features = &self.features[at];
        let base: Vec<f64> = rows
            .iter()
            .map(|&row| {
                let slack = self.measured_s[row] + self.freedom.slack_s;
                self.weights[row] / (slack * slack)
            })
            .collect();
        let left: Vec<f64> = rows
            .iter()
            .map(|&row| self.measured_s[row] - dot(&features[row], &self.freedom.least))
            .collect();
        let reach: Vec<f64> = free
            .iter()
            .map(|&column| {
                let alone = rows
                    .iter()
                    .map(|&row| self.measured_s[row] / features[row][column]);
                alone.fold(f64::INFINITY, f64::min)
            })
            .collect();
        let mut weights = base.clone();
        let mut found = vec![0.0; free.len()];
        for _ in 0..ROUNDS {
            let roots: Vec<f64> = weights.iter().map(|weight| weight.sqrt()).collect();
            let mut columns: Vec<Vec<f64>> = free
                .iter()
                .map(|&column| {
                    let weighted = rows.iter().zip(&roots);
                    weighted
                        .map(|(&row, root)| features[row][column] * root)
                        .collect()
                })
                .collect();
            let mut target: Vec<f64> = left.iter().zip(&roots).map(|(y, root)| y * root).collect();
            self.expect(&free, &reach, &found, &mut columns, &mut target);
            found = nnls::solve(&columns, &target);
            let residuals: Vec<f64> = rows
                .iter()
                .zip(left.iter().zip(&base))
                .map(|(&row, (y, weight))| {
                    let fitted: f64 = free
                        .iter()
                        .zip(&found)
                        .map(|(&column, value)| features[row][column] * value)
                        .sum();
                    (y - fitted).abs() * weight.sqrt()
                })
                .collect();
            let of_kind: Vec<bool> = rows.iter().map(|&row| self.reads[row]).collect();
            let trust = trust(&residuals, &of_kind, 0.0);
            for ((weight, base), trust) in weights.iter_mut().zip(&base).zip(trust) {
                *weight = base * trust;
            }
        }
        let mut linear = self.freedom.least;
        for (&column, value) in free.iter().zip(&found) {
            linear[column] += value;
        }
        linear
    }

    /// Adds one equation for each coefficient that has an expected value.
    ///
    /// What was `found` so far to be many times what was expected is off by as many times, however it is put: a
    /// specification says how fast a machine may be, and nothing of how slow. Nor does it matter by how many times a
    /// coefficient is off that is [`Prior::small`] beside its `reach`, which is what it would be if it were all of a measured time.
    fn expect(
        &self,
        free: &[usize],
        reach: &[f64],
        found: &[f64],
        columns: &mut [Vec<f64>],
        target: &mut Vec<f64>,
    ) {
        let Some(prior) = &self.freedom.prior else {
            return;
        };
        for (own, &column) in free.iter().enumerate() {
            let value = prior.values[column];
            if value <= 0.0 {
                continue;
            }
            let found = found[own] + self.freedom.least[column];
            let small = Some(prior.small * reach[own]).filter(|small| small.is_finite());
            let size = value.max(found).max(small.unwrap_or(0.0));
            let root = prior.weights[column].sqrt();
            for (other, equations) in columns.iter_mut().enumerate() {
                equations.push(if other == own { root / size } else { 0.0 });
            }
            target.push(root * (value - self.freedom.least[column]).max(0.0) / size);
        }
    }

    fn loss(&self, at: usize, rows: &[usize], linear: &[f64; FEATURES]) -> f64 {
        let one = |&row: &usize| {
            let error = (dot(&self.features[at][row], linear) / self.measured_s[row] - 1.0).abs();
            let huber = if error < LARGE_ERROR {
                error * error / 2.0
            } else {
                LARGE_ERROR * (error - LARGE_ERROR / 2.0)
            };
            huber * self.weights[row]
        };
        rows.iter().map(one).sum()
    }
}

fn reads(one: &Observation) -> bool {
    one.passes.iter().any(|(graph, _)| !graph.chunks.is_empty())
}

/// Returns how much each residual's row may count: less beyond [`OUTLIER`] robust standard deviations of its kind, or
/// beyond `least` where that is more.
fn trust(residuals: &[f64], kinds: &[bool], least: f64) -> Vec<f64> {
    let cut = [false, true].map(|kind| {
        let of_kind = residuals.iter().zip(kinds).filter(|(_, own)| **own == kind);
        let of_kind: Vec<f64> = of_kind.map(|(residual, _)| *residual).collect();
        (OUTLIER * MAD * median(&of_kind)).max(least) + 1e-9
    });
    let one =
        |(residual, kind): (&f64, &bool)| (cut[usize::from(*kind)] / residual.max(1e-12)).min(1.0);
    residuals.iter().zip(kinds).map(one).collect()
}

/// Returns what each linear coefficient is multiplied with over all passes.
pub fn features(passes: &[(Graph, u64)], form: &Form) -> [f64; FEATURES] {
    let mut total = [0.0; FEATURES];
    for (graph, times) in passes {
        let one = graph.features(*times, form);
        total
            .iter_mut()
            .zip(one)
            .for_each(|(sum, part)| *sum += part);
    }
    total
}

/// Returns how long the passes take with these coefficients.
pub fn predict(passes: &[(Graph, u64)], coefficients: &Coefficients) -> f64 {
    dot(
        &features(passes, &coefficients.form()),
        &coefficients.linear(),
    )
}

/// Returns the coefficients that lie between two states of a machine, each this share of the way.
///
/// Shares are given by linear coefficient; the form is that of `from`.
pub fn between(from: &Coefficients, to: &Coefficients, shares: &[f64; FEATURES]) -> Coefficients {
    let (a, b) = (from.linear(), to.linear());
    let linear = std::array::from_fn(|at| a[at] * (1.0 - shares[at]) + b[at] * shares[at]);
    Coefficients::from_linear(linear, from.form())
}

/// How far predictions are off.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Errors {
    /// How many predictions.
    pub count: usize,
    /// The median of |predicted / measured - 1|.
    pub median: f64,
    /// Nine in ten are within this (linear between ranks).
    pub p90: f64,
    /// The largest.
    pub max: f64,
}

impl Errors {
    /// Returns the summary of errors given as predicted / measured - 1; nothing of none.
    pub fn of(errors: &[f64]) -> Option<Errors> {
        let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        Some(Errors {
            count: sizes.len(),
            median: quantile(&sizes, 0.5)?,
            p90: quantile(&sizes, 0.9)?,
            max: quantile(&sizes, 1.0)?,
        })
    }
}

/// Returns the ratio of measured to predicted time within which a new observation lies with a chance of 80 %, given the
/// errors (predicted / measured - 1) of others like it.
///
/// The interval is symmetric as a ratio and reaches out to rank 0.8 (n + 1) of n errors by size, linear between ranks:
/// a further one lies within with that chance whatever their distribution. It is the largest when n is below 4.
pub fn interval_80(errors: &[f64]) -> (f64, f64) {
    let mut ratios: Vec<f64> = errors
        .iter()
        .map(|error| (1.0 + error).max(1.0 / (1.0 + error)))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let Some(last) = ratios.len().checked_sub(1) else {
        return (1.0, 1.0);
    };
    let at = (0.8 * (ratios.len() + 1) as f64 - 1.0).clamp(0.0, last as f64);
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    let reach = ratios[low] + (ratios[high] - ratios[low]) * (at - at.floor());
    (1.0 / reach, reach)
}

/// Returns how many of these errors lie within the interval that all the others give: 80 % are promised.
pub fn covered(errors: &[f64]) -> usize {
    let inside = |&index: &usize| {
        let mut others = errors.to_vec();
        let ratio = 1.0 / (1.0 + others.remove(index));
        let (low, high) = interval_80(&others);
        (low..=high).contains(&ratio)
    };
    (0..errors.len()).filter(inside).count()
}

/// Returns the quantile of values in ascending order, linear between ranks; nothing of none.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = share * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * (at - at.floor()))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5).unwrap_or(0.0)
}

fn dot(a: &[f64; FEATURES], b: &[f64; FEATURES]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests;
