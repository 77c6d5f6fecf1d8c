//! TensorRT-LLM's executor: in-flight batches, and admission only of what can surely end.
//!
//! Facts from the documentation at 0076e939 and its 1.3 pages, not from the source: answers and prompts share one pass;
//! a prompt is read whole unless it may be cut; blocks are found again in a tree, the last one also in part. Under
//! `GUARANTEED_NO_EVICT` a request is admitted when all that its client allows fits beside everybody else's; under
//! `MAX_UTILIZATION` when its prompt fits, and the last admitted is paused when blocks run out.

use super::{Engine, Row, Step, most_that_fit};
use crate::call::{Call, Outcome};
use crate::rig::book::{Book, SeqId};
use crate::rig::by_seq::BySeq;
use crate::rig::fine::Fine;
use crate::rig::kv::path::Path;
use crate::rig::kv::radix::{Hold, RadixPool, Rules};
use crate::trace::content::Content;
use std::collections::VecDeque;
use std::sync::Arc;

/// TensorRT-LLM's settings, under its own names where it has one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Tokens of a block.
    pub tokens_per_block: u64,
    /// Blocks of the cache.
    pub blocks: u64,
    /// Whether blocks are found again by content.
    pub enable_block_reuse: bool,
    /// Whether the beginning of a block is of use.
    pub enable_partial_reuse: bool,
    /// Whether a request is admitted only when it can surely end.
    pub guaranteed_no_evict: bool,
    /// Whether a prompt may be read in several steps.
    pub enable_chunked_prefill: bool,
    /// Tokens of one step.
    pub max_num_tokens: u64,
    /// Requests that run at the same time.
    pub max_batch_size: u64,
    /// The longest prompt and answer together.
    pub max_seq_len: u64,
    /// What clients allow an answer; nothing where they know its length.
    pub max_tokens: Option<u64>,
    /// Blocks that the recurrent state of one request occupies.
    pub state_blocks: u64,
}

#[derive(Clone, Debug)]
struct Held {
    path: Path,
    hold: Hold,
}

/// TensorRT-LLM.
#[derive(Clone, Debug)]
pub struct TrtLlm {
    settings: Settings,
    content: Arc<Content>,
    pool: RadixPool,
    waiting: VecDeque<SeqId>,
    /// In order of admission.
    running: Vec<SeqId>,
    held: BySeq<Held>,
    warm: Vec<Call>,
    pauses: u64,
}

impl TrtLlm {
    /// Returns an engine with an empty cache.
    pub fn new(settings: Settings, content: Arc<Content>) -> TrtLlm {
        let pool = RadixPool::new(Rules {
            capacity: settings.blocks,
            page: settings.tokens_per_block,
            whole_leaves: false,
            states: 0,
        });
        TrtLlm {
            settings,
            content,
            pool,
            waiting: VecDeque::new(),
            running: Vec::new(),
            held: BySeq::default(),
            warm: Vec::new(),
            pauses: 0,
        }
    }

    /// Returns the tree of blocks, to look at.
    pub fn pool(&self) -> &RadixPool {
        &self.pool
    }

