//! Hardware as plain values: memory, rates, power, price, each with its source.
//!
//! A machine is one or more equal devices. Figures are per device unless their line says otherwise, because engines
//! size their pools and batches per device; the sums have methods of their own.

use std::collections::BTreeMap;

use crate::known::Known;
use crate::units::{Bytes, BytesPerSec, FlopsPerSec, Money, Span, Watts};

/// The family of drivers that an engine needs a backend for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Platform {
    /// NVIDIA.
    Cuda,
    /// Apple.
    Metal,
    /// AMD; Vulkan runs there too.
    Rocm,
    /// None: the processors of the host compute.
    Cpu,
}

impl Platform {
    /// Every platform, in name order.
    pub const ALL: [Platform; 4] = [
        Platform::Cpu,
        Platform::Cuda,
        Platform::Metal,
        Platform::Rocm,
    ];

    /// Returns the word used in files.
    pub fn word(self) -> &'static str {
        match self {
            Platform::Cuda => "cuda",
            Platform::Metal => "metal",
            Platform::Rocm => "rocm",
            Platform::Cpu => "cpu",
        }
    }
}

/// The number format that a matrix multiplication computes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Precision {
    /// 16-bit floating point, either kind, accumulated in 32 bits.
    F16,
    /// 8-bit floating point.
    Fp8,
    /// 8-bit integers.
    Int8,
    /// 4-bit floating point.
    Fp4,
}

impl Precision {
    /// Every precision, widest first.
    pub const ALL: [Precision; 4] = [
        Precision::F16,
        Precision::Fp8,
        Precision::Int8,
        Precision::Fp4,
    ];

    /// Returns the word used in files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Precision::F16 => "f16",
            Precision::Fp8 => "fp8",
            Precision::Int8 => "int8",
            Precision::Fp4 => "fp4",
        }
    }
}

/// Dense arithmetic rates of one device; unknown or unsupported formats are absent.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compute {
    /// 16-bit floating point with 32-bit accumulation.
    pub f16: Option<Known<FlopsPerSec>>,
    /// 8-bit floating point.
    pub fp8: Option<Known<FlopsPerSec>>,
    /// 8-bit integer.
    pub int8: Option<Known<FlopsPerSec>>,
    /// 4-bit floating point.
    pub fp4: Option<Known<FlopsPerSec>>,
}

impl Compute {
    /// Returns the rate in exactly this format.
    pub fn rate(&self, precision: Precision) -> Option<&Known<FlopsPerSec>> {
        match precision {
            Precision::F16 => self.f16.as_ref(),
            Precision::Fp8 => self.fp8.as_ref(),
            Precision::Int8 => self.int8.as_ref(),
            Precision::Fp4 => self.fp4.as_ref(),
        }
    }

    /// Returns the format that `precision` is really computed in, with its rate: itself, else the next wider one.
    pub fn best(&self, precision: Precision) -> Option<(Precision, &Known<FlopsPerSec>)> {
        let wider: &[Precision] = match precision {
            Precision::F16 => &[Precision::F16],
            Precision::Fp8 => &[Precision::Fp8, Precision::F16],
            Precision::Int8 => &[Precision::Int8, Precision::F16],
            Precision::Fp4 => &[Precision::Fp4, Precision::Fp8, Precision::F16],
        };
        wider
            .iter()
            .find_map(|format| self.rate(*format).map(|rate| (*format, rate)))
    }
}

/// How the devices of one machine, or several machines, reach each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Link {
    /// What it is: "pcie", "nvlink", "ethernet".
    pub kind: String,
    /// Rate in each direction.
    pub bandwidth: Known<BytesPerSec>,
    /// Seconds that one small message takes from device to device.
    pub latency_s: Known<f64>,
}

impl Link {
    /// Returns whether every device reaches every other at once, rather than in a ring.
    pub fn switched(&self) -> bool {
        self.kind == "nvlink"
    }
}

