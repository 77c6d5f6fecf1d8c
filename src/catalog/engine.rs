//! Serving engines as plain values: versions, backends, and every setting a user may name.
//!
//! What a setting does is the engine model's business; here stand its name, its type and its default, which may hang on
//! the version, the device and the model. A flag that the engine has but the simulation ignores is listed with the
//! reason, so that naming it is an error that explains itself.

use std::collections::BTreeMap;
use std::fmt;

use super::hardware::{Hardware, Platform};
use super::model::Model;
use super::suggest::{question, suggest};
use super::{Unknown, What};
use crate::known::Known;
use crate::units::Bytes;

/// The value of a setting.
#[derive(Clone, PartialEq, Debug)]
pub enum SettingValue {
    /// Not set: the engine decides, or the limit does not exist.
    Unset,
    /// A switch.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A word.
    Text(String),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Unset => f.write_str("unset"),
            SettingValue::Bool(on) => f.write_str(if *on { "on" } else { "off" }),
            SettingValue::Int(number) => write!(f, "{number}"),
            SettingValue::Float(number) => write!(f, "{number}"),
            SettingValue::Text(word) => f.write_str(word),
        }
    }
}

impl SettingValue {
    /// Returns the switch, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            SettingValue::Bool(on) => Some(*on),
            _ => None,
        }
    }

    /// Returns the whole number, when it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            SettingValue::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the number, when it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            SettingValue::Int(number) => Some(*number as f64),
            SettingValue::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the word, when it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            SettingValue::Text(word) => Some(word),
            _ => None,
        }
    }
}

/// What values a setting takes.
#[derive(Clone, PartialEq, Debug)]
pub enum SettingKind {
    /// on or off.
    Bool,
    /// A whole number in a range.
    Int {
        /// The least allowed.
        min: i64,
        /// The most allowed.
        max: i64,
    },
    /// A real number in a range.
    Float {
        /// The least allowed.
        min: f64,
        /// The most allowed.
        max: f64,
    },
    /// One of some words; any word when the list is empty.
    Text {
        /// The words.
        choices: Vec<String>,
    },
}

impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingKind::Bool => f.write_str("on or off"),
            SettingKind::Int { min, max: i64::MAX } => write!(f, "a whole number from {min}"),
            SettingKind::Int { min, max } => write!(f, "a whole number from {min} to {max}"),
            SettingKind::Float { min, max } if max.is_infinite() => {
                write!(f, "a number from {min}")
            }
            SettingKind::Float { min, max } => write!(f, "a number from {min} to {max}"),
            SettingKind::Text { choices } if choices.is_empty() => f.write_str("a word"),
            SettingKind::Text { choices } => write!(f, "one of {}", choices.join(", ")),
        }
    }
}

/// Another name of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingAlias {
    /// The name.
    pub name: String,
    /// True when it switches the setting off, as `no_mmap` does.
    pub negated: bool,
}

/// A default and the operating points it holds at; absent conditions hold everywhere.
#[derive(Clone, PartialEq, Debug)]
pub struct DefaultRule {
    /// The value there.
    pub value: Known<SettingValue>,
    /// The first version it holds for.
    pub since: Option<String>,
    /// The last version it holds for.
    pub until: Option<String>,
    /// The least memory of one device.
    pub min_memory: Option<Bytes>,
    /// The only chips it holds for; empty for all.
    pub chips: Vec<String>,
    /// Chips it does not hold for.
    pub not_chips: Vec<String>,
    /// Whether the model must be a hybrid, or must not.
    pub hybrid: Option<bool>,
    /// What is contested or uncertain about it.
    pub note: Option<String>,
}

/// A setting that the simulation honours.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// The engine's own flag name, with underscores.
    pub name: String,
    /// Short flags and other spellings.
    pub aliases: Vec<SettingAlias>,
    /// What values it takes.
    pub kind: SettingKind,
    /// True when it may be left unset, written `none` or `auto`.
    pub optional: bool,
    /// What it does, in a few words.
    pub what: String,
    /// Defaults, first match wins.
    pub defaults: Vec<DefaultRule>,
}

