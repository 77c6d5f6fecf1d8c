//! Reads a calibrated operating point.

use std::collections::BTreeMap;

use super::CatalogError;
use super::read::{Fields, File};
use crate::catalog::rig::{Calibration, CapturedGraphs, Coefficients, HeldOut, RigProfile};
use crate::known::Trust;

/// Reads the operating point that a file describes.
pub(super) fn read(file: &File<'_>) -> Result<RigProfile, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let default = fields.table("default")?;
    let mut variants = BTreeMap::new();
    for table in fields.tables("variant")? {
        let name = table.id("name")?;
        let variant = calibration(&table)?;
        table.finish()?;
        if variants.insert(name.clone(), variant).is_some() {
            return Err(fields.wrong_value(
                "variant",
                &format!("`{name}` twice"),
                "distinct names",
            ));
        }
    }
    let profile = RigProfile {
        hardware: fields.id("hardware")?,
        engine: fields.id("engine")?,
        engine_version: fields.id("engine_version")?,
        model: fields.id("model")?,
        captured_graphs: fields.choice(
            "captured_graphs",
            &CapturedGraphs::ALL,
            CapturedGraphs::word,
        )?,
        trust: fields.choice("trust", &Trust::ALL, Trust::word)?,
        default: calibration(&default)?,
        variants,
        notes: fields.texts("notes")?,
    };
    default.finish()?;
    fields.finish()?;
    Ok(profile)
}

fn calibration(fields: &Fields<'_, '_>) -> Result<Calibration, CatalogError> {
    let calibration = Calibration {
        what: fields.text("what")?,
        calibrated_on: fields.texts("calibrated_on")?,
        coefficients: coefficients(fields)?,
        priors: fields.ids("priors")?,
        error: held_out(fields)?,
    };
    if calibration.calibrated_on.is_empty() {
        return Err(fields.missing("calibrated_on", "the names of measurements"));
    }
    Ok(calibration)
}

/// Reads a table of coefficients: seconds per unit, all of them from 0; what is left out is 0.
fn coefficients(parent: &Fields<'_, '_>) -> Result<Coefficients, CatalogError> {
    let fields = parent.table("coefficients")?;
    let at_least_0 = |key: &str| -> Result<Option<f64>, CatalogError> {
        let Some(number) = fields.optional_number(key)? else {
            return Ok(None);
        };
        if number.is_finite() && number >= 0.0 {
            Ok(Some(number))
        } else {
            Err(fields.wrong_value(key, &number.to_string(), "a number from 0"))
        }
    };
    let needed = |key: &str| at_least_0(key)?.ok_or_else(|| fields.missing(key, "a number from 0"));
    let read = Coefficients {
        weights_s: needed("weights_s")?,
        experts_s: needed("experts_s")?,
        row_s: needed("row_s")?,
        second_row_s: needed("second_row_s")?,
        kv_s: needed("kv_s")?,
        kv_short_s: at_least_0("kv_short_s")?,
        short_tokens: u64::from(fields.optional_count("short_tokens")?.unwrap_or(0)),
        kv_imbalance: needed("kv_imbalance")?,
        token_s: needed("token_s")?,
        half_tokens: needed("half_tokens")?,
        attention_s: needed("attention_s")?,
        request_s: needed("request_s")?,
        matrix_s: at_least_0("matrix_s")?.unwrap_or(0.0),
        vector_tokens: u64::from(fields.optional_count("vector_tokens")?.unwrap_or(0)),
        expert_share: needed("expert_share")?,
        overlap: needed("overlap")?,
        link_token_s: 0.0,
        intake_token_s: at_least_0("intake_token_s")?.unwrap_or(0.0),
    };
    for (key, share) in [
        ("kv_imbalance", read.kv_imbalance),
        ("expert_share", read.expert_share),
        ("overlap", read.overlap),
    ] {
        if share > 1.0 {
            return Err(fields.wrong_value(key, &share.to_string(), "a share, at most 1"));
        }
    }
    if read.kv_short_s.is_some() != (read.short_tokens > 0) {
        return Err(fields.missing("short_tokens", "a length, wherever there is a `kv_short_s`"));
    }
    fields.finish()?;
    Ok(read)
}

pub(super) fn held_out(fields: &Fields<'_, '_>) -> Result<Option<HeldOut>, CatalogError> {
    let Some(table) = fields.optional_table("error")? else {
        return Ok(None);
    };
    let ratio = |key: &str| {
        table
            .optional_number(key)?
            .filter(|ratio| *ratio >= 0.0)
            .ok_or_else(|| table.missing(key, "a ratio from 0"))
    };
    let error = HeldOut {
        what: table.text("what")?,
        count: table.count("count")?,
        median: ratio("median")?,
        p90: ratio("p90")?,
        interval: (ratio("interval_from_ratio")?, ratio("interval_to_ratio")?),
        interval_from: table.text("interval")?,
    };
    if error.interval.0 > error.interval.1 {
        let found = error.interval.1.to_string();
        let least = format!("at least {}", error.interval.0);
        return Err(table.wrong_value("interval_to_ratio", &found, &least));
    }
    table.finish()?;
    Ok(Some(error))
}
