//! From a rig's name and settings to something that answers calls.
//!
//! Resolves names in the catalogue, checks every setting against what the engine honours, sizes the cache and picks the
//! cost coefficients. A setting that would be ignored is an error.

mod cost;
mod devices;
mod knobs;
mod machine;
mod recording;
mod speculation;
mod tiers;

pub use cost::{Basis, basis, expected};
use cost::{Cost, computing, cost_of};

use crate::catalog::engine::SettingError;
use crate::catalog::{
    Catalog, EngineProfile, Hardware, Model, Platform, Point, SettingValue, Unknown, What,
};
use crate::known::Trust;
use crate::operating_point::{Kind, OperatingPoint};
use crate::rig::Rig;
use crate::rig::intake::Intake;
use crate::rig::power::{CapError, Draw};
use crate::study::economy;
use crate::study::habits;
use crate::trace::Trace;
use crate::trace::content::Content;
use crate::units::Bytes;
use std::collections::{BTreeMap, BTreeSet};
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
    #[error(
        "unknown setting `{0}`; expected `engine.` and a flag of the engine, `rig.variant`, `rig.disk_bandwidth`, `rig.power_cap_w`, `rig.power_prefill_w`, `rig.power_decode_w`, `rig.power_idle_w`, `rig.sustained_load`, `rig.bandwidth_scale`, `rig.compute_scale`, `rig.memory_scale`, `rig.time_scale` or `rig.devices`"
    )]
    Scope(String),
    /// A setting of the machine is none.
    #[error(transparent)]
    Machine(#[from] machine::MachineError),
    /// A power cap cannot be set.
    #[error(transparent)]
    Cap(#[from] CapError),
    /// The rig `recorded` has no settings.
    #[error("the rig `recorded` has no setting `{0}`")]
    NoSettings(String),
    /// The weights do not fit.
    #[error(
        "{model} does not fit {hardware}: its weights take {needs}, and {engine} can use {has} there"
    )]
    TooLarge {
        /// The model.
        model: String,
        /// The hardware.
        hardware: String,
        /// The engine.
        engine: String,
        /// What the weights take.
        needs: Bytes,
        /// What there is.
        has: Bytes,
    },
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
    /// The files are MLX's, which has one platform.
    #[error("{model} is made for MLX, which does not run on {hardware}")]
    Mlx {
        /// The model.
        model: String,
        /// The hardware.
        hardware: String,
    },
    /// The real engine would not start with these settings.
    #[error("vLLM does not start: {0}")]
    Start(String),
    /// The devices cannot share the model.
    #[error("{hardware} cannot share a model over {devices} devices: {why}")]
    Devices {
        /// How many.
        devices: u32,
        /// Of what.
        hardware: String,
        /// Why.
        why: String,
    },
    /// Speculative decoding was asked for in a way that cannot be simulated.
    #[error("speculative decoding: {0}")]
    Speculation(String),
    /// The tier of the cache has nowhere to be, or nothing is known of the way there.
    #[error("`engine.{key}` does nothing for {of}: {why}")]
    NoTier {
        /// The setting that asked for it.
        key: &'static str,
        /// The hardware or the model.
        of: String,
        /// Why.
        why: String,
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
}

mod engines;
mod honoured;

/// A rig's three parts, looked up.
struct Parts<'c> {
    hardware: &'c Hardware,
    engine: &'c EngineProfile,
    version: String,
    model: &'c Model,
}

impl<'c> Parts<'c> {
    /// Returns the same engine with another model on other hardware.
    fn with<'m>(&self, hardware: &'m Hardware, model: &'m Model) -> Parts<'m>
    where
        'c: 'm,
    {
        Parts {
            hardware,
            engine: self.engine,
            version: self.version.clone(),
            model,
        }
    }

    /// Returns the same rig with another model.
    fn with_model<'m>(&self, model: &'m Model) -> Parts<'m>
    where
        'c: 'm,
    {
        self.with(self.hardware, model)
    }
}

pub use recording::RECORDED;

/// Builds the rig that `spec` names, which may be [`RECORDED`], for a replay of `trace`.
///
/// Habits of the agent among the settings are the trace's and passed over, and so are prices; habits do not go with
/// [`RECORDED`].
pub fn build_for(
    spec: &str,
    settings: &[(String, String)],
    catalog: &Catalog,
    trace: &Trace,
) -> Result<Rig, RigError> {
    let of_cost = |key: &str| key.starts_with(economy::PREFIX);
    let without = |passed_over: &dyn Fn(&str) -> bool| -> Vec<(String, String)> {
        let own = settings.iter().filter(|(key, _)| !passed_over(key));
        own.cloned().collect()
    };
    if spec == RECORDED {
        return recording::build(&without(&of_cost), trace);
    }
    let own = without(&|key| key.starts_with(habits::PREFIX) || of_cost(key));
    build(spec, &own, catalog, &trace.content)
}

