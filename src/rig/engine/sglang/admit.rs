//! How SGLang puts a batch of prompts together.
//!
//! From `managers/schedule_policy.py`: the prompt that is being read in pieces goes first, then waiting ones in the
//! order of the policy, until the batch's budget, memory or seats run out.

use super::{CLIP, Held, Policy, STATES_EACH, Sglang};
use crate::call::Call;
use crate::rig::book::{Book, SeqId};
use crate::rig::engine::{Row, Step};
use crate::rig::fine::Fine;
use crate::rig::kv::path::Path;

/// Waiting requests up to which the policy that looks into the tree is used.
const MOST_SORTED: usize = 128;
/// Tokens in common with another waiting prompt from which on one waits for the other.
const IN_BATCH: u64 = 32;

/// Why no more prompts go into a batch.
#[derive(PartialEq, Eq)]
enum Stop {
    /// Memory or seats: nobody else is asked until somebody leaves.
    Full,
    /// The batch's budget.
    Budget,
}

/// What is left for a batch.
struct Left {
    /// Tokens that free pages hold, less what running answers are guessed to need.
    guessed: f64,
    prompts: u64,
    chunk: Option<u64>,
    seats: u64,
}

impl Sglang {
    /// Returns whether the scheduler knows of a request by now: what arrives while a step runs is seen when the next
    /// one runs already.
    pub(super) fn may_join(&self, id: SeqId, at: Fine, book: &Book) -> bool {
        let submitted = book.seq(id).submitted();
        if self.held.is_empty() || !self.settings.overlap {
            return submitted <= at;
        }
        self.last_plan.is_none_or(|last| submitted <= last)
    }

    /// Puts together a batch of prompts, if there is one to make.
    pub(super) fn read_prompts(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        let joined: Vec<SeqId> = self
            .waiting
            .iter()
            .copied()
            .filter(|&id| self.may_join(id, at, book))
            .collect();
        if self.chunked.is_none() && (self.full || joined.is_empty()) {
            return;
        }
        let riding = step.rows.len() as u64;
        let clipped = |id: &SeqId| self.allowed(*id, book).min(CLIP) as f64;
        let guess: f64 = self.running.iter().map(clipped).sum();
        let seats = self.settings.max_running_requests;
        let mut left = Left {
            guessed: -(guess * self.ratio()) - riding as f64,
            prompts: self.settings.max_prefill_tokens.saturating_sub(riding),
            chunk: self
                .settings
                .chunked_prefill_size
                .map(|size| size.saturating_sub(riding)),
            seats: seats.saturating_sub(self.running.len() as u64),
        };
        if let Some(id) = self.chunked {
            self.go_on(id, &mut left, book, step);
        }
        if self.full {
            return;
        }
        for id in self.ordered(joined, book) {
            if left.seats == 0 {
                self.full = true;
                break;
            }
            if left.prompts == 0 || left.chunk == Some(0) {
                break;
            }
            if let Err(stop) = self.add(id, at, &mut left, book, step) {
                self.full = stop == Stop::Full;
                break;
            }
        }
        let admitted = &self.held;
        self.waiting.retain(|id| !admitted.contains_key(id));
    }

    /// Reads on in the prompt that is read in pieces.
    fn go_on(&mut self, id: SeqId, left: &mut Left, book: &Book, step: &mut Step) {
        let seq = book.seq(id);
        let page = self.settings.page_size;
        let rest = seq.known() - seq.computed;
        let held = self.held.get_mut(&id).expect("its first piece was read");
        let room = (self.pool.free() + held.hold.pages()) * page - seq.computed;
        let most = left.chunk.unwrap_or(u64::MAX).min(room);
        let tokens = if rest <= most {
            rest
        } else {
            most / page * page
        };
        if tokens == 0 {
            left.chunk = Some(0);
            return;
        }
        let pages = (seq.computed + tokens).div_ceil(page);
        self.pool.grow(&mut held.hold, pages);
        let chunk = Some(tokens);
        step.rows.push(Row { seq: id, chunk });
        left.seats = left.seats.saturating_sub(1);
        left.spend(tokens, page);
        if tokens == rest {
            left.guessed -= self.allowed(id, book).min(CLIP) as f64;
            self.chunked = None;
        } else {
            left.chunk = Some(0);
        }
    }

