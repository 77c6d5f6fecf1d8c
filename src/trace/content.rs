//! Content identity: every prompt as a path in one tree.
//!
//! Two prompts share exactly the content of the nodes their paths have in common. A node is a stretch of tokens that
//! follows its parent; a prompt is named by the node it ends in, so the next prompt costs only its new nodes. The tree
//! is built while a trace is read (nodes split where two prompts part) and never changes afterwards, which is why an
//! engine can use a node as the key of what it stores. Where prompts come while an engine serves, the tree grows
//! instead: a new stretch leaves its parent wherever the two part, and nothing that is there moves. Knows nothing of
//! agents, engines or files.

use crate::ids::NodeId;
use crate::units::Tokens;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3;

/// The node from which every path starts; it holds no tokens.
pub const ROOT: NodeId = NodeId(0);

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: NodeId,
    start: u32,
    end: u32,
    head: bool,
}

/// The tree of everything that was recorded, or that has been asked so far.
#[derive(Clone, Debug)]
pub struct Content {
    nodes: Vec<Node>,
}

impl Default for Content {
    /// Returns a tree in which nothing has been asked.
    fn default() -> Content {
        ContentBuilder::default().finish()
    }
}

impl Content {
    /// Adds a stretch of `len` tokens that leaves the path to `parent` at position `at`, be it in the parent's middle.
    ///
    /// # Panics
    /// When `at` lies beyond the parent's end, or not behind its start.
    pub fn branch(
        &mut self,
        parent: NodeId,
        at: Tokens,
        len: Tokens,
    ) -> Result<NodeId, ContentError> {
        let inside = at > self.start(parent) || parent == ROOT;
        assert!(
            inside && at <= self.end(parent),
            "a stretch follows its parent"
        );
        let start = u32::try_from(at.0).map_err(|_| ContentError::TooLong)?;
        let end = at.0.saturating_add(len.0);
        let end = u32::try_from(end).map_err(|_| ContentError::TooLong)?;
        let id = u32::try_from(self.nodes.len()).map_err(|_| ContentError::TooMany)?;
        self.nodes.push(Node {
            parent,
            start,
            end,
            head: false,
        });
        Ok(NodeId(id))
    }

    /// Returns the node that `node` follows.
    pub fn parent(&self, node: NodeId) -> NodeId {
        self.nodes[node.index()].parent
    }

    /// Returns the position at which the node's tokens begin.
    pub fn start(&self, node: NodeId) -> Tokens {
        Tokens(u64::from(self.nodes[node.index()].start))
    }

    /// Returns the position just after the node's last token: the length of a prompt that ends here.
    pub fn end(&self, node: NodeId) -> Tokens {
        Tokens(u64::from(self.nodes[node.index()].end))
    }

    /// Returns whether the node is part of a head (system prompt and tools) that copies of a session share.
    pub fn is_head(&self, node: NodeId) -> bool {
        self.nodes[node.index()].head
    }

    /// Returns the number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Returns the nodes from `tip` up to, but without, the root.
    pub fn upwards(&self, tip: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut at = tip;
        std::iter::from_fn(move || {
            (at != ROOT).then(|| {
                let node = at;
                at = self.parent(node);
                node
            })
        })
    }

    /// Writes the path to `tip` into `path`, the node nearest the root first.
    pub fn path(&self, tip: NodeId, path: &mut Vec<NodeId>) {
        path.clear();
        path.extend(self.upwards(tip));
        path.reverse();
    }

    /// Returns the deepest node that lies on the paths to both `a` and `b`.
    pub fn meeting(&self, a: NodeId, b: NodeId) -> NodeId {
        self.meet(a, b).0
    }

    /// Returns the deepest node on the paths to both `a` and `b`, and how many leading tokens the two have in common.
    pub fn meet(&self, mut a: NodeId, mut b: NodeId) -> (NodeId, Tokens) {
        // Up to where each path follows the node it has been walked up to.
        let (mut in_a, mut in_b) = (self.end(a), self.end(b));
        while a != b {
            // The node that starts later cannot be an ancestor of the other: each starts behind its parent's start.
            if self.start(a) >= self.start(b) && a != ROOT {
                (in_a, a) = (self.start(a), self.parent(a));
            } else {
                (in_b, b) = (self.start(b), self.parent(b));
            }
        }
        (a, in_a.min(in_b))
    }
}

/// Why content could not be added to the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContentError {
    /// Positions are kept in 32 bits.
    #[error("a prompt of more than 4,294,967,295 tokens")]
    TooLong,
    /// Nodes are numbered in 32 bits, and the ids of blocks have to fit into memory.
    #[error("more distinct content than fits (268,435,456 blocks)")]
    TooMany,
}

