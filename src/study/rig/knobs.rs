//! What-if knobs of a rig: the same machine with more bandwidth, arithmetic, memory or devices, or off by a factor.
//!
//! A knob changes the hardware's specification; a measured coefficient then changes by the ratio that the roofline gives
//! for its term, so that what was measured of kernels and launches stays. `rig.time_scale` says that the rig's true time
//! is that many times what is predicted: with the ends of a calibration's error interval, what an answer depends on it.

use super::cost::{Cost, computing, efficiency};
use super::{Parts, Values, devices};
use crate::catalog::{Catalog, Hardware, Link};
use crate::known::{Known, Trust};
use crate::rig::cost::Coefficients;
use crate::rig::roofline;
use crate::units::{Bytes, three_digits};
use std::collections::BTreeMap;

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
/// One message between two cards that are there only if one asks, over `PCIe`; an estimate.
const PCIE_LATENCY_S: f64 = 1e-5;

/// What a machine would be if it were another.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Knobs {
    /// Factors on bandwidth, arithmetic, memory and time.
    factors: [f64; 4],
    devices: Option<u32>,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            factors: [1.0; 4],
            devices: None,
        }
    }
}

impl Knobs {
    /// Turns the knob `key`, or says what it takes; nothing where there is no such knob.
    pub(super) fn set(&mut self, key: &str, text: &str) -> Option<Result<(), &'static str>> {
        if key == DEVICES {
            let devices = text.parse().ok();
            self.devices = devices.filter(|count| (1..=MOST_DEVICES).contains(count));
            let read = self.devices.map(|_| ());
            return Some(read.ok_or("a whole number from 1 to 64"));
        }
        let place = FACTORS.iter().position(|name| *name == key)?;
        let factor = text.parse().ok();
        let factor = factor.filter(|factor| FACTOR_RANGE.contains(factor));
        let read = factor.map(|factor| self.factors[place] = factor);
        Some(read.ok_or("a factor from 0.001 to 1000"))
    }

    /// Returns whether `key` is a knob.
    pub(super) fn has(key: &str) -> bool {
        key == DEVICES || FACTORS.contains(&key)
    }

    /// Returns whether the machine is another than the catalogue's, of whose watts and price nothing is known.
    pub(super) fn another_machine(&self) -> bool {
        self.devices.is_some() || self.factors[..3].iter().any(|&factor| !is_one(factor))
    }

    /// Returns whether anything is asked for that no measurement is of.
    fn turned(&self) -> bool {
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
        ]
        .into_iter()
        .flatten()
        {
            rate.value = rate.value * compute;
        }
        let scaled = |bytes: Bytes| Bytes((bytes.as_f64() * memory) as u64);
        changed.memory.value = scaled(changed.memory.value);
        changed.usable.value = scaled(changed.usable.value);
        changed.devices = self.devices.unwrap_or(changed.devices);
        if changed.devices > 1 && changed.link.is_none() {
            let by_host = hardware.host_link.as_ref();
            changed.link = by_host.map(|rate| Link {
                kind: "pcie".to_string(),
                bandwidth: rate.clone(),
                latency_s: Known {
                    value: PCIE_LATENCY_S,
                    source: "no source; one message over PCIe, general knowledge".to_string(),
                    trust: Trust::Estimate,
                },
            });
        }
        changed
    }

    /// Returns the settings that are not what the machine is, by their full keys.
    pub(super) fn shown(&self) -> BTreeMap<String, String> {
        let factors = FACTORS.iter().zip(self.factors);
        let factors = factors.filter(|(_, factor)| !is_one(*factor));
        let mut shown: BTreeMap<String, String> = factors
            .map(|(key, factor)| ((*key).to_string(), factor.to_string()))
            .collect();
        let devices = self.devices.iter();
        shown.extend(devices.map(|devices| (DEVICES.to_string(), devices.to_string())));
        shown
    }

    /// Makes `cost`, which is that of `as_it_is`, the cost of the machine as the knobs make it.
    pub(super) fn turn(
        &self,
        as_it_is: &Parts<'_>,
        actual: &Parts<'_>,
        values: &Values,
        catalog: &Catalog,
        cost: &mut Cost,
    ) {
        if !self.turned() {
            return;
        }
        let (_, efficiency) = efficiency(
            as_it_is.hardware,
            computing(as_it_is),
            as_it_is.model,
            catalog,
        );
        let estimate = |parts: &Parts<'_>| {
            let devices = devices::sharing(parts, values);
            let alone = roofline::coefficients(parts.hardware, parts.model, &efficiency, devices);
            devices::linked(parts, values, alone)
        };
        cost.coefficients = carried(&estimate(actual), &estimate(as_it_is), &cost.coefficients);
        (cost.trust, cost.interval) = (Trust::Estimate, None);
        cost.known_by = format!("what if: {}; without that: {}", self.told(), cost.known_by);
    }

    /// Returns coefficients with which everything takes as many times as long as is asked for.
    pub(super) fn slowed(&self, coefficients: &Coefficients) -> Coefficients {
        let times = self.factors[3];
        Coefficients {
            link_token_s: coefficients.link_token_s * times,
            ..Coefficients::from_linear(
                coefficients.linear().map(|term| term * times),
                coefficients.form(),
            )
        }
    }

    /// Returns the knobs in words, for how a figure is known.
    fn told(&self) -> String {
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
fn carried(here: &Coefficients, there: &Coefficients, measured: &Coefficients) -> Coefficients {
    let link_token_s = here.link_token_s - there.link_token_s;
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
    Coefficients {
        // Only a link that was not measured has a term of its own.
        link_token_s: (measured.link_token_s + link_token_s).max(0.0),
        ..Coefficients::from_linear(linear, measured.form())
    }
}
