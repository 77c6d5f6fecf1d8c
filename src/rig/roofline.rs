//! A rig's cost from specifications alone: bytes over bandwidth, operations over rate, typical efficiencies.
//!
//! This is how a rig is known that nobody has measured. Every term has the meaning it has in [`super::cost`]; the
//! efficiencies are round priors, so predictions made with them are estimates and say so.

use super::cost::Coefficients;
use crate::catalog::{Hardware, Model, Platform};

/// What share of its specification a machine reaches under an engine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Efficiency {
    /// Of bandwidth, when reading weights.
    pub weights: f64,
    /// Of bandwidth, when reading keys and values.
    pub kv: f64,
    /// Of the arithmetic rate, in large matrix products.
    pub compute: f64,
    /// Of the arithmetic rate, in attention.
    pub attention: f64,
    /// Seconds to launch a pass.
    pub launch_s: f64,
    /// Seconds to take in a request.
    pub request_s: f64,
    /// What a second row costs, as a share of reading the weights.
    pub second_row: f64,
}

/// Returns the typical efficiencies of an engine on a platform.
///
/// Priors of the middle of what is published: 0.65 to 0.87 of bandwidth for decode, 0.4 to 0.65 of the arithmetic rate
/// for prefill on CUDA, less on integrated graphics.
pub fn typical(engine: &str, platform: Platform) -> Efficiency {
    let batching = matches!(engine, "vllm" | "sglang" | "trt-llm");
    let (weights, compute) = match platform {
        Platform::Cuda => (0.78, 0.5),
        Platform::Metal => (0.75, 0.55),
        Platform::Rocm => (0.75, 0.35),
    };
    Efficiency {
        weights,
        kv: if batching { 0.8 } else { 0.4 },
        compute,
        attention: if batching { 0.4 } else { 0.15 },
        launch_s: match engine {
            // MLX builds its graph anew for every pass.
            "mlx-lm" | "lm-studio" => 1e-3,
            _ if batching => 4e-4,
            _ => 2e-4,
        },
        request_s: if batching { 3e-3 } else { 1e-2 },
        second_row: 0.1,
    }
}

/// Returns the bytes that every pass reads, those of all experts, and the share of experts that one token needs.
fn weight_bytes(model: &Model) -> (f64, f64, f64) {
    let expert_share = model
        .moe
        .as_ref()
        .map_or(0.0, |moe| f64::from(moe.per_token) / f64::from(moe.experts));
    let (one, all) = (
        model.read_per_token.value.as_f64(),
        model.read_all.value.as_f64(),
    );
    let experts = if expert_share > 0.0 {
        (all - one).max(0.0) / (1.0 - expert_share)
    } else {
        0.0
    };
    ((all - experts).max(0.0), experts, expert_share)
}

/// Returns what a step costs when the `share` of the layers that does not fit is read from host memory at this rate.
///
/// Those layers' weights are read there in every pass, and their keys and values too; arithmetic costs what it did,
/// because large batches are computed on the device.
pub fn spilled(
    fits: &Coefficients,
    model: &Model,
    share: f64,
    host_bytes_per_sec: f64,
) -> Coefficients {
    let (shared, experts, _) = weight_bytes(model);
    let part = |here: f64, bytes: f64| {
        here * (1.0 - share) + share * (bytes / host_bytes_per_sec).max(here)
    };
    let kv_bytes = model.kv_bytes_per_token.value.as_f64();
    Coefficients {
        weights_s: part(fits.weights_s, shared),
        experts_s: part(fits.experts_s, experts),
        kv_s: part(fits.kv_s, kv_bytes),
        kv_short_s: fits.kv_short_s.map(|short| part(short, kv_bytes)),
        ..*fits
    }
}

/// Returns the cost coefficients that specifications imply.
///
/// `devices` share every layer; a machine whose devices hold layers in turn computes as one. What devices take to talk to
/// each other is not in it.
pub fn coefficients(
    hardware: &Hardware,
    model: &Model,
    efficiency: &Efficiency,
    devices: u32,
) -> Coefficients {
    let devices = f64::from(devices);
    let bandwidth = hardware.bandwidth.value.0 * devices;
    let rate = hardware
        .compute
        .best(model.compute)
        .map_or(0.0, |(_, rate)| rate.value.0)
        * devices;
    // Without a published rate, assume the ratio of arithmetic to bandwidth that integrated graphics have.
    let rate = if rate > 0.0 { rate } else { bandwidth * 100.0 };
    let (shared, experts, expert_share) = weight_bytes(model);
    let shape = &model.shape.value;
    let reading = bandwidth * efficiency.weights;
    let weights_s = efficiency.launch_s + shared / reading;
    let token_s = 2.0 * model.active_params.value / (rate * efficiency.compute);
    let per_pair =
        4.0 * f64::from(shape.heads) * f64::from(shape.head_dim) * f64::from(shape.kv_layers);
    Coefficients {
        weights_s,
        experts_s: experts / reading,
        row_s: 2.0 * model.state_bytes_per_sequence.value.as_f64() / bandwidth + 5e-5,
        second_row_s: efficiency.second_row * weights_s,
        kv_s: model.kv_bytes_per_token.value.as_f64() / (bandwidth * efficiency.kv),
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s,
        // With this half-saturation a large pass hides reading the weights behind its arithmetic, and a small one its
        // arithmetic behind the reading.
        half_tokens: weights_s / token_s,
        attention_s: per_pair / (rate * efficiency.attention),
        request_s: efficiency.request_s,
        expert_share,
        overlap: 1.0,
        link_token_s: 0.0,
    }
}

/// Returns the coefficients of a model that was not measured, from those of one that was on the same rig.
///
/// Each measured term says what share of its specification the rig reaches; the same share is assumed for the term of
/// the other model. Terms that the measurements do not show keep their estimate.
pub fn transferred(
    here: &Coefficients,
    there: &Coefficients,
    measured: &Coefficients,
) -> Coefficients {
    let carry = |here: f64, there: f64, measured: f64| {
        if there > 0.0 && measured > 0.0 {
            here * measured / there
        } else {
            here
        }
    };
    Coefficients {
        weights_s: carry(here.weights_s, there.weights_s, measured.weights_s),
        experts_s: carry(here.experts_s, there.experts_s, measured.experts_s),
        row_s: carry(here.row_s, there.row_s, measured.row_s),
        second_row_s: carry(here.second_row_s, there.second_row_s, measured.second_row_s),
        kv_s: carry(here.kv_s, there.kv_s, measured.kv_s),
        kv_short_s: measured
            .kv_short_s
            .map(|short| carry(here.kv_s, there.kv_s, short)),
        short_tokens: measured.short_tokens,
        kv_imbalance: measured.kv_imbalance,
        token_s: carry(here.token_s, there.token_s, measured.token_s),
        half_tokens: measured.half_tokens,
        attention_s: carry(here.attention_s, there.attention_s, measured.attention_s),
        request_s: measured.request_s,
        expert_share: here.expert_share,
        overlap: measured.overlap,
        link_token_s: here.link_token_s,
    }
}
