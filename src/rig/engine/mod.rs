//! Engines: what each does with its requests, step by step.
//!
//! An engine plans the next step and settles it; [`super::step::StepLoop`] owns the clock and the accounts. Each engine
//! has a file of its own and builds on the shared pieces in [`super::kv`].

pub mod limited;
pub mod llama_cpp;
pub mod mlx_lm;
pub mod sglang;
pub mod trt_llm;
pub mod vllm;

use super::book::{Book, SeqId};
use super::cost::{Chunk, Graph};
use super::fine::Fine;
use crate::call::Outcome;
use crate::trace::content::Content;
use std::sync::Arc;

/// One request's part in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Whose.
    pub seq: SeqId,
    /// Prompt tokens to compute, or nothing when it decodes one token.
    pub chunk: Option<u64>,
}

/// What an engine does next.
#[derive(Clone, Default, Debug)]
pub struct Step {
    /// Who takes part. Empty when there is nothing to do.
    pub rows: Vec<Row>,
    /// How often the step may be repeated while nothing changes; above 1 only when every row decodes. Where drafts are
    /// verified, one repetition may add several tokens to an answer.
    pub repeat: u64,
    /// Requests that are admitted but have no part in it.
    pub standing: Vec<SeqId>,
    /// State that moves between memory tiers before the step, for whom, and for how long.
    pub transfers: Vec<(SeqId, Fine)>,
    /// Requests that the engine gave up when the step was planned.
    pub failed: Vec<(SeqId, Outcome)>,
}

impl Step {
    /// Forgets everything, to be filled again.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.standing.clear();
        self.transfers.clear();
        self.failed.clear();
        self.repeat = 1;
    }
}

/// Returns the most repetitions up to `most` that fit in memory, and at least one: what fits once was seen to before.
fn most_that_fit(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    if fits(most) {
        return most;
    }
    let (mut low, mut high) = (1, most);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// How an engine schedules and caches.
pub trait Engine {
    /// Takes in a request, or says why it will never be served.
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome>;

    /// Fills in the step that begins at `at`. Admissions and evictions happen here.
    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step);

    /// Says which forward passes these rows make: one for all of them, unless the engine splits its batches.
    fn graphs(&self, rows: &[Row], book: &Book, graphs: &mut Vec<Graph>) {
        let mut graph = Graph::default();
        for row in rows {
            let seq = book.seq(row.seq);
            match row.chunk {
                Some(tokens) => {
                    graph.chunks.push(Chunk {
                        tokens,
                        depth: seq.computed,
                        first: seq.untouched(),
                    });
                }
                None => graph.add_seq(seq),
            }
        }
        graphs.push(graph);
    }

    /// Returns whether a row alone makes a pass that holds nothing else, as [`Engine::graphs`] has it here.
    fn one_pass(&self) -> bool {
        true
    }

    /// Returns when the next of the states that are being loaded beside the steps will be there, if any are.
    fn next_ready(&self) -> Option<Fine> {
        None
    }

    /// Takes note that the step was made `times` times and charged; appends the requests that are complete.
    fn settle(&mut self, step: &Step, times: u64, book: &mut Book, complete: &mut Vec<SeqId>);

    /// Returns the tree that calls point into, to let it grow while the engine serves.
    fn content(&mut self) -> &mut Arc<Content>;

    /// Forgets a request that was never admitted; returns whether it is gone.
    fn withdraw(&mut self, seq: SeqId) -> bool;

    /// Returns the share of the cache that requests hold, where it is one pool.
    fn used(&self) -> Option<f64> {
        None
    }

    /// Asserts that what the engine holds agrees with what its requests have, and that it holds nothing at rest.
    fn check(&self, book: &Book);
}
