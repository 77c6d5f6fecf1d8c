//! What engines build their caches on. Each piece counts what it holds and never invents or loses a block.

pub mod blocks;
pub mod slots;