/// How many units are kept at most: two gigabytes of ids, which 32 bits number. A short line can ask for billions of blocks.
const MAX_UNITS: usize = 1 << 28;

/// One entry of the child table: where a unit with this key follows a node.
type ChildKey = (NodeId, u64, u32);

#[derive(Clone, Copy, Debug)]
struct Growing {
    node: Node,
    /// The node's keyed units in the arena; empty for content that nothing else can equal.
    units_from: u32,
    units: u32,
    unit_len: u32,
}

impl Growing {
    /// Returns where its units' keys are.
    fn units_of(&self) -> std::ops::Range<usize> {
        let from = self.units_from as usize;
        from..from + self.units as usize
    }
}

/// The tree while it grows.
///
/// Content is appended as keyed *units* (equal keys after equal content are equal content) or as *opaque* stretches
/// that equal nothing else.
#[derive(Debug)]
pub struct ContentBuilder {
    nodes: Vec<Growing>,
    keys: Vec<u64>,
    children: FxHashMap<ChildKey, NodeId>,
}

impl Default for ContentBuilder {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            start: 0,
            end: 0,
            head: false,
        };
        ContentBuilder {
            nodes: vec![Growing {
                node: root,
                units_from: 0,
                units: 0,
                unit_len: 0,
            }],
            keys: Vec::new(),
            children: FxHashMap::default(),
        }
    }
}

impl ContentBuilder {
    /// Returns the length of a prompt that ends in `node`.
    pub fn end(&self, node: NodeId) -> Tokens {
        Tokens(u64::from(self.nodes[node.index()].node.end))
    }

    /// Appends `len` tokens that equal nothing else; returns the new end.
    pub fn opaque(&mut self, at: NodeId, len: Tokens) -> Result<NodeId, ContentError> {
        if len == Tokens::ZERO {
            Ok(at)
        } else {
            self.grow(at, len, 0..0, 0)
        }
    }

    /// Appends one piece of `len` tokens that equals any other with the same `key` at the same place.
    pub fn piece(&mut self, at: NodeId, key: u64, len: Tokens) -> Result<NodeId, ContentError> {
        if len == Tokens::ZERO {
            return Ok(at);
        }
        let unit_len = u32::try_from(len.0).map_err(|_| ContentError::TooLong)?;
        self.units(at, unit_len, &[key])
    }

    /// Appends units of `unit_len` tokens each, following what is already known as far as it agrees.
    pub fn units(
        &mut self,
        at: NodeId,
        unit_len: u32,
        keys: &[u64],
    ) -> Result<NodeId, ContentError> {
        assert!(unit_len > 0, "a unit of content holds at least one token");
        let (mut at, mut rest) = (at, keys);
        while let Some(&first) = rest.first() {
            let Some(&child) = self.children.get(&(at, first, unit_len)) else {
                let from = self.keys.len();
                if rest.len() > MAX_UNITS - from {
                    return Err(ContentError::TooMany);
                }
                self.keys.extend_from_slice(rest);
                let len = Tokens(u64::from(unit_len) * rest.len() as u64);
                let grown = self
                    .grow(at, len, from..self.keys.len(), unit_len)
                    .inspect_err(|_| self.keys.truncate(from))?;
                self.children.insert((at, first, unit_len), grown);
                return Ok(grown);
            };
            let known = self.nodes[child.index()];
            let theirs = &self.keys[known.units_of()];
            let agreed = theirs.iter().zip(rest).take_while(|(a, b)| a == b).count();
            at = if agreed == theirs.len() {
                child
            } else {
                let cut = Tokens(u64::from(known.node.start) + agreed as u64 * u64::from(unit_len));
                self.split(child, cut)?
            };
            rest = &rest[agreed..];
        }
        Ok(at)
    }

    /// Returns the node that ends at position `at` on the path to `tip`, splitting one where needed.
    ///
    /// # Panics
    /// When `at` lies beyond the path's end.
    pub fn cut(&mut self, tip: NodeId, at: Tokens) -> Result<NodeId, ContentError> {
        assert!(
            at <= self.end(tip),
            "cannot keep {at} of a prompt of {}",
            self.end(tip)
        );
        let mut node = tip;
        while Tokens(u64::from(self.nodes[node.index()].node.start)) >= at && node != ROOT {
            node = self.nodes[node.index()].node.parent;
        }
        if self.end(node) == at {
            Ok(node)
        } else {
            self.split(node, at)
        }
    }

    /// Marks the path to `tip` as a head that copies of a session share.
    pub fn mark_head(&mut self, tip: NodeId) {
        let mut at = tip;
        while at != ROOT && !self.nodes[at.index()].node.head {
            self.nodes[at.index()].node.head = true;
            at = self.nodes[at.index()].node.parent;
        }
    }

