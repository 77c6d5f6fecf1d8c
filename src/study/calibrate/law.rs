//! Efficiencies of machines under engines, learned from measurements of many models.
//!
//! Each measurement is a sum of the terms of [`crate::rig::roofline::basis`], each times an efficiency. A machine and
//! engine share most efficiencies over all models; how fast weights are read and multiplied also depends on how they are
//! stored, and on whether there are experts. What a machine's own measurements do not show stays near what the same
//! engine shows on other machines, and that near typical values. Values in, values out.

use super::nnls;
use crate::catalog::efficiency::{Efficiency, TERMS, WeightPath};

/// The terms that differ by path: reading dense weights, reading experts, multiplying.
const DENSE: usize = 3;
const EXPERTS: usize = 4;
const TOKEN: usize = 10;
const PATHS: usize = WeightPath::ALL.len();
/// Columns: the shared terms, then dense and experts by path, then multiplying by path and kind.
const COLUMNS: usize = TERMS + 4 * PATHS;
const ROUNDS: usize = 12;
/// Errors within this never lose weight: laws that hold for all models are no closer than that.
const LEAST_CUT: f64 = 0.05;

/// A measurement, as a sum of terms.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// The path of the model's weights.
    pub path: WeightPath,
    /// Whether the model has experts.
    pub sparse: bool,
    /// Whether prompts were read; what only decodes is judged apart.
    pub reads: bool,
    /// What it takes when every efficiency is 1, by term, for each half-saturation that is tried.
    pub terms: Vec<[f64; TERMS]>,
    /// How long it took.
    pub measured_s: f64,
    /// How much it counts.
    pub weight: f64,
}

/// The efficiencies of one machine and engine, for every path and kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Law {
    columns: Vec<f64>,
    /// By kind: the half-saturation that was chosen, by its place among those tried.
    pub half: [usize; 2],
}

impl Law {
    /// Returns the law that says the same of every path: `dense` and `sparse` models' efficiencies.
    pub fn of(dense: &Efficiency, sparse: &Efficiency, half: [usize; 2]) -> Law {
        let mut columns = vec![0.0; COLUMNS];
        columns[..TERMS].copy_from_slice(&sparse.terms);
        for path in 0..PATHS {
            columns[TERMS + path] = dense.terms[DENSE];
            columns[TERMS + PATHS + path] = sparse.terms[EXPERTS];
            columns[TERMS + 2 * PATHS + 2 * path] = dense.terms[TOKEN];
            columns[TERMS + 2 * PATHS + 2 * path + 1] = sparse.terms[TOKEN];
        }
        for shared in [DENSE, EXPERTS, TOKEN] {
            columns[shared] = 0.0;
        }
        Law { columns, half }
    }

    /// Returns the efficiencies of one path and kind; `halves` are the half-saturations that were tried.
    pub fn efficiency(&self, path: WeightPath, sparse: bool, halves: &[f64]) -> Efficiency {
        let mut terms = [0.0; TERMS];
        terms.copy_from_slice(&self.columns[..TERMS]);
        for (term, column) in by_path(path, sparse) {
            terms[term] = self.columns[column];
        }
        Efficiency {
            terms,
            half_tokens: Some(halves[self.half[usize::from(sparse)]]),
        }
    }

    /// Returns how long a sample takes by this law.
    pub fn predict(&self, sample: &Sample) -> f64 {
        let row = columns_of(sample, self.half[usize::from(sample.sparse)]);
        row.iter().zip(&self.columns).map(|(a, b)| a * b).sum()
    }
}

/// Returns the column that stands for each term that differs by path.
fn by_path(path: WeightPath, sparse: bool) -> [(usize, usize); 3] {
    let path = path as usize;
    [
        (DENSE, TERMS + path),
        (EXPERTS, TERMS + PATHS + path),
        (TOKEN, TERMS + 2 * PATHS + 2 * path + usize::from(sparse)),
    ]
}

/// Returns how firmly a column is expected to be what it is elsewhere: shares of a specification are much alike, what
/// software adds to a pass is not, and what a switch of kernels costs differs by tens.
fn firmness(column: usize) -> f64 {
    const SHARED: [f64; TERMS] = [
        0.3, 0.3, 0.3, 1.0, 1.0, 0.3, 0.3, 0.3, 1.0, 0.003, 0.3, 0.3, 0.03, 0.01, 0.01,
    ];
    match column {
        shared if shared < TERMS => SHARED[shared],
        weights if weights < TERMS + 2 * PATHS => 1.0,
        _ => 0.3,
    }
}

/// Returns the least a column can be: nobody reads dense weights faster than the specification. What is known less well
/// has no such bound: experts overlap in a batch, keys and values may be kept in 8 bits, formats in a wider rate's name.
fn floor(column: usize) -> f64 {
    if (TERMS..TERMS + PATHS).contains(&column) {
        1.0
    } else {
        0.0
    }
}