    /// Returns how often a request was paused, ever.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    fn blocks(&self, tokens: u64) -> u64 {
        tokens.div_ceil(self.settings.tokens_per_block) + self.settings.state_blocks
    }

    /// Returns the tokens that the cache has room for beside one request's state.
    fn room(&self) -> u64 {
        let blocks = self.settings.blocks;
        blocks.saturating_sub(self.settings.state_blocks) * self.settings.tokens_per_block
    }

    /// Returns the length that a request has when it ends at the latest.
    fn longest(&self, id: SeqId, book: &Book) -> u64 {
        let seq = book.seq(id);
        let prompt = seq.call.prompt_tokens.0;
        let most = self.settings.max_seq_len.min(self.room()) - prompt;
        let declared = self.settings.max_tokens.unwrap_or(0).min(most);
        prompt + declared.max(seq.output_limit)
    }

    /// Returns how many blocks running requests need for `times` more tokens of every answer.
    fn growth(&self, book: &Book, times: u64) -> u64 {
        let more = |id: &SeqId| {
            let seq = book.seq(*id);
            // A prompt that is read in pieces needs room for all of it, or two could wait for each other for ever.
            let length = if seq.decoding() {
                seq.computed + times
            } else {
                seq.known()
            };
            let needed = self.blocks(length);
            needed.saturating_sub(self.held[*id].hold.pages())
        };
        self.running.iter().map(more).sum()
    }

    /// Returns how many blocks running requests will need until all have ended.
    fn reserved(&self, book: &Book) -> u64 {
        let more = |id: &SeqId| {
            let needed = self.blocks(self.longest(*id, book));
            needed.saturating_sub(self.held[*id].hold.pages())
        };
        self.running.iter().map(more).sum()
    }

    /// Serves those that run, in order of admission; returns the budget left, or nothing after a pause.
    fn plan_running(&mut self, book: &mut Book, step: &mut Step) -> Option<u64> {
        let mut paused = false;
        while self.growth(book, 1) > self.pool.free() {
            let victim = self.running.pop().expect("one request fits an idle engine");
            self.store(victim, book);
            self.release(victim);
            book.preempt(victim);
            self.waiting.push_front(victim);
            self.pauses += 1;
            paused = true;
        }
        let mut budget = self.settings.max_num_tokens;
        let (writing, reading): (Vec<SeqId>, Vec<SeqId>) = self
            .running
            .iter()
            .partition(|&&id| book.seq(id).decoding());
        for seq in writing {
            self.grow(seq, book.seq(seq).computed + 1);
            step.rows.push(Row { seq, chunk: None });
            budget = budget.saturating_sub(1);
        }
        for id in reading {
            let seq = book.seq(id);
            let rest = seq.known() - seq.computed;
            let held = self.held[id].hold.pages();
            let room = (self.pool.free() + held).saturating_sub(self.settings.state_blocks);
            let room = room * self.settings.tokens_per_block - seq.computed;
            let tokens = self.piece(seq.computed, rest, budget.min(room));
            if tokens == 0 {
                step.standing.push(id);
                continue;
            }
            self.grow(id, book.seq(id).computed + tokens);
            let chunk = Some(tokens);
            step.rows.push(Row { seq: id, chunk });
            budget -= tokens;
        }
        (!paused).then_some(budget)
    }

    /// Returns how much of a prompt is read in a step: what is left of it, or up to a block boundary.
    fn piece(&self, computed: u64, rest: u64, budget: u64) -> u64 {
        if rest <= budget {
            return rest;
        }
        if !self.settings.enable_chunked_prefill {
            return 0;
        }
        let block = self.settings.tokens_per_block;
        let end = (computed + budget) / block * block;
        match end.saturating_sub(computed) {
            // A budget smaller than a block is all there is.
            0 if self.settings.max_num_tokens < block => budget,
            tokens => tokens,
        }
    }

    fn grow(&mut self, id: SeqId, tokens: u64) {
        let blocks = self.blocks(tokens);
        let held = self.held.get_mut(id).expect("it runs");
        self.pool.grow(&mut held.hold, blocks);
    }

    /// Admits waiting requests in their order while budget, seats and blocks last.
    fn plan_waiting(&mut self, at: Fine, mut budget: u64, book: &mut Book, step: &mut Step) {
        while (self.running.len() as u64) < self.settings.max_batch_size {
            let Some(&id) = self.waiting.front() else {
                break;
            };
            let Some(tokens) = self.admit(id, at, budget, book) else {
                break;
            };
            self.waiting.pop_front();
            self.running.push(id);
            let chunk = Some(tokens);
            step.rows.push(Row { seq: id, chunk });
            budget = budget.saturating_sub(tokens);
        }
    }

    /// Finds what is cached of a request and takes its first blocks; returns its part in the step.
    fn admit(&mut self, id: SeqId, at: Fine, budget: u64, book: &mut Book) -> Option<u64> {
        let seq = book.seq(id);
        let (call, known) = (seq.call, seq.known());
        let block = self.settings.tokens_per_block;
        let path = self.pool.path(&call, &self.content);
        let reuse = self.settings.enable_block_reuse;
        let limit = if reuse { (known - 1) / block } else { 0 };
        let found = self.pool.find(&path, limit);
        let whole = if self.settings.guaranteed_no_evict {
            self.blocks(self.longest(id, book))
        } else {
            self.blocks(known)
        };
        let reserved = if self.settings.guaranteed_no_evict {
            self.reserved(book)
        } else {
            self.growth(book, 1)
        };
        let needed = whole - found.pages + self.pool.unlocked(found);
        if needed + reserved > self.pool.free() {
            return None;
        }
        let partial = self.pool.partial(found, &call, &self.content);
        let cached = if reuse && self.settings.enable_partial_reuse {
            partial.tokens.min(call.prompt_tokens.0 - 1)
        } else {
            found.pages * block
        };
        let rest = known - cached;
        // Who was paused may have grown beyond what a step reads.
        let alone = self.running.is_empty() && !self.settings.enable_chunked_prefill;
        let budget = if alone { budget.max(rest) } else { budget };
        let tokens = self.piece(cached, rest, budget);
        if tokens == 0 {
            return None;
        }
        let hold = self.pool.take(found);
        if cached > found.pages * block {
            self.pool.take_over(partial);
        }
        self.held.insert(id, Held { path, hold });
        self.grow(id, cached + tokens);
        let stored = self.stored(&call).max(cached);
        book.admit(id, at, cached, stored);
        Some(tokens)
    }

    /// Returns how far the cache would reach for this call, had it lost nothing of what its conversation had stored.
    fn stored(&self, call: &Call) -> u64 {
        let limit = call.seen_computed.0.min(call.prompt_tokens.0 - 1);
        let block = self.settings.tokens_per_block;
        match (
            self.settings.enable_block_reuse,
            self.settings.enable_partial_reuse,
        ) {
            (false, _) => 0,
            (true, true) => limit,
            (true, false) => limit / block * block,
        }
    }

    /// Puts all that was computed of a request into the tree, its last block in part.
    fn store(&mut self, id: SeqId, book: &Book) {
        if !self.settings.enable_block_reuse {
            return;
        }
        let seq = book.seq(id);
        let held = self.held.get_mut(id).expect("it runs");
        let full = seq.computed / self.settings.tokens_per_block;
        self.pool.name_rest(&mut held.path, full);
        self.pool
            .insert(&held.path, &mut held.hold, full, &seq.call, false);
        if self.settings.enable_partial_reuse && held.hold.shared() == full {
            self.pool
                .insert_tail(&mut held.hold, seq.computed, &seq.call);
        }
    }

    fn release(&mut self, id: SeqId) {
        let held = self.held.remove(id).expect("a request is released once");
        self.pool.release(held.hold);
    }

    /// Lets the cache hold the beginning of a call's prompt, as if it had just been served and released.
    fn preload(&mut self, call: &Call) {
        let full = call.warm.0 / self.settings.tokens_per_block;
        let path = self.pool.path(call, &self.content);
        let found = self.pool.find(&path, full);
        if full - found.pages + self.pool.unlocked(found) > self.pool.free() {
            return;
        }
        let mut hold = self.pool.take(found);
        self.pool.grow(&mut hold, full);
        self.pool.insert(&path, &mut hold, full, call, false);
        self.pool.release(hold);
    }

    /// Returns how often a step of answers can be made before somebody ends or blocks run out.
    fn repeat(&self, book: &Book) -> u64 {
        let left = self.running.iter().map(|&id| book.seq(id).left()).min();
        let most = left.unwrap_or(1).max(1);
        most_that_fit(most, |times| self.growth(book, times) <= self.pool.free())
    }
}

