//! What-if knobs of a rig: the same machine with more bandwidth, arithmetic, memory or devices, or off by a factor.
//!
//! A knob changes the hardware's specification; a measured coefficient then changes by the ratio that the roofline gives
//! for its term, so that what was measured of kernels and launches stays. `rig.time_scale` says that the rig's true time
//! is that many times what is predicted: with the ends of a calibration's error interval, what an answer depends on it.

use super::RigError;
use crate::catalog::Hardware;
use crate::rig::cost::Coefficients;
use crate::units::{Bytes, three_digits};
use std::collections::BTreeMap;

const VARIANT: &str = "rig.variant";
const DEVICES: &str = "rig.devices";
/// The knobs that are factors, in the order of [`Knobs::factors`].
const FACTORS: [&str; 4] = [
    "rig.bandwidth_scale",
    "rig.compute_scale",
    "rig.memory_scale",
    "rig.time_scale",
];
/// A factor beyond these says nothing about any machine.
const FACTOR_RANGE: std::ops::RangeInclusive<f64> = 1e-3..=1e3;
const MOST_DEVICES: u32 = 64;

/// The settings of a rig that are not its engine's.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Knobs {
    /// Which of a machine's measured states.
    pub(super) variant: Option<String>,
    /// Factors on bandwidth, arithmetic, memory and time.
    factors: [f64; 4],
    devices: Option<u32>,
}

impl Knobs {
    /// Reads the settings that begin with `rig.`; the last of a key holds.
    pub(super) fn parse(settings: &[(String, String)]) -> Result<Knobs, RigError> {
        let mut knobs = Knobs {
            variant: None,
            factors: [1.0; 4],
            devices: None,
        };
        for (key, value) in settings {
            let wrong = |expected| RigError::Knob {
                key: key.clone(),
                value: value.clone(),
                expected,
            };
            if let Some(place) = FACTORS.iter().position(|name| name == key) {
                let factor = value.parse().ok().filter(|it| FACTOR_RANGE.contains(it));
                knobs.factors[place] =
                    factor.ok_or_else(|| wrong("a factor from 0.001 to 1000"))?;
            } else if key == DEVICES {
                let devices = value.parse().ok();
                let devices = devices.filter(|count| (1..=MOST_DEVICES).contains(count));
                knobs.devices = Some(devices.ok_or_else(|| wrong("a whole number from 1 to 64"))?);
            } else if key == VARIANT {
                knobs.variant = Some(value.clone());
            } else {
                return Err(RigError::Scope(key.clone()));
            }
        }
        Ok(knobs)
    }

    /// Returns how much longer everything takes than is predicted.
    pub(super) fn time(&self) -> f64 {
        self.factors[3]
    }

    /// Returns whether anything is asked for that no measurement is of.
    pub(super) fn turned(&self) -> bool {
        self.devices.is_some() || self.factors.iter().any(|&factor| !is_one(factor))
    }

    /// Returns the hardware as these knobs make it.
    pub(super) fn hardware(&self, hardware: &Hardware) -> Hardware {
        let mut changed = hardware.clone();
        let [bandwidth, compute, memory, _] = self.factors;
        changed.bandwidth.value = changed.bandwidth.value * bandwidth;
        for rate in [
            &mut changed.compute.f16,
            &mut changed.compute.fp8,
            &mut changed.compute.int8,
            &mut changed.compute.fp4,
        ] {
            if let Some(rate) = rate {
                rate.value = rate.value * compute;
            }
        }
        let scaled = |bytes: Bytes| Bytes((bytes.as_f64() * memory) as u64);
        changed.memory.value = scaled(changed.memory.value);
        changed.usable.value = scaled(changed.usable.value);
        changed.devices = self.devices.unwrap_or(changed.devices);
        changed
    }

    /// Returns the settings that are not what the machine is, by their full keys.
    pub(super) fn shown(&self) -> BTreeMap<String, String> {
        let factors = FACTORS.iter().zip(self.factors);
        let factors = factors.filter(|(_, factor)| !is_one(*factor));
        let mut shown: BTreeMap<String, String> = factors
            .map(|(key, factor)| ((*key).to_string(), factor.to_string()))
            .collect();
        let variant = self.variant.iter();
        shown.extend(variant.map(|variant| (VARIANT.to_string(), variant.clone())));
        let devices = self.devices.iter();
        shown.extend(devices.map(|devices| (DEVICES.to_string(), devices.to_string())));
        shown
    }

    /// Returns the knobs in words, for how a figure is known.
    pub(super) fn told(&self) -> String {
        let factors = FACTORS.iter().zip(self.factors);
        let factors = factors.filter(|(_, factor)| !is_one(*factor));
        let mut told: Vec<String> = factors
            .map(|(key, factor)| {
                let name = key.trim_start_matches("rig.").trim_end_matches("_scale");
                format!("{name} x{}", three_digits(factor))
            })
            .collect();
        told.extend(self.devices.map(|devices| format!("{devices} devices")));
        told.join(", ")
    }
}

/// A factor of exactly one is no change; it is read, never computed.
fn is_one(factor: f64) -> bool {
    factor.to_bits() == 1.0_f64.to_bits()
}

/// The places of the terms for reading keys and values, and for the kernel of single short rows, among the linear ones.
const KV: usize = 4;
const KV_SHORT: usize = 5;

/// Returns what `measured` becomes when the specification that gave `there` gives `here` instead.
///
/// Each term changes by the ratio of its two estimates; a term that was measured to be nothing stays nothing.
pub(super) fn carried(
    here: &Coefficients,
    there: &Coefficients,
    measured: &Coefficients,
) -> Coefficients {
    let (mut here, there) = (here.linear(), there.linear());
    let ratio = |here: f64, there: f64| if there > 0.0 { here / there } else { 1.0 };
    // Rooflines have one rate for reading keys and values, whichever kernel does it.
    here[KV_SHORT] = ratio(here[KV], there[KV]);
    let mut linear = measured.linear();
    for (place, term) in linear.iter_mut().enumerate() {
        *term *= if place == KV_SHORT {
            here[KV_SHORT]
        } else {
            ratio(here[place], there[place])
        };
    }
    Coefficients::from_linear(linear, measured.form())
}

/// Returns coefficients with which everything takes `factor` times as long.
pub(super) fn slowed(coefficients: &Coefficients, factor: f64) -> Coefficients {
    let linear = coefficients.linear().map(|term| term * factor);
    Coefficients::from_linear(linear, coefficients.form())
}
