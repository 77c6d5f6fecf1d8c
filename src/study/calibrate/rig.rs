//! The coefficients of one rig from measured rows: fitted, held out one by one, and checked against physics.
//!
//! What few measurements cannot show is kept near what other models and machines lead one to expect; the rest is the
//! measurements'. Values in, values out.

use super::passes::{self, Reading};
use super::{Errors, Freedom, Observation, Prior, Problem, interval_80};
use crate::catalog::efficiency::Efficiency;
use crate::catalog::{Hardware, Model};
use crate::measured::{Row, What};
use crate::rig::cost::{Coefficients, FEATURE_NAMES, FEATURES, INTAKE};
use crate::rig::roofline;
use std::collections::BTreeSet;

/// How much an expectation weighs against measurements: one that is off by a quarter counts as one wrong by a sixteenth
/// of that square.
const PRIOR_WEIGHT: f64 = 0.0625;
/// By how much less it weighs where contexts of several depths were measured: then a firm one hides how they slow answers
/// down, and nothing is extrapolated.
const MEASURED: f64 = 0.1;
/// The share of a measured time below which, there, it does not matter how far a coefficient is from what was expected.
const SMALL: f64 = 0.1;
/// The least of the deepest contexts in which both prompts and answers were measured, for that to be so.
const DEEP: u64 = 4000;
/// How firmly each coefficient is expected, in the order of [`FEATURE_NAMES`]: what a switch of kernels costs hardly is.
const FIRMNESS: [f64; FEATURES] = [1.0, 1.0, 0.3, 0.3, 0.3, 1.0, 0.3, 0.3, 0.3, 0.01, 0.0];
/// Timings of passes count by what they are: a decode rate, a batch and a closed loop as they stand.
const SLACK_S: f64 = 0.0;
/// Half-saturations that are tried beside the expected one, where enough prompts of several sizes were read.
const HALVES: [f64; 6] = [0.0, 16.0, 48.0, 96.0, 192.0, 384.0];
const SIZES_FOR_HALVES: usize = 4;
/// A row is worth a warning when what the others predict is off by this much, and by three times the usual error.
const FAR_OFF: f64 = 0.15;
const USUAL_TIMES: f64 = 3.0;
/// A row that beats the specification by more than this is not believed: specifications are rounded.
const FASTER: f64 = 0.95;
/// The least number of rows that a fit is made from.
pub const LEAST_ROWS: usize = 3;

/// Where a rig is to be fitted.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The machine.
    pub hardware: &'a Hardware,
    /// The engine's name.
    pub engine: &'a str,
    /// The model.
    pub model: &'a Model,
    /// What is expected before anything is measured.
    pub expected: &'a Efficiency,
    /// How many devices share each layer.
    pub devices: u32,
}

/// A row with what the fit without it says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Held {
    /// Its place among the rows that were given.
    pub row: usize,
    /// The time that the other rows predict.
    pub predicted_s: f64,
    /// Predicted / measured - 1.
    pub error: f64,
}

/// Something about a row that a user should look at.
#[derive(Clone, PartialEq, Debug)]
pub struct Warning {
    /// Its place among the rows that were given.
    pub row: usize,
    /// What is wrong with it.
    pub what: String,
}

/// What a fit found.
#[derive(Clone, PartialEq, Debug)]
pub struct Fit {
    /// The coefficients.
    pub coefficients: Coefficients,
    /// Every row that was used, held out in turn.
    pub held_out: Vec<Held>,
    /// The held-out errors, summed up.
    pub errors: Errors,
    /// The ratio of measured to predicted time that 80 % of further measurements fall in.
    pub interval: (f64, f64),
    /// Rows that physics or the other rows contradict.
    pub warnings: Vec<Warning>,
    /// Coefficients that no row shows, and that are as expected.
    pub priors: Vec<String>,
}

/// Why nothing was fitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooFew {
    /// There are too few rows.
    #[error("{0} usable measurements; a fit needs at least {LEAST_ROWS}")]
    Rows(usize),
    /// Nothing says how fast answers are written.
    #[error("no measurement of writing answers; a fit needs decode rates as well as prefill")]
    Decode,
}

