//! Random settings of the engines that no recording checks, as odd as they come.

use crate::world::{Dice, Settings, coefficients, longest};
use laptime::rig::cost::Speculation;
use laptime::rig::engine::{llama_cpp, mlx_lm, sglang, trt_llm};
use laptime::rig::fine::Fine;
use laptime::rig::kv::sequences;
use laptime::rig::kv::tier::Offload;
use laptime::rig::speculation::{Drafter, Gain};
use laptime::trace::Trace;

pub(crate) fn sglang_settings(dice: &mut Dice, trace: &Trace) -> sglang::Settings {
    let page_size = dice.pick(&[1, 1, 1, 4, 16, 64]);
    let whole = longest(trace).div_ceil(page_size) + 8;
    let states = dice.percent(30).then(|| sglang::States {
        room: dice.pick(&[3, 4, 7, 12, 100]),
        track_interval: dice.pick(&[64, 256]),
    });
    let chunk = dice.pick(&[None, Some(64), Some(100), Some(512), Some(8192)]);
    sglang::Settings {
        page_size,
        pages: whole * dice.pick(&[5, 10, 10, 11, 13, 18, 25, 40, 400]) / 10,
        schedule_policy: dice.pick(&[sglang::Policy::Fcfs, sglang::Policy::Lpm]),
        chunked_prefill_size: chunk.map(|size: u64| size.next_multiple_of(page_size)),
        max_prefill_tokens: dice.pick(&[30, 200, 16384]),
        enable_mixed_chunk: dice.percent(35),
        prefill_decode_interval: dice.pick(&[0, 0, 1, 5]),
        max_running_requests: dice.pick(&[1, 2, 3, 2048]),
        schedule_conservativeness: dice.pick(&[0.0, 0.1, 1.0, 2.0]),
        overlap: dice.percent(60),
        context_length: dice.pick(&[
            u64::from(u32::MAX),
            longest(trace),
            longest(trace) * 3 / 4 + 1,
        ]),
        radix_cache: dice.percent(85),
        states,
        max_tokens: dice.pick(&[None, None, Some(20), Some(100_000)]),
        drafts: 0,
        offload: Offload::default(),
    }
}

pub(crate) fn mlx_settings(dice: &mut Dice, trace: &Trace) -> mlx_lm::Settings {
    let kv_bytes = 1_000;
    let trims = dice.percent(60);
    let cache = match dice.below(10) {
        0 => mlx_lm::Cache::Off,
        1 | 2 => mlx_lm::Cache::Chunks(dice.pick(&[16, 256])),
        _ => mlx_lm::Cache::Sequences(sequences::Rules {
            count: dice.pick(&[0, 1, 2, 10]),
            bytes: dice.pick(&[None, None, Some(1_000_000), Some(0)]),
            trims,
        }),
    };
    let whole = longest(trace) * dice.pick(&[7, 11, 400]) / 10 + 1;
    mlx_lm::Settings {
        decode_concurrency: dice.pick(&[1, 2, 4, 32]),
        prompt_concurrency: dice.pick(&[1, 1, 2, 8]),
        prefill_step_size: dice.pick(&[1, 7, 100, 2048]),
        polls: dice.percent(60),
        cache,
        context: dice.percent(20).then(|| longest(trace) * 3 / 4 + 1),
        room_bytes: whole * kv_bytes,
        kv_bytes,
        state_bytes: if trims { 0 } else { 50_000 },
    }
}

pub(crate) fn trt_settings(dice: &mut Dice, trace: &Trace) -> trt_llm::Settings {
    let block = dice.pick(&[1, 4, 32, 32, 64]);
    let state_blocks = if dice.percent(20) {
        dice.between(1, 3)
    } else {
        0
    };
    let whole = longest(trace).div_ceil(block) + state_blocks + 1;
    trt_llm::Settings {
        tokens_per_block: block,
        blocks: whole * dice.pick(&[5, 10, 10, 11, 13, 18, 25, 40, 400]) / 10,
        enable_block_reuse: state_blocks == 0 && dice.percent(85),
        enable_partial_reuse: dice.percent(75),
        guaranteed_no_evict: dice.percent(50),
        enable_chunked_prefill: dice.percent(50),
        max_num_tokens: dice.pick(&[2, 33, 128, 700, 8192]),
        max_batch_size: dice.pick(&[1, 2, 3, 2048]),
        max_seq_len: dice.pick(&[
            u64::from(u32::MAX),
            longest(trace),
            longest(trace) * 3 / 4 + 1,
        ]),
        max_tokens: dice.pick(&[None, None, Some(20), Some(100_000)]),
        state_blocks,
    }
}

/// Ollama runs llama.cpp's server with slots of their own, behind a queue that may be full.
pub(crate) fn ollama_settings(
    dice: &mut Dice,
    settings: llama_cpp::Settings,
) -> (llama_cpp::Settings, u64) {
    let parallel = dice.pick(&[1, 1, 2]);
    let queue = dice.pick(&[1, 3, 512]);
    let settings = llama_cpp::Settings {
        parallel,
        pool: None,
        n_batch: 512,
        n_ubatch: 512,
        ..settings
    };
    (settings, parallel + queue)
}

/// A host tier, in half of the worlds: from smaller than the device's cache to larger than everything.
pub(crate) fn offload(dice: &mut Dice, device_blocks: u64, states: bool) -> Offload {
    if dice.percent(50) {
        return Offload::default();
    }
    let tier = Offload {
        blocks: device_blocks * dice.pick(&[1, 5, 15, 40, 1_000]) / 10,
        latency: Fine::from_secs(dice.pick(&[0.0, 0.000_1, 0.003])),
        block_time: Fine::from_secs(dice.pick(&[0.000_01, 0.000_123_4, 0.002])),
        compute_time: Fine::from_secs(dice.pick(&[0.000_3, 0.001, 1.0])),
        chunk: dice.pick(&[0, 1, 1, 4]),
        blocking: dice.percent(40),
        disk_blocks: device_blocks * dice.pick(&[0, 0, 5, 50]) / 10,
        disk_latency: Fine::from_secs(dice.pick(&[0.0, 0.001])),
        disk_block_time: Fine::from_secs(dice.pick(&[0.000_05, 0.003])),
    };
    if !states {
        return tier;
    }
    // Recurrent states are kept by vLLM's own tier alone.
    Offload {
        chunk: 0,
        blocking: false,
        disk_blocks: 0,
        ..tier
    }
}

/// Drafts, in a third of the worlds whose engine can verify them: from never to always accepted.
pub(crate) fn speculation(dice: &mut Dice, settings: &mut Settings) -> Option<Speculation> {
    if !dice.percent(35) {
        return None;
    }
    let drafts = dice.between(1, 7);
    match settings {
        Settings::Vllm(vllm) => {
            vllm.drafts = drafts;
            vllm.drops_last_block = dice.percent(50);
        }
        Settings::Llama(llama) => llama.drafts = drafts,
        Settings::Sglang(sglang) => sglang.drafts = drafts,
        Settings::Mlx(_) => {}
        Settings::Ollama(..) | Settings::TrtLlm(_) => return None,
    }
    let accepted = drafts as f64 * dice.pick(&[0.0, 0.1, 0.333_3, 0.5, 0.87, 1.0]);
    let drafter = dice.pick(&[Drafter::Head, Drafter::Model, Drafter::Ngram]);
    Some(Speculation {
        drafts,
        gain: Gain::new(accepted),
        drafter,
        model: (drafter == Drafter::Model).then(|| coefficients(dice)),
    })
}
