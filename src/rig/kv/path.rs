//! The blocks of a request, by the content nodes that own them.
//!
//! A node owns the blocks whose last token lies in it. Copies of a node in different realms are different content.

use crate::call::{Call, Realms};
use crate::ids::NodeId;
use crate::trace::content::Content;

/// The key of a node's copy: content node and realm.
pub(super) type Key = u64;

/// A stretch of a request's path: the blocks that one node owns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) key: Key,
    /// The index of the first block that is not the node's any more, counted from the start of the prompt.
    pub(super) end: u32,
}

/// The blocks a request would hold, by the nodes that own them, from the start of its prompt.
#[derive(Clone, Default, Debug)]
pub struct Path {
    pub(super) stretches: Vec<Stretch>,
    /// The number of blocks whose content has a name; what follows is private to the request.
    pub(super) named: u32,
}

/// A recurrent state that a request holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateHold {
    pub(super) key: Key,
    pub(super) block: u32,
}

impl Path {
    /// Returns the path of a call's prompt and, where a later prompt may continue it, its answer.
    pub(super) fn of(call: &Call, content: &Content, block: u64) -> Path {
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
        // The path may leave a node before the node's end.
        let left_at = nodes[1.min(nodes.len())..]
            .iter()
            .map(|&next| content.start(next))
            .chain(nodes.last().map(|&last| content.end(last)));
        for (&node, end) in nodes.iter().zip(left_at) {
            let end = (end.0 / block) as u32;
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

    /// Returns how many leading blocks two paths have in common.
    pub fn common(&self, other: &Path) -> u64 {
        let limit = self.named.min(other.named);
        u64::from(agreed(&self.stretches, &other.stretches, 0, limit))
    }

    /// Returns the stretches that hold the blocks from `from` on, before `to`.
    pub(super) fn between(&self, from: u32, to: u32) -> Vec<Stretch> {
        let first = self
            .stretches
            .partition_point(|stretch| stretch.end <= from);
        let mut part = Vec::new();
        for stretch in &self.stretches[first..] {
            let end = stretch.end.min(to);
            part.push(Stretch { end, ..*stretch });
            if end == to {
                break;
            }
        }
        part
    }

    /// Returns the key of the node that owns this block.
    pub(super) fn key_at(&self, block: u32) -> Key {
        let index = self
            .stretches
            .partition_point(|stretch| stretch.end <= block);
        self.stretches[index].key
    }

    /// Returns the name of the state after `block`.
    pub(super) fn state_at(&self, block: u64) -> StateHold {
        let index = self
            .stretches
            .partition_point(|stretch| u64::from(stretch.end) < block);
        StateHold {
            key: self.stretches[index].key,
            block: block as u32,
        }
    }
}

/// Returns up to which block, at most `limit`, two lists of stretches name the same blocks from `from` on.
///
/// A stretch may be cut short in either list; the rest of its node's blocks then follows under the same key.
pub(super) fn agreed(a: &[Stretch], b: &[Stretch], from: u32, limit: u32) -> u32 {
    let mut at = from;
    let mut i = a.partition_point(|stretch| stretch.end <= from);
    let mut j = b.partition_point(|stretch| stretch.end <= from);
    while at < limit && i < a.len() && j < b.len() && a[i].key == b[j].key {
        at = a[i].end.min(b[j].end).min(limit);
        i += usize::from(a[i].end <= at);
        j += usize::from(b[j].end <= at);
    }
    at
}

fn key(content: &Content, node: NodeId, realms: Realms) -> Key {
    let realm = if content.is_head(node) {
        realms.head
    } else {
        realms.private
    };
    u64::from(node.0) << 32 | u64::from(realm)
}
