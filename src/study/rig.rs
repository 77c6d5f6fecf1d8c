//! From a rig's name and settings to something that answers calls.
//!
//! Resolves names in the catalogue, checks every setting against what the engine honours, sizes the cache and picks the
//! cost coefficients. A setting that would be ignored is an error.

mod tiers;

use crate::catalog::engine::SettingError;
use crate::catalog::rig::{Calibration, RigProfile};
use crate::catalog::{Catalog, EngineProfile, Hardware, Model, Point, SettingValue, Unknown};
use crate::known::Trust;
use crate::operating_point::{Kind, OperatingPoint};
use crate::rig::cost::{Coefficients, StepCost};
use crate::rig::engine::{llama_cpp, vllm};
use crate::rig::step::StepLoop;
use crate::rig::{Backend, Rig, memory, roofline};
use crate::trace::content::Content;
use crate::units::three_digits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a rig cannot be built.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RigError {
    /// The name does not have three parts.
    #[error("`{0}` is not a rig; expected HARDWARE/ENGINE[@VERSION]/MODEL")]
    Shape(String),
    /// A part of the name is not in the catalogue.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A setting was refused.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The setting is neither an engine's nor a rig's.
    #[error("unknown setting `{0}`; expected `engine.` and a flag of the engine, or `rig.variant`")]
    Scope(String),
    /// The rig has no calibration, and so no states to choose from.
    #[error("`rig.variant={0}` chooses between measured states, and this rig was not measured")]
    NoVariant(String),
    /// The setting has another value than the one that is modelled.
    #[error("`engine.{key}={value}` is not modelled for {engine}; only {default} is")]
    Fixed {
        /// The engine.
        engine: String,
        /// The setting.
        key: String,
        /// What was asked for.
        value: String,
        /// What is modelled.
        default: String,
    },
    /// The engine does not run on the hardware.
    #[error("{engine} does not run on {hardware} ({platform})")]
    Platform {
        /// The engine.
        engine: String,
        /// The hardware.
        hardware: String,
        /// Its platform.
        platform: &'static str,
    },
    /// The real engine would not start with these settings.
    #[error("vLLM does not start: {0}")]
    Start(String),
    /// The tier of the cache has nowhere to be, or nothing is known of the way there.
    #[error("`engine.kv_offloading_size` does nothing for {hardware}: {why}")]
    NoTier {
        /// The hardware.
        hardware: String,
        /// Why.
        why: &'static str,
    },
    /// The engine cannot load files of that kind.
    #[error("{engine} does not load {model}; it loads {loads}")]
    Format {
        /// The engine.
        engine: String,
        /// The model.
        model: String,
        /// The quantisations it loads.
        loads: String,
    },
    /// The catalogue knows the engine, but its behaviour is not simulated.
    #[error("{0} is in the catalogue, but its scheduler and cache are not simulated yet")]
    NotSimulated(String),
}

/// A rig's three parts, looked up.
struct Parts<'c> {
    hardware: &'c Hardware,
    engine: &'c EngineProfile,
    version: String,
    model: &'c Model,
}

