//! A tree of pages with prefix reuse, evicted leaf by leaf (SGLang's rule, and with single pages TensorRT-LLM's).
//!
//! A node of the tree is what one request added, or the part of it that others went on from: a prompt that parts from a
//! node in its middle splits it. Whoever is served locks the path it goes on from; of what nobody locks, the leaf used
//! longest ago goes first. Recurrent states hang at the ends of nodes and have room of their own.

mod tree;

use super::path::{Key, Path, Stretch, agreed};
use crate::call::{Call, Realms};
use crate::ids::NodeId;
use crate::trace::content::{Content, ROOT};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// A place in the tree.
type Place = u32;

/// The node that holds nothing and that every path begins at.
const TOP: Place = 0;

/// Marks keys of content that nothing else can equal.
const PRIVATE: Key = 1 << 63;

/// Who added a node, to find how much of a page another prompt has in common with it.
#[derive(Clone, Copy, Debug)]
struct Origin {
    tip: NodeId,
    realms: Realms,
}

impl Origin {
    fn of(call: &Call) -> Origin {
        let tip = if call.output_shared {
            call.output
        } else {
            call.prompt
        };
        Origin {
            tip,
            realms: call.realms,
        }
    }
}

#[derive(Clone, Debug)]
struct Node {
    parent: Place,
    start: u32,
    end: u32,
    /// Names of its pages, as positions from the start of the prompt.
    stretches: Vec<Stretch>,
    children: Vec<Place>,
    locks: u32,
    /// When it was last used.
    used: u64,
    /// When the recurrent state kept at its end was last queued; nothing where none is kept.
    state: Option<u64>,
    origin: Origin,
    /// Tokens up to its end; fewer than its pages hold when the last one is not full.
    tokens: u64,
}

impl Node {
    fn pages(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

/// What a request holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    place: Place,
    /// Leading pages that are in the tree.
    shared: u32,
    /// Pages after those, which nobody else can find.
    own: u32,
}

impl Hold {
    /// Returns how many pages it has.
    pub fn pages(&self) -> u64 {
        u64::from(self.shared + self.own)
    }

    /// Returns how many of them are in the tree.
    pub fn shared(&self) -> u64 {
        u64::from(self.shared)
    }
}

/// What was found of a prompt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    place: Place,
    /// Pages that were found.
    pub pages: u64,
}

/// A page that begins like a prompt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partial {
    /// Up to which token of the prompt; where the found pages end when there is no such page.
    pub tokens: u64,
    place: Place,
}

/// How a pool evicts and what it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Pages there are.
    pub capacity: u64,
    /// Tokens of a page.
    pub page: u64,
    /// Whether a leaf is evicted as a whole, or page by page from its end.
    pub whole_leaves: bool,
    /// Recurrent states there is room for; 0 for models that have none.
    pub states: u64,
}

/// A tree of pages.
#[derive(Clone, Debug)]
pub struct RadixPool {
    rules: Rules,
    nodes: Vec<Node>,
    unused: Vec<Place>,
    by_key: FxHashMap<(Place, Key), Place>,
    /// Pages without content.
    blank: u64,
    /// Pages in the tree that nobody locks.
    evictable: u64,
    /// Leaves that nobody locks, used longest ago first.
    leaves: BTreeSet<(u64, Place)>,
    /// Places with a state, by when they were queued: a place used since moves back only once it comes first, for a path
    /// is used as a whole, and often.
    states: BTreeSet<(u64, Place)>,
    /// States that requests under way work on.
    working: u64,
    clock: u64,
    private: u64,
    evicted: u64,
}

impl RadixPool {
    /// Returns an empty tree.
    pub fn new(rules: Rules) -> RadixPool {
        let top = Node {
            parent: TOP,
            start: 0,
            end: 0,
            stretches: Vec::new(),
            children: Vec::new(),
            locks: u32::MAX,
            used: 0,
            state: None,
            origin: Origin {
                tip: ROOT,
                realms: Realms::default(),
            },
            tokens: 0,
        };
        RadixPool {
            rules,
            nodes: vec![top],
            unused: Vec::new(),
            by_key: FxHashMap::default(),
            blank: rules.capacity,
            evictable: 0,
            leaves: BTreeSet::new(),
            states: BTreeSet::new(),
            working: 0,
            clock: 0,
            private: 0,
            evicted: 0,
        }
    }

