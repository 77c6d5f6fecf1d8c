//! Settings of the machine itself: its state, a power cap, measured watts, sustained load; and what limits its engine.

use super::{Cost, Parts, RigError, Values, tiers};
use crate::known::Trust;
use crate::rig::meter::{Heat, Limits};
use crate::rig::power::{Measured, rates_under, slowed};
use crate::units::{Watts, three_digits};
use std::collections::BTreeMap;

/// Why a setting of the machine cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MachineError {
    /// It is not what it should be.
    #[error("`{key}` is `{found}`; expected {expected}")]
    Wrong {
        /// Which.
        key: String,
        /// As typed.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nobody saw the machine slow down.
    #[error("nothing in the catalogue says how {0} slows under sustained load")]
    NoThermal(String),
}

/// What was asked of the machine.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Machine {
    pub(super) variant: Option<String>,
    pub(super) power_cap: Option<Watts>,
    pub(super) measured: Measured,
    /// The rate at which its disk is read, in GB/s.
    pub(super) disk: Option<f64>,
    sustained: bool,
}

/// Reads the settings that begin with `rig.`.
pub(super) fn read(settings: &[(String, String)]) -> Result<Machine, RigError> {
    let mut machine = Machine::default();
    for (key, text) in settings {
        let wrong = |expected| MachineError::Wrong {
            key: key.clone(),
            found: text.clone(),
            expected,
        };
        let watts = || {
            let number = text.parse().ok();
            let number = number.filter(|watts: &f64| watts.is_finite() && *watts > 0.0);
            number
                .map(|watts| Some(Watts(watts)))
                .ok_or_else(|| wrong("a number of watts above 0"))
        };
        match key.as_str() {
            "rig.variant" => machine.variant = Some(text.clone()),
            "rig.power_cap_w" => machine.power_cap = watts()?,
            "rig.power_prefill_w" => machine.measured.prefill = watts()?,
            "rig.power_decode_w" => machine.measured.decode = watts()?,
            "rig.power_idle_w" => machine.measured.idle = watts()?,
            tiers::DISK => {
                let rate = text.parse().ok();
                let rate = rate.filter(|rate| (0.01..=1e4).contains(rate));
                machine.disk = Some(rate.ok_or_else(|| wrong("GB/s from 0.01 to 10000"))?);
            }
            "rig.sustained_load" => {
                machine.sustained = match text.as_str() {
                    "on" | "true" => true,
                    "off" | "false" => false,
                    _ => return Err(wrong("on or off").into()),
                }
            }
            _ => return Err(RigError::Scope(key.clone())),
        }
    }
    Ok(machine)
}

impl Machine {
    /// Lets the cap slow the rig, and returns how it warms up where that was asked for.
    pub(super) fn take_hold(
        &self,
        parts: &Parts<'_>,
        cost: &mut Cost,
    ) -> Result<Option<Heat>, RigError> {
        if let Some(cap) = self.power_cap {
            let (memory, compute) = rates_under(parts.hardware, cap)?;
            cost.coefficients = slowed(&cost.coefficients, memory, compute);
            (cost.trust, cost.interval) = (Trust::Estimate, None);
            cost.known_by = format!(
                "capped at {} W, which leaves {} % of the memory-bound and {} % of the \
                 compute-bound rate (measured at some caps, between them on straight lines); \
                 without it: {}",
                cap.0,
                three_digits(memory * 100.0),
                three_digits(compute * 100.0),
                cost.known_by
            );
        }
        if !self.sustained {
            return Ok(None);
        }
        let thermal = parts.hardware.thermal.as_ref();
        let thermal =
            thermal.ok_or_else(|| MachineError::NoThermal(parts.hardware.title.clone()))?;
        (cost.trust, cost.interval) = (Trust::Estimate, None);
        cost.known_by = format!(
            "prefill takes {} times as long once there was {} more of it than rest ({}); before \
             that: {}",
            thermal.prefill_time.value,
            thermal.after.value,
            thermal.prefill_time.source,
            cost.known_by
        );
        Ok(Some(Heat::new(thermal)))
    }
}

/// Returns what limits how much an engine takes in.
pub(super) fn limits(
    parts: &Parts<'_>,
    values: &Values,
    shown: &BTreeMap<String, String>,
) -> Limits {
    let worked_out = |key: &str| shown.get(key).and_then(|text| text.parse().ok());
    let (slots, step_tokens) = match parts.engine.name.as_str() {
        "vllm" => (
            values.int("max_num_seqs"),
            values.int("max_num_batched_tokens"),
        ),
        "sglang" => (worked_out("engine.max_running_requests"), None),
        "trt-llm" => (values.int("max_batch_size"), values.int("max_num_tokens")),
        "mlx-lm" => (values.int("decode_concurrency"), None),
        "lm-studio" => (values.int("max_concurrent_predictions"), None),
        _ => (worked_out("engine.parallel"), None),
    };
    Limits { slots, step_tokens }
}
