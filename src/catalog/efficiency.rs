//! What share of its specification a machine reaches under an engine: learned from measurements, by term.
//!
//! Plain values. The table is written by the command that fits it, so nobody edits a number by hand; what a term means
//! stands in `docs/model.md`.

use super::model::Model;
use super::rig::HeldOut;

/// The number of terms.
pub const TERMS: usize = 15;

/// The names of the terms, in their order.
pub const TERM_NAMES: [&str; TERMS] = [
    "launch_s",
    "layer_s",
    "dispatch_s",
    "dense",
    "experts",
    "row_s",
    "state",
    "second_row",
    "kv",
    "kv_compute",
    "token",
    "attention",
    "request_s",
    "matrix_dense",
    "matrix_experts",
];

/// Which kernels a model's weights go through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WeightPath {
    /// 16 bits, multiplied as they are.
    F16,
    /// About 8 bits with scales: Q8, MLX at 8 bits.
    Eight,
    /// 6 bits and fewer with scales: K-quants, AWQ, MLX at 4 bits.
    Four,
    /// 8-bit floating point.
    Fp8,
    /// 4-bit floating point: NVFP4, MXFP4.
    Fp4,
}

impl WeightPath {
    /// Every path.
    pub const ALL: [WeightPath; 5] = [
        WeightPath::F16,
        WeightPath::Eight,
        WeightPath::Four,
        WeightPath::Fp8,
        WeightPath::Fp4,
    ];

    /// Returns the word used in files.
    pub fn word(self) -> &'static str {
        match self {
            WeightPath::F16 => "f16",
            WeightPath::Eight => "eight",
            WeightPath::Four => "four",
            WeightPath::Fp8 => "fp8",
            WeightPath::Fp4 => "fp4",
        }
    }

    /// Returns the path of a model's weights.
    pub fn of(model: &Model) -> WeightPath {
        let bits = model.weight_bits.value;
        let name = model.quantization.to_lowercase();
        if name.contains("fp4") {
            WeightPath::Fp4
        } else if name.contains("fp8") {
            WeightPath::Fp8
        } else if bits > 14.0 {
            WeightPath::F16
        } else if bits > 7.0 {
            WeightPath::Eight
        } else {
            WeightPath::Four
        }
    }
}

/// What each term costs: seconds, or how many times as long as the specification says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Efficiency {
    /// By term, in the order of [`TERM_NAMES`].
    pub terms: [f64; TERMS],
    /// The pass size at which half the final rate is reached; without one, where arithmetic takes as long as reading.
    pub half_tokens: Option<f64>,
}

/// Efficiencies of one engine on one kind of machine, or on any, for one kind of weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Learned {
    /// The chip that was measured; any, where it stands for machines that were not.
    pub chip: Option<String>,
    /// The engine.
    pub engine: String,
    /// The engine's backend.
    pub backend: String,
    /// The weights' path.
    pub path: WeightPath,
    /// Whether for models with experts.
    pub sparse: bool,
    /// The efficiencies.
    pub efficiency: Efficiency,
    /// How many measurements of this chip, engine and backend they come from.
    pub points: u32,
    /// How far predictions of models, or machines, that were left out were off.
    pub error: Option<HeldOut>,
}

/// Which machine, engine and weights are asked about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Asked<'a> {
    /// The chip.
    pub chip: &'a str,
    /// The engine.
    pub engine: &'a str,
    /// Its backend.
    pub backend: &'a str,
    /// The weights' path.
    pub path: WeightPath,
    /// Whether the model has experts.
    pub sparse: bool,
}

/// Returns what is known best: of this chip, else of any; of this path, else of the one nearest to it.
pub fn best<'t>(table: &'t [Learned], asked: Asked<'_>) -> Option<&'t Learned> {
    let of_engine = table.iter().filter(|one| {
        one.engine == asked.engine && one.backend == asked.backend && one.sparse == asked.sparse
    });
    of_engine
        .filter(|one| one.chip.as_deref().is_none_or(|chip| chip == asked.chip))
        .min_by_key(|one| {
            let apart = (one.path as i32 - asked.path as i32).abs();
            (one.chip.is_none(), apart)
        })
}