/// Electrical power. All but `wall`, `wall_idle` and `rest` are per device.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Power {
    /// True when the processor and the GPU share one limit, so that whatever else runs takes from the engine.
    pub shared_package: bool,
    /// What the device is allowed to draw.
    pub limit: Option<Known<Watts>>,
    /// Drawn with a model loaded and nothing to do.
    pub idle: Option<Known<Watts>>,
    /// Drawn while decoding.
    pub decode: Option<Known<Watts>>,
    /// Drawn while prefilling.
    pub prefill: Option<Known<Watts>>,
    /// Drawn in attention, where an engine's leaves the device waiting.
    pub attention: Option<AttentionPower>,
    /// Drawn by all of the machine that is not the device, under load.
    pub rest: Option<Known<Watts>>,
    /// Drawn at the wall by the whole machine under load.
    pub wall: Option<Known<Watts>>,
    /// Drawn at the wall by the whole machine with nothing to do.
    pub wall_idle: Option<Known<Watts>>,
    /// What lower limits were measured to cost, from the highest limit down.
    pub caps: Vec<PowerCap>,
}

/// What a device draws in an engine's attention.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionPower {
    /// The engine that it was seen with.
    pub engine: String,
    /// What is drawn.
    pub watts: Known<Watts>,
}

/// A power limit below the usual one, and the share of each rate that it leaves.
#[derive(Clone, PartialEq, Debug)]
pub struct PowerCap {
    /// The limit of one device.
    pub limit: Known<Watts>,
    /// Of the rate at which a single stream is written, which memory bounds.
    pub memory_rate: Known<f64>,
    /// Of the rate at which a large batch is computed.
    pub compute_rate: Known<f64>,
}

/// How a machine slows while it works hard for long.
#[derive(Clone, PartialEq, Debug)]
pub struct Thermal {
    /// How much more prefill than anything else it takes until it does.
    pub after: Known<Span>,
    /// How many times as long prefill takes from then on.
    pub prefill_time: Known<f64>,
}

/// What the whole machine costs.
#[derive(Clone, PartialEq, Debug)]
pub struct Price {
    /// In US dollars.
    pub amount: Known<Money>,
    /// When that was asked, as a year and where known a month.
    pub date: String,
}

/// A machine that engines run on.
#[derive(Clone, PartialEq, Debug)]
pub struct Hardware {
    /// The name used on the command line.
    pub name: String,
    /// The name that its maker uses.
    pub title: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// The kind of device, which defaults of engines and calibrations are keyed by; several machines may share it.
    pub chip: String,
    /// Which drivers it needs.
    pub platform: Platform,
    /// Its shape: a card, a laptop, a desktop.
    pub form: String,
    /// How many equal devices it has.
    pub devices: u32,
    /// True when the GPU and the operating system share one memory.
    pub unified_memory: bool,
    /// Memory of one device.
    pub memory: Known<Bytes>,
    /// The part of one device's memory that an engine can use.
    pub usable: Known<Bytes>,
    /// Memory bandwidth of one device, as specified.
    pub bandwidth: Known<BytesPerSec>,
    /// Memory bandwidth of one device, as read by a bandwidth test.
    pub bandwidth_measured: Option<Known<BytesPerSec>>,
    /// Arithmetic rates of one device.
    pub compute: Compute,
    /// How its devices reach each other.
    pub link: Option<Link>,
    /// Rate between the host's memory and one device, in each direction.
    pub host_link: Option<Known<BytesPerSec>>,
    /// What it draws.
    pub power: Power,
    /// How it slows under sustained load, where that was seen.
    pub thermal: Option<Thermal>,
    /// What it costs.
    pub price: Option<Price>,
    /// What else a user should know.
    pub note: Option<String>,
    /// What is contested or uncertain about single figures, by field.
    pub notes: BTreeMap<String, String>,
}

impl Hardware {
    /// Returns the memory of all devices.
    pub fn memory_total(&self) -> Bytes {
        Bytes(self.memory.value.0 * u64::from(self.devices))
    }

    /// Returns what engines can use of all devices.
    pub fn usable_total(&self) -> Bytes {
        Bytes(self.usable.value.0 * u64::from(self.devices))
    }
}
