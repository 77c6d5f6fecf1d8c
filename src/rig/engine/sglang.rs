//! SGLang's scheduler: prompts are read instead of writing answers, until none can be admitted.
//!
//! Facts from SGLang 0.5.23, `managers/scheduler.py`, `managers/schedule_policy.py`, `mem_cache/radix_cache.py`: a batch
//! of prompts runs alone; its last one is cut to the batch's budget and goes first in the next; how much room running
//! answers will need is guessed, and when the guess was wrong those that wrote least are put back. What was computed is
//! found again token by token in a radix tree, once the batch that computed it has been made.

mod admit;

use super::{Engine, Row, Step, most_that_fit};
use crate::call::{Call, Outcome};
use crate::ids::{NodeId, ThreadId};
use crate::rig::book::{Book, SeqId};
use crate::rig::fine::Fine;
use crate::rig::kv::blocks::BlockPool;
use crate::rig::kv::deepest_shared;
use crate::rig::kv::path::Path;
use crate::rig::kv::radix::{Hold, RadixPool, Rules};
use crate::rig::kv::tier::{Offload, Tier};
use crate::trace::content::Content;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::sync::Arc;
use thin_vec::ThinVec;

/// Answer tokens for which room is kept at most, however many a client allows.
const CLIP: u64 = 4096;
/// The guess of how much of its allowance an answer will use, at the start and at least.
const FIRST_RATIO: f64 = 0.7;
const LEAST_RATIO: f64 = 0.14;
/// Decode steps over which the guess falls from the first to the least.
const RATIO_STEPS: u64 = 600;
/// Steps that those who stay are given when others are put back.
const RETRACT_STEPS: u64 = 20;
/// The grid on which recurrent states can be kept while a prompt is read.
const STATE_GRID: u64 = 64;
/// States of a request under way: the one it works on and two to keep in turn.
const STATES_EACH: u64 = 3;

/// The order of the waiting queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// First come, first served.
    Fcfs,
    /// Who has most in the tree first; among many, first come.
    Lpm,
}

/// Settings for models with recurrent layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct States {
    /// States there is room for.
    pub room: u64,
    /// Answer tokens between two that are kept.
    pub track_interval: u64,
}

/// SGLang's settings, under its own names where it has one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Tokens that the tree keeps together.
    pub page_size: u64,
    /// Pages of the cache.
    pub pages: u64,
    /// The order of the waiting queue.
    pub schedule_policy: Policy,
    /// Tokens of one batch of prompts; nothing where prompts are not cut.
    pub chunked_prefill_size: Option<u64>,
    /// Tokens of prompts that may begin in one batch.
    pub max_prefill_tokens: u64,
    /// Whether running answers ride along in batches of prompts.
    pub enable_mixed_chunk: bool,
    /// Decode rounds forced after a batch of prompts.
    pub prefill_decode_interval: u64,
    /// Requests that run at the same time.
    pub max_running_requests: u64,
    /// Scales the guess of how much room running answers will need.
    pub schedule_conservativeness: f64,
    /// Whether a step is put together while the one before it runs.
    pub overlap: bool,
    /// The longest prompt and answer together.
    pub context_length: u64,
    /// Whether the tree is there at all.
    pub radix_cache: bool,
    /// For models with recurrent layers.
    pub states: Option<States>,
    /// What clients allow an answer; nothing where they know its length.
    pub max_tokens: Option<u64>,
    /// Drafts that each answer's part in a decode step verifies.
    pub drafts: u64,
    /// The tiers behind the tree (`HiCache`), in pages.
    pub offload: Offload,
}

/// What the scheduler knows of a request beside the book.
#[derive(Clone, Debug)]
struct Held {
    path: Path,
    hold: Hold,
    /// Up to where the prompt was found in the tree although no state was there.
    branch: u64,
    /// The position of the last state that can be kept.
    tracked: u64,
}

/// The guess of how much of their allowance running answers will use.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    from: f64,
    /// Decode steps since.
    steps: u64,
}

/// SGLang.
#[derive(Clone, Debug)]
pub struct Sglang {
    settings: Settings,
    content: Arc<Content>,
    pool: RadixPool,
    tier: Tier<BlockPool>,
    waiting: Vec<SeqId>,
    running: Vec<SeqId>,
    /// The one prompt that is read in pieces.
    chunked: Option<SeqId>,
    held: FxHashMap<SeqId, Held>,
    /// Whether nobody is admitted until somebody leaves.
    full: bool,
    ratio: Ratio,
    /// Decode rounds before prompts may be read again.
    forced: u64,
    /// Positions at which a conversation ever had a state kept.
    kept: FxHashMap<ThreadId, ThinVec<(NodeId, u64)>>,
    warm: Vec<Call>,
    last_plan: Option<Fine>,
    retractions: u64,
}

