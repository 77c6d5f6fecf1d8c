//! Reads the table of published claims.

use super::CatalogError;
use super::read::{Fields, File};
use crate::catalog::claim::{Claim, Metric};

/// Reads the claims of a file.
pub(super) fn read(file: &File<'_>) -> Result<Vec<Claim>, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let mut claims = Vec::new();
    for table in fields.tables("claim")? {
        claims.push(claim(&table)?);
        table.finish()?;
    }
    fields.finish()?;
    Ok(claims)
}

fn claim(table: &Fields<'_, '_>) -> Result<Claim, CatalogError> {
    let figure = |key: &str| -> Result<Option<f64>, CatalogError> {
        match table.optional_number(key)? {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            Some(number) => Err(table.wrong_value(key, &number.to_string(), "a number above 0")),
            None => Ok(None),
        }
    };
    let low = figure("low")?.ok_or_else(|| table.missing("low", "a number above 0"))?;
    let metric = table.choice("metric", &Metric::ALL, Metric::word)?;
    let unit = table.text("unit")?;
    if unit != metric.unit() {
        return Err(table.wrong_value("unit", &format!("`{unit}`"), metric.unit()));
    }
    Ok(Claim {
        hardware: Some(table.id("hardware")?),
        model: table.id("model")?,
        metric,
        low,
        high: figure("high")?.unwrap_or(low),
        streams: u64::from(table.optional_count("streams")?.unwrap_or(1)).max(1),
        context: u64::from(table.optional_count("context")?.unwrap_or(0)),
        conditions: table.optional_text("conditions")?,
        source: table.text("source")?,
    })
}
