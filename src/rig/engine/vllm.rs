//! vLLM's V1 scheduler: decodes first, prompts fill the rest of one token budget.
//!
//! Facts from vLLM 0.33.0, `v1/core/sched/scheduler.py` and `v1/core/kv_cache_*.py`: requests that run are served in
//! the order in which they were admitted; waiting ones follow first come, first served, each only if its whole prompt
//! fits; the last admitted is preempted when blocks run out, and read again from the start. Blocks are registered when
//! they are allocated, so that a request admitted in the same step already finds them.

mod drafts;
mod held;
mod loads;
mod repeat;

use super::{Engine, Row, Step};
use crate::call::{Call, Outcome};
use crate::ids::{NodeId, ThreadId};
use crate::rig::CacheShape;
use crate::rig::book::{Book, SeqId};
use crate::rig::by_seq::BySeq;
use crate::rig::fine::Fine;
use crate::rig::kv::blocks::BlockPool;
use crate::rig::kv::deepest_shared;
use crate::rig::kv::pool::Pool;
pub use crate::rig::kv::tier::Offload;
use crate::rig::kv::tier::Tier;
use crate::trace::content::Content;
use crate::units::Tokens;
use held::Held;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use thin_vec::ThinVec;

/// vLLM's settings, under its own names.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the engine has as many switches"
)]
pub struct Settings {
    /// Requests that run at the same time.
    pub max_num_seqs: u64,
    /// Tokens of one step.
    pub max_num_batched_tokens: u64,
    /// Prompt tokens of one request in one step while others run; 0 is no limit.
    pub long_prefill_token_threshold: u64,
    /// Tokens of a block.
    pub block_size: u64,
    /// Blocks of the cache.
    pub num_gpu_blocks: u64,
    /// The longest prompt and answer together.
    pub max_model_len: u64,
    /// Whether blocks are found again by content.
    pub enable_prefix_caching: bool,
    /// Whether a prompt may be read in several steps.
    pub enable_chunked_prefill: bool,
    /// Whether a request is admitted only if its whole prompt fits.
    pub scheduler_reserve_full_isl: bool,
    /// Whether a step is put together while the one before it runs.
    pub async_scheduling: bool,
    /// Blocks that one recurrent state occupies; 0 for models without recurrent layers.
    pub state_blocks: u64,
    /// The tier of the cache in host memory.
    pub offload: Offload,
    /// Drafts that each answer's part in a step verifies.
    pub drafts: u64,
    /// Whether the last block that was found is computed anew, as heads that draft need it.
    pub drops_last_block: bool,
}

impl Settings {
    /// Returns what the cache can hold, its tier in host memory included; one block is set aside for nothing.
    pub fn cache(&self) -> CacheShape {
        CacheShape {
            granularity: Tokens(self.block_size),
            capacity: Some(Tokens(
                (self.num_gpu_blocks.saturating_sub(1) + self.offload.most()) * self.block_size,
            )),
        }
    }
}

/// vLLM, on a pool of blocks.
#[derive(Debug)]
pub struct Vllm<P: Pool = BlockPool> {
    settings: Settings,
    content: Arc<Content>,
    pool: P,
    tier: Tier<P>,
    waiting: VecDeque<SeqId>,
    running: Vec<SeqId>,
    held: BySeq<Held<P>>,
    /// Positions at which a conversation ever had a state kept, to tell what was lost from what never was.
    kept: FxHashMap<ThreadId, ThinVec<(NodeId, u64)>>,
    /// States kept in the step that is being planned: nobody can resume from them before it has been made.
    kept_now: Vec<P::State>,
    /// Prompts whose beginning the cache is to hold before the next step.
    warm: Vec<Call>,
    /// What was loaded for the request that is being admitted, where that holds up the step, and for how long.
    fetched: Option<(SeqId, Fine)>,
    /// When the step before the next began.
    last_plan: Option<Fine>,
    preemptions: u64,
}

