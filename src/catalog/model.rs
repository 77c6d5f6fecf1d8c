//! Models as plain values: what a step must read, compute and keep.
//!
//! A family file holds the shape once and its quantisations as a list; every quantisation is a [`Model`] of its own. A
//! figure that follows from others (bytes from parameters and bits) says so in its source.

use std::collections::BTreeMap;

use super::hardware::Precision;
use crate::known::Known;
use crate::units::{Bytes, Tokens};

/// Whether the size of the weights was read off a file or computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightsFrom {
    /// The size of a published file.
    File,
    /// Parameters times bits.
    Computed,
}

/// Counts that a model's configuration gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Transformer layers.
    pub layers: u32,
    /// Layers whose keys and values grow with the sequence.
    pub kv_layers: u32,
    /// Layers that keep a recurrent state of fixed size instead.
    pub state_layers: u32,
    /// Layers that attend to a sliding window only.
    pub window_layers: u32,
    /// Tokens in that window; 0 without such layers.
    pub window: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of keys and values; 1 for a compressed (MLA) cache.
    pub kv_heads: u32,
    /// Width of a head; for a compressed cache, of the latent and its rotary part.
    pub head_dim: u32,
    /// True when one compressed vector stands for keys and values (MLA).
    pub compressed_kv: bool,
    /// Entries of the vocabulary.
    pub vocab: u32,
    /// Layers for multi-token prediction, which none of the other figures counts.
    pub mtp_layers: u32,
}

impl Shape {
    /// Returns true when some layers keep a state that cannot be rolled back.
    pub fn hybrid(&self) -> bool {
        self.state_layers > 0
    }
}

/// The experts of a sparse model.
#[derive(Clone, PartialEq, Debug)]
pub struct Moe {
    /// Routed experts in a layer.
    pub experts: u32,
    /// Routed experts that one token uses.
    pub per_token: u32,
    /// Experts that every token uses.
    pub shared: u32,
    /// Parameters of one routed expert, summed over the layers that have it.
    pub expert_params: Known<f64>,
    /// Bytes of one routed expert, summed over the layers that have it.
    pub expert_bytes: Known<Bytes>,
}

/// A model in one quantisation.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    /// The name used on the command line: family and quantisation.
    pub name: String,
    /// The name of the family.
    pub family: String,
    /// The name that its maker uses.
    pub title: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// The quantisation as its users write it.
    pub quantization: String,
    /// Bytes that the weights take in memory.
    pub weights: Known<Bytes>,
    /// Where that size comes from.
    pub weights_from: WeightsFrom,
    /// All parameters.
    pub total_params: Known<f64>,
    /// Parameters that one token is multiplied with, the output head included.
    pub active_params: Known<f64>,
    /// Parameters of the output head, needed only for tokens that are sampled.
    pub lm_head_params: Known<f64>,
    /// Bytes of weights read in a step with one row: everything dense and the experts of one token.
    pub read_per_token: Known<Bytes>,
    /// Bytes of weights read in a step that touches every expert.
    pub read_all: Known<Bytes>,
    /// Counts from its configuration.
    pub shape: Known<Shape>,
    /// Bytes of keys and values that one token adds, at 16 bits.
    pub kv_bytes_per_token: Known<Bytes>,
    /// Bytes of recurrent state and sliding windows that one sequence holds, however long; 0 for plain attention.
    pub state_bytes_per_sequence: Known<Bytes>,
    /// Bytes of one layer's recurrent state as vLLM pages it: state at 32 bits, convolution at 16.
    pub state_page_bytes: Option<Known<Bytes>>,
    /// Experts, for a sparse model.
    pub moe: Option<Moe>,
    /// The longest sequence it was made for.
    pub max_context: Known<Tokens>,
    /// Bits per weight in its matrices, scales included.
    pub weight_bits: Known<f64>,
    /// The format that its matrices are multiplied in, where the hardware has it.
    pub compute: Precision,
    /// What else a user should know.
    pub note: Option<String>,
    /// What is contested or uncertain about single figures, by field.
    pub notes: BTreeMap<String, String>,
}

impl Model {
    /// Returns true when prefix reuse is bound to stored states.
    pub fn hybrid(&self) -> bool {
        self.shape.value.hybrid()
    }

    /// Returns the parameters that every prompt token is multiplied with: the head serves sampled tokens only.
    pub fn prompt_params(&self) -> f64 {
        self.active_params.value - self.lm_head_params.value
    }

    /// Returns the bytes of keys and values that one growing layer keeps for one token, at 16 bits.
    pub fn kv_bytes_per_layer(&self) -> Bytes {
        let shape = &self.shape.value;
        let vectors = if shape.compressed_kv { 1 } else { 2 };
        Bytes(vectors * u64::from(shape.kv_heads) * u64::from(shape.head_dim) * 2)
    }
}
