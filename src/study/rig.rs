//! From a rig's name and settings to something that answers calls.
//!
//! Resolves names in the catalogue, checks every setting against what the engine honours, sizes the cache and picks the
//! cost coefficients. A setting that would be ignored is an error.

mod tiers;

use crate::catalog::efficiency::{Asked, Efficiency, Learned, WeightPath, best};
use crate::catalog::engine::SettingError;
use crate::catalog::rig::{Calibration, RigProfile};
use crate::catalog::{
    Catalog, EngineProfile, Hardware, Model, Platform, Point, SettingValue, Unknown,
};
use crate::known::Trust;
use crate::operating_point::{Kind, OperatingPoint};
use crate::rig::cost::Coefficients;
use crate::rig::{Rig, roofline};
use crate::trace::content::Content;
use crate::units::three_digits;
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
    if parts.engine.name == "llama.cpp" {
        tiers::spill(&parts, engines::placed(&parts, &values), &mut cost);
    }
    let engines::Built {
        backend,
        cache,
        mut shown,
    } = engines::build(&parts, &values, cost.coefficients, content)?;
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
    Ok(Rig {
        point,
        cache,
        backend,
    })
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
    let mlx_elsewhere = engines::on_mlx(model) && hardware.platform != Platform::Metal;
    if engine.backend(hardware.platform).is_none() || mlx_elsewhere {
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
    let engine = computing(parts);
    if let Some(profile) = catalog.rig_profile(&parts.hardware.name, engine, &parts.model.name) {
        let cost = calibrated(profile, profile.calibration(variant)?);
        return Ok(if engine == parts.engine.name {
            cost
        } else {
            Cost {
                trust: Trust::Estimate,
                interval: None,
                known_by: format!(
                    "{} computes with {engine}, whose measurements on the same hardware and model \
                     these are; nothing was measured under {} itself",
                    parts.engine.title, parts.engine.title
                ),
                ..cost
            }
        });
    }
    if let Some(variant) = variant {
        return Err(RigError::NoVariant(variant.to_string()));
    }
    let devices = devices(parts, values);
    let (learned, efficiency) = efficiency(parts.hardware, engine, parts.model, catalog);
    let here = roofline::coefficients(parts.hardware, parts.model, &efficiency, devices);
    let same_chip = learned.is_some_and(|learned| learned.chip.is_some());
    let interval = learned.and_then(|one| one.error.as_ref().map(|error| error.interval));
    let measured = relative(parts, catalog, same_chip);
    let Some(profile) = measured else {
        return Ok(Cost {
            coefficients: here,
            trust: Trust::Estimate,
            interval,
            known_by: from_learned(parts, learned),
        });
    };
    let measured = catalog.model(&profile.model)?;
    let there = roofline::coefficients(parts.hardware, measured, &efficiency, devices);
    Ok(Cost {
        coefficients: roofline::transferred(&here, &there, &profile.default.coefficients),
        trust: Trust::Estimate,
        interval,
        known_by: format!(
            "the efficiencies that {} showed on the same hardware and engine, carried over to \
             {}'s sizes; this model was not measured here",
            profile.model, parts.model.name
        ),
    })
}

/// Returns the efficiencies to expect of a machine under an engine, and where they come from, in words.
pub fn expected(
    hardware: &Hardware,
    engine: &str,
    model: &Model,
    catalog: &Catalog,
) -> (Efficiency, String) {
    let (learned, efficiency) = efficiency(hardware, engine, model, catalog);
    let from = match learned {
        None => "what is typical of the engine".to_string(),
        Some(Learned { chip: Some(_), .. }) => {
            format!("what other models show on {}", hardware.title)
        }
        Some(_) => "what other machines show under the engine".to_string(),
    };
    (efficiency, from)
}

/// Returns the efficiencies to expect, and where they were learned; typical ones were learned nowhere.
fn efficiency<'c>(
    hardware: &Hardware,
    engine: &str,
    model: &Model,
    catalog: &'c Catalog,
) -> (Option<&'c Learned>, Efficiency) {
    let platform = hardware.platform;
    let profile = catalog.engine(engine).ok();
    let asked = Asked {
        chip: &hardware.chip,
        engine,
        backend: profile
            .and_then(|one| one.backend(platform))
            .unwrap_or_default(),
        path: WeightPath::of(model),
        sparse: model.moe.is_some(),
    };
    let learned = best(catalog.efficiencies(), asked);
    let efficiency = learned.map_or_else(
        || roofline::typical(engine, platform),
        |learned| learned.efficiency,
    );
    (learned, efficiency)
}

/// Says how a rig that was not measured is known.
fn from_learned(parts: &Parts<'_>, learned: Option<&Learned>) -> String {
    let Some(learned) = learned else {
        return "a roofline estimate from specifications and typical efficiencies; \
                nothing was measured on this rig"
            .to_string();
    };
    let of = match &learned.chip {
        Some(_) => format!("other models on {}", parts.hardware.title),
        None => "other machines".to_string(),
    };
    let error = learned.error.as_ref().map_or(String::new(), |error| {
        let percent = |share: f64| three_digits(share * 100.0);
        let (median, p90) = (percent(error.median), percent(error.p90));
        format!(
            "; held-out error of {}: median {median} %, p90 {p90} %",
            error.what
        )
    });
    format!(
        "a roofline estimate from specifications, with the efficiencies that {} points of {of} \
         showed under this engine; nothing was measured on this rig{error}",
        learned.points
    )
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
///
/// Where efficiencies were learned of the same chip, they know more than a single model of another family does.
fn relative<'c>(
    parts: &Parts<'_>,
    catalog: &'c Catalog,
    same_chip: bool,
) -> Option<&'c RigProfile> {
    let alike = |profile: &&RigProfile| {
        let model = catalog.model(&profile.model).ok();
        let same_family = model.is_some_and(|model| model.family == parts.model.family);
        let same_kind = model.is_some_and(|model| model.moe.is_some() == parts.model.moe.is_some());
        let same_path =
            model.is_some_and(|model| WeightPath::of(model) == WeightPath::of(parts.model));
        let same_machine = profile.hardware == parts.hardware.name;
        (same_family, same_kind, same_path, same_machine)
    };
    catalog
        .all_rig_profiles()
        .filter(|profile| {
            let hardware = catalog.hardware(&profile.hardware).ok();
            let like = hardware.is_some_and(|one| {
                one.chip == parts.hardware.chip && one.devices == parts.hardware.devices
            });
            like && profile.engine == computing(parts)
        })
        .filter(|profile| !same_chip || alike(profile).0)
        .max_by_key(alike)
}

/// Returns the engine that makes the passes: Ollama and LM Studio run llama.cpp's server.
fn computing<'p>(parts: &'p Parts<'_>) -> &'p str {
    let name = parts.engine.name.as_str();
    let llama = name == "ollama" || name == "lm-studio" && !engines::on_mlx(parts.model);
    if llama { "llama.cpp" } else { name }
}

/// Returns how many devices share each layer.
fn devices(parts: &Parts<'_>, values: &Values) -> u32 {
    if !parts.engine.settings.contains_key("tensor_parallel_size") {
        return 1;
    }
    let asked = values.int("tensor_parallel_size");
    asked.map_or(parts.hardware.devices, |asked| asked as u32)
}