    /// Marks as head whatever at least two of the prompts that end in `tips` have in common, unless a head was declared.
    pub fn mark_common(&mut self, tips: &[NodeId]) {
        if tips.iter().any(|&tip| self.begins_with_head(tip)) {
            return;
        }
        let mut passed: FxHashMap<NodeId, u32> = FxHashMap::default();
        for &tip in tips {
            let mut at = tip;
            while at != ROOT {
                *passed.entry(at).or_default() += 1;
                at = self.nodes[at.index()].node.parent;
            }
        }
        for &tip in tips {
            let mut at = tip;
            while at != ROOT {
                if passed[&at] > 1 {
                    self.nodes[at.index()].node.head = true;
                }
                at = self.nodes[at.index()].node.parent;
            }
        }
    }

    fn begins_with_head(&self, tip: NodeId) -> bool {
        let mut at = tip;
        while at != ROOT {
            if self.nodes[at.index()].node.head {
                return true;
            }
            at = self.nodes[at.index()].node.parent;
        }
        false
    }

    /// Returns for each node a number that stands for its own content wherever that occurs; nothing for content that
    /// equals nothing else.
    pub fn prints(&self) -> Vec<Option<u64>> {
        let print = |growing: &Growing| {
            let units = &self.keys[growing.units_of()];
            let mut hash = Xxh3::with_seed(u64::from(growing.unit_len));
            for key in units {
                hash.update(&key.to_le_bytes());
            }
            hash.update(&(growing.node.end - growing.node.start).to_le_bytes());
            (growing.units > 0).then(|| hash.digest())
        };
        self.nodes.iter().map(print).collect()
    }

    /// Ends the building: the keys are dropped, the tree stays.
    pub fn finish(self) -> Content {
        let mut nodes: Vec<Node> = self.nodes.into_iter().map(|growing| growing.node).collect();
        // Collected in place, where there was room for more.
        nodes.shrink_to_fit();
        Content { nodes }
    }

    fn grow(
        &mut self,
        parent: NodeId,
        len: Tokens,
        units: std::ops::Range<usize>,
        unit_len: u32,
    ) -> Result<NodeId, ContentError> {
        let start = self.nodes[parent.index()].node.end;
        let end = u64::from(start)
            .checked_add(len.0)
            .and_then(|end| u32::try_from(end).ok())
            .ok_or(ContentError::TooLong)?;
        let node = Node {
            parent,
            start,
            end,
            head: false,
        };
        let count = u32::try_from(units.len()).map_err(|_| ContentError::TooLong)?;
        self.push(Growing {
            node,
            units_from: units.start as u32,
            units: count,
            unit_len,
        })
    }

    fn push(&mut self, growing: Growing) -> Result<NodeId, ContentError> {
        let id = u32::try_from(self.nodes.len()).map_err(|_| ContentError::TooMany)?;
        self.nodes.push(growing);
        Ok(NodeId(id))
    }

    /// Gives `node` a new parent that takes over its content before `at`; whoever ends in `node` still does.
    fn split(&mut self, node: NodeId, at: Tokens) -> Result<NodeId, ContentError> {
        let whole = self.nodes[node.index()];
        let at = u32::try_from(at.0).map_err(|_| ContentError::TooLong)?;
        assert!(
            whole.node.start < at && at < whole.node.end,
            "a split must leave two parts"
        );
        if whole.units == 0 {
            return self.insert_above(node, at);
        }
        let before = (at - whole.node.start) / whole.unit_len;
        let border = whole.node.start + before * whole.unit_len;
        if border == at {
            return self.split_units(node, before);
        }
        // The unit that is cut becomes a node of its own, so that its neighbours stay whole.
        if before > 0 {
            self.split_units(node, before)?;
        }
        let alone = if self.nodes[node.index()].units > 1 {
            self.split_units(node, 1)?
        } else {
            node
        };
        // The lower part goes on standing for the unit: who appends it again passes through both parts.
        self.insert_above(alone, at)
    }

    /// Splits off the first `before` units of `node`.
    fn split_units(&mut self, node: NodeId, before: u32) -> Result<NodeId, ContentError> {
        let whole = self.nodes[node.index()];
        let upper = self.insert_above(node, whole.node.start + before * whole.unit_len)?;
        let top = &mut self.nodes[upper.index()];
        (top.units_from, top.units, top.unit_len) = (whole.units_from, before, whole.unit_len);
        let lower = &mut self.nodes[node.index()];
        lower.units_from += before;
        lower.units -= before;
        let first = self.keys[whole.units_from as usize];
        let next = self.keys[(whole.units_from + before) as usize];
        self.children
            .insert((whole.node.parent, first, whole.unit_len), upper);
        self.children.insert((upper, next, whole.unit_len), node);
        Ok(upper)
    }

