//! A pool of equal blocks with prefix reuse, evicted by least recent release (vLLM's rule).
//!
//! A prompt is a path of content nodes and a node owns the blocks whose last token lies in it. Whoever holds a block
//! holds everything before it, so along any path a deeper block was never released later than a shallower one. What is
//! resident of a node is therefore always a run from its start, what is free of it a run at its end, and one queue entry
//! stands for a whole run: cost follows the nodes a request touches, not the blocks of its prompt.

use super::pool::Pool;
use crate::call::{Call, Realms};
use crate::ids::NodeId;
use crate::trace::content::Content;
use rustc_hash::FxHashMap;

/// The key of a node's copy: content node and realm.
type Key = u64;

/// A stretch of a request's path: the blocks that one node owns.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    key: Key,
    /// The index of the first block that is not the node's any more, counted from the start of the prompt.
    end: u32,
}

/// The blocks a request would hold, by the nodes that own them, from the start of its prompt.
#[derive(Clone, Default, Debug)]
pub struct Path {
    stretches: Vec<Stretch>,
    /// The number of blocks whose content has a name; what follows is private to the request.
    named: u32,
}

/// A recurrent state that a request holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateHold {
    key: Key,
    block: u32,
}

fn key(content: &Content, node: NodeId, realms: Realms) -> Key {
    let realm = if content.is_head(node) {
        realms.head
    } else {
        realms.private
    };
    u64::from(node.0) << 32 | u64::from(realm)
}

/// What a request holds of the pool.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Blocks taken from the pool or shared with others.
    blocks: u32,
    /// Leading blocks that are registered under their content, and found by others.
    registered: u32,
}

/// What the pool knows of one node's blocks; indices count from the start of the prompt.
#[derive(Clone, Default, Debug)]
struct Residence {
    /// One past the last resident block, or the node's first block when none is.
    resident: u32,
    /// How far each holder holds. Few, because a node's holders are the calls in flight that share it.
    holders: Vec<u32>,
    /// Queue entries of the free run at the end, deepest and oldest first.
    entries: Vec<u32>,
}

/// A run of free blocks that still have their content.
#[derive(Clone, Copy, Debug)]
struct Entry {
    previous: u32,
    next: u32,
    what: Free,
    from: u32,
    to: u32,
}

/// What free blocks hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Free {
    /// Keys and values of a node.
    Run(Key),
    /// A recurrent state, kept after this block of this node.
    State(Key, u32),
}

/// A recurrent state that can be resumed from.
#[derive(Clone, Copy, Debug)]
struct State {
    holders: u32,
    /// Its place in the queue while nobody holds it.
    entry: u32,
}

const NOBODY: u32 = u32::MAX;

impl Residence {
    /// Returns one past the last block that anybody holds, or zero.
    fn held(&self) -> u32 {
        self.holders.iter().copied().max().unwrap_or(0)
    }
}

/// A pool of equal blocks.
#[derive(Clone, Debug)]
pub struct BlockPool {
    capacity: u64,
    /// Free blocks without content: taken first.
    blank: u64,
    /// Free blocks that still have their content.
    kept: u64,
    nodes: FxHashMap<Key, Residence>,
    states: FxHashMap<(Key, u32), State>,
    /// Blocks that one recurrent state occupies.
    state_blocks: u32,
    entries: Vec<Entry>,
    unused: Vec<u32>,
    /// The oldest and the newest entry.
    oldest: u32,
    newest: u32,
    /// Blocks whose content was lost to make room, ever.
    evicted: u64,
    caching: bool,
}

impl Pool for BlockPool {
    type Path = Path;
    type Holding = Holding;
    type State = StateHold;

    fn new(capacity: u64, caching: bool, state_blocks: u64) -> BlockPool {
        BlockPool {
            capacity,
            blank: capacity,
            kept: 0,
            nodes: FxHashMap::default(),
            states: FxHashMap::default(),
            state_blocks: state_blocks as u32,
            entries: Vec::new(),
            unused: Vec::new(),
            oldest: NOBODY,
            newest: NOBODY,
            evicted: 0,
            caching,
        }
    }

