//! A pool of equal blocks with prefix reuse, evicted by least recent release (vLLM's rule).
//!
//! A prompt is a path of content nodes and a node owns the blocks whose last token lies in it. What is resident of a
//! node is kept as runs of blocks that were released, or are held, together, so cost follows the nodes a request touches
//! and not the blocks of its prompt. The same content may be resident several times: where a request computes what is
//! there already, vLLM keeps both copies, finds the older one, and evicts each in its turn.

use super::path::{Key, Path, StateHold};
use super::pool::Pool;
use crate::call::Call;
use crate::trace::content::Content;
use rustc_hash::FxHashMap;

/// What a request holds of the pool.
#[derive(Clone, Default, Debug)]
pub struct Holding {
    /// Blocks taken from the pool or shared with others.
    blocks: u32,
    /// Leading blocks that are registered under their content, and found by others.
    registered: u32,
    /// Which those are, from the start of the prompt.
    grips: Vec<Grip>,
}

/// Blocks that a request holds of one copy.
#[derive(Clone, Copy, Debug)]
struct Grip {
    key: Key,
    copy: u32,
    from: u32,
    to: u32,
}

/// One copy of blocks of a node; indices count from the start of the prompt.
#[derive(Clone, Debug)]
struct Copy {
    name: u32,
    /// Entries of its runs, which do not overlap, in ascending order.
    runs: Vec<u32>,
}

/// A run of blocks with content, or a state.
#[derive(Clone, Copy, Debug)]
struct Entry {
    previous: u32,
    next: u32,
    what: What,
    from: u32,
    to: u32,
    /// How many hold it; in the queue while nobody does.
    holders: u32,
}

/// What blocks hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// Keys and values: this copy of this node.
    Run(Key, u32),
    /// A recurrent state, kept after this block of this node.
    State(Key, u32),
}

/// Part of a copy that serves a look-up.
struct Found {
    /// The copy's place in its node's list.
    copy: usize,
    to: u32,
    free: bool,
}

const NOBODY: u32 = u32::MAX;

/// A pool of equal blocks.
#[derive(Clone, Debug)]
pub struct BlockPool {
    capacity: u64,
    /// Free blocks without content: taken first.
    blank: u64,
    /// Free blocks that still have their content.
    kept: u64,
    /// What is resident of each node, the copy that was registered first at the front.
    nodes: FxHashMap<Key, Vec<Copy>>,
    states: FxHashMap<(Key, u32), u32>,
    /// Blocks that one recurrent state occupies.
    state_blocks: u32,
    entries: Vec<Entry>,
    unused: Vec<u32>,
    /// The oldest and the newest entry of the queue.
    oldest: u32,
    newest: u32,
    copies: u32,
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
            copies: 0,
            evicted: 0,
            caching,
        }
    }

    fn path(call: &Call, content: &Content, block: u64) -> Path {
        Path::of(call, content, block)
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
        let limit = limit.min(u64::from(u32::MAX)) as u32;
        let (mut at, mut free) = (0, 0);
        for stretch in &path.stretches {
            while at < stretch.end.min(limit) {
                let Some(found) = self.find(stretch.key, at) else {
                    return (u64::from(at), free);
                };
                let to = found.to.min(limit);
                free += if found.free { u64::from(to - at) } else { 0 };
                at = to;
            }
        }
        (u64::from(at), free)
    }

    fn take_hit(&mut self, path: &Path, hit: u64) -> Holding {
        let hit = hit as u32;
        let mut grips = Vec::new();
        let mut at = 0;
        for stretch in &path.stretches {
            while at < stretch.end.min(hit) {
                let found = self.find(stretch.key, at).expect("a hit is resident");
                let to = found.to.min(hit);
                grips.push(self.grip(stretch.key, found.copy, at, to));
                at = to;
            }
        }
        assert_eq!(at, hit, "a hit is resident");
        Holding {
            blocks: hit,
            registered: hit,
            grips,
        }
    }

    fn held(holding: &Holding) -> u64 {
        u64::from(holding.blocks)
    }

    fn grow(&mut self, holding: &mut Holding, blocks: u64) {
        let wanted = blocks.saturating_sub(Self::held(holding));
        if wanted == 0 {
            return;
        }
        self.take(wanted);
        holding.blocks += wanted as u32;
    }

    fn register(&mut self, path: &Path, holding: &mut Holding, full: u64) {
        if !self.caching {
            return;
        }
        let full = full.min(u64::from(path.named.min(holding.blocks))) as u32;
        if full <= holding.registered {
            return;
        }
        let first = path
            .stretches
            .partition_point(|stretch| stretch.end <= holding.registered);
        for stretch in &path.stretches[first..] {
            let from = holding.registered;
            if from >= full {
                break;
            }
            let to = stretch.end.min(full);
            if !self.extend(stretch.key, holding.grips.last_mut(), from, to) {
                holding.grips.push(self.copy(stretch.key, from, to));
            }
            holding.registered = to;
        }
    }

    fn release(&mut self, _path: &Path, holding: Holding) {
        self.blank += u64::from(holding.blocks - holding.registered);
        for grip in holding.grips.iter().rev() {
            self.let_go(grip);
        }
    }

    fn state_at(path: &Path, block: u64) -> StateHold {
        path.state_at(block)
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
        let index = self.states[&(hold.key, hold.block)];
        let state = &mut self.entries[index as usize];
        state.holders += 1;
        if state.holders == 1 {
            self.kept -= u64::from(self.state_blocks);
            self.unlink(index);
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
        self.take(u64::from(self.state_blocks));
        let index = self.enter(Entry {
            previous: NOBODY,
            next: NOBODY,
            what: What::State(hold.key, hold.block),
            from: 0,
            to: self.state_blocks,
            holders: 1,
        });
        self.states.insert((hold.key, hold.block), index);
        Some(hold)
    }

    fn release_state(&mut self, hold: StateHold) {
        let index = self.states[&(hold.key, hold.block)];
        let state = &mut self.entries[index as usize];
        state.holders -= 1;
        if state.holders == 0 {
            self.kept += u64::from(self.state_blocks);
            self.append(index);
        }
    }

    fn check(&self) {
        let length = |entry: &Entry| u64::from(entry.to - entry.from);
        let mut queued = 0;
        let mut at = self.oldest;
        while at != NOBODY {
            let entry = &self.entries[at as usize];
            assert_eq!(entry.holders, 0, "what is held is not in the queue");
            queued += length(entry);
            at = entry.next;
        }
        assert_eq!(queued, self.kept, "the queue and its count differ");
        assert!(
            self.blank + self.kept <= self.capacity,
            "blocks were invented"
        );
    }
}

