//! What is calibrated, and what a fit may choose there: engine settings, grids, floors and priors.

use super::tables::Cell;
use laptime::catalog::{CapturedGraphs, Catalog, Model};
use laptime::rig::cost::{FEATURES, Form};
use laptime::rig::engine::{llama_cpp, vllm};
use laptime::study::calibrate::Freedom;
use laptime::study::calibrate::schedule::{Server, Size};

/// A point of the fleet study; several machines may share one set of coefficients.
pub(crate) struct FleetPoint {
    pub(crate) hardware: &'static [&'static str],
    pub(crate) engine: &'static str,
    pub(crate) model: &'static str,
    /// Where a single short row has a kernel of its own.
    pub(crate) short_tokens: u64,
    pub(crate) notes: &'static [&'static str],
}

const IDENTICAL: &str = "calls of one size sent together to a cold engine; how caches and waits behave is the engine model's part and was not fitted";

/// Every point of the fleet study.
pub(crate) const FLEET: [FleetPoint; 8] = [
    FleetPoint {
        hardware: &["dgx-spark"],
        engine: "llama.cpp",
        model: "qwen3.6-27b-q8_0",
        short_tokens: 0,
        notes: &[
            IDENTICAL,
            "at 31k tokens and four sequences answers differ in length between sequences, which the batch's mean hides",
        ],
    },
    FleetPoint {
        hardware: &["dgx-spark"],
        engine: "llama.cpp",
        model: "qwen3.6-35b-a3b-q8_0",
        short_tokens: 0,
        notes: &[
            IDENTICAL,
            "two of the cells with 1k prompts decoded at 49 tok/s, the others at 55",
        ],
    },
    FleetPoint {
        hardware: &["m5-max-40"],
        engine: "llama.cpp",
        model: "qwen3.6-27b-q8_0",
        short_tokens: 0,
        notes: &[
            IDENTICAL,
            "slows down under sustained load, which the model does not: cells at 31k tokens drift by 10 %",
        ],
    },
    FleetPoint {
        hardware: &["m5-max-40"],
        engine: "llama.cpp",
        model: "qwen3.6-35b-a3b-q8_0",
        short_tokens: 0,
        notes: &[
            IDENTICAL,
            "slows down under sustained load, which the model does not",
            "one cell (1k prompts, 128 tokens, four sequences) ran 30 % slower than its siblings",
        ],
    },
    FleetPoint {
        hardware: &["rtx-pro-6000", "2x-rtx-pro-6000"],
        engine: "llama.cpp",
        model: "qwen3.6-27b-q8_0",
        short_tokens: 8192,
        notes: &[
            IDENTICAL,
            "decode loses bandwidth with depth in this build: a property of the engine, not of the card",
            "a single row below 8192 tokens decodes with a faster kernel; only 4k and 16k were measured, so the limit is a guess",
        ],
    },
    FleetPoint {
        hardware: &["rtx-pro-6000"],
        engine: "vllm",
        model: "qwen3.6-35b-a3b-fp8",
        short_tokens: 0,
        notes: &[IDENTICAL],
    },
    FleetPoint {
        hardware: &["strix-halo-evo-x2"],
        engine: "llama.cpp",
        model: "qwen3.6-27b-q8_0",
        short_tokens: 0,
        notes: &[IDENTICAL],
    },
    FleetPoint {
        hardware: &["strix-halo-evo-x2"],
        engine: "llama.cpp",
        model: "qwen3.6-35b-a3b-q8_0",
        short_tokens: 0,
        notes: &[
            IDENTICAL,
            "fitted to prompts of 1k and 4k only: the longer cells show a degraded machine; at depth it is an estimate",
            "Vulkan falls off a cliff just above 8 sequences, which is not modelled",
        ],
    },
];

/// Models whose agents were recorded on vLLM and one RTX PRO 6000.
pub(crate) const RECORDED: [&str; 3] = [
    "qwen3-coder-next-awq",
    "qwen3.6-27b-awq",
    "qwen3.6-35b-a3b-awq",
];