    fn path(call: &Call, content: &Content, block: u64) -> Path {
        let tip = if call.output_shared {
            call.output
        } else {
            call.prompt
        };
        let mut nodes = Vec::new();
        content.path(tip, &mut nodes);
        let mut path = Path {
            stretches: Vec::with_capacity(nodes.len()),
            named: 0,
        };
        for node in nodes {
            let end = (content.end(node).0 / block) as u32;
            if end > path.named {
                path.stretches.push(Stretch {
                    key: key(content, node, call.realms),
                    end,
                });
                path.named = end;
            }
        }
        path
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn free(&self) -> u64 {
        self.blank + self.kept
    }

    fn evicted(&self) -> u64 {
        self.evicted
    }

    fn look_up(&self, path: &Path, limit: u64) -> (u64, u64) {
        if !self.caching {
            return (0, 0);
        }
        let limit = limit.min(u64::from(u32::MAX)) as u32;
        let (mut hit, mut free) = (0, 0);
        for stretch in &path.stretches {
            let Some(residence) = self.nodes.get(&stretch.key) else {
                break;
            };
            let found = residence.resident.min(stretch.end).min(limit);
            if found > hit {
                free += u64::from(found - residence.held().clamp(hit, found));
                hit = found;
            }
            if found < stretch.end {
                break;
            }
        }
        (u64::from(hit), free)
    }

    fn take_hit(&mut self, path: &Path, hit: u64) -> Holding {
        let hit = hit as u32;
        let mut from = 0;
        for stretch in &path.stretches {
            if from >= hit {
                break;
            }
            let to = stretch.end.min(hit);
            let residence = self.nodes.get_mut(&stretch.key).expect("a hit is resident");
            assert!(residence.resident >= to, "a hit is resident");
            residence.holders.push(to);
            self.claim(stretch.key, to);
            from = stretch.end;
        }
        Holding {
            blocks: hit,
            registered: hit,
        }
    }

    fn held(holding: &Holding) -> u64 {
        u64::from(holding.blocks)
    }

    fn grow(&mut self, holding: &mut Holding, blocks: u64) {
        let mut wanted = blocks.saturating_sub(Self::held(holding));
        assert!(
            wanted <= self.free(),
            "wanted {wanted} blocks where {} are free",
            self.free()
        );
        holding.blocks += wanted as u32;
        let blank = wanted.min(self.blank);
        self.blank -= blank;
        wanted -= blank;
        while wanted > 0 {
            wanted -= self.evict(wanted);
        }
    }

    fn register(&mut self, path: &Path, holding: &mut Holding, full: u64) {
        if !self.caching {
            return;
        }
        let full = (full as u32).min(path.named).min(holding.blocks);
        if full <= holding.registered {
            return;
        }
        let first = path
            .stretches
            .partition_point(|stretch| stretch.end <= holding.registered);
        for index in first..path.stretches.len() {
            let start = if index == 0 {
                0
            } else {
                path.stretches[index - 1].end
            };
            if start >= full {
                break;
            }
            let stretch = path.stretches[index];
            let to = stretch.end.min(full);
            let residence = self.nodes.entry(stretch.key).or_insert_with(|| Residence {
                resident: start,
                holders: Vec::new(),
                entries: Vec::new(),
            });
            let already = holding.registered.max(start);
            if holding.registered > start {
                let mine = residence
                    .holders
                    .iter_mut()
                    .find(|held| **held == holding.registered);
                *mine.expect("a partly held node knows its holder") = to;
            } else {
                residence.holders.push(to);
            }
            let resident = residence.resident;
            residence.resident = resident.max(to);
            if resident > already {
                // Somebody else had computed the same content by now. The two are merged into one block, which
                // frees ours; vLLM would keep both until one is evicted.
                self.blank += u64::from(resident.min(to) - already);
                self.claim(stretch.key, to);
            }
            holding.registered = to;
        }
    }

    fn release(&mut self, path: &Path, holding: Holding) {
        let mut at = holding.registered;
        self.blank += u64::from(holding.blocks - holding.registered);
        let last = path.stretches.partition_point(|stretch| stretch.end < at);
        for index in (0..path.stretches.len().min(last + 1)).rev() {
            let start = if index == 0 {
                0
            } else {
                path.stretches[index - 1].end
            };
            if start >= at {
                continue;
            }
            let key = path.stretches[index].key;
            let residence = self.nodes.get_mut(&key).expect("a held node is known");
            let mine = residence
                .holders
                .iter()
                .position(|&held| held == at)
                .expect("a held node knows its holder");
            residence.holders.swap_remove(mine);
            let from = residence.held().max(start);
            if from < at {
                let entry = self.append(Free::Run(key), from, at);
                self.nodes
                    .get_mut(&key)
                    .expect("still known")
                    .entries
                    .push(entry);
                self.kept += u64::from(at - from);
            }
            at = start;
        }
    }

    fn state_at(path: &Path, block: u64) -> StateHold {
        let index = path
            .stretches
            .partition_point(|stretch| u64::from(stretch.end) < block);
        StateHold {
            key: path.stretches[index].key,
            block: block as u32,
        }
    }

    fn look_up_state(&self, path: &Path, limit: u64) -> u64 {
        let mut end = limit.min(u64::from(path.named)) as u32;
        let last = path.stretches.partition_point(|stretch| stretch.end < end);
        for index in (0..path.stretches.len().min(last + 1)).rev() {
            let start = if index == 0 {
                0
            } else {
                path.stretches[index - 1].end
            };
            let key = path.stretches[index].key;
            // States are rare: one or two for each request that was served.
            let found = (start + 1..=end)
                .rev()
                .find(|&block| self.states.contains_key(&(key, block)));
            if let Some(block) = found {
                return u64::from(block);
            }
            end = start;
        }
        0
    }

    fn take_state(&mut self, path: &Path, block: u64) -> StateHold {
        let hold = Self::state_at(path, block);
        let state = self
            .states
            .get_mut(&(hold.key, hold.block))
            .expect("a state that was found is there");
        state.holders += 1;
        if state.holders == 1 {
            let entry = state.entry;
            self.kept -= u64::from(self.state_blocks);
            self.unlink(entry);
        }
        hold
    }

    fn keep_state(&mut self, path: &Path, block: u64) -> Option<StateHold> {
        if !self.caching || block == 0 || block > u64::from(path.named) {
            return None;
        }
        let hold = Self::state_at(path, block);
        if self.states.contains_key(&(hold.key, hold.block)) {
            return Some(self.take_state(path, block));
        }
        if self.free() < u64::from(self.state_blocks) {
            return None;
        }
        let mut room = Holding::default();
        self.grow(&mut room, u64::from(self.state_blocks));
        self.states.insert(
            (hold.key, hold.block),
            State {
                holders: 1,
                entry: NOBODY,
            },
        );
        Some(hold)
    }

    fn release_state(&mut self, hold: StateHold) {
        let state = self
            .states
            .get_mut(&(hold.key, hold.block))
            .expect("a held state is there");
        state.holders -= 1;
        if state.holders == 0 {
            let entry = self.append(Free::State(hold.key, hold.block), 0, self.state_blocks);
            self.states
                .get_mut(&(hold.key, hold.block))
                .expect("still there")
                .entry = entry;
            self.kept += u64::from(self.state_blocks);
        }
    }

    fn check(&self) {
        let length = |entry: u32| {
            u64::from(self.entries[entry as usize].to - self.entries[entry as usize].from)
        };
        let mut queued = 0;
        let mut at = self.oldest;
        while at != NOBODY {
            queued += length(at);
            at = self.entries[at as usize].next;
        }
        assert_eq!(queued, self.kept, "the queue and its count differ");
        assert!(
            self.blank + self.kept <= self.capacity,
            "blocks were invented"
        );
    }
}

impl BlockPool {
    /// Takes the node's free blocks before `to` out of the queue, because somebody holds them now.
    fn claim(&mut self, key: Key, to: u32) {
        while let Some(&entry) = self
            .nodes
            .get(&key)
            .and_then(|residence| residence.entries.last())
        {
            let run = &mut self.entries[entry as usize];
            if run.from >= to {
                return;
            }
            self.kept -= u64::from(run.to.min(to) - run.from);
            if run.to > to {
                // The entry reaches deeper: that part stays free, and as old as it was.
                run.from = to;
                return;
            }
            self.nodes
                .get_mut(&key)
                .expect("just looked up")
                .entries
                .pop();
            self.unlink(entry);
        }
    }