impl BlockPool {
    /// Takes free blocks out of the pool, evicting what was released longest ago.
    fn take(&mut self, mut wanted: u64) {
        assert!(
            wanted <= self.free(),
            "wanted {wanted} blocks where {} are free",
            self.free()
        );
        let blank = wanted.min(self.blank);
        self.blank -= blank;
        wanted -= blank;
        while wanted > 0 {
            wanted -= self.evict(wanted);
        }
    }

    /// Returns what serves a look-up from block `at` of a node on: of several copies the one registered first.
    fn find(&self, key: Key, at: u32) -> Option<Found> {
        // Where an earlier copy begins, it serves from there on.
        let mut bound = u32::MAX;
        for (copy, runs) in self.nodes.get(&key)?.iter().enumerate() {
            let next = runs
                .runs
                .partition_point(|&run| self.entries[run as usize].to <= at);
            let Some(&run) = runs.runs.get(next) else {
                continue;
            };
            let run = &self.entries[run as usize];
            if run.from > at {
                bound = bound.min(run.from);
                continue;
            }
            return Some(Found {
                copy,
                to: run.to.min(bound),
                free: run.holders == 0,
            });
        }
        None
    }

    /// Takes hold of blocks that lie in one run of a copy.
    fn grip(&mut self, key: Key, copy: usize, from: u32, to: u32) -> Grip {
        let name = self.nodes[&key][copy].name;
        self.split(key, copy, from);
        self.split(key, copy, to);
        let runs = &self.nodes[&key][copy].runs;
        let at = runs.partition_point(|&run| self.entries[run as usize].to <= from);
        let run = runs[at];
        let entry = &mut self.entries[run as usize];
        assert_eq!((entry.from, entry.to), (from, to), "a grip lies in one run");
        entry.holders += 1;
        if entry.holders == 1 {
            self.kept -= u64::from(to - from);
            self.unlink(run);
        }
        Grip {
            key,
            copy: name,
            from,
            to,
        }
    }

    /// Splits the run of a copy in which block `at` lies, so that one begins there.
    fn split(&mut self, key: Key, copy: usize, at: u32) {
        let runs = &self.nodes[&key][copy].runs;
        let place = runs.partition_point(|&run| self.entries[run as usize].to <= at);
        let Some(&run) = runs.get(place) else {
            return;
        };
        let entry = self.entries[run as usize];
        if entry.from >= at {
            return;
        }
        self.entries[run as usize].to = at;
        let deeper = self.enter(Entry { from: at, ..entry });
        if entry.holders == 0 {
            // The deeper part is the next to be evicted, as it was.
            self.link_before(deeper, run);
        }
        let copies = self.nodes.get_mut(&key).expect("the node was just there");
        copies[copy].runs.insert(place + 1, deeper);
    }

