//! llama.cpp's server: slots, one batch per loop, prompts filled strictly in slot order.
//!
//! Facts from `tools/server/server-context.cpp` and `src/llama-batch.cpp` at 7d442abf (May 2026, closest to b9151) and
//! 0c1e57098 (latest): generating slots put one token each into the batch, then slots in index order fill it up to
//! `n_batch`; the batch is computed in micro-batches of `n_ubatch`. A slot keeps its tokens when its request ends; a
//! prompt takes the slot with which it has most in common. Hybrid models stop a prompt short of its end to store a
//! checkpoint.

mod batch;

use super::{Engine, Row, Step, most_that_fit};
use crate::call::{Call, Outcome};
use crate::ids::{NodeId, ThreadId};
use crate::rig::CacheShape;
use crate::rig::book::{Book, SeqId};
use crate::rig::cost::Graph;
use crate::rig::fine::Fine;
use crate::rig::kv::deepest_shared;
use crate::rig::kv::slots::{HostCache, Tokens};
use crate::trace::content::Content;
use crate::units::Tokens as Count;
use batch::{Part, share_one_stream, split_equally, split_in_order};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use thin_vec::ThinVec;

/// Tokens between a hybrid model's last checkpoint and the end of its prompt.
const CHECKPOINT_TAIL: u64 = 4;

/// Bytes that a saved token takes beside its keys and values: its position and whose it is.
const CELL_BYTES: u64 = 12;

/// Bytes that a saved list takes beside its tokens. Measured on a model of two layers; each more adds 24, which is
/// nothing next to one token of a real model.
const HEADER_BYTES: u64 = 64;

/// The server's settings.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the engine has as many switches"
)]
pub struct Settings {
    /// Slots.
    pub parallel: u64,
    /// Tokens of one slot.
    pub slot_context: u64,
    /// Tokens that all slots together may hold, where they share one pool.
    pub pool: Option<u64>,
    /// Tokens of one batch.
    pub n_batch: u64,
    /// Tokens of one micro-batch.
    pub n_ubatch: u64,
    /// Whether slots keep their tokens for later prompts.
    pub cache_prompt: bool,
    /// The least share of a prompt that a slot must have in common with it to be chosen for that.
    pub slot_prompt_similarity: f64,
    /// Bytes of host memory for saved slots; nothing where there is no limit.
    pub cache_ram: Option<u64>,
    /// Whether an oversized entry is kept when it is the only one (May builds), or refused (latest).
    pub cache_ram_keeps_one: bool,
    /// Whether idle slots are saved whenever a task starts, and wiped where they share a pool.
    pub cache_idle_slots: bool,
    /// Whether the model can go back to any earlier position; hybrid ones cannot.
    pub rolls_back: bool,
    /// Checkpoints a slot keeps.
    pub ctx_checkpoints: usize,
    /// The distance of checkpoints within a prompt; nothing where there are only those near its end.
    pub checkpoint_every: Option<u64>,
    /// Bytes of keys and values for one token.
    pub kv_bytes: u64,
    /// Bytes of a recurrent state.
    pub state_bytes: u64,
    /// Bytes per second between a slot and host memory.
    pub host_bytes_per_sec: f64,
    /// Whether the layers are split over two cards, so that micro-batches of one prompt overlap.
    pub split_over_two: bool,
    /// Drafts that a generating slot adds to each batch.
    pub drafts: u64,
}

impl Settings {
    /// Returns what slots and saved copies of them can hold together.
    pub fn cache(&self) -> CacheShape {
        let host = match self.cache_ram {
            Some(0) => Some(0),
            Some(bytes) if self.cache_ram_keeps_one => {
                Some((bytes / self.kv_bytes.max(1)).max(self.slot_context))
            }
            Some(bytes) => Some(bytes / self.kv_bytes.max(1)),
            None => None,
        };
        CacheShape {
            granularity: Count(1),
            capacity: host.map(|host| Count(self.cells() + host)),
        }
    }

    /// Returns how many tokens all slots can hold.
    fn cells(&self) -> u64 {
        self.pool.unwrap_or(self.slot_context * self.parallel)
    }
}