    /// Takes up to `wanted` blocks from the run released longest ago, deepest first; returns how many.
    fn evict(&mut self, wanted: u64) -> u64 {
        let oldest = self.oldest;
        assert_ne!(oldest, NOBODY, "free blocks are blank or queued");
        let run = &mut self.entries[oldest as usize];
        let key = match run.what {
            Free::Run(key) => key,
            Free::State(key, block) => {
                // A state is lost as a whole; what it leaves over is blank.
                let size = u64::from(run.to - run.from);
                self.states.remove(&(key, block));
                self.unlink(oldest);
                self.kept -= size;
                self.evicted += size;
                self.blank += size.saturating_sub(wanted);
                return size.min(wanted);
            }
        };
        let taken = wanted.min(u64::from(run.to - run.from));
        let residence = self
            .nodes
            .get_mut(&key)
            .expect("a queued run belongs to a node");
        assert_eq!(
            residence.resident, run.to,
            "the deepest blocks of a node are its oldest"
        );
        run.to -= taken as u32;
        residence.resident = run.to;
        self.kept -= taken;
        self.evicted += taken;
        if run.from == run.to {
            residence.entries.remove(0);
            if residence.entries.is_empty() && residence.holders.is_empty() {
                self.nodes.remove(&key);
            }
            self.unlink(oldest);
        }
        taken
    }

    fn unlink(&mut self, index: u32) {
        let entry = self.entries[index as usize];
        match entry.previous {
            NOBODY => self.oldest = entry.next,
            previous => self.entries[previous as usize].next = entry.next,
        }
        match entry.next {
            NOBODY => self.newest = entry.previous,
            next => self.entries[next as usize].previous = entry.previous,
        }
        self.unused.push(index);
    }

    fn append(&mut self, what: Free, from: u32, to: u32) -> u32 {
        let entry = Entry {
            previous: self.newest,
            next: NOBODY,
            what,
            from,
            to,
        };
        let index = if let Some(index) = self.unused.pop() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        match self.newest {
            NOBODY => self.oldest = index,
            newest => self.entries[newest as usize].next = index,
        }
        self.newest = index;
        index
    }
}