impl Sglang {
    /// Returns an engine with an empty tree.
    pub fn new(mut settings: Settings, content: Arc<Content>) -> Sglang {
        let page = settings.page_size;
        settings.chunked_prefill_size = settings.chunked_prefill_size.map(|size| size.max(page));
        if !settings.radix_cache || settings.states.is_some() {
            settings.offload = Offload::default();
        }
        // SGLang does not mix where drafts are verified.
        settings.enable_mixed_chunk &= settings.drafts == 0;
        if let Some(states) = &mut settings.states {
            states.track_interval = states.track_interval.next_multiple_of(page);
            let seats = states.room / STATES_EACH;
            settings.max_running_requests = settings.max_running_requests.min(seats);
        }
        let pool = RadixPool::new(Rules {
            capacity: settings.pages,
            page,
            whole_leaves: true,
            states: settings.states.map_or(0, |states| states.room),
        });
        let mut engine = Sglang {
            settings,
            content,
            pool,
            tier: Tier::new(settings.offload, 0),
            waiting: Vec::new(),
            running: Vec::new(),
            chunked: None,
            held: FxHashMap::default(),
            full: false,
            ratio: Ratio {
                from: 0.0,
                steps: 0,
            },
            forced: 0,
            kept: FxHashMap::default(),
            warm: Vec::new(),
            last_plan: None,
            retractions: 0,
        };
        engine.ratio.from = engine.first_ratio();
        engine
    }

    /// Returns the tree, to look at.
    pub fn pool(&self) -> &RadixPool {
        &self.pool
    }

    /// Returns the tiers behind the tree, to look at.
    pub fn tier(&self) -> &Tier<BlockPool> {
        &self.tier
    }

    /// Returns how often a running request was put back, ever.
    pub fn retractions(&self) -> u64 {
        self.retractions
    }

    fn pages(&self, tokens: u64) -> u64 {
        tokens.div_ceil(self.settings.page_size)
    }

    /// Returns the longest prompt and answer that are served.
    fn longest(&self) -> u64 {
        let page = self.settings.page_size;
        let room = (self.settings.pages * page).saturating_sub(page);
        room.min(self.settings.context_length.saturating_sub(1))
    }

    /// Returns the distance of the positions at which a state can be kept while a prompt is read.
    fn grid(&self) -> u64 {
        STATE_GRID.next_multiple_of(self.settings.page_size)
    }

    fn first_ratio(&self) -> f64 {
        (FIRST_RATIO * self.settings.schedule_conservativeness).min(1.0)
    }

    fn ratio(&self) -> f64 {
        let first = self.first_ratio();
        let least = first * LEAST_RATIO;
        let fall = (first - least) / RATIO_STEPS as f64;
        (self.ratio.from - fall * self.ratio.steps as f64).max(least)
    }

    /// Returns how many more tokens a request's client allows.
    fn allowed(&self, id: SeqId, book: &Book) -> u64 {
        let seq = book.seq(id);
        let most = self.longest().saturating_sub(seq.call.prompt_tokens.0 + 1);
        let declared = self.settings.max_tokens.unwrap_or(0).min(most);
        declared.max(seq.output_limit).saturating_sub(seq.generated)
    }

    /// Puts requests back until every running one can have its next token; those that wrote least go first.
    fn retract(&mut self, book: &mut Book) {
        let mut retracted = false;
        while self.growth(book, 1) > self.pool.free() {
            if self.running.len() < 2 {
                // SGLang would fail here; a prompt read in pieces holds what the last answer needs.
                let chunked = self
                    .chunked
                    .take()
                    .expect("one request fits an idle engine");
                self.put_back(chunked, book);
                self.full = true;
                continue;
            }
            let order = |id: &SeqId| {
                let seq = book.seq(*id);
                (seq.generated, Reverse(seq.call.prompt_tokens))
            };
            let victim = self.running.iter().copied().min_by_key(order);
            let victim = victim.expect("two or more");
            self.running.retain(|&id| id != victim);
            self.put_back(victim, book);
            retracted = true;
        }
        if retracted {
            let written = |id: &SeqId| book.seq(*id).generated;
            let decoded: u64 = self.running.iter().map(written).sum();
            let ahead = |id: &SeqId| book.seq(*id).generated + self.allowed(*id, book);
            let most: u64 = self.running.iter().map(ahead).sum();
            let count = self.running.len() as u64;
            let share = (decoded + RETRACT_STEPS * count) as f64 / (most + 1) as f64;
            self.ratio = Ratio {
                from: share.min(1.0),
                steps: 0,
            };
            self.full = false;
        }
    }