#[derive(Clone, Default, Debug)]
struct Slot {
    serving: Option<SeqId>,
    tokens: Tokens,
    /// When its last request ended, counted in ends.
    last_used: u64,
    /// Positions at which the current prompt is cut, nearest last.
    stops: Vec<u64>,
}

/// What a conversation once had in a slot.
#[derive(Clone, Default, Debug)]
struct History {
    tip: NodeId,
    len: u64,
    checkpoints: ThinVec<(NodeId, u64)>,
}

/// llama.cpp's server.
#[derive(Clone, Debug)]
pub struct LlamaCpp {
    settings: Settings,
    content: Arc<Content>,
    slots: Vec<Slot>,
    deferred: VecDeque<SeqId>,
    host: HostCache,
    history: FxHashMap<ThreadId, History>,
    uses: u64,
}

impl LlamaCpp {
    /// Returns a server with empty slots.
    pub fn new(mut settings: Settings, content: Arc<Content>) -> LlamaCpp {
        // Without host memory the server switches this off by itself, and wipes nothing.
        settings.cache_idle_slots &= settings.cache_ram != Some(0);
        let cells = settings.cells();
        let token_limit = match settings.cache_ram {
            Some(bytes) => cells.max(bytes / (settings.kv_bytes + CELL_BYTES)),
            None => u64::MAX,
        };
        LlamaCpp {
            settings,
            content,
            slots: vec![Slot::default(); settings.parallel as usize],
            deferred: VecDeque::new(),
            host: HostCache::new(
                settings.cache_ram,
                token_limit,
                settings.cache_ram_keeps_one,
            ),
            history: FxHashMap::default(),
            uses: 0,
        }
    }

    /// Gives waiting requests to idle slots, first come, first served.
    fn launch(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        while let Some(&id) = self.deferred.front() {
            let call = book.seq(id).call;
            let Some((index, by_likeness)) = self.choose(&call) else {
                break;
            };
            self.deferred.pop_front();
            let mut moved = 0;
            if self.settings.cache_prompt {
                moved += self.swap(index, by_likeness, &call, book);
                if self.settings.cache_idle_slots {
                    moved += self.save_idle(index);
                }
            } else {
                self.slots[index].tokens = Tokens::default();
            }
            self.start(index, id, at, book);
            if moved > 0 {
                step.transfers.push((
                    id,
                    Fine::from_secs(moved as f64 / self.settings.host_bytes_per_sec),
                ));
            }
        }
    }