/// Fits the coefficients of a rig to `rows`.
pub fn fit(setup: &Setup<'_>, rows: &[Row]) -> Result<Fit, TooFew> {
    let passes: Vec<_> = rows
        .iter()
        .map(|row| passes::of(row, Reading::usual(setup.engine)))
        .collect();
    let mut warnings: Vec<Warning> = Vec::new();
    let mut used = Vec::new();
    let ideal = bound(setup);
    for (index, row) in rows.iter().enumerate() {
        let least = floor_s(&ideal, &passes[index]);
        if row.seconds < FASTER * least {
            let what = format!(
                "{:.4} s for {}: the specification allows no less than {least:.4} s; left out",
                row.seconds,
                row.sizes()
            );
            warnings.push(Warning { row: index, what });
        } else {
            used.push(index);
        }
    }
    if used.len() < LEAST_ROWS {
        return Err(TooFew::Rows(used.len()));
    }
    if used
        .iter()
        .all(|&index| matches!(rows[index].what, What::Prefill | What::FirstToken))
    {
        return Err(TooFew::Decode);
    }
    let observations: Vec<Observation> = used
        .iter()
        .enumerate()
        .map(|(group, &index)| Observation {
            group,
            passes: passes[index].clone(),
            intake: taken_in(&rows[index]),
            measured_s: rows[index].seconds,
            weight: 1.0,
            overlap: 1.0,
        })
        .collect();
    let freedom = freedom(setup, rows, &used);
    let problem = Problem::new(&observations, freedom.clone());
    let coefficients = problem.fit();
    let shown = shown(&observations, &freedom, &coefficients);
    let held_out: Vec<Held> = problem
        .held_out()
        .into_iter()
        .zip(&used)
        .map(|(predicted_s, &row)| Held {
            row,
            predicted_s,
            error: predicted_s / rows[row].seconds - 1.0,
        })
        .collect();
    let sizes: Vec<f64> = held_out.iter().map(|held| held.error).collect();
    let errors = Errors::of(&sizes).ok_or(TooFew::Rows(0))?;
    warnings.extend(far_off(rows, &held_out, errors.median));
    warnings.sort_by_key(|warning| warning.row);
    let priors = (0..FEATURES).filter(|&at| !shown[at] && coefficients.linear()[at] > 0.0);
    Ok(Fit {
        coefficients,
        held_out,
        errors,
        interval: interval_80(&sizes),
        warnings,
        priors: priors.map(|at| FEATURE_NAMES[at].to_string()).collect(),
    })
}

/// Returns what a fit may choose: everything, no faster than the specification, near what is expected.
fn freedom(setup: &Setup<'_>, rows: &[Row], used: &[usize]) -> Freedom {
    let expected =
        roofline::coefficients(setup.hardware, setup.model, setup.expected, setup.devices);
    let linear = expected.linear();
    let ideal = bound(setup).linear();
    let mut least = [0.0; FEATURES];
    for at in [2, 4, 6] {
        least[at] = ideal[at];
    }
    let mut half_tokens = vec![expected.half_tokens];
    let mut sizes: Vec<u64> = used
        .iter()
        .filter(|&&index| {
            let reads = matches!(rows[index].what, What::Prefill | What::FirstToken);
            reads && rows[index].depth == 0
        })
        .map(|&index| rows[index].prompt)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.len() >= SIZES_FOR_HALVES {
        half_tokens.extend(HALVES);
    }
    let mut free = [true; FEATURES];
    free[1] = linear[1] > 0.0;
    // A kernel of its own for short rows is not looked for.
    free[5] = false;
    // What the engine is not expected to have at all is not looked for.
    free[9] = linear[9] > 0.0;
    free[INTAKE] = shows_intake(rows, used);
    let (share, small) = if measured_deep(rows, used) {
        (MEASURED, SMALL)
    } else {
        (1.0, 0.0)
    };
    Freedom {
        form: expected.form(),
        half_tokens,
        free,
        least,
        slack_s: SLACK_S,
        prior: Some(Prior {
            values: linear,
            weights: FIRMNESS.map(|firmness| firmness * PRIOR_WEIGHT * share),
            small,
        }),
    }
}