fn columns_of(sample: &Sample, half: usize) -> [f64; COLUMNS] {
    let terms = &sample.terms[half];
    let mut row = [0.0; COLUMNS];
    row[..TERMS].copy_from_slice(terms);
    for (term, column) in by_path(sample.path, sample.sparse) {
        row[term] = 0.0;
        row[column] = terms[term];
    }
    row
}

/// Fits a law to samples; what they leave open stays near `prior`, which weighs as much as `weight` samples that are all off.
///
/// First each kind of work is fitted as a whole: a machine that multiplies fast in one format is expected to in the
/// others, which nobody may have measured there.
pub fn fit(samples: &[&Sample], prior: &Law, weight: f64) -> Law {
    let half = prior.half;
    let rows: Vec<[f64; COLUMNS]> = samples
        .iter()
        .map(|sample| columns_of(sample, half[usize::from(sample.sparse)]))
        .collect();
    let whole = by_work(samples, &rows, prior, weight);
    Law {
        columns: solve(samples, &rows, &whole, weight),
        half,
    }
}

/// The kinds of work whose columns are alike on one machine.
const WORKS: usize = 5;

/// Returns which kind of work a column stands for: launching, moving bytes, multiplying, attending, or switching kernels.
fn work(column: usize) -> usize {
    const SHARED: [usize; TERMS] = [0, 0, 0, 1, 1, 0, 1, 1, 1, 3, 2, 3, 0, 4, 4];
    match column {
        shared if shared < TERMS => SHARED[shared],
        weights if weights < TERMS + 2 * PATHS => 1,
        _ => 2,
    }
}

/// Returns `prior` with each kind of work made faster or slower as a whole, as the samples have it.
fn by_work(samples: &[&Sample], rows: &[[f64; COLUMNS]], prior: &Law, weight: f64) -> Law {
    let together: Vec<[f64; WORKS]> = rows
        .iter()
        .map(|row| {
            let mut sums = [0.0; WORKS];
            for (column, value) in row.iter().enumerate() {
                sums[work(column)] += value * prior.columns[column];
            }
            sums
        })
        .collect();
    let factors = factors(samples, &together, weight);
    let mut law = prior.clone();
    for (column, value) in law.columns.iter_mut().enumerate() {
        // Nothing that was above its floor is expected below it.
        let floor = floor(column).min(*value);
        *value = (*value * factors[work(column)]).max(floor);
    }
    law
}

/// No kind of work is taken to be faster than this share of what is expected: what samples hardly show would vanish.
const LEAST_FACTOR: f64 = 0.1;

/// Solves for the factors of each kind of work, expected to be 1.
fn factors(samples: &[&Sample], rows: &[[f64; WORKS]], weight: f64) -> [f64; WORKS] {
    let found = robust(samples, rows, |relative, weights| {
        let (mut gram, mut right) = (vec![vec![0.0; WORKS]; WORKS], vec![weight; WORKS]);
        for (at, row) in gram.iter_mut().enumerate() {
            row[at] = weight;
        }
        for (row, counts) in relative.iter().zip(weights) {
            for a in 0..WORKS {
                right[a] += counts * row[a];
                for b in 0..WORKS {
                    gram[a][b] += counts * row[a] * row[b];
                }
            }
        }
        nonnegative(&gram, &right)
    });
    std::array::from_fn(|work| found[work].max(LEAST_FACTOR))
}