    /// Chooses a slot: the one most alike, else the one unused for longest, the highest of equals.
    fn choose(&self, call: &Call) -> Option<(usize, bool)> {
        let idle = || {
            self.slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.serving.is_none())
        };
        let mut best: Option<(usize, f64)> = None;
        for (index, slot) in idle().filter(|(_, slot)| !slot.tokens.is_empty()) {
            let likeness =
                slot.tokens.common(call, &self.content) as f64 / call.prompt_tokens.as_f64();
            if likeness > self.settings.slot_prompt_similarity
                && best.is_none_or(|(_, most)| likeness > most)
            {
                best = Some((index, likeness));
            }
        }
        if let Some((index, _)) = best {
            return Some((index, true));
        }
        idle()
            .min_by_key(|(index, slot)| (slot.last_used, std::cmp::Reverse(*index)))
            .map(|(index, _)| (index, false))
    }

    /// Saves what the slot would lose and loads what serves the prompt better; returns the bytes moved.
    fn swap(&mut self, index: usize, by_likeness: bool, call: &Call, book: &Book) -> u64 {
        let slot = &self.slots[index].tokens;
        let keeps_half = slot.common(call, &self.content) * 2 >= slot.len();
        if by_likeness && keeps_half {
            return 0;
        }
        let mut moved = 0;
        // What is loaded takes the place of what the slot holds.
        let room = self
            .room(book)
            .map_or(u64::MAX, |room| room.saturating_add(slot.len()));
        let bytes = self.bytes(slot);
        if self.host.save(slot, bytes, &self.content) {
            moved += bytes;
        }
        if let Some((tokens, bytes)) =
            self.host
                .take_better(call, &self.slots[index].tokens, room, &self.content)
        {
            self.slots[index].tokens = tokens;
            moved += bytes;
        }
        moved
    }

    /// Saves every idle slot to host memory; returns the bytes moved.
    ///
    /// In a shared pool it is wiped, whether or not it could be saved.
    fn save_idle(&mut self, except: usize) -> u64 {
        let mut moved = 0;
        for index in 0..self.slots.len() {
            if index == except
                || self.slots[index].serving.is_some()
                || self.slots[index].tokens.is_empty()
            {
                continue;
            }
            let tokens = &self.slots[index].tokens;
            let bytes = self.bytes(tokens);
            if self.host.save(tokens, bytes, &self.content) {
                moved += bytes;
            }
            if self.settings.pool.is_some() {
                self.slots[index].tokens = Tokens::default();
            }
        }
        moved
    }

    fn bytes(&self, tokens: &Tokens) -> u64 {
        HEADER_BYTES
            + tokens.len() * (self.settings.kv_bytes + CELL_BYTES)
            + self.settings.state_bytes * (1 + tokens.checkpoints.len() as u64)
    }

    /// Begins a request in a slot with whatever of the slot's tokens it can keep.
    fn start(&mut self, index: usize, id: SeqId, at: Fine, book: &mut Book) {
        let call = book.seq(id).call;
        let prompt = call.prompt_tokens.0;
        if call.warm.0 > 0 && self.settings.cache_prompt {
            let checkpoint = call.warm.0.saturating_sub(CHECKPOINT_TAIL);
            self.slots[index].tokens = Tokens::of(&call, call.warm.0, vec![checkpoint]);
        }
        let slot = &mut self.slots[index];
        let common = slot.tokens.common(&call, &self.content);
        let cached = slot
            .tokens
            .reusable(common, prompt, self.settings.rolls_back);
        slot.tokens
            .checkpoints
            .retain(|&checkpoint| checkpoint <= cached);
        slot.serving = Some(id);
        slot.stops = stops(&self.settings, cached, prompt);
        let stored = self.stored(&call).max(cached);
        book.admit(id, at, cached, stored);
    }

    /// Returns how far a slot would serve this call, had the server lost nothing of its conversation.
    fn stored(&self, call: &Call) -> u64 {
        let Some(history) = self
            .history
            .get(&call.thread)
            .filter(|_| self.settings.cache_prompt)
        else {
            return 0;
        };
        let limit = call.seen_computed.0.min(call.prompt_tokens.0 - 1);
        let whole =
            history.len <= limit && self.content.meet(history.tip, call.prompt).1.0 >= history.len;
        if self.settings.rolls_back {
            return limit;
        }
        let checkpoint = deepest_shared(&history.checkpoints, call.prompt, limit, &self.content);
        if whole {
            history.len.max(checkpoint)
        } else {
            checkpoint
        }
    }

    /// Notes a checkpoint at `at`, the oldest making room.
    fn checkpoint(&mut self, index: usize, call: &Call, at: u64) {
        let slot = &mut self.slots[index];
        let apart = slot
            .tokens
            .checkpoints
            .last()
            .is_none_or(|&last| at >= last + 64);
        let kept = self.settings.ctx_checkpoints;
        if at < 64 || !apart || self.settings.rolls_back || kept == 0 {
            return;
        }
        if slot.tokens.checkpoints.len() == kept {
            slot.tokens.checkpoints.remove(0);
        }
        slot.tokens.checkpoints.push(at);
        let had = &mut self.history.entry(call.thread).or_default().checkpoints;
        if had.is_empty() {
            // Open loads have very many conversations of one call.
            had.reserve_exact(1);
        }
        had.push((call.prompt, at));
    }

    /// Puts one token of every generating slot into the batch, then fills it with prompts, strictly in slot order.
    fn fill(&self, book: &Book, step: &mut Step) {
        let mut room = self.settings.n_batch;
        for (_, seq) in self.serving().filter(|&(_, seq)| book.seq(seq).decoding()) {
            step.rows.push(Row { seq, chunk: None });
            room = room.saturating_sub(1 + self.settings.drafts);
        }
        for (index, seq) in self.serving().filter(|&(_, seq)| !book.seq(seq).decoding()) {
            let until = *self.slots[index]
                .stops
                .last()
                .expect("a prompt that is read has an end");
            let tokens = room.min(until - book.seq(seq).computed);
            if tokens == 0 {
                step.standing.push(seq);
            } else {
                let chunk = Some(tokens);
                step.rows.push(Row { seq, chunk });
                room -= tokens;
            }
        }
    }

    /// Returns the tokens that idle slots hold.
    fn idle_tokens(&self) -> u64 {
        let idle = self.slots.iter().filter(|slot| slot.serving.is_none());
        idle.map(|slot| slot.tokens.len()).sum()
    }

    /// Returns how many tokens a shared pool has room for.
    fn room(&self, book: &Book) -> Option<u64> {
        let computed: u64 = self.serving().map(|(_, seq)| book.seq(seq).computed).sum();
        let used = computed + self.idle_tokens();
        let pool = self.settings.pool?;
        Some(pool.saturating_sub(used))
    }

    /// Makes room for the step in a shared pool: idle slots are wiped one by one, and when none is left every request
    /// under way fails and loses its tokens. Returns whether the step can be made.
    fn make_room(&mut self, book: &Book, step: &mut Step) -> bool {
        let needed: u64 = step
            .rows
            .iter()
            .map(|row| row.chunk.unwrap_or_else(|| self.width(row.seq, book)))
            .sum();
        while self.room(book).is_some_and(|room| needed > room) {
            let filled = |slot: &&mut Slot| slot.serving.is_none() && !slot.tokens.is_empty();
            if let Some(idle) = self.slots.iter_mut().find(filled) {
                idle.tokens = Tokens::default();
                continue;
            }
            for slot in &mut self.slots {
                let failed = slot.serving.take();
                step.failed
                    .extend(failed.map(|seq| (seq, Outcome::RefusedMemory)));
                slot.tokens = Tokens::default();
            }
            step.rows.clear();
            step.standing.clear();
            step.transfers.clear();
            return false;
        }
        true
    }

    /// Returns the cells that a generating slot's row takes: its token and its drafts, as far as the slot goes.
    fn width(&self, id: SeqId, book: &Book) -> u64 {
        let left = self.settings.slot_context - book.seq(id).computed;
        (1 + self.settings.drafts).min(left)
    }

    /// Returns how often a batch of generating slots can be made before one has ended or a shared pool is full.
    fn repeat(&self, book: &Book, step: &Step) -> u64 {
        let ends = step.rows.iter().map(|row| book.seq(row.seq).passes_left());
        let most = ends.min().unwrap_or(1).max(1);
        let Some(room) = self.room(book) else {
            return most;
        };
        most_that_fit(most, |times| {
            let grown = |row: &Row| {
                let before = book.seq(row.seq).after(times - 1);
                before + (1 + self.settings.drafts)
            };
            step.rows.iter().map(grown).sum::<u64>() <= room
        })
    }

    fn serving(&self) -> impl Iterator<Item = (usize, SeqId)> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.serving.map(|seq| (index, seq)))
    }
}

