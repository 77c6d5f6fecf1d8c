//! A pool that is too simple to be wrong: every block on its own, found by the hash of all tokens up to its end.
//!
//! vLLM's rules as its `block_pool.py` has them: hits leave the free queue, allocation takes its head, and a request
//! gives its blocks back tail first: those with a hash to the queue's tail, the others to its head.

use crate::world::token_ids;
use laptime::call::Call;
use laptime::rig::kv::pool::Pool;
use laptime::trace::content::Content;
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The hash of each full block, every one chained to the one before.
#[derive(Clone, Debug)]
pub(crate) struct Hashes(Vec<u64>);

#[derive(Clone, Default, Debug)]
struct Block {
    hash: Option<u64>,
    state: Option<u64>,
    holders: u32,
}

#[derive(Default, Debug)]
pub(crate) struct Held {
    blocks: Vec<usize>,
    registered: usize,
}

#[derive(Debug)]
pub(crate) struct NaivePool {
    blocks: Vec<Block>,
    free: VecDeque<usize>,
    /// The blocks with a hash, the one registered first at the front.
    by_hash: BTreeMap<u64, Vec<usize>>,
    states: BTreeMap<u64, Vec<usize>>,
    state_blocks: usize,
    caching: bool,
    evicted: u64,
}

impl NaivePool {
    fn touch(&mut self, block: usize) {
        self.blocks[block].holders += 1;
        self.free.retain(|&other| other != block);
    }

    fn pop(&mut self) -> usize {
        let block = self.free.pop_front().expect("a block is free");
        if let Some(hash) = self.blocks[block].hash.take() {
            self.evicted += 1;
            let copies = self.by_hash.get_mut(&hash).expect("a hash is known");
            copies.retain(|&other| other != block);
            if copies.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
        if let Some(state) = self.blocks[block].state.take() {
            // What is left of a state is of no use.
            let parts = self.states.remove(&state).expect("a state is known");
            self.evicted += parts.len() as u64;
            for part in parts.into_iter().filter(|&part| part != block) {
                self.blocks[part].state = None;
                self.free.retain(|&other| other != part);
                self.free.push_front(part);
            }
        }
        self.blocks[block].holders = 1;
        block
    }

    fn drop_one(&mut self, block: usize) {
        self.blocks[block].holders -= 1;
        if self.blocks[block].holders > 0 {
            return;
        }
        if self.blocks[block].hash.is_some() || self.blocks[block].state.is_some() {
            self.free.push_back(block);
        } else {
            self.free.push_front(block);
        }
    }
}

impl Pool for NaivePool {
    type Path = Hashes;
    type Holding = Held;
    type State = u64;

    fn new(capacity: u64, caching: bool, state_blocks: u64) -> NaivePool {
        NaivePool {
            blocks: vec![Block::default(); capacity as usize],
            free: (0..capacity as usize).collect(),
            by_hash: BTreeMap::new(),
            states: BTreeMap::new(),
            state_blocks: state_blocks as usize,
            caching,
            evicted: 0,
        }
    }

    fn path(call: &Call, content: &Content, block: u64) -> Hashes {
        let ids = token_ids(call, content);
        let mut last = 0;
        let chain = ids.chunks_exact(block as usize).map(|ids| {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            last = xxh3_64_with_seed(&bytes, last);
            last
        });
        Hashes(chain.collect())
    }

    fn capacity(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn free(&self) -> u64 {
        self.free.len() as u64
    }

    fn evicted(&self) -> u64 {
        self.evicted
    }

    fn look_up(&self, path: &Hashes, limit: u64) -> (u64, u64) {
        let (mut hit, mut free) = (0, 0);
        for hash in path.0.iter().take(limit as usize) {
            let Some(copies) = self.by_hash.get(hash) else {
                break;
            };
            hit += 1;
            free += u64::from(self.blocks[copies[0]].holders == 0);
        }
        (hit, free)
    }

    fn take_hit(&mut self, path: &Hashes, hit: u64) -> Held {
        let hashes = path.0.iter().take(hit as usize);
        let blocks: Vec<usize> = hashes.map(|hash| self.by_hash[hash][0]).collect();
        for &block in &blocks {
            self.touch(block);
        }
        Held {
            registered: blocks.len(),
            blocks,
        }
    }

    fn held(holding: &Held) -> u64 {
        holding.blocks.len() as u64
    }

    fn grow(&mut self, holding: &mut Held, blocks: u64) {
        while holding.blocks.len() < blocks as usize {
            let block = self.pop();
            holding.blocks.push(block);
        }
    }

    fn register(&mut self, path: &Hashes, holding: &mut Held, full: u64) {
        let full = (full as usize).min(path.0.len()).min(holding.blocks.len());
        while self.caching && holding.registered < full {
            let (block, hash) = (
                holding.blocks[holding.registered],
                path.0[holding.registered],
            );
            self.blocks[block].hash = Some(hash);
            self.by_hash.entry(hash).or_default().push(block);
            holding.registered += 1;
        }
    }

    fn release(&mut self, _path: &Hashes, holding: Held) {
        for block in holding.blocks.into_iter().rev() {
            self.drop_one(block);
        }
    }

    fn state_at(path: &Hashes, block: u64) -> u64 {
        path.0[block as usize - 1]
    }

    fn look_up_state(&self, path: &Hashes, limit: u64) -> u64 {
        let hashes = path.0.iter().take(limit as usize);
        let found = { hashes }.rposition(|hash| self.states.contains_key(hash));
        found.map_or(0, |at| at as u64 + 1)
    }

    fn take_state(&mut self, path: &Hashes, block: u64) -> u64 {
        let state = Self::state_at(path, block);
        for block in self.states[&state].clone() {
            self.touch(block);
        }
        state
    }

    fn keep_state(&mut self, path: &Hashes, block: u64) -> Option<u64> {
        if !self.caching || block == 0 || block as usize > path.0.len() {
            return None;
        }
        let state = Self::state_at(path, block);
        if self.states.contains_key(&state) {
            return Some(self.take_state(path, block));
        }
        if self.free.len() < self.state_blocks {
            return None;
        }
        let blocks: Vec<usize> = (0..self.state_blocks).map(|_| self.pop()).collect();
        for &block in &blocks {
            self.blocks[block].state = Some(state);
        }
        self.states.insert(state, blocks);
        Some(state)
    }

    fn release_state(&mut self, state: u64) {
        for block in self.states[&state].clone() {
            self.drop_one(block);
        }
    }

    fn check(&self) {
        let held = self.blocks.iter().filter(|block| block.holders > 0).count();
        assert_eq!(held + self.free.len(), self.blocks.len());
    }
}
