//! What a machine draws, phase by phase, and what lower limits and sustained load do to its speed.
//!
//! A phase whose watts nobody has published has none here: energy is then unknown, not zero. Where the whole machine is
//! known its draw is told; else that of its devices alone, and whoever prints it says so.

use super::cost::Coefficients;
use super::meter::Busy;
use crate::catalog::{Hardware, Power, PowerCap};
use crate::known::{Known, Trust};
use crate::units::{Joules, Span, Watts};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covers {
    /// The whole machine, at the wall.
    Machine,
    /// Its devices: cards, or the package.
    Devices,
}

impl Covers {
    /// Returns the word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Covers::Machine => "machine",
            Covers::Devices => "devices",
        }
    }
}

/// Watts by phase; nothing where they are not known.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Phases {
    prefill: Option<Watts>,
    decode: Option<Watts>,
    attention: Option<Watts>,
    idle: Option<Watts>,
}

/// What a machine draws, phase by phase.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Draw {
    machine: Phases,
    devices: Phases,
    trust: Trust,
}

/// Energy by phase.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Energy {
    /// While prompts were read.
    pub prefill: Joules,
    /// While answers were written, state that moved included.
    pub decode: Joules,
    /// Of attention, where it draws something else than what goes on around it.
    pub attention: Joules,
    /// While there was nothing to compute: tools, people.
    pub idle: Joules,
    /// What is counted.
    pub covers: Covers,
    /// How the watts are known, the worst of them.
    pub trust: Trust,
}

impl Energy {
    /// Returns the sum.
    pub fn total(&self) -> Joules {
        self.prefill + self.decode + self.attention + self.idle
    }
}

/// Watts that a user measured, which replace the catalogue's for the whole machine.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Measured {
    /// While reading prompts.
    pub prefill: Option<Watts>,
    /// While writing answers.
    pub decode: Option<Watts>,
    /// With nothing to do.
    pub idle: Option<Watts>,
}

impl Draw {
    /// Returns what the machine draws under an engine, with each device limited to `cap`.
    pub fn new(hardware: &Hardware, engine: &str, cap: Option<Watts>, measured: Measured) -> Draw {
        let power = &hardware.power;
        let mut trust = Trust::Measured;
        let mut value = |known: &Option<Known<Watts>>| {
            let known = known.as_ref()?;
            trust = trust.max(known.trust);
            Some(known.value)
        };
        let count = f64::from(hardware.devices);
        let capped = |watts: Watts| Watts(cap.map_or(watts.0, |cap| watts.0.min(cap.0)) * count);
        let attention = power.attention.as_ref().filter(|it| it.engine == engine);
        let attention = attention.map(|it| it.watts.clone());
        let decode = value(&power.decode).map(capped);
        let devices = Phases {
            prefill: value(&power.prefill).map(capped),
            decode,
            attention: value(&attention).map(capped),
            idle: value(&power.idle).map(|watts| watts * count),
        };
        let (rest, wall) = (value(&power.rest), value(&power.wall));
        let whole = |device: Option<Watts>| match (device, rest) {
            (Some(device), Some(rest)) => Some(device + rest),
            // A figure for the wall was taken without a cap.
            _ => wall.filter(|_| cap.is_none()),
        };
        let decode = measured.decode.or(whole(devices.decode));
        let with_rest = devices.idle.zip(rest).map(|(idle, rest)| idle + rest);
        let machine = Phases {
            prefill: measured.prefill.or(whole(devices.prefill)),
            decode,
            attention: devices
                .attention
                .zip(rest)
                .filter(|_| measured.decode.is_none())
                .map(|(device, rest)| device + rest),
            idle: measured.idle.or(value(&power.wall_idle)).or(with_rest),
        };
        Draw {
            machine,
            devices,
            trust,
        }
    }

    /// Returns the energy of a replay that lasted `wall` and was busy so long; nothing when a phase it had is unknown.
    pub fn energy(&self, busy: Busy, wall: Span) -> Option<Energy> {
        let whole = self.over(&self.machine, Covers::Machine, busy, wall);
        whole.or_else(|| self.over(&self.devices, Covers::Devices, busy, wall))
    }