    /// Returns the path of a call's prompt and answer, in this pool's pages.
    pub fn path(&self, call: &Call, content: &Content) -> Path {
        Path::of(call, content, self.rules.page)
    }

    /// Returns how many pages there are.
    pub fn capacity(&self) -> u64 {
        self.rules.capacity
    }

    /// Returns how many pages can be had: blank ones, and those that nobody locks.
    pub fn free(&self) -> u64 {
        self.blank + self.evictable
    }

    /// Returns how many pages lost their content to make room, ever.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns the leading pages of `path` that are in the tree, at most `limit`, as used just now.
    pub fn find(&mut self, path: &Path, limit: u64) -> Found {
        self.find_below(TOP, path, limit)
    }

    /// Finds what lies below `place`, which is on the path and not beyond the limit.
    fn find_below(&mut self, mut place: Place, path: &Path, limit: u64) -> Found {
        let limit = limit.min(u64::from(path.named)) as u32;
        loop {
            let at = self.nodes[place as usize].end;
            if at >= limit {
                break;
            }
            let Some(&child) = self.by_key.get(&(place, path.key_at(at))) else {
                break;
            };
            let node = &self.nodes[child as usize];
            let to = agreed(&node.stretches, &path.stretches, at, limit.min(node.end));
            if to < node.end {
                place = self.split(child, to);
                break;
            }
            place = child;
        }
        self.touch(place);
        self.found(place)
    }

    /// Returns the deepest place at or above a found one where a recurrent state is kept.
    pub fn with_state(&self, found: Found) -> Found {
        let mut place = found.place;
        while place != TOP && self.nodes[place as usize].state.is_none() {
            place = self.nodes[place as usize].parent;
        }
        self.found(place)
    }

    /// Returns how many of the found pages nobody locks.
    pub fn unlocked(&self, found: Found) -> u64 {
        let mut place = found.place;
        let mut pages = 0;
        while self.nodes[place as usize].locks == 0 {
            pages += self.nodes[place as usize].pages();
            place = self.nodes[place as usize].parent;
        }
        pages
    }

    /// Returns which page after the found ones begins most like the call's prompt, and up to which token.
    pub fn partial(&self, found: Found, call: &Call, content: &Content) -> Partial {
        let from = found.pages * self.rules.page;
        let mut best = Partial {
            tokens: from,
            place: TOP,
        };
        for &child in &self.nodes[found.place as usize].children {
            let node = &self.nodes[child as usize];
            let reach = common(node.origin, call, content).min(node.tokens);
            let reach = reach.min(from + self.rules.page);
            if reach > best.tokens {
                best = Partial {
                    tokens: reach,
                    place: child,
                };
            }
        }
        best
    }

    /// Lets go of a page that begins like a prompt if nobody else needs it: the prompt takes it over, else it is copied.
    pub fn take_over(&mut self, partial: Partial) {
        let node = &self.nodes[partial.place as usize];
        if node.locks == 0 && node.children.is_empty() && node.pages() == 1 {
            self.drop_leaf(partial.place);
        }
    }

    /// Takes hold of what was found.
    pub fn take(&mut self, found: Found) -> Hold {
        self.lock(found.place);
        Hold {
            place: found.place,
            shared: found.pages as u32,
            own: 0,
        }
    }

    /// Returns whether `hold` can grow to `pages`.
    pub fn can_grow(&self, hold: &Hold, pages: u64) -> bool {
        pages.saturating_sub(hold.pages()) <= self.free()
    }

    /// Grows a hold to `pages`, evicting what was used longest ago.
    ///
    /// # Panics
    /// When there are not enough free pages.
    pub fn grow(&mut self, hold: &mut Hold, pages: u64) {
        let wanted = pages.saturating_sub(hold.pages());
        assert!(wanted <= self.free(), "{wanted} pages of {}", self.free());
        while self.blank < wanted {
            self.evict(wanted - self.blank);
        }
        self.blank -= wanted;
        hold.own += wanted as u32;
    }

