//! Operating points that were measured and fitted: what a step costs there, and how well that is known.
//!
//! Plain values. A profile belongs to one hardware, engine and model; what its coefficients mean stands in
//! `docs/model.md`, what they were fitted to in `docs/accuracy.md`. The files are written by the command that fits
//! them, so nobody edits a coefficient by hand.

use std::collections::BTreeMap;

use super::suggest::suggest;
use super::{Unknown, What};
use crate::known::Trust;

/// Coefficients of the cost of one graph, in seconds per unit.
///
/// With B decode rows at contexts c, prompt chunks of n tokens at depth s, and T = B + sum of n:
///
/// `weights + experts S(T) + row B + second_row [B>1] + matrix [T>v] + kv K + token T^2/(T+h) + attention sum n (s + n/2) + link T`
///
/// where `S(T) = 1 - (1 - k/E)^T` and `K = sum c + imbalance (B max c - sum c)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Coefficients {
    /// Launching a graph and reading what every token needs, once.
    pub weights_s: f64,
    /// Reading all experts, once.
    pub experts_s: f64,
    /// A decode row: recurrent state, sampling.
    pub row_s: f64,
    /// What a second row costs beside the first: other kernels than for a single one.
    pub second_row_s: f64,
    /// Reading one token's keys and values for one row.
    pub kv_s: f64,
    /// The same for a single row of at most [`Coefficients::short_tokens`], where another kernel serves it.
    pub kv_short_s: Option<f64>,
    /// The context from which [`Coefficients::kv_short_s`] no longer holds.
    pub short_tokens: u64,
    /// How much of the longest row's excess every other row waits for: 0 none, 1 all.
    pub kv_imbalance: f64,
    /// Computing one token once the pass is large.
    pub token_s: f64,
    /// The number of tokens at which a pass computes at half its final rate.
    pub half_tokens: f64,
    /// One prompt token attending to one earlier token.
    pub attention_s: f64,
    /// Taking in a request: tokenizing, templates, HTTP.
    pub request_s: f64,
    /// What a pass of more than [`Coefficients::vector_tokens`] costs beside: its weights go through kernels for matrices.
    pub matrix_s: f64,
    /// The most tokens that kernels for single vectors still serve.
    pub vector_tokens: u64,
    /// The share of experts that one token uses: k/E; 0 for dense models.
    pub expert_share: f64,
    /// What a graph costs whose successor runs on the other half of the hardware meanwhile: 1 alone, 0.5 for two cards.
    pub overlap: f64,
    /// Passing on what was computed of one token to other devices; 0 in measurements, which hold it in other terms.
    pub link_token_s: f64,
    /// How long a call is under way before the engine knows of it, for each token of its prompt, cached or not: parsing,
    /// checking, hashing. Servers do it beside the engine's passes.
    pub intake_token_s: f64,
}

/// Which batch sizes the engine has captured as graphs; a decode batch is padded up to the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapturedGraphs {
    /// None: every batch has its own size.
    None,
    /// vLLM's default: 1, 2, 4, every 8 up to 256, every 16 up to 512.
    Vllm,
}

impl CapturedGraphs {
    /// Every rule.
    pub const ALL: [CapturedGraphs; 2] = [CapturedGraphs::None, CapturedGraphs::Vllm];

    /// Returns the word used in files.
    pub fn word(self) -> &'static str {
        match self {
            CapturedGraphs::None => "none",
            CapturedGraphs::Vllm => "vllm",
        }
    }

    /// Returns the sizes in ascending order.
    pub fn sizes(self) -> Vec<u64> {
        match self {
            CapturedGraphs::None => Vec::new(),
            CapturedGraphs::Vllm => {
                let every_8 = (8..256).step_by(8);
                let every_16 = (256..=512).step_by(16);
                [1, 2, 4]
                    .into_iter()
                    .chain(every_8)
                    .chain(every_16)
                    .collect()
            }
        }
    }
}

/// How far predictions were off on measurements that the fit had not seen.
#[derive(Clone, PartialEq, Debug)]
pub struct HeldOut {
    /// What was predicted, and what was left out to predict it.
    pub what: String,
    /// How many predictions.
    pub count: u32,
    /// The median of |predicted / measured - 1|.
    pub median: f64,
    /// Nine in ten are within this.
    pub p90: f64,
    /// The ratio of measured to predicted time that 80 % of predictions fall in.
    pub interval: (f64, f64),
    /// How the interval was obtained.
    pub interval_from: String,
}

/// Coefficients, with what they were fitted to and how well they did.
#[derive(Clone, PartialEq, Debug)]
pub struct Calibration {
    /// When they hold, in one line.
    pub what: String,
    /// The measurements they were fitted to, by name.
    pub calibrated_on: Vec<String>,
    /// The coefficients.
    pub coefficients: Coefficients,
    /// Coefficients that these measurements cannot show and that were set from elsewhere.
    pub priors: Vec<String>,
    /// The held-out error; nothing where there was nothing to hold out.
    pub error: Option<HeldOut>,
}

/// A calibrated operating point.
#[derive(Clone, PartialEq, Debug)]
pub struct RigProfile {
    /// The hardware's name.
    pub hardware: String,
    /// The engine's name.
    pub engine: String,
    /// The engine's version in the measurements.
    pub engine_version: String,
    /// The model's name, with its quantisation.
    pub model: String,
    /// How its engine pads batches.
    pub captured_graphs: CapturedGraphs,
    /// How it is known.
    pub trust: Trust,
    /// What holds unless a variant is named.
    pub default: Calibration,
    /// Other states of the same machine, by name.
    pub variants: BTreeMap<String, Calibration>,
    /// What a user should know before trusting it.
    pub notes: Vec<String>,
}

impl RigProfile {
    /// Returns the name under which the operating point is asked for.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.hardware, self.engine, self.model)
    }

    /// Returns the calibration of that variant, or the default one when none is named.
    pub fn calibration(&self, variant: Option<&str>) -> Result<&Calibration, Unknown> {
        let Some(name) = variant else {
            return Ok(&self.default);
        };
        self.variants.get(name).ok_or_else(|| Unknown {
            what: What::Variant,
            name: name.to_string(),
            suggestions: suggest(name, self.variants.keys().map(String::as_str)),
        })
    }
}