impl<P: Pool> Vllm<P> {
    /// Returns an engine with an empty cache.
    ///
    /// # Panics
    /// When a model with recurrent layers is to cache prefixes with steps smaller than a block: vLLM does not start.
    pub fn new(mut settings: Settings, content: Arc<Content>) -> Vllm<P> {
        let hybrid = settings.state_blocks > 0 && settings.enable_prefix_caching;
        assert!(
            !hybrid || settings.max_num_batched_tokens >= settings.block_size,
            "a step holds at least one block of a model with recurrent layers"
        );
        if !settings.enable_chunked_prefill {
            // vLLM does not start with a longer context than a step can read.
            settings.max_model_len = settings.max_model_len.min(settings.max_num_batched_tokens);
        }
        // One block is reserved as the null block.
        let capacity = settings.num_gpu_blocks.saturating_sub(1);
        let pool = P::new(
            capacity,
            settings.enable_prefix_caching,
            settings.state_blocks,
        );
        if !settings.enable_prefix_caching {
            // Blocks without a name are not found again anywhere.
            settings.offload = Offload::default();
        }
        Vllm {
            settings,
            content,
            pool,
            tier: Tier::new(settings.offload, settings.state_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            held: BySeq::default(),
            kept: FxHashMap::default(),
            kept_now: Vec::new(),
            warm: Vec::new(),
            fetched: None,
            last_plan: None,
            preemptions: 0,
        }
    }

    /// Returns the block pool, to look at.
    pub fn pool(&self) -> &P {
        &self.pool
    }

    /// Returns the tier in host memory, to look at.
    pub fn tier(&self) -> &Tier<P> {
        &self.tier
    }

    /// Returns how often a request lost its blocks to another, ever.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    fn blocks(&self, tokens: u64) -> u64 {
        tokens.div_ceil(self.settings.block_size)
    }

    /// Serves the requests that run, in order of admission; returns the budget left, or nothing after a preemption.
    fn plan_running(&mut self, book: &mut Book, step: &mut Step) -> Option<u64> {
        let mut budget = self.settings.max_num_batched_tokens;
        let mut preempted = false;
        let mut at = 0;
        while at < self.running.len() {
            let id = self.running[at];
            let stops = &self.held[id].stops;
            let others = self.running.len() > 1;
            let seq = book.seq(id);
            let tokens = self.wanted(seq.computed, seq.known(), stops, budget, others);
            if tokens == 0 {
                step.standing.push(id);
                at += 1;
                continue;
            }
            let drafts = self.drafts(id, book);
            let needed = seq.computed + tokens + drafts;
            while !self.fits(id, needed) {
                preempted = true;
                let victim = self.running.pop().expect("somebody runs");
                self.preempt(victim, book);
                step.standing.retain(|&standing| standing != victim);
                if victim == id {
                    break;
                }
            }
            if self.running.get(at) != Some(&id) {
                break;
            }
            self.take_part(id, tokens, book, step);
            budget = budget.saturating_sub(tokens + drafts);
            at += 1;
        }
        (!preempted).then_some(budget)
    }

    /// Returns whether there are blocks for so many tokens of a request.
    fn fits(&self, id: SeqId, tokens: u64) -> bool {
        let held = &self.held[id];
        tokens <= held.room || self.pool.can_grow(&held.holding, self.blocks(tokens))
    }

    /// Returns how many tokens a request takes of a step with this budget.
    fn wanted(&self, computed: u64, known: u64, stops: &[u64], budget: u64, others: bool) -> u64 {
        let mut tokens = (known - computed).min(budget);
        let threshold = self.settings.long_prefill_token_threshold;
        if threshold > 0 && others {
            tokens = tokens.min(threshold);
        }
        let end = computed + tokens;
        match stops.last() {
            // A state is written where a chunk ends, so a chunk ends where one is kept, and on a block before.
            Some(&stop) if end >= stop => stop - computed,
            Some(_) => {
                (end / self.settings.block_size * self.settings.block_size).saturating_sub(computed)
            }
            None => tokens,
        }
    }

