//! From settings to an engine: how much its cache holds, and what it was set to.

use super::devices::sharing;
use super::speculation::Speculating;
use super::{Parts, RigError, Values, tiers};
use crate::catalog::{Model, SettingValue};
use crate::rig::cost::{Coefficients, StepCost};
use crate::rig::engine::limited::Limited;
use crate::rig::engine::{Engine, llama_cpp, mlx_lm, sglang, trt_llm, vllm};
use crate::rig::kv::sequences;
use crate::rig::kv::tier::Offload;
use crate::rig::step::StepLoop;
use crate::rig::{Backend, CacheShape, memory};
use crate::trace::content::Content;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings that were worked out, by name.
type Shown = BTreeMap<String, String>;

fn shown<const N: usize>(values: [(&str, u64); N]) -> Shown {
    let named = |(key, value): (&str, u64)| (format!("engine.{key}"), value.to_string());
    values.into_iter().map(named).collect()
}

/// Returns whether a model's files are MLX's.
pub(super) fn on_mlx(model: &Model) -> bool {
    model.name.contains("-mlx-")
}

/// An engine ready to answer.
pub(super) struct Built {
    /// What answers.
    pub(super) backend: Box<dyn Backend + Send>,
    /// What its cache holds, where the best cache of that size can be told.
    pub(super) cache: Option<CacheShape>,
    /// Settings as they came out.
    pub(super) shown: Shown,
}

/// Builds the engine of a rig; returns also the settings that were worked out.
pub(super) fn build(
    parts: &Parts<'_>,
    values: &Values,
    coefficients: Coefficients,
    speculating: Option<&Speculating>,
    disk: Option<f64>,
    content: &Arc<Content>,
) -> Result<Built, RigError> {
    let content = Arc::clone(content);
    // Where drafts are verified, what drafts takes memory as well.
    let with_drafter = speculating.map(|speculating| parts.with_model(&speculating.sized));
    let parts = with_drafter.as_ref().unwrap_or(parts);
    let drafts = speculating.map_or(0, |speculating| speculating.cost.drafts);
    let step_cost = |captured| step_cost(coefficients, captured, speculating);
    let plain = step_cost(Vec::new());
    let (backend, cache, shown) = match parts.engine.name.as_str() {
        "vllm" => {
            let (mut settings, shown) = vllm_settings(parts, values);
            settings.drafts = drafts;
            settings.drops_last_block = speculating.is_some_and(|one| one.by_head);
            let block = settings.block_size;
            settings.offload = tiers::vllm(parts, values, block, &coefficients, disk)?;
            starts(&settings)?;
            let eager = values.on("enforce_eager");
            let cost = step_cost(captured(if eager { 0 } else { settings.max_num_seqs }));
            let cache = Some(settings.cache());
            let server = <vllm::Vllm>::new(settings, content);
            (boxed(server, cost), cache, shown)
        }
        "sglang" => {
            let (mut settings, shown) = sglang_settings(parts, values);
            settings.drafts = drafts;
            let pages = (settings.page_size, settings.pages);
            settings.offload = tiers::hicache(parts, values, pages, &coefficients, disk)?;
            let eager = values.on("disable_cuda_graph");
            let most = if eager {
                0
            } else {
                values.count("cuda_graph_max_bs")
            };
            let server = sglang::Sglang::new(settings, content);
            (boxed(server, step_cost(sglang_captured(most))), None, shown)
        }
        "trt-llm" => {
            let (settings, shown) = trt_settings(parts, values);
            let server = trt_llm::TrtLlm::new(settings, content);
            (boxed(server, plain), None, shown)
        }
        "mlx-lm" => {
            let mut settings = mlx_settings(parts, values);
            if speculating.is_some() {
                // With a draft model requests are served one by one.
                (settings.decode_concurrency, settings.prompt_concurrency) = (1, 1);
            }
            let server = mlx_lm::MlxLm::new(settings, content);
            (boxed(server, plain), None, Shown::new())
        }
        "lm-studio" if on_mlx(parts.model) => {
            let settings = lm_studio_mlx(parts, values);
            let server = mlx_lm::MlxLm::new(settings, content);
            (boxed(server, plain), None, Shown::new())
        }
        "ollama" => {
            let (settings, shown) = ollama_settings(parts, values);
            let most = settings.parallel + values.count("max_queue");
            let cache = Some(settings.cache());
            let server = llama_cpp::LlamaCpp::new(settings, content);
            (boxed(Limited::new(server, most), plain), cache, shown)
        }
        name => {
            let (mut settings, shown) = if name == "lm-studio" {
                lm_studio_llama(parts, values)
            } else {
                llama_settings(parts, values)
            };
            settings.drafts = drafts;
            let cache = Some(settings.cache());
            let server = llama_cpp::LlamaCpp::new(settings, content);
            (boxed(server, plain), cache, shown)
        }
    };
    Ok(Built {
        backend,
        cache,
        shown,
    })
}