    fn put_back(&mut self, id: SeqId, book: &mut Book) {
        self.release(id);
        book.preempt(id);
        self.waiting.push(id);
        self.retractions += 1;
    }

    fn release(&mut self, id: SeqId) {
        let held = self.held.remove(&id).expect("a request is released once");
        self.pool.release(held.hold);
        if self.settings.states.is_some() {
            self.pool.release_states(STATES_EACH);
        }
    }

    /// Returns how many pages an answer needs whose next pass begins at `computed` and verifies drafts.
    fn reach(&self, computed: u64) -> u64 {
        let drafted = self.pages(computed + 1 + self.settings.drafts);
        drafted
            .min(self.settings.pages)
            .max(self.pages(computed + 1))
    }

    /// Returns how many pages `times` more decode steps of every running answer need.
    fn growth(&self, book: &Book, times: u64) -> u64 {
        let more = |id: &SeqId| {
            let seq = book.seq(*id);
            let needed = self.reach(seq.computed + seq.after(times - 1));
            needed.saturating_sub(self.held[id].hold.pages())
        };
        self.running.iter().map(more).sum()
    }

    /// Gives every running answer room for its next token and puts them into the step.
    fn decode(&mut self, book: &mut Book, step: &mut Step) {
        self.retract(book);
        for &seq in &self.running {
            let pages = self.reach(book.seq(seq).computed);
            let held = self.held.get_mut(&seq).expect("it runs");
            self.pool.grow(&mut held.hold, pages);
            step.rows.push(Row { seq, chunk: None });
        }
    }

    /// Returns how often a step of answers can be made before anything else may happen.
    fn repeat(&self, at: Fine, book: &Book) -> u64 {
        let late = |&id: &SeqId| !self.may_join(id, at, book);
        let blocked = self.full || self.forced > 0;
        if !self.waiting.is_empty() && (!blocked || self.waiting.iter().any(late)) {
            return 1;
        }
        let ends = self.running.iter().map(|&id| book.seq(id).passes_left());
        let mut most = ends.min().unwrap_or(1).max(1);
        let stands = !self.waiting.is_empty() || self.chunked.is_some();
        if self.forced > 0 && stands {
            most = most.min(self.forced);
        } else if self.chunked.is_some() {
            most = 1;
        }
        most_that_fit(most, |times| self.growth(book, times) <= self.pool.free())
    }

    /// Notes up to where a state can be kept after a piece of a prompt was read.
    ///
    /// The last one on the grid within the piece, or the one at which other prompts are known to part from it.
    fn track_prompt(&mut self, id: SeqId, from: u64, to: u64) {
        if self.settings.states.is_none() {
            return;
        }
        let grid = self.grid();
        let held = self.held.get_mut(&id).expect("it was read");
        let last = from + (to - from) / grid * grid;
        let branch = held.branch / grid * grid;
        let parts = branch > from && branch < last && (branch - from).is_multiple_of(grid);
        let at = if parts { branch } else { last };
        if at > from {
            held.tracked = at;
        }
    }

    /// Puts what was computed of a request into the tree: all of it, or up to the last state that can be kept.
    fn store(&mut self, id: SeqId, ended: bool, book: &Book) {
        if !self.settings.radix_cache {
            return;
        }
        let seq = book.seq(id);
        let held = self.held.get_mut(&id).expect("it was computed");
        let hybrid = self.settings.states.is_some();
        let tokens = if hybrid { held.tracked } else { seq.computed };
        let pages = tokens / self.settings.page_size;
        if pages == 0 {
            return;
        }
        if ended {
            self.pool.name_rest(&mut held.path, pages);
        }
        let call = &seq.call;
        self.pool
            .insert(&held.path, &mut held.hold, pages, call, hybrid);
        self.tier.store(&held.path, pages, false);
        if hybrid && (call.output_shared || tokens <= call.prompt_tokens.0) {
            let tip = if call.output_shared {
                call.output
            } else {
                call.prompt
            };
            let kept = self.kept.entry(call.thread).or_default();
            if kept.last() != Some(&(tip, tokens)) {
                kept.push((tip, tokens));
            }
        }
    }

