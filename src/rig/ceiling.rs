//! What a machine can do at the very best: bytes over bandwidth, operations over rate, nothing lost anywhere.
//!
//! A ceiling is optimistic on purpose, so that what lies above it is impossible: one token for each stream and pass, no
//! attention arithmetic in prompts, every format as fast as the fastest. Speculative decoding writes several tokens a
//! pass and is not bound by it.

use crate::catalog::claim::Metric;
use crate::catalog::{Hardware, Model, Precision};
use crate::known::Trust;

/// What a figure is held against.
#[derive(Clone, PartialEq, Debug)]
pub struct Ceiling {
    /// The best there can be: tokens a second at most, or seconds at least.
    pub hard: f64,
    /// The best to be expected: experts chosen independently, arithmetic in the model's own format.
    pub expected: f64,
    /// What it comes from.
    pub by: By,
    /// How far the specification is known.
    pub trust: Trust,
}

/// What sets a ceiling.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum By {
    /// Memory bandwidth.
    Bandwidth,
    /// Arithmetic.
    Compute,
    /// The link over which weights come that do not fit; so many bytes of them in every pass.
    Link {
        /// Bytes that do not fit.
        spilled: f64,
    },
}

impl By {
    /// Returns the words used in reports.
    pub fn words(self) -> &'static str {
        match self {
            By::Bandwidth => "bandwidth",
            By::Compute => "arithmetic",
            By::Link { .. } => "host link",
        }
    }
}

/// Why there is no ceiling.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum NoCeiling {
    /// It does not fit, and there is nowhere else.
    DoesNotFit {
        /// Bytes needed.
        needs: f64,
        /// Bytes there are.
        has: f64,
    },
    /// A rate is not in the catalogue.
    NotPublished,
}

/// Returns the best that `streams` streams with `context` tokens each can get of a model on a machine.
pub fn ceiling(
    hardware: &Hardware,
    model: &Model,
    metric: Metric,
    streams: u64,
    context: u64,
) -> Result<Ceiling, NoCeiling> {
    match metric {
        Metric::Decode => decode(hardware, model, 1, context),
        Metric::Aggregate => decode(hardware, model, streams, context),
        Metric::Prefill => prefill(hardware, model, context),
        Metric::FirstToken => {
            let rate = prefill(hardware, model, context)?;
            let seconds = |rate: f64| context as f64 / rate;
            Ok(Ceiling {
                hard: seconds(rate.hard),
                expected: seconds(rate.expected),
                ..rate
            })
        }
    }
}

/// Returns bytes that must lie somewhere, and those that the devices have.
fn room(hardware: &Hardware, model: &Model, streams: u64, context: u64) -> (f64, f64) {
    let tokens = (streams * context) as f64;
    let needs = model.weights.value.as_f64() + tokens * model.kv_bytes_per_token.value.as_f64();
    (needs, hardware.usable_total().as_f64())
}

fn decode(
    hardware: &Hardware,
    model: &Model,
    streams: u64,
    context: u64,
) -> Result<Ceiling, NoCeiling> {
    let devices = f64::from(hardware.devices);
    let bandwidth = hardware.bandwidth.value.0 * devices;
    let (needs, has) = room(hardware, model, streams, context);
    let rows = streams as f64;
    let caches = rows * context as f64 * model.kv_bytes_per_token.value.as_f64();
    let one = model.read_per_token.value.as_f64();
    let all = model.read_all.value.as_f64();
    // Of the experts that further rows need, 1 - (1 - k/E)^(B - 1) in expectation.
    let share = model
        .moe
        .as_ref()
        .map_or(0.0, |moe| f64::from(moe.per_token) / f64::from(moe.experts));
    let others: f64 = (1..streams.min(1 << 16)).fold(1.0, |left, _| left * (1.0 - share));
    let spread = one + (all - one).max(0.0) * (1.0 - others);
    let trust = hardware.bandwidth.trust;
    if needs >= has {
        let spilled = needs - has;
        let link = hardware
            .host_link
            .as_ref()
            .filter(|_| !hardware.unified_memory);
        let link = link.ok_or(NoCeiling::DoesNotFit { needs, has })?;
        // Sparse models need not read what did not fit in every pass, only its share.
        let read = spilled * ((one + caches) / needs);
        let seconds = (read / (link.value.0 * devices)).max((one + caches - read) / bandwidth);
        return Ok(Ceiling {
            hard: rows / seconds,
            expected: rows / seconds,
            by: By::Link { spilled: read },
            trust: trust.max(link.trust).max(hardware.usable.trust),
        });
    }
    let compute = fastest(hardware).map(|rate| 2.0 * model.active_params.value / (rate * devices));
    let arithmetic = rows * compute.unwrap_or(0.0);
    let least = ((one + caches) / bandwidth).max(arithmetic);
    let likely = ((spread + caches) / bandwidth).max(arithmetic);
    Ok(Ceiling {
        hard: rows / least,
        expected: rows / likely,
        by: if arithmetic >= (one + caches) / bandwidth {
            By::Compute
        } else {
            By::Bandwidth
        },
        trust,
    })
}

fn prefill(hardware: &Hardware, model: &Model, context: u64) -> Result<Ceiling, NoCeiling> {
    let (needs, has) = room(hardware, model, 1, context);
    if needs >= has && (hardware.unified_memory || hardware.host_link.is_none()) {
        return Err(NoCeiling::DoesNotFit { needs, has });
    }
    let devices = f64::from(hardware.devices);
    let own = hardware.compute.best(model.compute);
    let (Some(fastest), Some((_, own))) = (fastest(hardware), own) else {
        return Err(NoCeiling::NotPublished);
    };
    let rate = |flops: f64| flops * devices / (2.0 * model.prompt_params());
    let worst = Precision::ALL
        .iter()
        .filter_map(|format| hardware.compute.rate(*format))
        .map(|known| known.trust)
        .max();
    Ok(Ceiling {
        hard: rate(fastest),
        expected: rate(own.value.0),
        by: By::Compute,
        trust: worst.unwrap_or(Trust::Estimate),
    })
}

fn fastest(hardware: &Hardware) -> Option<f64> {
    let rates = Precision::ALL
        .iter()
        .filter_map(|format| hardware.compute.rate(*format));
    rates.map(|known| known.value.0).fold(None, |most, rate| {
        Some(most.map_or(rate, |most: f64| most.max(rate)))
    })
}