/// A version of an engine that the catalogue tells apart.
#[derive(Clone, PartialEq, Debug)]
pub struct Version {
    /// The name after the `@`.
    pub name: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// When it was current.
    pub date: String,
    /// What was read or measured to know it.
    pub source: String,
}

/// A serving engine.
#[derive(Clone, PartialEq, Debug)]
pub struct EngineProfile {
    /// The name used on the command line.
    pub name: String,
    /// The name that its makers use.
    pub title: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// The quantisations it loads, as models are named after them.
    pub loads: Vec<String>,
    /// Known versions, oldest first.
    pub versions: Vec<Version>,
    /// The version meant when none is named.
    pub default_version: String,
    /// Backends by platform, the usual one first; a platform that is absent cannot run this engine.
    pub backends: BTreeMap<Platform, Vec<String>>,
    /// Settings that are honoured, by name.
    pub settings: BTreeMap<String, Setting>,
    /// Flags that exist but are not modelled, with the reason.
    pub unmodelled: BTreeMap<String, String>,
    /// What else a user should know.
    pub note: Option<String>,
}

/// Where a default is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The name of the engine's version.
    pub version: &'a str,
    /// The machine.
    pub hardware: &'a Hardware,
    /// The model.
    pub model: &'a Model,
}

/// Why a setting was refused.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SettingError {
    /// The engine has no such flag.
    #[error("{engine} has no setting `{key}`{}", question(suggestions))]
    Unknown {
        /// The engine.
        engine: String,
        /// What was typed.
        key: String,
        /// What may have been meant.
        suggestions: Vec<String>,
    },
    /// The engine has the flag, the simulation does not.
    #[error("`{key}` of {engine} is not modelled: {why}")]
    Unmodelled {
        /// The engine.
        engine: String,
        /// What was typed.
        key: String,
        /// Why it is left out.
        why: String,
    },
    /// The flag takes other values.
    #[error("`{key}` of {engine} is `{found}`; expected {expected}")]
    Value {
        /// The engine.
        engine: String,
        /// What was typed before the `=`.
        key: String,
        /// What was typed after it.
        found: String,
        /// What it takes.
        expected: String,
    },
}

impl Setting {
    /// Reads a value as typed, or nothing when it is of another type or out of range.
    pub fn parse(&self, text: &str) -> Option<SettingValue> {
        let text = text.trim();
        if self.optional && matches!(text, "none" | "auto" | "unset" | "null") {
            return Some(SettingValue::Unset);
        }
        match &self.kind {
            SettingKind::Bool => match text.to_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => Some(SettingValue::Bool(true)),
                "off" | "false" | "no" | "0" => Some(SettingValue::Bool(false)),
                _ => None,
            },
            SettingKind::Int { .. } => text.parse().ok().map(SettingValue::Int),
            SettingKind::Float { .. } => text.parse().ok().map(SettingValue::Float),
            SettingKind::Text { .. } => Some(SettingValue::Text(text.to_string())),
        }
        .filter(|value| self.admits(value))
    }

    /// Returns true when `value` is one that this setting takes.
    pub fn admits(&self, value: &SettingValue) -> bool {
        match (&self.kind, value) {
            (_, SettingValue::Unset) => self.optional,
            (SettingKind::Bool, SettingValue::Bool(_)) => true,
            (SettingKind::Int { min, max }, SettingValue::Int(number)) => {
                (min..=max).contains(&number)
            }
            (SettingKind::Float { min, max }, SettingValue::Float(number)) => {
                (min..=max).contains(&number)
            }
            (SettingKind::Text { choices }, SettingValue::Text(word)) => {
                choices.is_empty() && !word.is_empty() || choices.contains(word)
            }
            _ => false,
        }
    }
}

impl EngineProfile {
    /// Returns whether it can load files of this model's quantisation.
    pub fn loads(&self, model: &Model) -> bool {
        let quantization = model.name.strip_prefix(&model.family);
        let quantization = quantization.map(|rest| rest.trim_start_matches('-'));
        quantization.is_some_and(|name| self.loads.iter().any(|one| one == name))
    }