    /// Takes blocks for a request's part in the step and registers those it will fill.
    fn take_part(&mut self, id: SeqId, tokens: u64, book: &Book, step: &mut Step) {
        let seq = book.seq(id);
        let end = seq.computed + tokens;
        let needed = end + self.drafts(id, book);
        let block = self.settings.block_size;
        let held = self
            .held
            .get_mut(id)
            .expect("a request that runs holds blocks");
        held.grow(&mut self.pool, needed, block);
        held.register(&mut self.pool, end, block);
        if held.stops.last() == Some(&end) {
            held.stops.pop();
            if let Some(state) = self.pool.keep_state(&held.path, end / block) {
                held.states.push(state);
                self.kept_now.push(state);
                let kept = self.kept.entry(seq.call.thread).or_default();
                if kept.is_empty() {
                    // Open loads have very many conversations of one call.
                    kept.reserve_exact(1);
                }
                kept.push((seq.call.prompt, end));
            }
        }
        let chunk = if seq.decoding() { None } else { Some(tokens) };
        step.rows.push(Row { seq: id, chunk });
    }

    fn preempt(&mut self, victim: SeqId, book: &mut Book) {
        self.release(victim);
        book.preempt(victim);
        // Those whose blocks are there already come first: they hold what others wait for.
        let loaded = self.waiting.iter();
        let loaded = loaded.take_while(|&&id| self.held.contains(id)).count();
        self.waiting.insert(loaded, victim);
        self.preemptions += 1;
    }

    fn release(&mut self, id: SeqId) {
        let held = self.held.remove(id).expect("a request is released once");
        self.pool.release(&held.path, held.holding);
        self.pool.release(&held.path, held.working);
        for state in held.states {
            self.pool.release_state(state);
        }
    }

    /// Admits waiting requests while budget, seats and blocks last; nobody overtakes.
    fn plan_waiting(&mut self, at: Fine, mut budget: u64, book: &mut Book, step: &mut Step) {
        let asleep = self.running.is_empty();
        while budget > 0 && (self.running.len() as u64) < self.settings.max_num_seqs {
            let Some(&id) = self.waiting.front() else {
                break;
            };
            if !self.may_join(id, at, asleep, book) {
                break;
            }
            let tokens = if self.held.contains(id) {
                self.resume(id, budget, book)
            } else {
                self.admit(id, at, budget, book)
            };
            let Some(tokens) = tokens else {
                break;
            };
            step.transfers.extend(self.fetched.take());
            self.waiting.pop_front();
            if tokens == 0 {
                // What it needs is on its way from host memory; others go on.
                continue;
            }
            self.running.push(id);
            self.take_part(id, tokens, book, step);
            budget -= tokens;
        }
    }

    /// Returns whether the scheduler knows of a request by now.
    ///
    /// A step is put together while the one before it runs, so what arrives during a step joins the next but one. An
    /// engine at rest wakes with the first arrival, and begins before the others of the same moment have come in.
    fn may_join(&self, id: SeqId, at: Fine, asleep: bool, book: &Book) -> bool {
        let submitted = book.seq(id).submitted();
        if asleep {
            submitted < at || self.running.is_empty()
        } else {
            !self.settings.async_scheduling || self.last_plan.is_none_or(|last| submitted <= last)
        }
    }