/// Builds the rig that `spec` names, with `settings` in force, for a replay of `content`.
pub fn build(
    spec: &str,
    settings: &[(String, String)],
    catalog: &Catalog,
    content: &Arc<Content>,
) -> Result<Rig, RigError> {
    let parts = look_up(spec, catalog)?;
    let (of_rig, of_engine): (Vec<_>, Vec<_>) = settings
        .iter()
        .cloned()
        .partition(|(key, _)| key.starts_with("rig."));
    let values = Values::resolve(&parts, &of_engine)?;
    let variant = variant_of(&of_rig)?;
    let mut cost = cost_of(&parts, &values, catalog, variant)?;
    let (backend, mut shown): (Box<dyn Backend + Send>, _) = match parts.engine.name.as_str() {
        "vllm" => {
            let (mut settings, shown) = vllm_settings(&parts, &values);
            settings.offload = tiers::offload(&parts, &values, &settings, &cost.coefficients)?;
            starts(&settings)?;
            let captured = if values.on("enforce_eager") {
                Vec::new()
            } else {
                captured(settings.max_num_seqs)
            };
            let step_cost = StepCost::new(cost.coefficients, captured);
            (
                Box::new(StepLoop::new(
                    <vllm::Vllm>::new(settings, Arc::clone(content)),
                    step_cost,
                )),
                shown,
            )
        }
        "llama.cpp" => {
            let (settings, shown, placed) = llama_settings(&parts, &values);
            tiers::spill(&parts, placed, &mut cost);
            let step_cost = StepCost::new(cost.coefficients, Vec::new());
            (
                Box::new(StepLoop::new(
                    llama_cpp::LlamaCpp::new(settings, Arc::clone(content)),
                    step_cost,
                )),
                shown,
            )
        }
        other => return Err(RigError::NotSimulated(other.to_string())),
    };
    for (key, value) in &values.values {
        shown
            .entry(format!("engine.{key}"))
            .or_insert_with(|| value.to_string());
    }
    if let Some(variant) = variant {
        shown.insert("rig.variant".to_string(), variant.to_string());
    }
    let point = OperatingPoint {
        name: spec.to_string(),
        kind: Kind::Simulated,
        hardware: Some(parts.hardware.name.clone()),
        engine: Some(parts.engine.name.clone()),
        engine_version: Some(parts.version.clone()),
        model: Some(parts.model.family.clone()),
        quantization: Some(parts.model.quantization.clone()),
        settings: shown,
        trust: cost.trust,
        error_interval: cost.interval,
        known_by: cost.known_by,
    };
    Ok(Rig { point, backend })
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

/// Returns the state of the machine that was asked for, the only setting that belongs to the rig itself.
fn variant_of(settings: &[(String, String)]) -> Result<Option<&str>, RigError> {
    match settings.iter().find(|(key, _)| key != "rig.variant") {
        Some((key, _)) => Err(RigError::Scope(key.clone())),
        None => Ok(settings.last().map(|(_, value)| value.as_str())),
    }
}

fn look_up<'c>(spec: &str, catalog: &'c Catalog) -> Result<Parts<'c>, RigError> {
    let names: Vec<&str> = spec.split('/').map(str::trim).collect();
    let &[hardware, engine, model] = names.as_slice() else {
        return Err(RigError::Shape(spec.to_string()));
    };
    if names.iter().any(|name| name.is_empty()) {
        return Err(RigError::Shape(spec.to_string()));
    }
    let (engine, version) = match engine.split_once('@') {
        Some((engine, version)) => (engine, Some(version)),
        None => (engine, None),
    };
    let (hardware, engine, model) = (
        catalog.hardware(hardware)?,
        catalog.engine(engine)?,
        catalog.model(model)?,
    );
    let version = engine.version(version)?.name.clone();
    if !engine.loads(model) {
        return Err(RigError::Format {
            engine: engine.title.clone(),
            model: model.name.clone(),
            loads: engine.loads.join(", "),
        });
    }
    if engine.backend(hardware.platform).is_none() {
        return Err(RigError::Platform {
            engine: engine.title.clone(),
            hardware: hardware.title.clone(),
            platform: hardware.platform.word(),
        });
    }
    Ok(Parts {
        hardware,
        engine,
        version,
        model,
    })
}

/// Settings that each engine's model honours; any other must keep its default.
const HONOURED: [(&str, &[&str]); 2] = [
    (
        "vllm",
        &[
            "prefix_caching",
            "max_num_batched_tokens",
            "max_num_seqs",
            "max_model_len",
            "gpu_memory_utilization",
            "num_gpu_blocks_override",
            "block_size",
            "kv_cache_dtype",
            "long_prefill_token_threshold",
            "enable_chunked_prefill",
            "scheduler_reserve_full_isl",
            "async_scheduling",
            "enforce_eager",
            "tensor_parallel_size",
            "kv_offloading_size",
        ],
    ),
    (
        "llama.cpp",
        &[
            "prefix_caching",
            "parallel",
            "kv_unified",
            "ctx_size",
            "batch_size",
            "ubatch_size",
            "slot_prompt_similarity",
            "cache_ram",
            "cache_idle_slots",
            "ctx_checkpoints",
            "checkpoint_min_step",
            "n_gpu_layers",
        ],
    ),
];

/// Every setting of the engine, by name.
struct Values {
    values: BTreeMap<String, SettingValue>,
}

impl Values {
    fn resolve(parts: &Parts<'_>, settings: &[(String, String)]) -> Result<Values, RigError> {
        let point = Point {
            version: &parts.version,
            hardware: parts.hardware,
            model: parts.model,
        };
        let defaults = parts.engine.defaults(point);
        let mut values: BTreeMap<String, SettingValue> = defaults
            .iter()
            .map(|(name, known)| ((*name).to_string(), known.value.clone()))
            .collect();
        let honoured = HONOURED
            .iter()
            .find(|(engine, _)| *engine == parts.engine.name)
            .map_or(&[][..], |(_, names)| names);
        for (key, text) in settings {
            let Some(key) = key.strip_prefix("engine.") else {
                return Err(RigError::Scope(key.clone()));
            };
            let (name, value) = parts.engine.assign(key, text)?;
            let default = &defaults[name].value;
            if !honoured.contains(&name) && value != *default {
                return Err(RigError::Fixed {
                    engine: parts.engine.title.clone(),
                    key: name.to_string(),
                    value: value.to_string(),
                    default: default.to_string(),
                });
            }
            values.insert(name.to_string(), value);
        }
        Ok(Values { values })
    }