impl Engine for TrtLlm {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        let room = self.room();
        let request = book.seq_mut(seq);
        let prompt = request.call.prompt_tokens.0;
        let cut = self.settings.enable_chunked_prefill;
        let readable = cut || prompt <= self.settings.max_num_tokens;
        if prompt >= self.settings.max_seq_len || !readable {
            return Err(Outcome::RefusedContext);
        }
        if prompt >= room {
            return Err(Outcome::RefusedMemory);
        }
        let longest = self.settings.max_seq_len.min(room) - prompt;
        request.output_limit = request.output_limit.min(longest);
        self.waiting.push_back(seq);
        if request.call.warm.0 > 0 && self.settings.enable_block_reuse {
            self.warm.push(request.call);
        }
        Ok(())
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        for call in std::mem::take(&mut self.warm) {
            self.preload(&call);
        }
        let budget = self.plan_running(book, step);
        if let Some(budget) = budget {
            self.plan_waiting(at, budget, book, step);
        }
        let decoding = step.rows.iter().all(|row| row.chunk.is_none());
        step.repeat = if decoding && step.standing.is_empty() && budget.is_some() {
            self.repeat(book)
        } else {
            1
        };
    }

    fn settle(&mut self, step: &Step, _times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        for row in &step.rows {
            let seq = book.seq(row.seq);
            self.grow(row.seq, seq.computed);
            let read = row.chunk.is_some() && (seq.finished() || seq.decoding());
            if read && self.settings.enable_block_reuse {
                let held = self.held.get_mut(row.seq).expect("it runs");
                let full = seq.computed / self.settings.tokens_per_block;
                self.pool
                    .insert(&held.path, &mut held.hold, full, &seq.call, false);
            }
            if seq.finished() {
                complete.push(row.seq);
            }
        }
        for &id in complete.iter() {
            self.store(id, book);
            self.release(id);
        }
        self.running.retain(|id| !complete.contains(id));
    }

    fn content(&mut self) -> &mut Arc<Content> {
        &mut self.content
    }

    fn withdraw(&mut self, seq: SeqId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|&other| other != seq);
        self.waiting.len() < before
    }

    fn used(&self) -> Option<f64> {
        let (free, all) = (self.pool.free(), self.pool.capacity().max(1));
        Some(1.0 - free as f64 / all as f64)
    }

    fn check(&self, book: &Book) {
        let own = |held: &Held| held.hold.pages() - held.hold.shared();
        self.pool.check(self.held.values().map(own).sum());
        assert_eq!(self.running.len(), self.held.len());
        assert_eq!(self.running.len() + self.waiting.len(), book.len());
        for id in &self.running {
            let needed = self.blocks(book.seq(*id).computed);
            assert!(
                self.held[*id].hold.pages() >= needed,
                "computed more than held"
            );
        }
        if self.held.is_empty() {
            assert_eq!(self.pool.free(), self.pool.capacity(), "blocks leaked");
        }
    }
}