/// Solves again and again, each time with less weight on what the solution before was far from.
///
/// `solve` gets what every sample's parts are of its time, and how much it counts.
fn robust<const N: usize>(
    samples: &[&Sample],
    rows: &[[f64; N]],
    solve: impl Fn(&[[f64; N]], &[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let relative: Vec<[f64; N]> = samples
        .iter()
        .zip(rows)
        .map(|(sample, row)| row.map(|value| value / sample.measured_s))
        .collect();
    let kinds: Vec<bool> = samples.iter().map(|sample| sample.reads).collect();
    let mut weights: Vec<f64> = samples.iter().map(|sample| sample.weight).collect();
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        found = solve(&relative, &weights);
        let residuals: Vec<f64> = relative
            .iter()
            .map(|row| {
                let fitted: f64 = row.iter().zip(&found).map(|(a, b)| a * b).sum();
                (fitted - 1.0).abs()
            })
            .collect();
        let trusted = super::trust(&residuals, &kinds, LEAST_CUT);
        let both = samples.iter().zip(trusted);
        weights = both.map(|(sample, trust)| sample.weight * trust).collect();
    }
    found
}

/// Returns the half-saturations, one for dense and one for sparse models, with which a fit is closest.
pub fn choose_half(samples: &[&Sample], prior: &Law, weight: f64) -> [usize; 2] {
    let mut half = prior.half;
    let tried = samples.first().map_or(1, |sample| sample.terms.len());
    for kind in 0..2 {
        if !samples
            .iter()
            .any(|sample| usize::from(sample.sparse) == kind)
        {
            continue;
        }
        let loss = |choice: usize| {
            let mut with = half;
            with[kind] = choice;
            let start = Law {
                half: with,
                ..prior.clone()
            };
            let law = fit(samples, &start, weight);
            let error = |sample: &&&Sample| {
                let error = law.predict(sample) / sample.measured_s - 1.0;
                sample.weight * error.abs().min(1.0)
            };
            samples.iter().map(|sample| error(&sample)).sum::<f64>()
        };
        let best = (0..tried).map(|choice| (loss(choice), choice));
        half[kind] = best
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(half[kind], |(_, choice)| choice);
    }
    half
}

/// Solves by robust non-negative least squares on relative errors.
fn solve(samples: &[&Sample], rows: &[[f64; COLUMNS]], prior: &Law, weight: f64) -> Vec<f64> {
    let ridge = weight.sqrt();
    robust(samples, rows, |relative, weights| {
        let (mut gram, mut right) = (vec![vec![0.0; COLUMNS]; COLUMNS], vec![0.0; COLUMNS]);
        for (row, weight) in relative.iter().zip(weights) {
            // What is left beyond the floors.
            let left: f64 = 1.0 - (0..COLUMNS).map(|at| floor(at) * row[at]).sum::<f64>();
            // What an engine is not expected to have at all is not looked for.
            let filled: Vec<usize> = (0..COLUMNS)
                .filter(|&at| row[at] != 0.0 && prior.columns[at] > 0.0)
                .collect();
            for &a in &filled {
                right[a] += weight * row[a] * left;
                for &b in &filled {
                    gram[a][b] += weight * row[a] * row[b];
                }
            }
        }
        for (at, &expected) in prior.columns.iter().enumerate() {
            let scale = if expected > 0.0 {
                ridge * firmness(at).sqrt() / expected
            } else {
                0.0
            };
            gram[at][at] += scale * scale;
            right[at] += scale * scale * (expected - floor(at)).max(0.0);
        }
        let mut found = nonnegative(&gram, &right);
        for (at, value) in found.iter_mut().enumerate() {
            *value += floor(at);
        }
        found
    })
}

/// Solves the normal equations with x >= 0, by way of their Cholesky factor.
fn nonnegative(gram: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let used: Vec<usize> = (0..gram.len()).filter(|&at| gram[at][at] > 0.0).collect();
    let scale: Vec<f64> = used.iter().map(|&at| gram[at][at].sqrt()).collect();
    let n = used.len();
    let mut lower = vec![vec![0.0; n]; n];
    let mut target = vec![0.0; n];
    for i in 0..n {
        for j in 0..=i {
            let mut sum = gram[used[i]][used[j]] / (scale[i] * scale[j]);
            if i == j {
                // Columns that say the same must not divide by nothing.
                sum += 1e-9;
            }
            for (a, b) in lower[i].iter().zip(&lower[j]).take(j) {
                sum -= a * b;
            }
            lower[i][j] = if i == j {
                sum.max(1e-12).sqrt()
            } else {
                sum / lower[j][j]
            };
        }
        let mut sum = right[used[i]] / scale[i];
        for (factor, known) in lower[i].iter().zip(&target).take(i) {
            sum -= factor * known;
        }
        target[i] = sum / lower[i][i];
    }
    // Columns of the transposed factor.
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|column| (0..n).map(|row| lower[column][row]).collect())
        .collect();
    let solved = nnls::solve(&columns, &target);
    let mut all = vec![0.0; gram.len()];
    for ((&at, value), scale) in used.iter().zip(solved).zip(scale) {
        all[at] = value / scale;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pass that takes `dense` seconds by the specification to read weights and does nothing else.
    fn reading(path: WeightPath, dense: f64, measured_s: f64) -> Sample {
        let mut terms = [0.0; TERMS];
        terms[DENSE] = dense;
        Sample {
            path,
            sparse: false,
            reads: false,
            terms: vec![terms],
            measured_s,
            weight: 1.0,
        }
    }

    #[test]
    fn a_format_nobody_measured_follows_those_that_were() {
        let alike = Efficiency {
            terms: [1.2; TERMS],
            half_tokens: None,
        };
        let prior = Law::of(&alike, &alike, [0, 0]);
        // Everything in 8 bits takes twice as long as elsewhere.
        let seen: Vec<Sample> = (1..40)
            .map(|size| f64::from(size) * 1e-3)
            .map(|secs| reading(WeightPath::Eight, secs, 2.4 * secs))
            .collect();
        let seen: Vec<&Sample> = seen.iter().collect();
        let law = fit(&seen, &prior, 0.3);
        let four = law.predict(&reading(WeightPath::Four, 1.0, 1.0));
        assert!((four / 2.4 - 1.0).abs() < 0.05, "{four}");
        // What nothing was seen of stays as it was elsewhere.
        let mut attends = reading(WeightPath::Four, 0.0, 1.0);
        attends.terms[0][11] = 1.0;
        assert!((law.predict(&attends) - 1.2).abs() < 1e-6);
    }
}