/// Returns the cost of steps, with pure decode batches padded to the captured sizes.
fn step_cost(
    coefficients: Coefficients,
    captured: Vec<u64>,
    speculating: Option<&Speculating>,
) -> StepCost {
    let Some(speculating) = speculating else {
        return StepCost::new(coefficients, captured);
    };
    // Sizes are in tokens; an answer has its drafts beside it.
    let width = 1 + speculating.cost.drafts;
    let mut rows: Vec<u64> = captured.iter().map(|size| size.div_ceil(width)).collect();
    rows.dedup();
    StepCost::new(coefficients, rows).speculating(speculating.cost)
}

fn boxed<E: Engine + Send + 'static>(engine: E, cost: StepCost) -> Box<dyn Backend + Send> {
    Box::new(StepLoop::new(engine, cost))
}

/// Checks what vLLM checks before it starts.
fn starts(settings: &vllm::Settings) -> Result<(), RigError> {
    let hybrid = settings.state_blocks > 0 && settings.enable_prefix_caching;
    if hybrid && settings.max_num_batched_tokens < settings.block_size {
        return Err(RigError::Start(format!(
            "with prefix caching, a model with recurrent layers needs \
             engine.max_num_batched_tokens of at least its block of {} tokens, found {}",
            settings.block_size, settings.max_num_batched_tokens
        )));
    }
    Ok(())
}

/// The batch sizes for which vLLM captures graphs: 1, 2, 4, then every 8 up to 256, then every 16.
fn captured(max_num_seqs: u64) -> Vec<u64> {
    let most = (2 * max_num_seqs).min(512);
    let sizes = [1, 2, 4]
        .into_iter()
        .chain((8..=256).step_by(8))
        .chain((272..=512).step_by(16));
    sizes.take_while(|&size| size <= most).collect()
}

fn vllm_settings(parts: &Parts<'_>, values: &Values) -> (vllm::Settings, Shown) {
    let model = parts.model;
    let devices = u64::from(sharing(parts, values));
    let batched = values.count("max_num_batched_tokens");
    let kv_share = if values.word("kv_cache_dtype").starts_with("fp8") {
        0.5
    } else {
        1.0
    };
    let block_size = memory::vllm_block(model, values.count("block_size"), kv_share);
    let page = (block_size as f64 * model.kv_bytes_per_token.value.as_f64() * kv_share) as u64;
    let utilization = values.float("gpu_memory_utilization");
    let room =
        memory::vllm_cache(parts.hardware, model, utilization, devices, batched) / page.max(1);
    let num_gpu_blocks = values.int("num_gpu_blocks_override").unwrap_or(room);
    let fits = num_gpu_blocks.saturating_sub(1) * block_size;
    let max_model_len = values
        .int("max_model_len")
        .unwrap_or(model.max_context.value.0.min(fits.max(1)));
    let settings = vllm::Settings {
        max_num_seqs: values.count("max_num_seqs"),
        max_num_batched_tokens: batched,
        long_prefill_token_threshold: values.count("long_prefill_token_threshold"),
        block_size,
        num_gpu_blocks,
        max_model_len,
        enable_prefix_caching: values.on("prefix_caching"),
        enable_chunked_prefill: values.on("enable_chunked_prefill"),
        scheduler_reserve_full_isl: values.on("scheduler_reserve_full_isl"),
        async_scheduling: values.on("async_scheduling"),
        state_blocks: memory::vllm_state_blocks(model),
        offload: Offload::default(),
        drafts: 0,
        drops_last_block: false,
    };
    let shown = [
        ("engine.block_size", block_size),
        ("engine.num_gpu_blocks", num_gpu_blocks),
        ("engine.max_model_len", max_model_len),
        ("engine.tensor_parallel_size", devices),
    ];
    (
        settings,
        shown
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into(),
    )
}

