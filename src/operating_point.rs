//! What a result holds for: hardware, engine, model, settings, and how far the prediction can be trusted.
//!
//! Plain values. Two results may be compared only where their operating points say so.

use crate::known::Trust;
use std::collections::BTreeMap;

/// Whether time was simulated or measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// In virtual time, on a modelled rig.
    Simulated,
    /// In real time, on a real engine.
    Live,
}

impl Kind {
    /// Returns the word used in result documents.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Simulated => "simulated",
            Kind::Live => "live",
        }
    }
}

/// The thing that answered, and how its speed is known. Nothing stands for unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct OperatingPoint {
    /// The name under which it was asked for.
    pub name: String,
    /// Whether time was simulated or measured.
    pub kind: Kind,
    /// The hardware's name in the catalogue.
    pub hardware: Option<String>,
    /// The engine's name in the catalogue.
    pub engine: Option<String>,
    /// The engine's version.
    pub engine_version: Option<String>,
    /// The model's name without its quantisation.
    pub model: Option<String>,
    /// How its weights are quantised.
    pub quantization: Option<String>,
    /// Every setting that was in force, by its full key.
    pub settings: BTreeMap<String, String>,
    /// The weakest trust among the figures that matter.
    pub trust: Trust,
    /// The ratio of true to predicted time, from and to, that held-out measurements span.
    pub error_interval: Option<(f64, f64)>,
    /// One sentence: what it was calibrated on, and the error there.
    pub known_by: String,
}