    fn over(&self, phases: &Phases, covers: Covers, busy: Busy, wall: Span) -> Option<Energy> {
        let attention = busy.prompt_attention + busy.row_attention;
        let spent = busy.prefill + busy.decode + attention + busy.transfer;
        let joules = |watts: Option<Watts>, span: Span| match (watts, span) {
            (_, Span::ZERO) => Some(Joules(0.0)),
            (None, _) => None,
            (Some(watts), span) => Some(watts.over(span)),
        };
        // Where attention has no watts of its own, it draws what the pass around it does.
        let (prompts, rows, apart) = match phases.attention {
            Some(_) => (Span::ZERO, Span::ZERO, attention),
            None => (busy.prompt_attention, busy.row_attention, Span::ZERO),
        };
        Some(Energy {
            prefill: joules(phases.prefill, busy.prefill + prompts)?,
            decode: joules(phases.decode, busy.decode + busy.transfer + rows)?,
            attention: joules(phases.attention, apart)?,
            idle: joules(phases.idle, wall.saturating_sub(spent))?,
            covers,
            trust: self.trust,
        })
    }
}

/// Why a power cap cannot be set.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CapError {
    /// Nobody measured what a cap costs.
    #[error("nothing in the catalogue says what a power cap costs {0}")]
    Unknown(String),
    /// It is no cap.
    #[error("a cap of {asked} W is not below the limit of {hardware}, {limit} W")]
    TooHigh {
        /// The hardware.
        hardware: String,
        /// What was asked for.
        asked: f64,
        /// The usual limit.
        limit: f64,
    },
    /// It lies below all that was measured.
    #[error("a cap of {asked} W is below {least} W, the lowest that was measured on {hardware}")]
    TooLow {
        /// The hardware.
        hardware: String,
        /// What was asked for.
        asked: f64,
        /// The lowest measured cap.
        least: f64,
    },
}

/// Returns the shares of the memory-bound and the compute-bound rate that a cap leaves, between the measured ones on
/// straight lines.
pub fn rates_under(hardware: &Hardware, cap: Watts) -> Result<(f64, f64), CapError> {
    let Power { limit, caps, .. } = &hardware.power;
    let name = || hardware.title.clone();
    let (Some(limit), Some(lowest)) = (limit, caps.last()) else {
        return Err(CapError::Unknown(name()));
    };
    if cap >= limit.value {
        let (asked, limit) = (cap.0, limit.value.0);
        return Err(CapError::TooHigh {
            hardware: name(),
            asked,
            limit,
        });
    }
    let mut above = (limit.value, 1.0, 1.0);
    for PowerCap {
        limit,
        memory_rate,
        compute_rate,
    } in caps
    {
        let here = (limit.value, memory_rate.value, compute_rate.value);
        if cap >= limit.value {
            let part = (cap.0 - here.0.0) / (above.0.0 - here.0.0);
            let between = |low: f64, high: f64| low + (high - low) * part;
            return Ok((between(here.1, above.1), between(here.2, above.2)));
        }
        above = here;
    }
    Err(CapError::TooLow {
        hardware: name(),
        asked: cap.0,
        least: lowest.limit.value.0,
    })
}

/// Returns the coefficients with memory and arithmetic at these shares of their rates.
pub fn slowed(cost: &Coefficients, memory_rate: f64, compute_rate: f64) -> Coefficients {
    Coefficients {
        weights_s: cost.weights_s / memory_rate,
        experts_s: cost.experts_s / memory_rate,
        kv_s: cost.kv_s / memory_rate,
        kv_short_s: cost.kv_short_s.map(|short| short / memory_rate),
        row_s: cost.row_s / compute_rate,
        second_row_s: cost.second_row_s / compute_rate,
        token_s: cost.token_s / compute_rate,
        attention_s: cost.attention_s / compute_rate,
        ..*cost
    }
}