/// Returns how many slots llama.cpp's server has, and whether they share one pool.
fn slots(values: &Values) -> (u64, bool) {
    let asked = values.int("parallel");
    let parallel = asked.filter(|&slots| slots > 0).unwrap_or(4);
    let unified = match values.values.get("kv_unified") {
        Some(SettingValue::Bool(on)) => *on,
        _ => asked.is_none_or(|slots| slots == 0),
    };
    (parallel, unified)
}

/// Returns where llama.cpp's server puts its layers, and how much context it has room for.
pub(super) fn placed(parts: &Parts<'_>, values: &Values) -> memory::Placed {
    let (parallel, unified) = slots(values);
    // Unset, the context is what the model was made for, for each slot unless they share, shrunk to fit.
    let most = parts.model.max_context.value.0 * if unified { 1 } else { parallel };
    memory::llama_placed(
        parts.hardware,
        parts.model,
        values.int("n_gpu_layers"),
        values.int("ctx_size").filter(|&asked| asked > 0),
        most,
        parallel,
    )
}

fn llama_settings(parts: &Parts<'_>, values: &Values) -> (llama_cpp::Settings, Shown) {
    let model = parts.model;
    let shape = &model.shape.value;
    let (parallel, unified) = slots(values);
    let kv_bytes = model.kv_bytes_per_token.value.0;
    let state_bytes = model.state_bytes_per_sequence.value.0;
    let placed = placed(parts, values);
    let whole = placed.context;
    let slot_context = if unified {
        whole
    } else {
        whole.div_ceil(parallel).next_multiple_of(256)
    };
    let slot_context = if whole == 0 { 0 } else { slot_context };
    let unified_memory = parts.hardware.unified_memory;
    let cache_ram = match values.values.get("cache_ram") {
        Some(SettingValue::Int(megabytes)) if *megabytes >= 0 => Some((*megabytes as u64) << 20),
        _ => None,
    };
    let settings = llama_cpp::Settings {
        parallel,
        slot_context,
        pool: unified.then_some(whole),
        n_batch: values.count("batch_size"),
        n_ubatch: values.count("ubatch_size"),
        cache_prompt: values.on("prefix_caching"),
        slot_prompt_similarity: values.float("slot_prompt_similarity"),
        cache_ram,
        cache_ram_keeps_one: parts.version != "latest",
        // May builds save idle slots only where they share a pool.
        cache_idle_slots: values.on("cache_idle_slots") && (unified || parts.version == "latest"),
        rolls_back: !shape.hybrid() && shape.window_layers == 0,
        ctx_checkpoints: values.count("ctx_checkpoints") as usize,
        checkpoint_every: (parts.version == "b9151")
            .then(|| values.count("checkpoint_min_step"))
            .filter(|&every| every > 0),
        kv_bytes,
        state_bytes,
        // Copies between a slot and host memory are unpinned; an estimate.
        host_bytes_per_sec: if unified_memory { 2e10 } else { 5e9 },
        split_over_two: parts.hardware.devices == 2,
        drafts: 0,
    };
    let shown = [
        ("engine.parallel", parallel),
        ("engine.ctx_size", whole),
        ("engine.slot_context", slot_context),
        ("engine.n_gpu_layers", placed.layers),
    ];
    let mut shown: BTreeMap<String, String> = shown
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into();
    shown.insert(
        "engine.kv_unified".to_string(),
        if unified { "on" } else { "off" }.to_string(),
    );
    (settings, shown)
}