    /// Returns how far the tree would reach for this call, had it lost nothing of what its conversation had stored.
    fn stored(&self, call: &Call) -> u64 {
        if !self.settings.radix_cache {
            return 0;
        }
        let page = self.settings.page_size;
        let limit = call.seen_computed.0.min(call.prompt_tokens.0 - 1) / page * page;
        if self.settings.states.is_none() {
            return limit;
        }
        let kept = self
            .kept
            .get(&call.thread)
            .map_or(&[][..], ThinVec::as_slice);
        deepest_shared(kept, call.prompt, limit, &self.content)
    }
}

impl Engine for Sglang {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        let request = book.seq_mut(seq);
        let prompt = request.call.prompt_tokens.0;
        let seats = self.settings.max_running_requests;
        if prompt + 6 > self.settings.context_length {
            return Err(Outcome::RefusedContext);
        }
        if prompt + 6 > self.longest() || seats == 0 {
            return Err(Outcome::RefusedMemory);
        }
        request.output_limit = request.output_limit.min(self.longest() - prompt - 1);
        self.waiting.push(seq);
        if request.call.warm.0 > 0 && self.settings.radix_cache {
            self.warm.push(request.call);
        }
        Ok(())
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        for call in std::mem::take(&mut self.warm) {
            self.preload(&call);
        }
        if self.running.is_empty() {
            self.full = false;
            self.forced = 0;
        }
        if self.forced == 0 {
            if self.settings.enable_mixed_chunk && !self.running.is_empty() {
                self.decode(book, step);
            }
            let riding = step.rows.len();
            self.read_prompts(at, book, step);
            if step.rows.len() > riding {
                self.stand(step);
                self.last_plan = Some(at);
                return;
            }
        }
        step.rows.clear();
        self.decode(book, step);
        self.stand(step);
        step.repeat = self.repeat(at, book);
        self.last_plan = Some(at);
    }

    fn settle(&mut self, step: &Step, times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        let read = step.rows.iter().any(|row| row.chunk.is_some());
        if read {
            self.forced = self.settings.prefill_decode_interval;
        } else {
            self.forced = self.forced.saturating_sub(times);
            self.ratio.steps += times;
        }
        for row in &step.rows {
            let seq = book.seq(row.seq);
            let (computed, finished) = (seq.computed, seq.finished());
            if let Some(tokens) = row.chunk {
                let done = finished || seq.decoding();
                self.track_prompt(row.seq, computed - tokens, computed);
                if !finished {
                    self.store(row.seq, false, book);
                }
                if done && self.chunked == Some(row.seq) {
                    // All but the last token of somebody put back: that one is written like any other.
                    self.chunked = None;
                }
                if done && !finished {
                    self.running.push(row.seq);
                }
            } else {
                let pages = self.reach(seq.before_last_pass());
                let before = computed - seq.grown();
                let held = self.held.get_mut(&row.seq).expect("it runs");
                if let Some(states) = self.settings.states {
                    let last = computed / states.track_interval * states.track_interval;
                    if last > before {
                        held.tracked = last;
                    }
                }
                self.pool.grow(&mut held.hold, pages);
            }
            if finished {
                complete.push(row.seq);
            }
        }
        for &id in complete.iter() {
            self.store(id, true, book);
            self.release(id);
            self.full = false;
        }
        self.running.retain(|id| !complete.contains(id));
        if self.held.is_empty() && self.waiting.is_empty() {
            self.ratio = Ratio {
                from: self.first_ratio(),
                steps: 0,
            };
        }
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
        self.tier.check();
        // A prompt that is read whole is in neither list until its step has been made.
        assert!(self.running.len() + usize::from(self.chunked.is_some()) <= self.held.len());
        assert_eq!(self.held.len() + self.waiting.len(), book.len());
        for id in self.running.iter().chain(&self.chunked) {
            let needed = self.pages(book.seq(*id).computed);
            assert!(
                self.held[id].hold.pages() >= needed,
                "computed more than held"
            );
        }
        if self.held.is_empty() {
            assert_eq!(self.pool.free(), self.pool.capacity(), "pages leaked");
        }
    }
}