    /// Finds what is cached of a request and takes its first blocks; returns its part in the step, or 0 while blocks
    /// are loaded from host memory.
    fn admit(&mut self, id: SeqId, at: Fine, budget: u64, book: &mut Book) -> Option<u64> {
        let seq = book.seq(id);
        let (call, known) = (seq.call, seq.known());
        let block = self.settings.block_size;
        let path = P::path(&call, &self.content, block);
        let (found, _) = self.pool.look_up(&path, (known - 1) / block);
        let found = found.saturating_sub(u64::from(self.settings.drops_last_block));
        let hit = if self.settings.state_blocks > 0 {
            self.pool.look_up_state(&path, found)
        } else {
            found
        };
        if hit > 0 && self.kept_now.contains(&P::state_at(&path, hit)) {
            return None;
        }
        let reach = self.tier.reach(&path, hit, found, (known - 1) / block);
        let loads = reach > hit;
        let here = if loads { found.min(reach) } else { hit };
        let free_here = self.pool.look_up(&path, here).1;
        let stops = self.stops(known, reach * block, found * block);
        let cached = reach * block;
        let others = !self.running.is_empty();
        let tokens = self.wanted(cached, known, &stops, budget, others);
        let chunked = tokens < known - cached;
        let split = !chunked || !stops.is_empty() || self.settings.enable_chunked_prefill;
        let waits = loads && !self.tier.blocks_steps();
        if !waits && (tokens == 0 || !split) {
            return None;
        }
        let whole = if self.settings.scheduler_reserve_full_isl || waits {
            self.blocks(known)
        } else {
            self.blocks(cached + tokens)
        };
        // States come beside the keys and values: the one being worked on, those kept, and the one resumed from.
        let states = self.settings.state_blocks * (1 + stops.len() as u64 + u64::from(reach > 0));
        if whole - here + free_here + states > self.pool.free() {
            assert!(
                !self.running.is_empty() || !self.held.is_empty(),
                "a request that was taken in fits an idle engine"
            );
            return None;
        }
        let mut held: Held<P> = Held {
            holding: self.pool.take_hit(&path, here),
            room: here * block,
            next_full: 0,
            path,
            states: Vec::new(),
            working: P::Holding::default(),
            stops,
        };
        if hit > 0 && !loads && self.settings.state_blocks > 0 {
            held.states.push(self.pool.take_state(&held.path, hit));
        }
        self.pool
            .grow(&mut held.working, self.settings.state_blocks);
        if waits {
            // Nobody takes the room of who waits for a load.
            held.grow(&mut self.pool, whole * block, block);
            self.tier.load(id, &held.path, here, reach, at);
        } else if loads {
            self.fetched = Some((id, self.tier.fetch(&held.path, here, reach)));
        }
        let stored = self.stored(&call, block).max(cached);
        self.held.insert(id, held);
        book.admit(id, at, cached, stored);
        Some(if waits { 0 } else { tokens })
    }

    /// Lets the cache hold the beginning of a call's prompt, as if it had just been served and released.
    fn preload(&mut self, call: &Call) {
        let block = self.settings.block_size;
        let path = P::path(call, &self.content, block);
        let full = call.warm.0 / block;
        let (found, free) = self.pool.look_up(&path, full);
        if full - found + free + self.settings.state_blocks > self.pool.free() {
            return;
        }
        let mut holding = self.pool.take_hit(&path, found);
        self.pool.grow(&mut holding, full);
        self.pool.register(&path, &mut holding, full);
        let state = if self.settings.state_blocks > 0 {
            self.pool.keep_state(&path, full)
        } else {
            None
        };
        self.pool.release(&path, holding);
        self.tier.store(&path, full, state.is_some());
        if let Some(state) = state {
            self.pool.release_state(state);
        }
    }

    /// Returns the boundaries at which a prompt keeps a state, nearest last.
    ///
    /// The last one before its end, and the one up to which keys and values were found although no state was.
    fn stops(&self, known: u64, cached: u64, found: u64) -> Vec<u64> {
        if self.settings.state_blocks == 0 || !self.settings.enable_prefix_caching {
            return Vec::new();
        }
        let block = self.settings.block_size;
        // A head that drafts has the block before computed anew, so the state is kept where that begins.
        let dropped = block * u64::from(self.settings.drops_last_block);
        let last = ((known - 1) / block * block).saturating_sub(dropped);
        let mut stops = vec![last, found];
        stops.sort_unstable_by(|a, b| b.cmp(a));
        stops.retain(|&stop| stop > cached);
        stops.dedup();
        stops
    }