    /// Returns the version of that name, or the default one when none is given.
    pub fn version(&self, name: Option<&str>) -> Result<&Version, Unknown> {
        let wanted = name.unwrap_or(&self.default_version);
        self.versions
            .iter()
            .find(|version| {
                version.name == wanted || version.aliases.iter().any(|alias| alias == wanted)
            })
            .ok_or_else(|| Unknown {
                what: What::Version,
                name: wanted.to_string(),
                suggestions: self
                    .versions
                    .iter()
                    .rev()
                    .take(5)
                    .map(|v| v.name.clone())
                    .collect(),
            })
    }

    /// Reads `key=text` as the user typed it and returns the setting's own name with its value.
    pub fn assign(&self, key: &str, text: &str) -> Result<(&str, SettingValue), SettingError> {
        let plain = key.trim().trim_start_matches('-').replace('-', "_");
        let Some((setting, negated)) = self.find(&plain) else {
            return Err(self.refuse(key, &plain));
        };
        let value = setting.parse(text).ok_or_else(|| SettingError::Value {
            engine: self.name.clone(),
            key: key.to_string(),
            found: text.to_string(),
            expected: setting.kind.to_string(),
        })?;
        let value = match value {
            SettingValue::Bool(on) => SettingValue::Bool(on != negated),
            other => other,
        };
        Ok((&setting.name, value))
    }

    /// Returns every setting's default at an operating point, with its source.
    ///
    /// # Panics
    /// When the version is not one of this engine's.
    pub fn defaults(&self, point: Point<'_>) -> BTreeMap<&str, &Known<SettingValue>> {
        self.settings
            .values()
            .map(|setting| {
                let rule = setting
                    .defaults
                    .iter()
                    .find(|rule| self.holds(rule, point))
                    .expect("the loader saw an unconditional default last");
                (setting.name.as_str(), &rule.value)
            })
            .collect()
    }

    /// Returns every setting at an operating point: its default, or the last of the user's `(key, text)` pairs.
    pub fn settings_at<'a>(
        &self,
        point: Point<'_>,
        chosen: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<BTreeMap<String, SettingValue>, SettingError> {
        let mut settings: BTreeMap<String, SettingValue> = self
            .defaults(point)
            .into_iter()
            .map(|(name, known)| (name.to_string(), known.value.clone()))
            .collect();
        for (key, text) in chosen {
            let (name, value) = self.assign(key, text)?;
            settings.insert(name.to_string(), value);
        }
        Ok(settings)
    }

    /// Returns the usual backend on a platform, or nothing when the engine does not run there.
    pub fn backend(&self, platform: Platform) -> Option<&str> {
        self.backends.get(&platform)?.first().map(String::as_str)
    }

    /// Returns the setting of that name or other name, written with underscores.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.find(name).map(|(setting, _)| setting)
    }

    /// Returns the setting that a plain name means, and whether that name turns it around.
    fn find(&self, plain: &str) -> Option<(&Setting, bool)> {
        if let Some(setting) = self.settings.get(plain) {
            return Some((setting, false));
        }
        self.settings.values().find_map(|setting| {
            let alias = setting.aliases.iter().find(|alias| alias.name == plain)?;
            Some((setting, alias.negated))
        })
    }

    fn refuse(&self, key: &str, plain: &str) -> SettingError {
        let engine = self.name.clone();
        let key = key.to_string();
        if let Some(why) = self.unmodelled.get(plain) {
            let why = why.clone();
            return SettingError::Unmodelled { engine, key, why };
        }
        let names = self.settings.keys().map(String::as_str);
        SettingError::Unknown {
            engine,
            key,
            suggestions: suggest(plain, names),
        }
    }

    fn holds(&self, rule: &DefaultRule, point: Point<'_>) -> bool {
        let age = |name: &str| {
            self.versions
                .iter()
                .position(|version| version.name == name)
                .unwrap_or_else(|| panic!("{} has no version {name}", self.name))
        };
        let now = age(point.version);
        let chip = &point.hardware.chip;
        rule.since.as_ref().is_none_or(|first| age(first) <= now)
            && rule.until.as_ref().is_none_or(|last| now <= age(last))
            && rule
                .min_memory
                .is_none_or(|least| point.hardware.memory.value >= least)
            && (rule.chips.is_empty() || rule.chips.contains(chip))
            && !rule.not_chips.contains(chip)
            && rule
                .hybrid
                .is_none_or(|hybrid| hybrid == point.model.hybrid())
    }
}
