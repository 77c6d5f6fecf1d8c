//! How long a rig's steps take, and how that is known: measured, carried over from what was, or from specifications.

use super::{Parts, RigError, Values, devices, engines, fits, look_up};
use crate::catalog::efficiency::{Asked, Efficiency, Learned, WeightPath, best};
use crate::catalog::rig::{Calibration, HeldOut, RigProfile};
use crate::catalog::{Catalog, Hardware, Model};
use crate::known::Trust;
use crate::rig::cost::Coefficients;
use crate::rig::roofline;
use crate::units::three_digits;

/// Cost coefficients and how they are known.
pub(super) struct Cost {
    pub(super) coefficients: Coefficients,
    pub(super) trust: Trust,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) known_by: String,
}

/// Returns what steps cost on the rig: as measured, as carried over from what was, or from specifications.
pub(super) fn cost_of(
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
    let devices = devices::sharing(parts, values);
    let (learned, efficiency) = efficiency(parts.hardware, engine, parts.model, catalog);
    let here = roofline::coefficients(parts.hardware, parts.model, &efficiency, devices);
    let same_chip = learned.is_some_and(|learned| learned.chip.is_some());
    let interval = learned.and_then(|one| one.error.as_ref().map(|error| error.interval));
    let linked = |cost| devices::linked(parts, values, cost);
    let Some(profile) = relative(parts, catalog, same_chip) else {
        return Ok(Cost {
            coefficients: linked(here),
            trust: Trust::Estimate,
            interval,
            known_by: from_learned(parts, learned),
        });
    };
    let measured = catalog.model(&profile.model)?;
    let measured_on = catalog.hardware(&profile.hardware)?;
    let same = measured_on.devices == parts.hardware.devices;
    let devices = if same { devices } else { 1 };
    let there = roofline::coefficients(measured_on, measured, &efficiency, devices);
    let transferred = roofline::transferred(&here, &there, &profile.default.coefficients);
    let of = if same {
        "the same hardware"
    } else {
        measured_on.title.as_str()
    };
    Ok(Cost {
        // What devices of the same hardware say to each other is in what was measured there.
        coefficients: if same {
            transferred
        } else {
            linked(transferred)
        },
        trust: Trust::Estimate,
        interval,
        known_by: format!(
            "the efficiencies that {} showed on {of} and the same engine, carried over to \
             {}'s sizes{}; this was not measured here",
            profile.model,
            parts.model.name,
            if same {
                ""
            } else {
                " and to several devices with what their link takes"
            },
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

/// What a rig's times rest on.
#[derive(Clone, PartialEq, Debug)]
pub enum Basis {
    /// Measurements of that very combination, and the error on those that were left out.
    Calibrated(Option<HeldOut>),
    /// Measurements of the same hardware and passes: of this rig, or of so many points of other models.
    CarriedOver(String),
    /// Specifications and typical efficiencies.
    Roofline,
}

impl Basis {
    /// Returns the word used in reports.
    pub fn word(&self) -> &'static str {
        match self {
            Basis::Calibrated(_) => "calibrated",
            Basis::CarriedOver(_) => "carried over",
            Basis::Roofline => "roofline",
        }
    }
}

/// Returns what the times of a rig rest on, or why there is no such rig.
pub fn basis(spec: &str, catalog: &Catalog) -> Result<Basis, RigError> {
    let parts = look_up(spec, catalog)?;
    fits(&parts)?;
    let engine = computing(&parts);
    let own = catalog.rig_profile(&parts.hardware.name, engine, &parts.model.name);
    if let Some(profile) = own {
        return Ok(if engine == parts.engine.name {
            Basis::Calibrated(profile.default.error.clone())
        } else {
            Basis::CarriedOver(profile.name())
        });
    }
    let (learned, _) = efficiency(parts.hardware, engine, parts.model, catalog);
    let learned = learned.filter(|learned| learned.chip.is_some());
    let from = relative(&parts, catalog, learned.is_some()).map(RigProfile::name);
    let of_points = |one: &Learned| format!("{} points of other models", one.points);
    Ok(from
        .or_else(|| learned.map(of_points))
        .map_or(Basis::Roofline, Basis::CarriedOver))
}

/// Returns the operating point on the same hardware and engine, or on one such device, whose model is most like this one.
///
/// Where efficiencies were learned of the same chip, they know more than a single model of another family does.
fn relative<'c>(
    parts: &Parts<'_>,
    catalog: &'c Catalog,
    same_chip: bool,
) -> Option<&'c RigProfile> {
    // As many devices count more than one of those that this hardware has several of.
    let near = |profile: &RigProfile| {
        let several = catalog
            .hardware(&parts.hardware.name)
            .is_ok_and(|all| all.devices > 1);
        let one = catalog.hardware(&profile.hardware).ok()?;
        let same = one.devices == parts.hardware.devices;
        let near = one.chip == parts.hardware.chip && (same || several && one.devices == 1);
        near.then_some(same)
    };
    let alike = |profile: &RigProfile| {
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
        .filter(|profile| profile.engine == computing(parts) && near(profile).is_some())
        .filter(|profile| !same_chip || alike(profile).0)
        .max_by_key(|profile| (near(profile), alike(profile)))
}

/// Returns the engine that makes the passes: Ollama and LM Studio run llama.cpp's server.
pub(super) fn computing<'p>(parts: &'p Parts<'_>) -> &'p str {
    let name = parts.engine.name.as_str();
    let llama = name == "ollama" || name == "lm-studio" && !engines::on_mlx(parts.model);
    if llama { "llama.cpp" } else { name }
}