    /// Registers blocks that continue those of `grip` in the same copy; returns whether they do.
    ///
    /// They must not come before what a later copy registered earlier.
    fn extend(&mut self, key: Key, grip: Option<&mut Grip>, from: u32, to: u32) -> bool {
        let Some(grip) = grip.filter(|grip| grip.key == key && grip.to == from) else {
            return false;
        };
        let copies = self.nodes.get_mut(&key).expect("what is held is resident");
        let copy = copies
            .iter()
            .position(|copy| copy.name == grip.copy)
            .expect("what is held is resident");
        let entries = &self.entries;
        let beyond = |copy: &Copy| {
            let last = copy.runs.last().expect("a copy has a run");
            entries[*last as usize].to > from
        };
        if copies[copy..].iter().any(beyond) {
            return false;
        }
        grip.to = to;
        let last = *copies[copy].runs.last().expect("a copy has a run");
        let entry = &mut self.entries[last as usize];
        if entry.holders == 1 {
            entry.to = to;
        } else {
            let run = self.enter(Entry {
                previous: NOBODY,
                next: NOBODY,
                what: What::Run(key, grip.copy),
                from,
                to,
                holders: 1,
            });
            let copies = self.nodes.get_mut(&key).expect("the node was just there");
            copies[copy].runs.push(run);
        }
        true
    }

    /// Registers blocks as a copy of their own.
    fn copy(&mut self, key: Key, from: u32, to: u32) -> Grip {
        let name = self.copies;
        self.copies += 1;
        let run = self.enter(Entry {
            previous: NOBODY,
            next: NOBODY,
            what: What::Run(key, name),
            from,
            to,
            holders: 1,
        });
        let copies = self.nodes.entry(key).or_default();
        copies.push(Copy {
            name,
            runs: vec![run],
        });
        Grip {
            key,
            copy: name,
            from,
            to,
        }
    }

    /// Lets go of blocks, the deepest first.
    fn let_go(&mut self, grip: &Grip) {
        let copies = &self.nodes[&grip.key];
        let copy = copies
            .iter()
            .position(|copy| copy.name == grip.copy)
            .expect("what is held is resident");
        let runs = &copies[copy].runs;
        let entries = &self.entries;
        let first = runs.partition_point(|&run| entries[run as usize].to <= grip.from);
        let last = runs.partition_point(|&run| entries[run as usize].from < grip.to);
        for place in (first..last).rev() {
            let run = self.nodes[&grip.key][copy].runs[place];
            let entry = &mut self.entries[run as usize];
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            let released = *entry;
            self.kept += u64::from(released.to - released.from);
            let newest = self.newest;
            let joins = newest != NOBODY && {
                let newest = &self.entries[newest as usize];
                newest.what == released.what && newest.from == released.to
            };
            if joins {
                // Released right after what lies deeper: from now on they are one run.
                self.entries[newest as usize].from = released.from;
                self.unused.push(run);
                let copies = self.nodes.get_mut(&grip.key).expect("it is resident");
                copies[copy].runs.remove(place);
            } else {
                self.append(run);
            }
        }
    }

    /// Takes up to `wanted` blocks from the run released longest ago, deepest first; returns how many.
    fn evict(&mut self, wanted: u64) -> u64 {
        let oldest = self.oldest;
        assert_ne!(oldest, NOBODY, "free blocks are blank or queued");
        let run = &mut self.entries[oldest as usize];
        let size = u64::from(run.to - run.from);
        let (key, name) = match run.what {
            What::Run(key, name) => (key, name),
            What::State(key, block) => {
                // A state is lost as a whole; what it leaves over is blank.
                self.states.remove(&(key, block));
                self.unlink(oldest);
                self.unused.push(oldest);
                self.kept -= size;
                self.evicted += size;
                self.blank += size.saturating_sub(wanted);
                return size.min(wanted);
            }
        };
        let taken = wanted.min(size);
        run.to -= taken as u32;
        self.kept -= taken;
        self.evicted += taken;
        if taken == size {
            self.unlink(oldest);
            self.unused.push(oldest);
            let copies = self.nodes.get_mut(&key).expect("a run belongs to a node");
            let copy = copies.iter().position(|copy| copy.name == name);
            let copy = copy.expect("a run belongs to a copy");
            copies[copy].runs.retain(|&other| other != oldest);
            if copies[copy].runs.is_empty() {
                copies.remove(copy);
            }
            if copies.is_empty() {
                self.nodes.remove(&key);
            }
        }
        taken
    }

    /// Takes an entry out of the queue.
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
    }

    /// Puts an entry at the end of the queue.
    fn append(&mut self, index: u32) {
        let newest = self.newest;
        let entry = &mut self.entries[index as usize];
        (entry.previous, entry.next) = (newest, NOBODY);
        match newest {
            NOBODY => self.oldest = index,
            newest => self.entries[newest as usize].next = index,
        }
        self.newest = index;
    }

    /// Puts an entry before another one in the queue.
    fn link_before(&mut self, index: u32, other: u32) {
        let previous = self.entries[other as usize].previous;
        let entry = &mut self.entries[index as usize];
        (entry.previous, entry.next) = (previous, other);
        self.entries[other as usize].previous = index;
        match previous {
            NOBODY => self.oldest = index,
            previous => self.entries[previous as usize].next = index,
        }
    }

    fn enter(&mut self, entry: Entry) -> u32 {
        if let Some(index) = self.unused.pop() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        }
    }
}
