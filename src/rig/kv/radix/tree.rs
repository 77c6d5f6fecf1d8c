//! The tree itself: nodes come, part and go, and locks run from a place to the top.

use super::{Found, Node, Origin, Place, RadixPool, TOP};
use crate::call::Call;
use crate::rig::kv::path::Stretch;

impl RadixPool {
    pub(super) fn found(&self, place: Place) -> Found {
        Found {
            place,
            pages: u64::from(self.nodes[place as usize].end),
        }
    }

    /// Notes that everything up to `place` was used just now.
    pub(super) fn touch(&mut self, place: Place) {
        self.clock += 1;
        let mut at = place;
        while at != TOP {
            let node = &mut self.nodes[at as usize];
            let before = std::mem::replace(&mut node.used, self.clock);
            if node.children.is_empty() && node.locks == 0 {
                self.leaves.remove(&(before, at));
                self.leaves.insert((self.clock, at));
            }
            at = node.parent;
        }
    }

    pub(super) fn add(
        &mut self,
        parent: Place,
        (start, end): (u32, u32),
        stretches: Vec<Stretch>,
        call: &Call,
    ) -> Place {
        let key = stretches[0].key;
        let node = Node {
            parent,
            start,
            end,
            stretches,
            children: Vec::new(),
            locks: 0,
            used: self.clock,
            state: None,
            origin: Origin::of(call),
            tokens: u64::from(end) * self.rules.page,
        };
        self.evictable += node.pages();
        let place = self.enter(node);
        let above = &mut self.nodes[parent as usize];
        above.children.push(place);
        let before = (above.used, parent);
        self.leaves.remove(&before);
        self.leaves.insert((self.clock, place));
        let twin = self.by_key.insert((parent, key), place);
        assert!(twin.is_none(), "what is stored is stored once");
        place
    }

    pub(super) fn enter(&mut self, node: Node) -> Place {
        if let Some(place) = self.unused.pop() {
            self.nodes[place as usize] = node;
            return place;
        }
        self.nodes.push(node);
        self.nodes.len() as Place - 1
    }

    /// Splits a node before page `at`; returns the upper part, which takes its place.
    pub(super) fn split(&mut self, place: Place, at: u32) -> Place {
        let whole = &self.nodes[place as usize];
        assert!(
            whole.start < at && at < whole.end,
            "a split leaves two parts"
        );
        let (parent, first) = (whole.parent, whole.stretches[0].key);
        let cut = whole.stretches.partition_point(|one| one.end < at);
        let mut stretches = whole.stretches[..=cut].to_vec();
        stretches[cut].end = at;
        let upper = Node {
            end: at,
            stretches,
            children: vec![place],
            state: None,
            tokens: u64::from(at) * self.rules.page,
            ..whole.clone()
        };
        let upper = self.enter(upper);
        let lower = &mut self.nodes[place as usize];
        (lower.parent, lower.start) = (upper, at);
        lower.stretches.retain(|one| one.end > at);
        let next = lower.stretches[0].key;
        let siblings = &mut self.nodes[parent as usize].children;
        let mine = siblings.iter_mut().find(|child| **child == place);
        *mine.expect("a child is among its parent's") = upper;
        self.by_key.insert((parent, first), upper);
        self.by_key.insert((upper, next), place);
        upper
    }

    pub(super) fn lock(&mut self, place: Place) {
        let mut at = place;
        while at != TOP {
            let node = &mut self.nodes[at as usize];
            node.locks += 1;
            if node.locks == 1 {
                self.evictable -= node.pages();
                self.leaves.remove(&(node.used, at));
            }
            at = node.parent;
        }
    }

    pub(super) fn unlock(&mut self, place: Place) {
        let mut at = place;
        while at != TOP {
            let node = &mut self.nodes[at as usize];
            node.locks -= 1;
            let parent = node.parent;
            if node.locks == 0 {
                self.evictable += node.pages();
                self.settle_leaf(at);
            }
            at = parent;
        }
    }

    /// Queues an unlocked node without children; one of a model with states that lost its state is of no use.
    pub(super) fn settle_leaf(&mut self, place: Place) {
        let node = &self.nodes[place as usize];
        if place == TOP || node.locks > 0 || !node.children.is_empty() {
            return;
        }
        self.leaves.insert((node.used, place));
        if self.rules.states > 0 && node.state.is_none() {
            self.drop_leaf(place);
        }
    }

    /// Evicts the leaf used longest ago, or so much of its end as is wanted.
    pub(super) fn evict(&mut self, wanted: u64) {
        let &(_, place) = self.leaves.first().expect("unlocked pages end in a leaf");
        let node = &mut self.nodes[place as usize];
        let pages = node.pages();
        if self.rules.whole_leaves || pages <= wanted {
            self.evicted += pages;
            self.drop_leaf(place);
            return;
        }
        node.end -= wanted as u32;
        node.tokens = u64::from(node.end) * self.rules.page;
        let end = node.end;
        let last = node.stretches.partition_point(|one| one.end < end);
        node.stretches.truncate(last + 1);
        node.stretches[last].end = end;
        self.evictable -= wanted;
        self.blank += wanted;
        self.evicted += wanted;
    }

    pub(super) fn drop_leaf(&mut self, place: Place) {
        let node = &mut self.nodes[place as usize];
        assert!(node.locks == 0 && node.children.is_empty(), "a free leaf");
        let (parent, key, used) = (node.parent, node.stretches[0].key, node.used);
        let pages = node.pages();
        if let Some(since) = node.state.take() {
            self.states.remove(&(since, place));
        }
        self.evictable -= pages;
        self.blank += pages;
        self.leaves.remove(&(used, place));
        self.by_key.remove(&(parent, key));
        self.unused.push(place);
        let siblings = &mut self.nodes[parent as usize].children;
        siblings.retain(|&child| child != place);
        self.settle_leaf(parent);
    }

    pub(super) fn keep_state(&mut self, place: Place) {
        let kept = self.nodes[place as usize].state.is_some();
        if place == TOP || kept || self.working >= self.rules.states {
            return;
        }
        while self.working + self.states.len() as u64 >= self.rules.states {
            self.evict_state();
        }
        let node = &mut self.nodes[place as usize];
        node.state = Some(node.used);
        self.states.insert((node.used, place));
    }

    /// Drops the state used longest ago; a leaf goes with it.
    pub(super) fn evict_state(&mut self) {
        loop {
            let (queued, place) = self.states.pop_first().expect("a state is there");
            let node = &mut self.nodes[place as usize];
            if queued == node.used {
                node.state = None;
                return self.settle_leaf(place);
            }
            node.state = Some(node.used);
            self.states.insert((node.used, place));
        }
    }
}