/// How the default of Qwen3.6-27B AWQ is put together: what decodes lies this share of the way from April's coefficients
/// to May's, where the worst error over the six recorded runs is smallest.
pub(crate) const DECODE_SHARE_OF_MAY: f64 = 0.4;
/// The same for what reads prompts.
pub(crate) const PROMPT_SHARE_OF_MAY: f64 = 0.6;

/// Returns both shares by linear coefficient.
pub(crate) fn shares_of_may() -> [f64; FEATURES] {
    let mut shares = [DECODE_SHARE_OF_MAY; FEATURES];
    shares[6] = PROMPT_SHARE_OF_MAY;
    shares[7] = PROMPT_SHARE_OF_MAY;
    shares
}

/// The half-saturations that are tried. A dense model's is near the ratio of its fixed to its token cost; single rows
/// cannot tell a sparse model's from the reading of experts, so those are kept in the same range.
const DENSE_GRID: [f64; 7] = [0.0, 8.0, 16.0, 32.0, 64.0, 96.0, 128.0];
const SPARSE_GRID: [f64; 8] = [0.0, 16.0, 32.0, 64.0, 96.0, 128.0, 192.0, 256.0];
/// Both states of a machine share one value, so that their coefficients can be averaged.
const RECORDED_DENSE: f64 = 80.0;
const RECORDED_SPARSE: f64 = 128.0;

/// What a second row costs beside the first, as a share of a pass with one row: a prior. Dense models of the fleet study
/// show 0.09, 0.11, 0.11 and 0.20.
pub(crate) const SECOND_ROW: f64 = 0.11;
/// A row's cost on this card, from published rates of 32 streams: a prior.
const ROW_DENSE_S: f64 = 3e-4;
const ROW_SPARSE_S: f64 = 1e-4;
/// How uneven rows wait for the longest: a prior, in the middle of 0 to 0.5, between which contended runs do not decide.
pub(crate) const KV_IMBALANCE: f64 = 0.25;

/// How much the time to read a prompt counts in a fit, beside the wall time of its batch.
pub(crate) const PROMPT_WEIGHT: f64 = 0.2;

/// Returns how the study started the engine of this cell.
pub(crate) fn server_of(cell: &Cell, catalog: &Catalog) -> Server {
    if cell.engine == "vllm" {
        return recorded_server();
    }
    let model = catalog
        .model(&cell.model)
        .expect("a measured model is in the catalogue");
    // The study gave every server room for its sequences and 1024 tokens more; slots are whole multiples of 256.
    let slot = (cell.context * cell.sequences + 1024)
        .div_ceil(cell.sequences)
        .next_multiple_of(256);
    Server::LlamaCpp(llama_cpp::Settings {
        parallel: cell.sequences,
        slot_context: slot,
        pool: None,
        n_batch: 2048,
        n_ubatch: 512,
        cache_prompt: false,
        slot_prompt_similarity: 0.1,
        cache_ram: None,
        cache_ram_keeps_one: true,
        cache_idle_slots: false,
        rolls_back: false,
        ctx_checkpoints: 32,
        checkpoint_every: Some(8192),
        kv_bytes: model.kv_bytes_per_token.value.0,
        state_bytes: model.state_bytes_per_sequence.value.0,
        host_bytes_per_sec: 5e9,
        split_over_two: cell.hardware.starts_with("2x-"),
        drafts: 0,
    })
}

/// Returns vLLM as it ran on the RTX PRO 6000: defaults of a large card, nothing found in its cache.
pub(crate) fn recorded_server() -> Server {
    Server::Vllm(vllm::Settings {
        max_num_seqs: 1024,
        max_num_batched_tokens: 8192,
        long_prefill_token_threshold: 0,
        block_size: 16,
        num_gpu_blocks: 60_000,
        max_model_len: 262_144,
        enable_prefix_caching: false,
        enable_chunked_prefill: true,
        scheduler_reserve_full_isl: true,
        async_scheduling: true,
        state_blocks: 0,
        offload: vllm::Offload::default(),
        drafts: 0,
        drops_last_block: false,
    })
}