/// Returns where a prompt's fill stops, nearest last: hybrid models store checkpoints there.
fn stops(settings: &Settings, cached: u64, prompt: u64) -> Vec<u64> {
    let mut stops = vec![prompt];
    if !settings.rolls_back {
        stops.push(prompt.saturating_sub(CHECKPOINT_TAIL));
        stops.push(prompt.saturating_sub(CHECKPOINT_TAIL + settings.n_ubatch));
        if let Some(every) = settings.checkpoint_every {
            let mut at = cached / every * every + every;
            while at < prompt {
                stops.push(at);
                at += every;
            }
        }
    }
    stops.retain(|&stop| stop > cached);
    stops.sort_unstable_by_key(|&stop| std::cmp::Reverse(stop));
    stops.dedup();
    stops
}

impl Engine for LlamaCpp {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        let request = book.seq_mut(seq);
        let prompt = request.call.prompt_tokens.0;
        if self.settings.slot_context == 0 {
            return Err(Outcome::RefusedMemory);
        }
        if prompt >= self.settings.slot_context {
            return Err(Outcome::RefusedContext);
        }
        request.output_limit = request
            .output_limit
            .min(self.settings.slot_context - prompt);
        self.deferred.push_back(seq);
        Ok(())
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        self.launch(at, book, step);
        self.fill(book, step);
        while !self.make_room(book, step) {
            self.launch(at, book, step);
            self.fill(book, step);
        }
        let only_decodes = step.rows.iter().all(|row| row.chunk.is_none());
        step.repeat = if only_decodes {
            self.repeat(book, step)
        } else {
            1
        };
    }

    fn one_pass(&self) -> bool {
        false
    }

    fn graphs(&self, rows: &[Row], book: &Book, graphs: &mut Vec<Graph>) {
        let part = |row: &Row| {
            let serves = |slot: &Slot| slot.serving == Some(row.seq);
            let slot = self.slots.iter().position(serves);
            let slot = slot.expect("who takes part has a slot");
            let stop = self.slots[slot].stops.last().copied();
            Part::of(*row, slot, stop, book)
        };
        let mut parts: Vec<Part> = rows.iter().map(part).collect();
        let (n_ubatch, drafts) = (self.settings.n_ubatch, self.settings.drafts);
        let shared = self.settings.pool.is_some();
        if shared && parts.iter().all(|part| part.decodes) {
            let mut graph = Graph::default();
            for part in &parts {
                part.add_to(&mut graph);
            }
            share_one_stream(&mut graph, self.idle_tokens());
            graphs.push(graph);
        } else if shared && self.settings.state_bytes == 0 {
            split_in_order(&mut parts, n_ubatch, drafts, graphs);
        } else {
            split_equally(&mut parts, n_ubatch, drafts, !shared, graphs);
        }
        if self.settings.split_over_two {
            // Micro-batches overlap across the cards until the next one needs this one's result.
            let reaches_stop = parts.iter().any(|part| part.reaches_stop);
            let last = graphs.len() - 1;
            for (index, graph) in graphs.iter_mut().enumerate() {
                let waited_for = index == last && reaches_stop;
                graph.overlapped = !(graph.chunks.is_empty() || waited_for);
            }
        }
    }

    fn settle(&mut self, step: &Step, _times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        // In slot order, which is the order in which requests of one step let go of their slots.
        for index in 0..self.slots.len() {
            let took_part = |id: &SeqId| step.rows.iter().any(|row| row.seq == *id);
            let Some(id) = self.slots[index].serving.filter(took_part) else {
                continue;
            };
            let seq = book.seq(id);
            let (call, computed) = (seq.call, seq.computed);
            while self.slots[index]
                .stops
                .last()
                .is_some_and(|&stop| stop <= computed)
            {
                self.slots[index].stops.pop();
                if computed < call.prompt_tokens.0 {
                    self.checkpoint(index, &call, computed);
                }
            }
            if seq.finished() {
                self.uses += 1;
                let slot = &mut self.slots[index];
                slot.serving = None;
                slot.last_used = self.uses;
                let checkpoints = std::mem::take(&mut slot.tokens.checkpoints);
                slot.tokens = if self.settings.cache_prompt {
                    Tokens::of(&call, computed, checkpoints)
                } else {
                    Tokens::default()
                };
                let history = self.history.entry(call.thread).or_default();
                (history.tip, history.len) = (
                    if call.output_shared {
                        call.output
                    } else {
                        call.prompt
                    },
                    computed,
                );
                complete.push(id);
            }
        }
    }

    fn content(&mut self) -> &mut Arc<Content> {
        &mut self.content
    }

    fn withdraw(&mut self, seq: SeqId) -> bool {
        let before = self.deferred.len();
        self.deferred.retain(|&other| other != seq);
        self.deferred.len() < before
    }

    fn check(&self, book: &Book) {
        let serving = self.serving().count();
        assert_eq!(serving + self.deferred.len(), book.len());
        for (index, seq) in self.serving() {
            let computed = book.seq(seq).computed;
            assert!(computed <= self.settings.slot_context);
            let checkpoints = &self.slots[index].tokens.checkpoints;
            assert!(checkpoints.is_sorted() && checkpoints.last() <= Some(&computed));
        }
    }
}
