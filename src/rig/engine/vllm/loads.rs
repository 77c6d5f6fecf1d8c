//! Requests of vLLM whose blocks come from host memory: they wait beside the others, with their blocks allocated.

use super::Vllm;
use crate::rig::book::{Book, SeqId};
use crate::rig::fine::Fine;
use crate::rig::kv::pool::Pool;

impl<P: Pool> Vllm<P> {
    /// Takes note of the blocks that have come in from host memory; whoever waited for them is next.
    pub(super) fn receive(&mut self, at: Fine, book: &mut Book) {
        let mut front = 0;
        while let Some((id, ready)) = self.tier.arrived(at) {
            book.charge_transfer(id, ready);
            let block = self.settings.block_size;
            let computed = book.seq(id).computed;
            let held = self.held.get_mut(id).expect("who loads holds blocks");
            held.register(&mut self.pool, computed, block);
            if self.settings.state_blocks > 0 {
                let state = self.pool.keep_state(&held.path, computed / block);
                held.states.extend(state);
            }
            self.waiting.insert(front, id);
            front += 1;
        }
    }

    /// Returns the part in the step of a request whose blocks have been loaded; the whole prompt has room.
    pub(super) fn resume(&self, id: SeqId, budget: u64, book: &Book) -> Option<u64> {
        let (seq, stops) = (book.seq(id), &self.held[id].stops);
        let others = !self.running.is_empty();
        let tokens = self.wanted(seq.computed, seq.known(), stops, budget, others);
        let chunked = tokens < seq.known() - seq.computed;
        let split = !chunked || !stops.is_empty() || self.settings.enable_chunked_prefill;
        (tokens > 0 && split).then_some(tokens)
    }
}
