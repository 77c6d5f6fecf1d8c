//! How llama.cpp splits a batch into micro-batches, each a forward pass of its own.
//!
//! From `src/llama-batch.cpp`, `src/llama-kv-cache.cpp` and `src/llama-memory-hybrid.cpp`: attention-only models whose slots
//! share one pool take the batch in its order, all others equally many tokens of several sequences. Where each slot has a
//! stream of its own, those must be slots that follow each other: a gap costs a further pass.

use super::Row;
use crate::rig::book::Book;
use crate::rig::cost::{Chunk, Graph};

/// A row while its batch is split into micro-batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    slot: usize,
    /// Whether it is a generating slot's one token.
    pub(super) decodes: bool,
    left: u64,
    /// The context it attends to, or the depth of its next token.
    pub(super) at: u64,
    /// Whether nothing of the row, or of the request where it reads, was in a pass before.
    first: bool,
    /// Whether the batch takes its prompt to where the fill stops.
    pub(super) reaches_stop: bool,
    /// What its passes have accepted beyond whole tokens, where they verify drafts.
    fraction: Option<u64>,
}

impl Part {
    /// Returns the part of the row in `slot`; `stop` is where its prompt's fill stops next.
    pub(super) fn of(row: Row, slot: usize, stop: Option<u64>, book: &Book) -> Part {
        let seq = book.seq(row.seq);
        match row.chunk {
            None => Part {
                slot,
                decodes: true,
                left: 1,
                at: seq.known(),
                first: true,
                reaches_stop: false,
                fraction: seq.fraction(),
            },
            Some(tokens) => {
                let end = seq.computed + tokens;
                let reaches_stop = stop == Some(end);
                Part {
                    slot,
                    decodes: false,
                    left: tokens,
                    at: seq.computed,
                    first: seq.untouched(),
                    reaches_stop,
                    fraction: None,
                }
            }
        }
    }

    /// Adds a generating slot's row to a pass.
    pub(super) fn add_to(&self, graph: &mut Graph) {
        graph.add_row_at(self.at, self.fraction);
    }

    fn take(&mut self, tokens: u64, graph: &mut Graph) {
        if self.decodes {
            // Drafts that follow in a later pass are part of the row's.
            if self.first {
                self.add_to(graph);
            }
        } else {
            graph.chunks.push(Chunk {
                tokens,
                depth: self.at,
                first: self.first,
            });
        }
        self.first = false;
        self.at += tokens;
        self.left -= tokens;
    }
}

/// Every micro-batch takes equally many tokens of each sequence that has any left; where sequences have `streams` of their
/// own, only of those in the first slot left and in slots that follow it without a gap, in the order of the batch.
pub(super) fn split_equally(
    parts: &mut [Part],
    n_ubatch: u64,
    drafts: u64,
    streams: bool,
    graphs: &mut Vec<Graph>,
) {
    for part in parts.iter_mut().filter(|part| part.decodes) {
        part.left += drafts;
    }
    loop {
        let (mut next, mut chosen, mut least) = (None, 0, u64::MAX);
        let joins = |part: &Part, next: Option<usize>| {
            part.left > 0 && next.is_none_or(|next| !streams || part.slot == next)
        };
        for part in parts.iter() {
            if joins(part, next) {
                next = Some(part.slot + 1);
                chosen += 1;
                least = least.min(part.left);
            }
        }
        if chosen == 0 {
            break;
        }
        let each = least.min((n_ubatch / chosen).max(1));
        let mut graph = Graph::default();
        next = None;
        for part in parts.iter_mut() {
            if joins(part, next) {
                next = Some(part.slot + 1);
                part.take(each, &mut graph);
            }
        }
        if graph.rows > 0 || !graph.chunks.is_empty() {
            graphs.push(graph);
        }
    }
}

/// Micro-batches take the batch in its order: generating slots first, each with its `drafts`, then prompts.
pub(super) fn split_in_order(
    parts: &mut [Part],
    n_ubatch: u64,
    drafts: u64,
    graphs: &mut Vec<Graph>,
) {
    let mut graph = Graph::default();
    let mut room = n_ubatch;
    for part in parts {
        while part.left > 0 {
            let tokens = part.left.min(room);
            part.take(tokens, &mut graph);
            let drafted = if part.decodes { drafts } else { 0 };
            room = room.saturating_sub(tokens + drafted);
            if room == 0 {
                graphs.push(std::mem::take(&mut graph));
                room = n_ubatch;
            }
        }
    }
    if graph.rows > 0 || !graph.chunks.is_empty() {
        graphs.push(graph);
    }
}

/// In one shared stream every row's attention scans the cells of all sequences, those of `idle` slots too, and so they
/// grow for all.
pub(super) fn share_one_stream(graph: &mut Graph, idle: u64) {
    let union = graph.contexts + idle;
    graph.contexts = union * graph.rows;
    graph.longest = union;
    graph.growth = graph.rows * graph.rows;
}