/// Returns llama-server's settings with slots of their own, as Ollama and LM Studio start it.
fn llama_child(
    parts: &Parts<'_>,
    values: &Values,
    parallel: u64,
    (context, asked): (u64, bool),
) -> (llama_cpp::Settings, Shown) {
    let model = parts.model;
    let shape = &model.shape.value;
    let kv_bytes = model.kv_bytes_per_token.value.0;
    let state_bytes = model.state_bytes_per_sequence.value.0;
    let room = memory::llama_cache(parts.hardware, model).unwrap_or(0);
    let fits = room.saturating_sub(state_bytes * parallel) / kv_bytes.max(1);
    let context = context.min(model.max_context.value.0);
    // What was asked for and does not fit would move layers to the host, which is not modelled.
    let slot_context = match context * parallel {
        whole if whole <= fits => context,
        _ if asked => 0,
        _ => fits / parallel,
    };
    let settings = llama_cpp::Settings {
        parallel,
        slot_context,
        pool: None,
        n_batch: 2048,
        n_ubatch: 512,
        cache_prompt: values.on("prefix_caching"),
        slot_prompt_similarity: 0.1,
        cache_ram: Some(8192 << 20),
        cache_ram_keeps_one: false,
        cache_idle_slots: true,
        rolls_back: !shape.hybrid() && shape.window_layers == 0,
        ctx_checkpoints: 32,
        checkpoint_every: None,
        kv_bytes,
        state_bytes,
        host_bytes_per_sec: if parts.hardware.unified_memory {
            2e10
        } else {
            5e9
        },
        split_over_two: parts.hardware.devices == 2,
        drafts: 0,
    };
    let shown = shown([("parallel", parallel), ("slot_context", slot_context)]);
    (settings, shown)
}

/// Ollama starts llama-server with slots of their own and small batches; hybrids get one slot whatever is asked.
fn ollama_settings(parts: &Parts<'_>, values: &Values) -> (llama_cpp::Settings, Shown) {
    let parallel = if parts.model.hybrid() {
        1
    } else {
        values.count("num_parallel")
    };
    let context = (values.count("num_ctx"), values.chosen("num_ctx"));
    let (settings, shown) = llama_child(parts, values, parallel, context);
    let cache_ram = match values.values.get("cache_ram") {
        Some(SettingValue::Int(megabytes)) if *megabytes < 0 => None,
        _ => Some(values.count("cache_ram") << 20),
    };
    let settings = llama_cpp::Settings {
        n_batch: values.count("num_batch"),
        n_ubatch: values.count("num_batch"),
        cache_ram,
        ctx_checkpoints: values.count("ctx_checkpoints") as usize,
        ..settings
    };
    (settings, shown)
}

fn lm_studio_llama(parts: &Parts<'_>, values: &Values) -> (llama_cpp::Settings, Shown) {
    let asked = values.int("context_length");
    let context = asked.unwrap_or(parts.model.max_context.value.0);
    let parallel = values.count("max_concurrent_predictions");
    llama_child(parts, values, parallel, (context, asked.is_some()))
}

/// The batch sizes for which SGLang captures graphs, closer together where batches are small: an estimate.
fn sglang_captured(most: u64) -> Vec<u64> {
    let sizes = [1, 2, 4, 8, 12]
        .into_iter()
        .chain((16..=256).step_by(8))
        .chain((272..=512).step_by(16));
    sizes.take_while(|&size| size <= most).collect()
}

fn sglang_settings(parts: &Parts<'_>, values: &Values) -> (sglang::Settings, Shown) {
    let model = parts.model;
    let devices = u64::from(sharing(parts, values));
    let chunk = values.int("chunked_prefill_size");
    let batch = chunk.unwrap_or(values.count("max_prefill_tokens"));
    let graphs = if values.on("disable_cuda_graph") {
        0
    } else {
        values.count("cuda_graph_max_bs")
    };
    let asked = match values.values.get("mem_fraction_static") {
        Some(SettingValue::Float(share)) => Some(*share),
        _ => None,
    };
    let cache = memory::sglang_cache(parts.hardware, model, devices, asked, (batch, graphs));
    let ratio = if model.hybrid() {
        values.float("mamba_full_memory_ratio")
    } else {
        0.0
    };
    let keys = (cache as f64 / (1.0 + ratio)) as u64;
    let page_size = values.count("page_size");
    let page = page_size * model.kv_bytes_per_token.value.0;
    let pages = keys / page.max(1);
    let tokens = pages * page_size;
    let context = values.int("context_length");
    let context_length = context.unwrap_or(model.max_context.value.0);
    let seats = (tokens as f64 / context_length as f64 * 512.0) as u64;
    let seats = seats.clamp(2048, 4096).min(tokens / 2);
    let max_running_requests = values.int("max_running_requests").unwrap_or(seats);
    let state_bytes = model.state_bytes_per_sequence.value.0;
    let settings = sglang::Settings {
        page_size,
        pages,
        schedule_policy: match values.word("schedule_policy") {
            "lpm" => sglang::Policy::Lpm,
            _ => sglang::Policy::Fcfs,
        },
        chunked_prefill_size: chunk,
        max_prefill_tokens: values.count("max_prefill_tokens"),
        enable_mixed_chunk: values.on("enable_mixed_chunk"),
        prefill_decode_interval: values.count("prefill_decode_interval"),
        max_running_requests,
        schedule_conservativeness: values.float("schedule_conservativeness"),
        overlap: !values.on("disable_overlap_schedule"),
        context_length,
        radix_cache: values.on("prefix_caching"),
        states: model.hybrid().then(|| sglang::States {
            room: (cache - keys) / state_bytes.max(1),
            track_interval: values.count("mamba_track_interval"),
        }),
        max_tokens: values.int("max_tokens"),
        drafts: 0,
        offload: Offload::default(),
    };
    let shown = shown([
        ("context_length", context_length),
        ("max_running_requests", max_running_requests),
        ("max_total_num_tokens", tokens),
        ("tensor_parallel_size", devices),
    ]);
    (settings, shown)
}

