//! Reads a serving engine.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::CatalogError;
use super::read::{Fields, File, number};
use crate::catalog::engine::{
    DefaultRule, EngineProfile, Setting, SettingAlias, SettingKind, SettingValue, Version,
};
use crate::catalog::hardware::Platform;

/// Reads the engine that a file describes.
pub(super) fn read(file: &File<'_>) -> Result<EngineProfile, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let versions = versions(&fields)?;
    let names: Vec<String> = versions
        .iter()
        .map(|version| version.name.clone())
        .collect();
    let engine = EngineProfile {
        name: fields.id("name")?,
        title: fields.text("title")?,
        aliases: fields.ids("aliases")?,
        loads: fields.ids("loads")?,
        default_version: version(&fields, "default_version", &names)?
            .ok_or_else(|| fields.missing("default_version", "the name of a version"))?,
        versions,
        backends: backends(&fields)?,
        settings: settings(&fields, &names)?,
        unmodelled: unmodelled(&fields)?,
        note: fields.optional_text("note")?,
    };
    fields.finish()?;
    Ok(engine)
}

fn versions(fields: &Fields<'_, '_>) -> Result<Vec<Version>, CatalogError> {
    let mut versions = Vec::new();
    for table in fields.tables("version")? {
        versions.push(Version {
            name: table.id("name")?,
            aliases: table.ids("aliases")?,
            date: table.text("date")?,
            source: table.text("source")?,
        });
        table.finish()?;
    }
    Ok(versions)
}

/// Returns the version that a field names, when it is there.
fn version(
    fields: &Fields<'_, '_>,
    key: &str,
    names: &[String],
) -> Result<Option<String>, CatalogError> {
    match fields.optional_text(key)? {
        Some(name) if !names.contains(&name) => {
            let expected = format!("one of the versions {}", names.join(", "));
            Err(fields.wrong_value(key, &format!("`{name}`"), &expected))
        }
        found => Ok(found),
    }
}

fn backends(fields: &Fields<'_, '_>) -> Result<BTreeMap<Platform, Vec<String>>, CatalogError> {
    let table = fields.table("backends")?;
    let mut backends = BTreeMap::new();
    for platform in Platform::ALL {
        let names = table.ids(platform.word())?;
        if !names.is_empty() {
            backends.insert(platform, names);
        }
    }
    table.finish()?;
    Ok(backends)
}

fn unmodelled(fields: &Fields<'_, '_>) -> Result<BTreeMap<String, String>, CatalogError> {
    let Some(table) = fields.optional_table("unmodelled")? else {
        return Ok(BTreeMap::new());
    };
    let flags = table.keys().into_iter();
    flags
        .map(|key| table.text(&key).map(|why| (key, why)))
        .collect()
}

fn settings(
    fields: &Fields<'_, '_>,
    versions: &[String],
) -> Result<BTreeMap<String, Setting>, CatalogError> {
    let all = fields.table("settings")?;
    let mut settings = BTreeMap::new();
    for name in all.keys() {
        let table = all.table(&name)?;
        settings.insert(name.clone(), setting(name, &table, versions)?);
        table.finish()?;
    }
    Ok(settings)
}

fn setting(
    name: String,
    table: &Fields<'_, '_>,
    versions: &[String],
) -> Result<Setting, CatalogError> {
    let mut setting = Setting {
        name,
        aliases: table
            .texts("aliases")?
            .iter()
            .map(|alias| alias_of(alias))
            .collect(),
        kind: kind(table)?,
        optional: table.flag("optional")?.unwrap_or_default(),
        what: table.text("what")?,
        defaults: Vec::new(),
    };
    for rule in table.tables("defaults")? {
        setting.defaults.push(default(&setting, &rule, versions)?);
        rule.finish()?;
    }
    if setting.defaults.last().is_none_or(|rule| !everywhere(rule)) {
        return Err(table.missing("defaults", "a list whose last rule has no condition"));
    }
    Ok(setting)
}

/// Returns the alias that a file writes as `name`, or `!name` for its opposite.
fn alias_of(text: &str) -> SettingAlias {
    SettingAlias {
        name: text.trim_start_matches('!').to_string(),
        negated: text.starts_with('!'),
    }
}

fn kind(table: &Fields<'_, '_>) -> Result<SettingKind, CatalogError> {
    let word = table.text("kind")?;
    let min = table.optional_number("min")?;
    let max = table.optional_number("max")?;
    Ok(match word.as_str() {
        "bool" => SettingKind::Bool,
        "int" => SettingKind::Int {
            min: min.map_or(0, |least| least as i64),
            max: max.map_or(i64::MAX, |most| most as i64),
        },
        "float" => SettingKind::Float {
            min: min.unwrap_or(0.0),
            max: max.unwrap_or(f64::INFINITY),
        },
        "text" => SettingKind::Text {
            choices: table.texts("choices")?,
        },
        _ => {
            let found = format!("`{word}`");
            return Err(table.wrong_value("kind", &found, "bool, int, float or text"));
        }
    })
}

fn default(
    setting: &Setting,
    rule: &Fields<'_, '_>,
    versions: &[String],
) -> Result<DefaultRule, CatalogError> {
    let raw = rule.raw("value")?;
    let value = value(&setting.kind, raw)
        .filter(|value| setting.admits(value))
        .ok_or_else(|| rule.wrong("value", raw, &setting.kind.to_string()))?;
    Ok(DefaultRule {
        value: rule.known(value)?,
        since: version(rule, "since", versions)?,
        until: version(rule, "until", versions)?,
        min_memory: rule.optional_size("min_memory")?,
        chips: rule.ids("chips")?,
        not_chips: rule.ids("not_chips")?,
        hybrid: rule.flag("hybrid")?,
        note: rule.optional_text("note")?,
    })
}

/// Returns a value as written in a file; the word "none" stands for unset.
fn value(kind: &SettingKind, raw: &Spanned<DeValue<'_>>) -> Option<SettingValue> {
    match (kind, raw.get_ref()) {
        (_, DeValue::String(word)) if word == "none" => Some(SettingValue::Unset),
        (SettingKind::Bool, DeValue::Boolean(on)) => Some(SettingValue::Bool(*on)),
        (SettingKind::Int { .. }, DeValue::Integer(digits)) => {
            digits.as_str().parse().ok().map(SettingValue::Int)
        }
        (SettingKind::Float { .. }, figure) => number(figure).map(SettingValue::Float),
        (SettingKind::Text { .. }, DeValue::String(word)) => {
            Some(SettingValue::Text(word.to_string()))
        }
        _ => None,
    }
}

fn everywhere(rule: &DefaultRule) -> bool {
    rule.since.is_none()
        && rule.until.is_none()
        && rule.min_memory.is_none()
        && rule.chips.is_empty()
        && rule.not_chips.is_empty()
        && rule.hybrid.is_none()
}