/// Returns the calls of a cell, every answer of the mean length.
pub(crate) fn even(cell: &Cell) -> Vec<Size> {
    let output = cell.answer_tokens_mean.round().max(1.0) as u64;
    vec![
        Size {
            prompt: cell.prompt_tokens,
            output
        };
        cell.sequences as usize
    ]
}

/// Returns the calls of a cell, the longest answer reaching the limit where the mean says that others stopped early.
pub(crate) fn uneven(cell: &Cell) -> Vec<Size> {
    let mut sizes = even(cell);
    let slot = cell.context + 1024 / cell.sequences;
    let most = match cell.engine.as_str() {
        "vllm" => cell.answer_limit,
        _ => cell.answer_limit.min(slot - cell.prompt_tokens),
    };
    let sequences = cell.sequences as f64;
    if cell.sequences > 1 && cell.answer_tokens_mean < most as f64 - 0.5 {
        let rest = (sequences * cell.answer_tokens_mean - most as f64) / (sequences - 1.0);
        for size in &mut sizes {
            size.output = rest.round().max(1.0) as u64;
        }
        sizes[0].output = most;
    }
    sizes
}

/// Returns what a fit to the fleet study may choose.
///
/// Keys, values and states are read at most at the specified bandwidth, tokens computed at most at the specified rate:
/// without these floors a point whose cells are all alike would extrapolate through impossible speeds.
pub(crate) fn fleet_freedom(point: &FleetPoint, catalog: &Catalog) -> Freedom {
    let hardware = catalog
        .hardware(point.hardware[0])
        .expect("a measured machine is in the catalogue");
    let model = catalog
        .model(point.model)
        .expect("a measured model is in the catalogue");
    let bandwidth = hardware.bandwidth.value.0;
    let mut least = [0.0; FEATURES];
    least[2] = 2.0 * model.state_bytes_per_sequence.value.as_f64() / bandwidth;
    least[4] = model.kv_bytes_per_token.value.as_f64() / bandwidth;
    if let Some((_, rate)) = hardware.compute.best(model.compute) {
        least[6] = 2.0 * model.prompt_params() / rate.value.0;
    }
    let sparse = model.moe.is_some();
    Freedom {
        form: form(model, 0.0, point.short_tokens),
        half_tokens: if sparse {
            SPARSE_GRID.to_vec()
        } else {
            DENSE_GRID.to_vec()
        },
        free: [
            true,
            sparse,
            true,
            false,
            true,
            point.short_tokens > 0,
            true,
            true,
            true,
            false,
            false,
        ],
        least,
        slack_s: 0.0,
        prior: None,
    }
}

/// Returns what a fit to recorded agents may choose: single rows show neither what a further row costs nor how rows wait.
pub(crate) fn recorded_freedom(model: &Model) -> Freedom {
    let sparse = model.moe.is_some();
    let mut least = [0.0; FEATURES];
    least[2] = if sparse { ROW_SPARSE_S } else { ROW_DENSE_S };
    Freedom {
        form: form(model, KV_IMBALANCE, 0),
        half_tokens: vec![if sparse {
            RECORDED_SPARSE
        } else {
            RECORDED_DENSE
        }],
        free: [
            true, sparse, false, false, true, false, true, true, false, false, false,
        ],
        least,
        slack_s: 0.05,
        prior: None,
    }
}

fn form(model: &Model, kv_imbalance: f64, short_tokens: u64) -> Form {
    let moe = model.moe.as_ref();
    Form {
        half_tokens: 0.0,
        expert_share: moe.map_or(0.0, |moe| f64::from(moe.per_token) / f64::from(moe.experts)),
        kv_imbalance,
        short_tokens,
        vector_tokens: 0,
        overlap: 1.0,
    }
}

/// Returns what a pass costs on this hardware whose successor runs on the other card.
pub(crate) fn overlap(hardware: &str) -> f64 {
    if hardware.starts_with("2x-") {
        0.5
    } else {
        1.0
    }
}

/// Returns how this engine pads batches.
pub(crate) fn captured(engine: &str) -> CapturedGraphs {
    if engine == "vllm" {
        CapturedGraphs::Vllm
    } else {
        CapturedGraphs::None
    }
}
