//! Does it fit? How much of a machine's memory is left for keys, values and recurrent states.
//!
//! Each engine sizes its cache by a rule of its own. What does not fit is refused here as it is there; figures that no
//! document gives are estimates and named as such.

use crate::catalog::{Hardware, Model};

/// Memory of the CUDA context and libraries on each device: an estimate.
const NON_TORCH_BYTES: u64 = 1 << 30;
/// Bytes of activations for each token and unit of width in a pass: an estimate.
const ACTIVATION_BYTES: u64 = 24;
/// Compute buffers of llama.cpp at its usual micro-batch: an estimate.
const COMPUTE_BUFFER_BYTES: u64 = 1 << 30;
/// The context below which llama.cpp rather leaves layers in host memory (`--fit-ctx`).
const LEAST_CONTEXT: u64 = 4096;
/// The alignment of vLLM's attention kernels, in tokens.
const KERNEL_ALIGNMENT: u64 = 16;

/// Returns the bytes that vLLM has for its cache over all devices: its share of memory less weights and activations.
pub fn vllm_cache(
    hardware: &Hardware,
    model: &Model,
    utilization: f64,
    devices: u64,
    batched_tokens: u64,
) -> u64 {
    let share = (hardware.memory.value.as_f64() * utilization) as u64 * devices;
    let activations = batched_tokens * u64::from(model.shape.value.hidden) * ACTIVATION_BYTES;
    share.saturating_sub(model.weights.value.0 + NON_TORCH_BYTES * devices + activations)
}

/// Returns the tokens of a vLLM block: for models with recurrent layers as many as fill the page of one layer's state.
pub fn vllm_block(model: &Model, asked: u64, kv_share: f64) -> u64 {
    let Some(page) = &model.state_page_bytes else {
        return asked;
    };
    let per_token = (model.kv_bytes_per_layer().as_f64() * kv_share) as u64;
    let aligned = KERNEL_ALIGNMENT * page.value.0.div_ceil(KERNEL_ALIGNMENT * per_token.max(1));
    aligned.max(asked)
}

/// Returns the blocks that one recurrent state occupies: layers come in groups as large as that of the growing ones.
pub fn vllm_state_blocks(model: &Model) -> u64 {
    let shape = &model.shape.value;
    u64::from(shape.state_layers.div_ceil(shape.kv_layers.max(1)))
}

/// What of a model llama.cpp keeps on the device: layers with their keys, values and states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Layers on the device.
    pub layers: u64,
    /// Layers of the model.
    pub of: u64,
    /// Tokens of context; 0 when it does not fit.
    pub context: u64,
}

impl Placed {
    /// Returns the share of the layers that stays in host memory.
    pub fn spilled(&self) -> f64 {
        (self.of - self.layers) as f64 / self.of as f64
    }
}

/// Places a model as llama.cpp does.
///
/// `layers` are asked for, or as many as fit; `context` is asked for, or as much as fits of `most`. To fit, the context
/// shrinks first, down to 4096 tokens; then layers stay in host memory, which is taken to be large enough. Where the
/// device and the host share one memory there is nothing to spill to.
pub fn llama_placed(
    hardware: &Hardware,
    model: &Model,
    layers: Option<u64>,
    context: Option<u64>,
    most: u64,
    parallel: u64,
) -> Placed {
    let of = u64::from(model.shape.value.layers.max(1));
    let (weights, kv) = (model.weights.value.0, model.kv_bytes_per_token.value.0);
    let states = model.state_bytes_per_sequence.value.0 * parallel;
    let usable = hardware
        .usable_total()
        .0
        .saturating_sub(COMPUTE_BUFFER_BYTES);
    // Everything of a layer lies where the layer does, so `on` of them take that part of everything.
    let fits = |on: u64| match (usable * of).checked_div(on) {
        Some(whole) => whole.saturating_sub(weights + states) / kv.max(1),
        None => u64::MAX,
    };
    let asked_layers = layers.map_or(of, |layers| layers.min(of));
    let at_least = context.unwrap_or(most.min(LEAST_CONTEXT));
    if layers.is_none() && !hardware.unified_memory && fits(of) < at_least {
        return Placed {
            layers: usable * of / (weights + states + kv * at_least),
            of,
            context: at_least,
        };
    }
    let context = match context {
        Some(asked) if asked > fits(asked_layers) => 0,
        Some(asked) => asked,
        None => most.min(fits(asked_layers)),
    };
    Placed {
        layers: asked_layers,
        of,
        context,
    }
}

/// Returns the bytes that SGLang has for keys, values and states over all devices: the static share less weights.
///
/// Without a share that was asked for, a reserve is left free on each device: 512 MB, 1.5 MB for each token of a batch
/// of prompts and 2 MB for each captured graph, at least 10 GB on devices of 60 GB and more. The part for graphs is an
/// estimate.
pub fn sglang_cache(
    hardware: &Hardware,
    model: &Model,
    devices: u64,
    asked: Option<f64>,
    (batched_tokens, graphs): (u64, u64),
) -> u64 {
    let memory = hardware.memory.value.0;
    let share = if let Some(asked) = asked {
        (memory as f64 * asked) as u64
    } else {
        let reserve = 512_000_000 + 1_500_000 * batched_tokens.max(2048) + 2_000_000 * graphs;
        let least = if memory >= 60_000_000_000 {
            10_000_000_000
        } else {
            0
        };
        memory.saturating_sub(reserve.max(least))
    };
    (share * devices).saturating_sub(model.weights.value.0)
}

/// Returns the bytes that TensorRT-LLM has for its cache: a share of what weights and activations leave free.
pub fn trt_cache(
    hardware: &Hardware,
    model: &Model,
    devices: u64,
    fraction: f64,
    batched_tokens: u64,
) -> u64 {
    let activations = batched_tokens * u64::from(model.shape.value.hidden) * ACTIVATION_BYTES;
    let taken = model.weights.value.0 + NON_TORCH_BYTES * devices + activations;
    let free = (hardware.memory.value.0 * devices).saturating_sub(taken);
    (free as f64 * fraction) as u64
}
/// Returns the bytes that llama.cpp has for keys, values and states; nothing when not even the weights fit.
pub fn llama_cache(hardware: &Hardware, model: &Model) -> Option<u64> {
    hardware
        .usable_total()
        .0
        .checked_sub(model.weights.value.0 + COMPUTE_BUFFER_BYTES)
}