/// Returns whether prompts and answers were measured at depth, and answers several at a time.
fn measured_deep(rows: &[Row], used: &[usize]) -> bool {
    let used = || used.iter().map(|&index| &rows[index]);
    let decodes = || used().filter(|row| row.what == What::Decode);
    let deep = |row: &Row| row.depth >= DEEP;
    let reads = |row: &&Row| matches!(row.what, What::Prefill | What::FirstToken);
    decodes().any(deep)
        && decodes().any(|row| row.depth < DEEP / 2)
        && decodes().any(|row| row.sequences > 1)
        && used().filter(reads).any(deep)
}

/// Returns whether prompts of several sizes after cached contexts of several depths tell what taking in a token costs from
/// what reading it does.
fn shows_intake(rows: &[Row], used: &[usize]) -> bool {
    let after = used
        .iter()
        .map(|&index| &rows[index])
        .filter(|row| row.what == What::FirstToken && row.depth > 0);
    let (depths, prompts): (BTreeSet<u64>, BTreeSet<u64>) =
        after.map(|row| (row.depth, row.prompt)).unzip();
    depths.len() > 1 && prompts.len() > 1
}

/// Returns how many tokens a server took in before the clock saw the first of a call's passes.
///
/// Calls that are made together are taken in beside each other and beside passes, and benchmarks without a server take in
/// nothing.
fn taken_in(row: &Row) -> u64 {
    if row.what == What::FirstToken {
        row.depth + row.prompt
    } else {
        0
    }
}

/// Returns which coefficients the observations say anything about.
fn shown(
    observations: &[Observation],
    freedom: &Freedom,
    found: &Coefficients,
) -> [bool; FEATURES] {
    let mut shown = [false; FEATURES];
    let found = found.linear();
    for one in observations {
        let mut features = super::features(&one.passes, &freedom.form);
        features[INTAKE] = one.intake as f64;
        for (at, shown) in shown.iter_mut().enumerate() {
            let expected = freedom.prior.map_or(0.0, |prior| prior.values[at]);
            let value = expected.max(found[at]);
            *shown |= freedom.free[at] && features[at] * value > 1e-3 * one.measured_s;
        }
    }
    shown
}

/// Returns the coefficients of a machine that does exactly what its specification says, and nothing beside.
fn bound(setup: &Setup<'_>) -> Coefficients {
    let mut terms = [0.0; crate::catalog::efficiency::TERMS];
    for at in [3, 4, 6, 8, 10] {
        terms[at] = 1.0;
    }
    let ideal = Efficiency {
        terms,
        half_tokens: Some(0.0),
    };
    roofline::coefficients(setup.hardware, setup.model, &ideal, setup.devices)
}

/// Returns the least time that the specification allows: the longer of reading and computing.
fn floor_s(ideal: &Coefficients, passes: &[(crate::rig::cost::Graph, u64)]) -> f64 {
    let features = super::features(passes, &ideal.form());
    let linear = ideal.linear();
    let part =
        |columns: &[usize]| -> f64 { columns.iter().map(|&at| features[at] * linear[at]).sum() };
    // What a single row reads of experts is no estimate; what several touch is an upper one.
    let sparse = ideal.expert_share > 0.0;
    let reading = if sparse {
        let passes: f64 = features[0];
        part(&[0, 2, 4]) + passes * linear[1] * ideal.expert_share
    } else {
        part(&[0, 2, 4])
    };
    reading.max(part(&[6]))
}

fn far_off(rows: &[Row], held_out: &[Held], usual: f64) -> Vec<Warning> {
    let far = |held: &&Held| {
        let ratio = (1.0 + held.error).max(1.0 / (1.0 + held.error)) - 1.0;
        ratio > FAR_OFF && ratio > USUAL_TIMES * usual
    };
    held_out
        .iter()
        .filter(far)
        .map(|held| Warning {
            row: held.row,
            what: format!(
                "{:.4} s for {}: the other measurements make it {:.4} s ({:+.0} %)",
                rows[held.row].seconds,
                rows[held.row].sizes(),
                held.predicted_s,
                held.error * 100.0
            ),
        })
        .collect()
}
