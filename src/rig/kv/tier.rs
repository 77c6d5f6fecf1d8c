//! A second, larger home for blocks in host memory, and the loads that bring them back (vLLM's native offload).
//!
//! Facts from vLLM 0.33.0, `v1/kv_offload`: blocks of prompts are copied out as they are computed, beside the steps; the
//! least recently used make room, the deepest first; a request whose next blocks are there waits with its own blocks
//! allocated while others go on. The tier is a pool of the same kind as the device's, so content has the same names.

use super::pool::Pool;
use crate::rig::book::SeqId;
use crate::rig::fine::Fine;
use std::collections::VecDeque;

/// How large the tier is and how fast.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Offload {
    /// Blocks it holds; 0 is no tier.
    pub blocks: u64,
    /// What every load takes, however small.
    pub latency: Fine,
    /// How long one block is on the way.
    pub block_time: Fine,
    /// How long it takes at least to compute one block anew; what is not loaded faster is not loaded.
    pub compute_time: Fine,
}

/// Blocks in host memory, and those on their way back.
#[derive(Debug)]
pub struct Tier<P: Pool> {
    offload: Offload,
    state_blocks: u64,
    pool: P,
    /// Loads follow each other over one link: who waits, and until when, the next to end first.
    loading: VecDeque<(SeqId, Fine)>,
    /// When the link has nothing more to do.
    free: Fine,
    loaded: u64,
}

impl<P: Pool> Tier<P> {
    /// Returns an empty tier.
    pub fn new(offload: Offload, state_blocks: u64) -> Tier<P> {
        Tier {
            offload,
            state_blocks,
            pool: P::new(offload.blocks, true, state_blocks),
            loading: VecDeque::new(),
            free: Fine::ZERO,
            loaded: 0,
        }
    }

    /// Returns how many blocks were ever loaded, those of recurrent states included.
    pub fn loaded(&self) -> u64 {
        self.loaded
    }

    /// Returns how many requests wait for a load.
    pub fn loading(&self) -> usize {
        self.loading.len()
    }

    fn length(&self, blocks: u64) -> Fine {
        self.offload.latency + self.offload.block_time * blocks
    }

    /// Returns up to where a load would take a request that would compute on from block `hit`, of whose keys and
    /// values `found` blocks are on the device; `hit` when there is no more here, or computing it is faster.
    pub fn reach(&self, path: &P::Path, hit: u64, found: u64, limit: u64) -> u64 {
        if self.offload.blocks == 0 {
            return hit;
        }
        let mut there = self.pool.look_up(path, limit).0.max(found);
        if self.state_blocks > 0 {
            there = self.pool.look_up_state(path, there);
        }
        if there <= hit {
            return hit;
        }
        let blocks = there.saturating_sub(found) + self.state_blocks;
        if self.length(blocks) < self.offload.compute_time * (there - hit) {
            there
        } else {
            hit
        }
    }

    /// Begins to load the blocks after `from` up to `to`, and the state there, as soon as the link is free.
    pub fn load(&mut self, id: SeqId, path: &P::Path, from: u64, to: u64, at: Fine) {
        let blocks = to - from + self.state_blocks;
        self.free = self.free.max(at) + self.length(blocks);
        self.loading.push_back((id, self.free));
        self.loaded += blocks;
        self.store(path, to, self.state_blocks > 0);
    }

    /// Returns the request whose load is first to end, if it has by `at`, and when.
    pub fn arrived(&mut self, at: Fine) -> Option<(SeqId, Fine)> {
        let &(id, ready) = self.loading.front()?;
        (ready <= at).then(|| {
            self.loading.pop_front();
            (id, ready)
        })
    }

    /// Returns when the next load ends.
    pub fn next_ready(&self) -> Option<Fine> {
        self.loading.front().map(|&(_, ready)| ready)
    }

    /// Holds the leading `full` blocks of a path, and where it is `kept` the state after them, as the most recently used.
    pub fn store(&mut self, path: &P::Path, full: u64, kept: bool) {
        let full = full.min(self.offload.blocks);
        if full == 0 {
            return;
        }
        let found = self.pool.look_up(path, full).0;
        let mut holding = self.pool.take_hit(path, found);
        self.pool.grow(&mut holding, full);
        self.pool.register(path, &mut holding, full);
        let state = if kept {
            self.pool.keep_state(path, full)
        } else {
            None
        };
        self.pool.release(path, holding);
        if let Some(state) = state {
            self.pool.release_state(state);
        }
    }

    /// Asserts that every block is accounted for.
    pub fn check(&self) {
        self.pool.check();
        assert_eq!(self.pool.free(), self.offload.blocks, "host blocks leaked");
    }
}