    /// Puts the leading `pages` of a hold into the tree, where others find them; what is there already is merged.
    ///
    /// With `state`, the model's recurrent state at that place is kept as well, the one used longest ago making room.
    pub fn insert(&mut self, path: &Path, hold: &mut Hold, pages: u64, call: &Call, state: bool) {
        let pages = pages.min(u64::from(path.named)) as u32;
        if pages < hold.shared || pages == 0 {
            return;
        }
        assert!(u64::from(pages) <= hold.pages(), "what is stored was held");
        // What is locked stays.
        let found = self.find_below(hold.place, path, u64::from(pages));
        let matched = found.pages as u32;
        self.blank += u64::from(matched - hold.shared);
        let place = if matched < pages {
            let stretches = path.between(matched, pages);
            let end = (matched, pages);
            self.add(found.place, end, stretches, call)
        } else {
            found.place
        };
        self.lock(place);
        self.unlock(hold.place);
        hold.own -= pages - hold.shared;
        (hold.place, hold.shared) = (place, pages);
        if state {
            self.keep_state(place);
        }
    }

    /// Names the pages of `path` up to `pages` that have no name yet: nothing else will equal them.
    pub fn name_rest(&mut self, path: &mut Path, pages: u64) {
        let pages = pages as u32;
        if pages > path.named {
            self.private += 1;
            path.stretches.push(Stretch {
                key: PRIVATE | self.private,
                end: pages,
            });
            path.named = pages;
        }
    }

    /// Puts a last page that is not full into the tree; only [`RadixPool::partial`] finds it.
    pub fn insert_tail(&mut self, hold: &mut Hold, tokens: u64, call: &Call) {
        if hold.own == 0 || tokens <= u64::from(hold.shared) * self.rules.page {
            return;
        }
        self.private += 1;
        let (start, end) = (hold.shared, hold.shared + 1);
        let key = PRIVATE | self.private;
        let place = self.add(hold.place, (start, end), vec![Stretch { key, end }], call);
        self.nodes[place as usize].tokens = tokens;
        self.lock(place);
        self.unlock(hold.place);
        hold.own -= 1;
        (hold.place, hold.shared) = (place, end);
    }

    /// Lets go of everything; what is in the tree can be found until it is evicted.
    pub fn release(&mut self, hold: Hold) {
        self.blank += u64::from(hold.own);
        self.unlock(hold.place);
    }

    /// Returns whether there is room for `count` more states that requests work on.
    pub fn has_states(&self, count: u64) -> bool {
        self.working + count <= self.rules.states
    }

    /// Makes room for `count` states that a request works on.
    pub fn take_states(&mut self, count: u64) {
        self.working += count;
        assert!(self.working <= self.rules.states, "states were promised");
        while self.working + self.states.len() as u64 > self.rules.states {
            self.evict_state();
        }
    }

    /// Lets go of states that a request worked on.
    pub fn release_states(&mut self, count: u64) {
        self.working -= count;
    }

    /// Asserts that what the pool counts agrees with what it holds; `held` is what requests hold beside the tree.
    pub fn check(&self, held: u64) {
        let (mut evictable, mut locked) = (0, 0);
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            if self.unused.contains(&(index as Place)) {
                continue;
            }
            let pages = node.pages();
            assert!(pages > 0, "a node holds something");
            let parent = &self.nodes[node.parent as usize];
            assert!(parent.locks >= node.locks, "a locked path is locked whole");
            assert_eq!(parent.end, node.start);
            if node.locks == 0 {
                evictable += pages;
            } else {
                locked += pages;
            }
            let leaf = node.locks == 0 && node.children.is_empty();
            assert_eq!(leaf, self.leaves.contains(&(node.used, index as Place)));
            let queued = node.state.map(|since| (since, index as Place));
            assert!(
                queued.is_none_or(|state| state.0 <= node.used && self.states.contains(&state))
            );
        }
        assert_eq!(evictable, self.evictable, "evictable pages were miscounted");
        let all = self.blank + evictable + locked + held;
        assert_eq!(all, self.rules.capacity, "pages were lost or invented");
        assert!(self.working + self.states.len() as u64 <= self.rules.states);
    }
}

/// Returns how many leading tokens of a call's prompt equal those of what somebody else stored.
fn common(origin: Origin, call: &Call, content: &Content) -> u64 {
    let (mut meeting, mut shared) = content.meet(origin.tip, call.prompt);
    if origin.realms.private != call.realms.private {
        if origin.realms.head != call.realms.head {
            return 0;
        }
        while meeting != ROOT && !content.is_head(meeting) {
            meeting = content.parent(meeting);
            shared = content.end(meeting);
        }
    }
    shared.0
}