    /// Admits a waiting request to the batch, cut to the batch's budget if need be.
    fn add(
        &mut self,
        id: SeqId,
        at: Fine,
        left: &mut Left,
        book: &mut Book,
        step: &mut Step,
    ) -> Result<(), Stop> {
        let seq = book.seq(id);
        let (call, known) = (seq.call, seq.known());
        let page = self.settings.page_size;
        let path = self.pool.path(&call, &self.content);
        let limit = if self.settings.radix_cache {
            (known - 1) / page
        } else {
            0
        };
        let reached = self.pool.find(&path, limit);
        let found = if self.settings.states.is_some() {
            self.pool.with_state(reached)
        } else {
            reached
        };
        let reach = self.tier.reach(&path, found.pages, found.pages, limit);
        let loaded = (reach - found.pages) * page;
        let cached = reach * page;
        let extend = known - cached;
        let allowed = self.allowed(id, book).min(CLIP);
        let free = (self.pool.free() - self.pool.unlocked(found)) * page;
        if (extend + loaded + allowed + page) as f64 >= free as f64 + left.guessed {
            return Err(Stop::Full);
        }
        if self.settings.states.is_some() && !self.pool.has_states(STATES_EACH) {
            return Err(Stop::Full);
        }
        let first = step.rows.iter().all(|row| row.chunk.is_none());
        let input = extend.next_multiple_of(page);
        if input >= left.prompts && !first {
            return Err(Stop::Budget);
        }
        let tokens = match left.chunk {
            Some(chunk) if input > chunk => chunk / page * page,
            _ => extend,
        };
        if tokens == 0 {
            return Err(Stop::Budget);
        }
        if loaded > 0 {
            let length = self.tier.fetch(&path, found.pages, reach);
            step.transfers.push((id, length));
        }
        let mut hold = self.pool.take(found);
        if self.settings.states.is_some() {
            self.pool.take_states(STATES_EACH);
        }
        self.pool.grow(&mut hold, self.pages(cached + tokens));
        let held = Held {
            path,
            hold,
            branch: reached.pages * page,
            tracked: cached,
        };
        self.held.insert(id, held);
        let stored = self.stored(&call).max(cached);
        book.admit(id, at, cached, stored);
        let chunk = Some(tokens);
        step.rows.push(Row { seq: id, chunk });
        left.seats -= 1;
        if tokens < extend {
            assert!(self.chunked.is_none(), "one prompt is read in pieces");
            self.chunked = Some(id);
            left.chunk = Some(0);
        } else {
            left.guessed -= (allowed + page) as f64;
        }
        left.spend(tokens, page);
        Ok(())
    }

    /// Returns the waiting requests in the order in which they are asked.
    fn ordered(&mut self, waiting: Vec<SeqId>, book: &Book) -> Vec<SeqId> {
        if self.settings.schedule_policy == Policy::Fcfs || waiting.len() > MOST_SORTED {
            return waiting;
        }
        let page = self.settings.page_size;
        let mut ahead: Vec<Path> = Vec::new();
        let mut order = Vec::new();
        for (place, &id) in waiting.iter().enumerate() {
            let seq = book.seq(id);
            let path = self.pool.path(&seq.call, &self.content);
            let found = self.pool.find(&path, (seq.known() - 1) / page).pages * page;
            let alike = |other: &Path| path.common(other) * page >= IN_BATCH;
            let waits = found <= IN_BATCH && ahead.iter().any(alike);
            if found <= IN_BATCH && !waits {
                ahead.push(path);
            }
            order.push((waits, u64::MAX - found, place, id));
        }
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id).collect()
    }

    /// Lists those that are admitted and have no part in the step.
    pub(super) fn stand(&self, step: &mut Step) {
        for &id in self.running.iter().chain(&self.chunked) {
            if step.rows.iter().all(|row| row.seq != id) {
                step.standing.push(id);
            }
        }
    }

    /// Lets the tree hold the beginning of a call's prompt, as if it had just been served and released.
    pub(super) fn preload(&mut self, call: &Call) {
        let page = self.settings.page_size;
        let grid = if self.settings.states.is_some() {
            self.grid()
        } else {
            page
        };
        let pages = call.warm.0 / grid * grid / page;
        let path = self.pool.path(call, &self.content);
        let found = self.pool.find(&path, pages);
        if pages - found.pages + self.pool.unlocked(found) > self.pool.free() {
            return;
        }
        let mut hold = self.pool.take(found);
        self.pool.grow(&mut hold, pages);
        let hybrid = self.settings.states.is_some();
        self.pool.insert(&path, &mut hold, pages, call, hybrid);
        self.pool.release(hold);
    }
}

impl Left {
    fn spend(&mut self, tokens: u64, page: u64) {
        let whole = tokens.next_multiple_of(page);
        // The pages were taken: what is free says so already.
        self.prompts = self.prompts.saturating_sub(whole);
        self.chunk = self.chunk.map(|chunk| chunk.saturating_sub(whole));
    }
}