    /// Puts a node without units above `node`, holding its content before `at`.
    fn insert_above(&mut self, node: NodeId, at: u32) -> Result<NodeId, ContentError> {
        let upper = self.push(Growing {
            node: Node {
                end: at,
                ..self.nodes[node.index()].node
            },
            units_from: 0,
            units: 0,
            unit_len: 0,
        })?;
        let lower = &mut self.nodes[node.index()].node;
        (lower.parent, lower.start) = (upper, at);
        Ok(upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_share_a_path_and_part_where_they_differ() {
        let mut tree = ContentBuilder::default();
        let a = tree.units(ROOT, 16, &[1, 2, 3, 4]).unwrap();
        let b = tree.units(ROOT, 16, &[1, 2, 9]).unwrap();
        let again = tree.units(ROOT, 16, &[1, 2, 3, 4]).unwrap();
        let content = tree.finish();
        assert_eq!(again, a);
        let meeting = content.meeting(a, b);
        assert_eq!(content.end(meeting), Tokens(32));
        assert_eq!((content.end(a), content.end(b)), (Tokens(64), Tokens(48)));
    }

    #[test]
    fn a_cut_keeps_what_ends_below_it_in_place() {
        let mut tree = ContentBuilder::default();
        let prompt = tree.opaque(ROOT, Tokens(100)).unwrap();
        let output = tree.opaque(prompt, Tokens(20)).unwrap();
        let cut = tree.cut(output, Tokens(60)).unwrap();
        let other = tree.opaque(cut, Tokens(5)).unwrap();
        let content = tree.finish();
        assert_eq!(content.end(output), Tokens(120));
        assert_eq!(content.end(content.meeting(output, other)), Tokens(60));
        assert_eq!(content.meeting(prompt, output), prompt);
    }

    #[test]
    fn a_block_that_was_cut_is_still_the_same_block() {
        let mut tree = ContentBuilder::default();
        let a = tree.units(ROOT, 16, &[1, 2, 3, 4]).unwrap();
        let cut = tree.cut(a, Tokens(20)).unwrap();
        let finer = tree.cut(a, Tokens(25)).unwrap();
        let edited = tree.opaque(cut, Tokens(5)).unwrap();
        let b = tree.units(ROOT, 16, &[1, 2, 3, 4]).unwrap();
        let c = tree.units(ROOT, 16, &[1, 2, 9]).unwrap();
        let content = tree.finish();
        assert_eq!(
            (content.end(cut), content.end(finer)),
            (Tokens(20), Tokens(25))
        );
        assert_eq!(a, b);
        assert_eq!(content.end(content.meeting(a, c)), Tokens(32));
        assert_eq!(content.end(content.meeting(a, edited)), Tokens(20));
    }

    #[test]
    fn a_stretch_that_leaves_in_the_middle_shares_what_lies_before() {
        let mut content = Content::default();
        let grow = |content: &mut Content, parent, at, len| {
            content.branch(parent, Tokens(at), Tokens(len)).unwrap()
        };
        let a = grow(&mut content, ROOT, 0, 100);
        let answer = grow(&mut content, a, 100, 20);
        let b = grow(&mut content, a, 60, 10);
        let c = grow(&mut content, a, 80, 10);
        let prefix = grow(&mut content, a, 70, 0);
        let shared = |x, y| content.meet(x, y).1;
        assert_eq!(shared(answer, b), Tokens(60));
        assert_eq!(shared(b, c), Tokens(60));
        assert_eq!(shared(answer, c), Tokens(80));
        assert_eq!(shared(prefix, c), Tokens(70));
        assert_eq!(shared(prefix, answer), Tokens(70));
        assert_eq!(shared(a, answer), Tokens(100));
        assert_eq!(content.end(prefix), Tokens(70));
    }

    #[test]
    fn opaque_content_equals_nothing_else() {
        let mut tree = ContentBuilder::default();
        let a = tree.opaque(ROOT, Tokens(10)).unwrap();
        let b = tree.opaque(ROOT, Tokens(10)).unwrap();
        assert_eq!(tree.finish().meeting(a, b), ROOT);
    }

    #[test]
    fn positions_that_do_not_fit_are_refused() {
        let mut tree = ContentBuilder::default();
        assert_eq!(
            tree.opaque(ROOT, Tokens(1 << 33)),
            Err(ContentError::TooLong)
        );
    }
}