    fn int(&self, name: &str) -> Option<u64> {
        match self.values.get(name) {
            Some(SettingValue::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.int(name).unwrap_or(0)
    }

    fn on(&self, name: &str) -> bool {
        self.values.get(name) == Some(&SettingValue::Bool(true))
    }

    fn float(&self, name: &str) -> f64 {
        match self.values.get(name) {
            Some(SettingValue::Float(number)) => *number,
            Some(SettingValue::Int(number)) => *number as f64,
            _ => 0.0,
        }
    }

    fn word(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(SettingValue::Text(word)) => word,
            _ => "",
        }
    }
}

/// Cost coefficients and how they are known.
struct Cost {
    coefficients: Coefficients,
    trust: Trust,
    interval: Option<(f64, f64)>,
    known_by: String,
}

fn cost_of(
    parts: &Parts<'_>,
    values: &Values,
    catalog: &Catalog,
    variant: Option<&str>,
) -> Result<Cost, RigError> {
    let (hardware, engine) = (&parts.hardware.name, &parts.engine.name);
    if let Some(profile) = catalog.rig_profile(hardware, engine, &parts.model.name) {
        return Ok(calibrated(profile, profile.calibration(variant)?));
    }
    if let Some(variant) = variant {
        return Err(RigError::NoVariant(variant.to_string()));
    }
    let devices = devices(parts, values);
    let efficiency = roofline::typical(engine, parts.hardware.platform);
    let here = roofline::coefficients(parts.hardware, parts.model, &efficiency, devices);
    let Some(profile) = relative(parts, catalog) else {
        return Ok(Cost {
            coefficients: here,
            trust: Trust::Estimate,
            interval: None,
            known_by: "a roofline estimate from specifications and typical efficiencies; \
                       nothing was measured on this rig"
                .to_string(),
        });
    };
    let measured = catalog.model(&profile.model)?;
    let there = roofline::coefficients(parts.hardware, measured, &efficiency, devices);
    Ok(Cost {
        coefficients: roofline::transferred(&here, &there, &profile.default.coefficients),
        trust: Trust::Estimate,
        interval: None,
        known_by: format!(
            "the efficiencies that {} showed on the same hardware and engine, carried over to \
             {}'s sizes; this model was not measured here",
            profile.model, parts.model.name
        ),
    })
}

fn calibrated(profile: &RigProfile, calibration: &Calibration) -> Cost {
    let error = calibration.error.as_ref();
    let held_out = error.map_or_else(
        || "nothing was held out".to_string(),
        |error| {
            let percent = |share: f64| three_digits(share * 100.0);
            let (median, p90) = (percent(error.median), percent(error.p90));
            format!(
                "held-out error of {}: median {median} %, p90 {p90} %",
                error.what
            )
        },
    );
    Cost {
        coefficients: calibration.coefficients,
        trust: profile.trust,
        interval: error.map(|error| error.interval),
        known_by: format!(
            "calibrated on {}; {held_out}",
            calibration.calibrated_on.join(", ")
        ),
    }
}

/// Returns the operating point on the same hardware and engine whose model is most like this one.
fn relative<'c>(parts: &Parts<'_>, catalog: &'c Catalog) -> Option<&'c RigProfile> {
    let alike = |profile: &&RigProfile| {
        let model = catalog.model(&profile.model).ok();
        let same_family = model.is_some_and(|model| model.family == parts.model.family);
        let same_kind = model.is_some_and(|model| model.moe.is_some() == parts.model.moe.is_some());
        (same_family, same_kind)
    };
    catalog
        .all_rig_profiles()
        .filter(|profile| {
            profile.hardware == parts.hardware.name && profile.engine == parts.engine.name
        })
        .max_by_key(alike)
}

/// Returns how many devices share each layer.
fn devices(parts: &Parts<'_>, values: &Values) -> u32 {
    if parts.engine.name == "llama.cpp" {
        return 1;
    }
    values
        .int("tensor_parallel_size")
        .map_or(parts.hardware.devices, |asked| asked as u32)
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

fn vllm_settings(parts: &Parts<'_>, values: &Values) -> (vllm::Settings, BTreeMap<String, String>) {
    let model = parts.model;
    let devices = u64::from(devices(parts, values));
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
        offload: vllm::Offload::default(),
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

fn llama_settings(
    parts: &Parts<'_>,
    values: &Values,
) -> (
    llama_cpp::Settings,
    BTreeMap<String, String>,
    memory::Placed,
) {
    let model = parts.model;
    let shape = &model.shape.value;
    let asked = values.int("parallel");
    let parallel = asked.filter(|&slots| slots > 0).unwrap_or(4);
    let unified = match values.values.get("kv_unified") {
        Some(SettingValue::Bool(on)) => *on,
        _ => asked.is_none_or(|slots| slots == 0),
    };
    let kv_bytes = model.kv_bytes_per_token.value.0;
    let state_bytes = model.state_bytes_per_sequence.value.0;
    // Unset, the context is what the model was made for, for each slot unless they share, shrunk to fit.
    let most = model.max_context.value.0 * if unified { 1 } else { parallel };
    let placed = memory::llama_placed(
        parts.hardware,
        model,
        values.int("n_gpu_layers"),
        values.int("ctx_size").filter(|&asked| asked > 0),
        most,
        parallel,
    );
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
    (settings, shown, placed)
}
