//! How far the answers of vLLM reach when their passes verify drafts: blocks are taken for every draft, accepted or not.

use super::Vllm;
use crate::rig::book::{Book, SeqId};
use crate::rig::kv::pool::Pool;

impl<P: Pool> Vllm<P> {
    /// Returns the tokens that there is room for beside the states of one request.
    pub(super) fn room(&self) -> u64 {
        let states = 4 * self.settings.state_blocks;
        self.pool.capacity().saturating_sub(states) * self.settings.block_size
    }

    /// Returns how many drafts an answer's part in the step verifies: none while its prompt is read.
    pub(super) fn drafts(&self, id: SeqId, book: &Book) -> u64 {
        if self.settings.drafts == 0 {
            return 0;
        }
        let seq = book.seq(id);
        if seq.decoding() {
            self.up_to(seq.computed, self.settings.drafts) - seq.computed - 1
        } else {
            0
        }
    }

    /// Returns up to where an answer needs blocks whose next pass begins at `computed` and verifies `drafts`.
    pub(super) fn up_to(&self, computed: u64, drafts: u64) -> u64 {
        let longest = self.settings.max_model_len.min(self.room());
        (computed + 1 + drafts).min(longest.max(computed + 1))
    }
}