    /// Returns how far the cache would reach for this call, had it lost nothing of what its conversation had stored.
    fn stored(&self, call: &Call, block: u64) -> u64 {
        if !self.settings.enable_prefix_caching {
            return 0;
        }
        let limit = (call.seen_computed.0).min(call.prompt_tokens.0 - 1) / block * block;
        let dropped = block * u64::from(self.settings.drops_last_block);
        let limit = limit.saturating_sub(dropped);
        if self.settings.state_blocks == 0 {
            return limit;
        }
        let kept = self
            .kept
            .get(&call.thread)
            .map_or(&[][..], ThinVec::as_slice);
        deepest_shared(kept, call.prompt, limit, &self.content)
    }
}

impl<P: Pool> Engine for Vllm<P> {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        let request = book.seq_mut(seq);
        let prompt = request.call.prompt_tokens.0;
        if self.pool.capacity() == 0 {
            return Err(Outcome::RefusedMemory);
        }
        if prompt >= self.settings.max_model_len {
            return Err(Outcome::RefusedContext);
        }
        let room = self.room();
        if prompt >= room {
            return Err(Outcome::RefusedMemory);
        }
        let longest = self.settings.max_model_len.min(room) - prompt;
        request.output_limit = request.output_limit.min(longest);
        self.waiting.push_back(seq);
        if request.call.warm.0 > 0 && self.settings.enable_prefix_caching {
            self.warm.push(request.call);
        }
        Ok(())
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        self.kept_now.clear();
        for call in std::mem::take(&mut self.warm) {
            self.preload(&call);
        }
        self.receive(at, book);
        let budget = self.plan_running(book, step);
        // Where everybody made room for those whose blocks were loaded, the step of nothing takes no time.
        let nothing = step.rows.is_empty();
        let nothing = nothing.then_some(self.settings.max_num_batched_tokens);
        if let Some(budget) = budget.or(nothing) {
            self.plan_waiting(at, budget, book, step);
        }
        // Whoever may join later changes the next step; whoever may and did not is blocked until somebody ends.
        let joining = self
            .waiting
            .front()
            .is_some_and(|&next| !self.may_join(next, at, false, book));
        let decoding = !step.rows.is_empty() && step.rows.iter().all(|row| row.chunk.is_none());
        step.repeat = if decoding && !joining && budget.is_some() {
            self.repeat(book, step)
        } else {
            1
        };
        self.last_plan = Some(at);
    }

    fn settle(&mut self, step: &Step, times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        let block = self.settings.block_size;
        // Where answers grow by one token a step, their blocks were taken and registered when it was planned.
        let ahead = times == 1 && self.settings.drafts == 0;
        for row in &step.rows {
            let seq = book.seq(row.seq);
            let computed = seq.computed;
            if row.chunk.is_some() {
                let full = computed.min(seq.call.prompt_tokens.0) / block;
                let path = &self.held[row.seq].path;
                let kept = self.settings.state_blocks > 0
                    && full * block == computed
                    && self.pool.look_up_state(path, full) == full;
                self.tier.store(path, full, kept);
            } else if !ahead {
                let reached = self.up_to(seq.before_last_pass(), self.settings.drafts);
                let held = self
                    .held
                    .get_mut(row.seq)
                    .expect("a row's request holds blocks");
                held.grow(&mut self.pool, reached, block);
                held.register(&mut self.pool, computed, block);
            }
            if seq.finished() {
                complete.push(row.seq);
            }
        }
        for &seq in complete.iter() {
            self.release(seq);
        }
        self.running.retain(|seq| !complete.contains(seq));
    }

    fn next_ready(&self) -> Option<Fine> {
        self.tier.next_ready()
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
        self.pool.check();
        self.tier.check();
        let loaded = self.waiting.iter().filter(|&&id| self.held.contains(id));
        let under_way = self.running.len() + self.tier.loading();
        assert_eq!(under_way + loaded.count(), self.held.len());
        assert_eq!(under_way + self.waiting.len(), book.len());
        for &id in &self.running {
            let held = P::held(&self.held[id].holding);
            let needed = self.blocks(book.seq(id).computed);
            assert!(held >= needed, "a request computed more than it holds");
        }
        if self.held.is_empty() {
            assert_eq!(self.pool.free(), self.pool.capacity(), "blocks leaked");
        }
    }
}
