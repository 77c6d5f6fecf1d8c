//! vLLM's steps in which nothing changes: how many of them follow one another.

use super::super::{Row, Step, most_that_fit};
use super::Vllm;
use crate::rig::book::Book;
use crate::rig::kv::pool::Pool;

impl<P: Pool> Vllm<P> {
    /// Returns how often a step of decode rows can be made before somebody ends or blocks run out.
    pub(super) fn repeat(&self, book: &Book, step: &Step) -> u64 {
        let most = step
            .rows
            .iter()
            .map(|row| book.seq(row.seq).passes_left())
            .min()
            .unwrap_or(1)
            .max(1);
        let block = self.settings.block_size;
        let seats = self.running.len() < self.settings.max_num_seqs as usize;
        let shared = seats && !self.waiting.is_empty() && self.settings.enable_prefix_caching;
        let most = if shared && self.settings.drafts > 0 {
            1
        } else if shared {
            // Whether there is room for whoever waits changes when somebody fills a block that both have in common,
            // and when somebody takes one in which something was found.
            let unchanged = |row: &Row| match (book.seq(row.seq).computed + 1) % block {
                0 => 1,
                filled => block - filled,
            };
            let fewest = step.rows.iter().map(unchanged).min();
            most.min(fewest.unwrap_or(1))
        } else {
            most
        };
        let fits = |times: u64| {
            let grown = |row: &Row| {
                let seq = book.seq(row.seq);
                let last = seq.computed + seq.after(times - 1);
                self.blocks(self.up_to(last, self.settings.drafts))
                    .saturating_sub(P::held(&self.held[row.seq].holding))
            };
            step.rows.iter().map(grown).sum::<u64>() <= self.pool.free()
        };
        most_that_fit(most, fits)
    }
}
