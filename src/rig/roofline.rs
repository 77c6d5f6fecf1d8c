//! A rig's cost from specifications alone: bytes over bandwidth, operations over rate, typical efficiencies.
//!
//! This is how a rig is known that nobody has measured. Every term has the meaning it has in [`super::cost`]; the
//! efficiencies come from other models on the same machine, else from other machines, else they are round priors.
//! Predictions made so are estimates and say so.

use super::cost::{Coefficients, FEATURES, Form};
use crate::catalog::efficiency::{Efficiency, TERMS};
use crate::catalog::{Hardware, Model, Platform};

/// The most tokens that kernels for single vectors serve: llama.cpp has them up to 8 columns on CUDA and Vulkan, and
/// what is measured beyond shows the step.
pub const VECTOR_TOKENS: u64 = 8;

/// Returns the typical efficiencies of an engine on a platform, for machines and engines that nobody measured.
///
/// Priors of the middle of what is published: 0.65 to 0.87 of bandwidth for decode, 0.4 to 0.65 of the arithmetic rate
/// for prefill on CUDA, less on integrated graphics.
pub fn typical(engine: &str, platform: Platform) -> Efficiency {
    let batching = matches!(engine, "vllm" | "sglang" | "trt-llm");
    let (weights, compute) = match platform {
        Platform::Cuda => (0.78, 0.5),
        Platform::Metal => (0.75, 0.55),
        Platform::Rocm => (0.75, 0.35),
        // Threads share caches and the memory's channels with everything else that runs.
        Platform::Cpu => (0.6, 0.4),
    };
    let launch_s = match engine {
        // MLX builds its graph anew for every pass.
        "mlx-lm" | "lm-studio" => 1e-3,
        _ if batching => 4e-4,
        _ => 2e-4,
    };
    let kv = if batching { 0.8 } else { 0.4 };
    let attention = if batching { 0.4 } else { 0.15 };
    let request_s = if batching { 3e-3 } else { 1e-2 };
    // Engines that replay graphs dispatch experts on the device; others launch several kernels for each layer.
    let dispatch_s = if batching { 1e-5 } else { 4e-5 };
    let layer_s = if batching { 1e-5 } else { 2e-5 };
    // Kernels of serving engines keep their pace from one row to many, and split a single row's attention over the chip.
    let (kv_compute, matrix) = if batching { (0.0, 0.0) } else { (2.0, 0.3) };
    Efficiency {
        terms: [
            launch_s,
            layer_s,
            dispatch_s,
            1.0 / weights,
            1.0 / weights,
            5e-5,
            1.0,
            0.1 / weights,
            1.0 / kv,
            kv_compute,
            1.0 / compute,
            1.0 / attention,
            request_s,
            matrix,
            matrix,
        ],
        half_tokens: None,
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

/// Returns by how much each linear coefficient grows with each term: what a term stands for, on this machine and model.
///
/// A term in seconds counts launches; any other is how many times as long a read or a product takes as the
/// specification says.
pub fn basis(hardware: &Hardware, model: &Model, devices: u32) -> [[f64; FEATURES]; TERMS] {
    let devices = f64::from(devices);
    let bandwidth = hardware.bandwidth.value.0 * devices;
    let best = hardware.compute.best(model.compute);
    let rate = best.map_or(0.0, |(_, rate)| rate.value.0) * devices;
    // Without a published rate, assume the ratio of arithmetic to bandwidth that integrated graphics have.
    let rate = if rate > 0.0 { rate } else { bandwidth * 100.0 };
    let (shared, experts, expert_share) = weight_bytes(model);
    let shape = &model.shape.value;
    let layers = f64::from(shape.layers);
    let of_heads = 4.0 * f64::from(shape.heads) * f64::from(shape.head_dim);
    let per_pair = of_heads * f64::from(shape.kv_layers) / rate;
    let at = |column: usize, value: f64| {
        let mut row = [0.0; FEATURES];
        row[column] = value;
        row
    };
    [
        at(0, 1.0),
        at(0, layers),
        at(0, if expert_share > 0.0 { layers } else { 0.0 }),
        at(0, shared / bandwidth),
        at(1, experts / bandwidth),
        at(2, 1.0),
        at(
            2,
            2.0 * model.state_bytes_per_sequence.value.as_f64() / bandwidth,
        ),
        at(3, shared / bandwidth),
        at(4, model.kv_bytes_per_token.value.as_f64() / bandwidth),
        at(4, per_pair),
        at(6, 2.0 * model.prompt_params() / rate),
        at(7, per_pair),
        at(8, 1.0),
        at(9, shared / bandwidth),
        at(9, experts / bandwidth),
    ]
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
    let mut linear = [0.0; FEATURES];
    for (row, cost) in basis(hardware, model, devices).iter().zip(efficiency.terms) {
        for (sum, part) in linear.iter_mut().zip(row) {
            *sum += cost * part;
        }
    }
    let form = Form {
        // Without a measured one: a large pass hides reading the weights behind its arithmetic, and a small one its
        // arithmetic behind the reading.
        half_tokens: efficiency.half_tokens.unwrap_or(linear[0] / linear[6]),
        expert_share: weight_bytes(model).2,
        kv_imbalance: 0.0,
        short_tokens: 0,
        overlap: 1.0,
        vector_tokens: VECTOR_TOKENS,
    };
    Coefficients::from_linear(linear, form)
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
        // A profile without one has it in its other terms.
        matrix_s: if measured.matrix_s > 0.0 {
            carry(here.matrix_s, there.matrix_s, measured.matrix_s)
        } else {
            0.0
        },
        vector_tokens: measured.vector_tokens,
        expert_share: here.expert_share,
        overlap: measured.overlap,
        link_token_s: here.link_token_s,
        intake_token_s: measured.intake_token_s,
    }
}
