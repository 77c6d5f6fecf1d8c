//! What exists: hardware, models and engines, each figure with its source and how far it can be trusted.
//!
//! The built-in catalogue is part of the program; folders of a user's own files can be laid over it, and the later
//! entry of a name wins. Everything here is a plain value in name order. Files are read in [`load`] and nowhere else,
//! and nothing here knows how an engine behaves.

pub mod args;
pub mod claim;
pub mod efficiency;
pub mod engine;
pub mod hardware;
pub mod load;
pub mod model;
pub mod rig;
pub mod suggest;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use claim::Claim;
pub use engine::{EngineProfile, Point, Setting, SettingError, SettingKind, SettingValue, Version};
pub use hardware::{
    AttentionPower, Compute, Hardware, Link, Platform, Power, PowerCap, Precision, Price, Thermal,
};
pub use load::CatalogError;
pub use model::{Model, Moe, Shape, WeightsFrom};
pub use rig::{Calibration, CapturedGraphs, Coefficients, HeldOut, RigProfile};

/// Everything that rigs can be made of, by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Catalog {
    hardware: BTreeMap<String, Hardware>,
    models: BTreeMap<String, Model>,
    engines: BTreeMap<String, EngineProfile>,
    rigs: BTreeMap<String, RigProfile>,
    claims: Vec<Claim>,
    /// The files of entries that are not built in, by kind and name.
    origins: BTreeMap<(What, String), String>,
    efficiencies: Vec<efficiency::Learned>,
}

/// The kinds of names that can be looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// A machine.
    Hardware,
    /// A model in a quantisation.
    Model,
    /// A serving engine.
    Engine,
    /// A version of an engine.
    Version,
    /// A calibrated operating point.
    Rig,
    /// A state of one.
    Variant,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            What::Hardware => "hardware",
            What::Model => "model",
            What::Engine => "engine",
            What::Version => "engine version",
            What::Rig => "rig",
            What::Variant => "rig variant",
        })
    }
}

/// A name that the catalogue does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown {what} `{name}`{}", suggest::question(suggestions))]
pub struct Unknown {
    /// What was looked for.
    pub what: What,
    /// The name as typed.
    pub name: String,
    /// Names that may have been meant, best first.
    pub suggestions: Vec<String>,
}

/// A thing with a name and other names.
trait Named {
    fn name(&self) -> &str;
    fn aliases(&self) -> &[String];
}

macro_rules! named {
    ($($thing:ty),*) => {$(
        impl Named for $thing {
            fn name(&self) -> &str { &self.name }
            fn aliases(&self) -> &[String] { &self.aliases }
        }
    )*};
}

named!(Hardware, Model, EngineProfile);

impl Catalog {
    /// Returns the catalogue that the program carries.
    ///
    /// # Panics
    /// Never in a build that passes its tests, which load every embedded file.
    pub fn builtin() -> Catalog {
        load::builtin().unwrap_or_else(|error| panic!("the built-in catalogue is broken: {error}"))
    }

    /// Returns the built-in catalogue with folders of `hardware`, `engine`, `model` and `rig` files laid over it in order.
    pub fn with_overlays(folders: &[PathBuf]) -> Result<Catalog, CatalogError> {
        let mut catalog = load::builtin()?;
        for folder in folders {
            load::overlay(&mut catalog, folder)?;
        }
        Ok(catalog)
    }

    /// Returns the machine of that name.
    pub fn hardware(&self, name: &str) -> Result<&Hardware, Unknown> {
        find(&self.hardware, What::Hardware, name)
    }

    /// Returns the model of that name.
    pub fn model(&self, name: &str) -> Result<&Model, Unknown> {
        find(&self.models, What::Model, name)
    }

    /// Returns the engine of that name.
    pub fn engine(&self, name: &str) -> Result<&EngineProfile, Unknown> {
        find(&self.engines, What::Engine, name)
    }

    /// Returns what was measured and fitted for this hardware, engine and model, by their own names.
    pub fn rig_profile(&self, hardware: &str, engine: &str, model: &str) -> Option<&RigProfile> {
        self.rigs.get(&format!("{hardware}/{engine}/{model}"))
    }

    /// Returns every calibrated operating point in name order.
    pub fn all_rig_profiles(&self) -> impl Iterator<Item = &RigProfile> {
        self.rigs.values()
    }

    /// Returns the file that an entry comes from, unless it is built in. A rig's name has its three parts.
    pub fn origin(&self, what: What, name: &str) -> Option<&str> {
        self.origins
            .get(&(what, name.to_string()))
            .map(String::as_str)
    }

    /// Returns what others have published about these machines, to be checked.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Returns the efficiencies that were learned from measurements.
    pub fn efficiencies(&self) -> &[efficiency::Learned] {
        &self.efficiencies
    }

    /// Returns every machine in name order.
    pub fn all_hardware(&self) -> impl Iterator<Item = &Hardware> {
        self.hardware.values()
    }

    /// Returns every model in name order.
    pub fn all_models(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }

    /// Returns every engine in name order.
    pub fn all_engines(&self) -> impl Iterator<Item = &EngineProfile> {
        self.engines.values()
    }
}

/// Returns the entry of that name, else of that alias, else what may have been meant. Case does not matter.
fn find<'a, T: Named>(
    entries: &'a BTreeMap<String, T>,
    what: What,
    name: &str,
) -> Result<&'a T, Unknown> {
    let plain = name.trim().to_lowercase();
    let by_alias = || {
        let mut all = entries.values();
        all.find(|entry| entry.aliases().contains(&plain))
    };
    entries.get(&plain).or_else(by_alias).ok_or_else(|| {
        let names = entries.values().flat_map(|entry| {
            let aliases = entry.aliases().iter().map(String::as_str);
            std::iter::once(entry.name()).chain(aliases)
        });
        Unknown {
            what,
            name: name.to_string(),
            suggestions: suggest::suggest(name, names),
        }
    })
}

#[cfg(test)]
mod tests;
