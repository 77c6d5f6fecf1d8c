//! Reads the table of learned efficiencies.

use super::CatalogError;
use super::read::{Fields, File};
use super::rig::held_out;
use crate::catalog::efficiency::{Efficiency, Learned, TERM_NAMES, WeightPath};

/// Reads the whole table.
pub(super) fn read(file: &File<'_>) -> Result<Vec<Learned>, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let mut table = Vec::new();
    for entry in fields.tables("efficiency")? {
        table.push(learned(&entry)?);
        entry.finish()?;
    }
    fields.finish()?;
    Ok(table)
}

fn learned(fields: &Fields<'_, '_>) -> Result<Learned, CatalogError> {
    let chip = fields.id("chip")?;
    let mut terms = [0.0; TERM_NAMES.len()];
    let table = fields.table("terms")?;
    for (term, name) in terms.iter_mut().zip(TERM_NAMES) {
        *term = at_least_0(&table, name)?.unwrap_or(0.0);
    }
    let half_tokens = at_least_0(&table, "half_tokens")?;
    table.finish()?;
    Ok(Learned {
        chip: (chip != "any").then_some(chip),
        engine: fields.id("engine")?,
        backend: fields.id("backend")?,
        path: fields.choice("path", &WeightPath::ALL, WeightPath::word)?,
        sparse: fields
            .flag("sparse")?
            .ok_or_else(|| fields.missing("sparse", "true or false"))?,
        efficiency: Efficiency { terms, half_tokens },
        points: fields.count("points")?,
        error: held_out(fields)?,
    })
}

fn at_least_0(fields: &Fields<'_, '_>, key: &str) -> Result<Option<f64>, CatalogError> {
    match fields.optional_number(key)? {
        Some(number) if !(number.is_finite() && number >= 0.0) => {
            Err(fields.wrong_value(key, &number.to_string(), "a number from 0"))
        }
        other => Ok(other),
    }
}
