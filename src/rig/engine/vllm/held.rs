//! What a request of vLLM holds: its blocks, how far they reach, and its recurrent states.

use crate::rig::kv::pool::Pool;

/// What the scheduler knows of a request beside the book.
#[derive(Debug)]
pub(super) struct Held<P: Pool> {
    pub(super) path: P::Path,
    pub(super) holding: P::Holding,
    /// The tokens that its blocks have room for.
    pub(super) room: u64,
    /// How many tokens it has when the next of its blocks is full.
    pub(super) next_full: u64,
    /// Recurrent states it resumed from or kept.
    pub(super) states: Vec<P::State>,
    /// Blocks for the state it works on.
    pub(super) working: P::Holding,
    /// Block boundaries at which its prompt is cut to keep a state, nearest last.
    pub(super) stops: Vec<u64>,
}

impl<P: Pool> Held<P> {
    /// Takes the blocks that it lacks for `tokens`. Asked for every row of every step: most lack none.
    pub(super) fn grow(&mut self, pool: &mut P, tokens: u64, block: u64) {
        if tokens > self.room {
            let blocks = tokens.div_ceil(block);
            pool.grow(&mut self.holding, blocks);
            self.room = blocks * block;
        }
    }

    /// Registers the blocks that `tokens` fill.
    pub(super) fn register(&mut self, pool: &mut P, tokens: u64, block: u64) {
        if tokens >= self.next_full {
            let full = tokens / block;
            pool.register(&self.path, &mut self.holding, full);
            self.next_full = (full + 1) * block;
        }
    }
}