/// Builds the simulated rig that `spec` names, with `settings` in force, for a replay of `content`.
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
    let machine = machine::read(&of_rig)?;
    let changed = machine.knobs.hardware(parts.hardware);
    fits(&parts.with(&changed, parts.model))?;
    // Defaults are those of the machine as it is: a knob turns nothing but what it names.
    let values = Values::resolve(&parts, &of_engine)?;
    let (kept, one) = devices::shared(&parts, &values);
    let as_it_is = parts.with(
        one.as_ref().unwrap_or(parts.hardware),
        kept.as_ref().unwrap_or(parts.model),
    );
    let parts = parts.with(&changed, parts.model);
    devices::check(&parts, &values)?;
    let (kept, one) = devices::shared(&parts, &values);
    let parts = parts.with(
        one.as_ref().unwrap_or(parts.hardware),
        kept.as_ref().unwrap_or(parts.model),
    );
    let mut cost = cost_of(&as_it_is, &values, catalog, machine.variant.as_deref())?;
    machine
        .knobs
        .turn(&as_it_is, &parts, &values, catalog, &mut cost);
    let heat = machine.take_hold(&parts, &mut cost)?;
    if parts.engine.name == "llama.cpp" {
        tiers::spill(&parts, engines::placed(&parts, &values), &mut cost);
    }
    cost.coefficients = machine.knobs.slowed(&cost.coefficients);
    let mut speculating = speculation::of(&parts, &values, catalog)?;
    if let Some(speculating) = &mut speculating {
        let drafting = &mut speculating.cost.model;
        *drafting = drafting.map(|model| machine.knobs.slowed(&model));
        (cost.trust, cost.interval) = (Trust::Estimate, None);
        cost.known_by = format!("{}; plain passes: {}", speculating.known_by, cost.known_by);
    }
    let engines::Built {
        mut backend,
        cache,
        mut shown,
    } = engines::build(
        &parts,
        &values,
        cost.coefficients,
        speculating.as_ref(),
        machine.disk,
        content,
    )?;
    if let Some(speculating) = &speculating {
        let mean = format!("{:.4}", speculating.cost.gain.mean());
        shown.insert("engine.speculative_tokens_per_pass".to_string(), mean);
    }
    for (key, value) in &values.values {
        shown
            .entry(format!("engine.{key}"))
            .or_insert_with(|| value.to_string());
    }
    if cost.coefficients.intake_token_s > 0.0 {
        backend = Box::new(Intake::new(backend, cost.coefficients.intake_token_s));
    }
    backend.equip(machine::limits(&parts, &values, &shown), heat);
    shown.extend(machine::shown(&of_rig, &machine));
    cost.known_by += &from_files(&parts, catalog);
    // Nobody sells the machine that it would be, nor has held a meter to it.
    let real = !machine.knobs.another_machine();
    let draw = || {
        Draw::new(
            parts.hardware,
            computing(&parts),
            machine.power_cap,
            machine.measured,
        )
    };
    Ok(Rig {
        point: point(spec, &parts, shown, cost),
        cache,
        draw: real.then(draw),
        price: parts.hardware.price.clone().filter(|_| real),
        backend,
    })
}

/// Returns from which of the user's files the parts come, in words to follow others; empty where they are built in.
fn from_files(parts: &Parts<'_>, catalog: &Catalog) -> String {
    let named = [
        (What::Hardware, &parts.hardware.name),
        (What::Engine, &parts.engine.name),
        (What::Model, &parts.model.name),
    ];
    let told = named.into_iter().filter_map(|(what, name)| {
        let file = catalog.origin(what, name)?;
        Some(format!("; the {what} is that of {file}"))
    });
    told.collect()
}

/// Returns what the rig's figures hold for.
fn point(
    spec: &str,
    parts: &Parts<'_>,
    settings: BTreeMap<String, String>,
    cost: Cost,
) -> OperatingPoint {
    OperatingPoint {
        name: spec.to_string(),
        kind: Kind::Simulated,
        hardware: Some(parts.hardware.name.clone()),
        engine: Some(parts.engine.name.clone()),
        engine_version: Some(parts.version.clone()),
        model: Some(parts.model.family.clone()),
        quantization: Some(parts.model.quantization.clone()),
        settings,
        trust: cost.trust,
        error_interval: cost.interval,
        known_by: cost.known_by,
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
    if engine.backend(hardware.platform).is_none() {
        return Err(RigError::Platform {
            engine: engine.title.clone(),
            hardware: hardware.title.clone(),
            platform: hardware.platform.word(),
        });
    }
    if !engine.loads(model) {
        return Err(RigError::Format {
            engine: engine.title.clone(),
            model: model.name.clone(),
            loads: engine.loads.join(", "),
        });
    }
    if engines::on_mlx(model) && hardware.platform != Platform::Metal {
        return Err(RigError::Mlx {
            model: model.name.clone(),
            hardware: hardware.title.clone(),
        });
    }
    Ok(Parts {
        hardware,
        engine,
        version,
        model,
    })
}

/// Refuses a model whose weights the engine could not load; llama.cpp leaves layers of it in a host's own memory.
fn fits(parts: &Parts<'_>) -> Result<(), RigError> {
    let (needs, has) = (parts.model.weights.value, parts.hardware.usable_total());
    let spills = parts.engine.name == "llama.cpp" && !parts.hardware.unified_memory;
    if spills || needs < has {
        return Ok(());
    }
    Err(RigError::TooLarge {
        model: parts.model.name.clone(),
        hardware: parts.hardware.title.clone(),
        engine: parts.engine.title.clone(),
        needs,
        has,
    })
}

/// Every setting of the engine, by name.
struct Values {
    values: BTreeMap<String, SettingValue>,
    /// Those that the user named.
    chosen: BTreeSet<String>,
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
        let mut chosen = BTreeSet::new();
        let honoured = honoured::of(&parts.engine.name);
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
            chosen.insert(name.to_string());
        }
        Ok(Values { values, chosen })
    }

    fn chosen(&self, name: &str) -> bool {
        self.chosen.contains(name)
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
