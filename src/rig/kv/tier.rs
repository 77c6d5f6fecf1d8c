//! Further, larger homes for blocks: in host memory, and behind it on a disk; and the loads that bring them back.
//!
//! Facts from vLLM 0.33.0, `v1/kv_offload`: blocks of prompts are copied out as they are computed, beside the steps; the
//! least recently used make room, the deepest first; a request whose next blocks are there waits with its own blocks
//! allocated while others go on. `LMCache` 0.5.6 and SGLang's `HiCache` load before the step that goes on from there, and
//! `LMCache` keeps whole chunks only. What is stored goes to host memory and disk; the disk has what the host had no more
//! room for. Each home is a pool of the same kind as the device's, so content has the same names.

use super::pool::Pool;
use crate::rig::book::SeqId;
use crate::rig::fine::Fine;
use std::collections::VecDeque;

/// How large the tier is and how fast.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Offload {
    /// Blocks it holds in host memory; 0 is none.
    pub blocks: u64,
    /// What every load takes, however small.
    pub latency: Fine,
    /// How long one block is on the way.
    pub block_time: Fine,
    /// How long it takes at least to compute one block anew; what is not loaded faster is not loaded.
    pub compute_time: Fine,
    /// Blocks that are kept and loaded together; 0 counts as 1.
    pub chunk: u64,
    /// Whether a load holds up the step, rather than the one request that waits for it.
    pub blocking: bool,
    /// Blocks it holds on disk; 0 is none.
    pub disk_blocks: u64,
    /// What every load from disk takes on top.
    pub disk_latency: Fine,
    /// How long one block from disk is on the way.
    pub disk_block_time: Fine,
}

impl Offload {
    /// Returns whether it holds anything at all.
    pub fn is_there(&self) -> bool {
        self.blocks + self.disk_blocks > 0
    }

    /// Returns the most blocks that are outside of the device: the disk has what the host has, as far as it goes.
    pub fn most(&self) -> u64 {
        self.blocks.max(self.disk_blocks)
    }

    fn chunked(&self, blocks: u64) -> u64 {
        blocks - blocks % self.chunk.max(1)
    }
}

/// Blocks outside of the device, and those on their way back.
#[derive(Clone, Debug)]
pub struct Tier<P: Pool> {
    offload: Offload,
    state_blocks: u64,
    pool: P,
    disk: P,
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
            disk: P::new(offload.disk_blocks, true, state_blocks),
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

    /// Returns whether a load holds up the step.
    pub fn blocks_steps(&self) -> bool {
        self.offload.blocking
    }

    /// Returns how long the blocks after `from` up to `to` take, of which the first `host` of the prompt are in memory.
    fn length(&self, from: u64, to: u64, host: u64) -> Fine {
        let near = to.min(host).saturating_sub(from) + self.state_blocks;
        let far = to.saturating_sub(host.max(from));
        let offload = &self.offload;
        let length = offload.latency + offload.block_time * near;
        if far == 0 {
            return length;
        }
        length + offload.disk_latency + offload.disk_block_time * far
    }

    /// Returns how many leading blocks of a path are in one home, with a state after them where the model has any.
    fn within(&self, home: &P, path: &P::Path, found: u64, limit: u64) -> u64 {
        let there = self.offload.chunked(home.look_up(path, limit).0).max(found);
        if self.state_blocks > 0 {
            home.look_up_state(path, there)
        } else {
            there
        }
    }

    /// Returns up to where a load would take a request that would compute on from block `hit`, of whose keys and
    /// values `found` blocks are on the device; `hit` when there is no more here, or computing it is faster.
    pub fn reach(&self, path: &P::Path, hit: u64, found: u64, limit: u64) -> u64 {
        if !self.offload.is_there() {
            return hit;
        }
        let host = self.within(&self.pool, path, found, limit);
        let disk = self.within(&self.disk, path, found, limit);
        let pays = |&there: &u64| {
            let length = self.length(found, there, host.max(found));
            there > hit && length < self.offload.compute_time * (there - hit)
        };
        [disk.max(host), host].into_iter().find(pays).unwrap_or(hit)
    }

    /// Begins to load the blocks after `from` up to `to`, and the state there, as soon as the link is free.
    pub fn load(&mut self, id: SeqId, path: &P::Path, from: u64, to: u64, at: Fine) {
        let length = self.fetch(path, from, to);
        self.free = self.free.max(at) + length;
        self.loading.push_back((id, self.free));
    }

    /// Loads the blocks after `from` up to `to`, and the state there; returns how long that takes.
    pub fn fetch(&mut self, path: &P::Path, from: u64, to: u64) -> Fine {
        let host = self.within(&self.pool, path, from, to);
        let length = self.length(from, to, host);
        self.loaded += to - from + self.state_blocks;
        self.store(path, to, self.state_blocks > 0);
        length
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
        let full = self.offload.chunked(full);
        for (home, room) in [
            (&mut self.pool, self.offload.blocks),
            (&mut self.disk, self.offload.disk_blocks),
        ] {
            put(home, path, full.min(room), kept);
        }
    }

    /// Asserts that every block is accounted for.
    pub fn check(&self) {
        self.pool.check();
        self.disk.check();
        let free = (self.pool.free(), self.disk.free());
        let all = (self.offload.blocks, self.offload.disk_blocks);
        assert_eq!(free, all, "blocks of the tier leaked");
    }
}

/// Holds the leading `full` blocks of a path in one home.
fn put<P: Pool>(home: &mut P, path: &P::Path, full: u64, kept: bool) {
    if full == 0 {
        return;
    }
    let found = home.look_up(path, full).0;
    let mut holding = home.take_hit(path, found);
    home.grow(&mut holding, full);
    home.register(path, &mut holding, full);
    let state = if kept {
        home.keep_state(path, full)
    } else {
        None
    };
    home.release(path, holding);
    if let Some(state) = state {
        home.release_state(state);
    }
}