fn trt_settings(parts: &Parts<'_>, values: &Values) -> (trt_llm::Settings, Shown) {
    let model = parts.model;
    let devices = u64::from(sharing(parts, values));
    let max_num_tokens = values.count("max_num_tokens");
    let fraction = values.float("free_gpu_memory_fraction");
    let cache = memory::trt_cache(parts.hardware, model, devices, fraction, max_num_tokens);
    let tokens_per_block = values.count("tokens_per_block");
    let block = (tokens_per_block * model.kv_bytes_per_token.value.0).max(1);
    let max_seq_len = values.int("max_seq_len");
    let settings = trt_llm::Settings {
        tokens_per_block,
        blocks: cache / block,
        // States are kept only where somebody asked for it, which is not modelled.
        enable_block_reuse: values.on("prefix_caching") && !model.hybrid(),
        enable_partial_reuse: values.on("enable_partial_reuse"),
        guaranteed_no_evict: values.word("capacity_scheduler_policy") != "MAX_UTILIZATION",
        enable_chunked_prefill: values.on("enable_chunked_prefill"),
        max_num_tokens,
        max_batch_size: values.count("max_batch_size"),
        max_seq_len: max_seq_len.unwrap_or(model.max_context.value.0),
        max_tokens: values.int("max_tokens"),
        state_blocks: model.state_bytes_per_sequence.value.0.div_ceil(block),
    };
    let shown = shown([
        ("blocks", settings.blocks),
        ("max_seq_len", settings.max_seq_len),
        ("tensor_parallel_size", devices),
    ]);
    (settings, shown)
}

fn mlx_settings(parts: &Parts<'_>, values: &Values) -> mlx_lm::Settings {
    let model = parts.model;
    let shape = &model.shape.value;
    let rules = sequences::Rules {
        count: values.count("prompt_cache_size"),
        bytes: values.int("prompt_cache_bytes"),
        trims: !shape.hybrid() && shape.window_layers == 0,
    };
    mlx_lm::Settings {
        decode_concurrency: values.count("decode_concurrency"),
        prompt_concurrency: values.count("prompt_concurrency"),
        prefill_step_size: values.count("prefill_step_size"),
        polls: true,
        cache: if values.on("prefix_caching") {
            mlx_lm::Cache::Sequences(rules)
        } else {
            mlx_lm::Cache::Off
        },
        context: None,
        room_bytes: memory::llama_cache(parts.hardware, model).unwrap_or(0),
        kv_bytes: model.kv_bytes_per_token.value.0,
        state_bytes: model.state_bytes_per_sequence.value.0,
    }
}

/// LM Studio's MLX engine lets prompts in one at a time and keeps chunks of 256 tokens.
fn lm_studio_mlx(parts: &Parts<'_>, values: &Values) -> mlx_lm::Settings {
    mlx_lm::Settings {
        decode_concurrency: values.count("max_concurrent_predictions"),
        prompt_concurrency: 1,
        polls: false,
        cache: if values.on("prefix_caching") {
            mlx_lm::Cache::Chunks(256)
        } else {
            mlx_lm::Cache::Off
        },
        context: values.int("context_length"),
        ..mlx_settings(parts, values)
    }
}
