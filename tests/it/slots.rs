//! llama.cpp's slots against a server that keeps every token of every list.
//!
//! The server here has no clock: it is told, in their order, when requests were launched and when they ended, and says
//! how many tokens each would have found.

use crate::world::{Settings, World, seeds, token_ids};
use laptime::call::{Call, Outcome, Reply};
use laptime::event::Event;
use laptime::rig::engine::llama_cpp::{self, LlamaCpp};
use laptime::trace::content::Content;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Default)]
struct List {
    tokens: Vec<u64>,
    checkpoints: Vec<u64>,
}

#[derive(Clone, Default)]
struct Slot {
    list: List,
    busy: bool,
    last_used: u64,
}

struct Server<'c> {
    settings: llama_cpp::Settings,
    content: &'c Content,
    slots: Vec<Slot>,
    /// Saved lists and their bytes, the oldest first.
    host: Vec<(List, u64)>,
    uses: u64,
    serving: BTreeMap<u32, (usize, u64)>,
}

fn common(a: &[u64], b: &[u64]) -> u64 {
    a.iter().zip(b).take_while(|(a, b)| a == b).count() as u64
}

impl<'c> Server<'c> {
    fn new(settings: llama_cpp::Settings, content: &'c Content) -> Server<'c> {
        Server {
            settings,
            content,
            slots: vec![Slot::default(); settings.parallel as usize],
            host: Vec::new(),
            uses: 0,
            serving: BTreeMap::new(),
        }
    }

    fn prompt(&self, call: &Call) -> Vec<u64> {
        let mut ids = token_ids(call, self.content);
        ids.truncate(call.prompt_tokens.0 as usize);
        ids
    }

    fn save(&mut self, list: &List) {
        let limit = self.settings.cache_ram;
        if list.tokens.is_empty() || limit == Some(0) {
            return;
        }
        if self
            .host
            .iter()
            .any(|(saved, _)| saved.tokens.starts_with(&list.tokens))
        {
            return;
        }
        self.host
            .retain(|(saved, _)| !list.tokens.starts_with(&saved.tokens));
        let states = 1 + list.checkpoints.len() as u64;
        // A saved list has a header, and for each token its place beside its keys and values.
        let bytes = 64
            + list.tokens.len() as u64 * (self.settings.kv_bytes + 12)
            + states * self.settings.state_bytes;
        if !self.settings.cache_ram_keeps_one && limit.is_some_and(|limit| bytes > limit) {
            return;
        }
        self.host.push((list.clone(), bytes));
        let Some(limit) = limit else {
            return;
        };
        let context = self
            .settings
            .pool
            .unwrap_or(self.settings.slot_context * self.settings.parallel);
        let most = context.max(limit / (self.settings.kv_bytes + 12));
        let full = |host: &[(List, u64)]| {
            let tokens: usize = host.iter().map(|(list, _)| list.tokens.len()).sum();
            host.iter().map(|(_, bytes)| bytes).sum::<u64>() > limit || tokens as u64 > most
        };
        while self.host.len() > 1 && full(&self.host) {
            self.host.remove(0);
        }
    }

    /// Returns the slot for a prompt, and whether it was chosen for what it holds.
    fn choose(&self, prompt: &[u64]) -> (usize, bool) {
        let mut best = None;
        let mut most = self.settings.slot_prompt_similarity;
        let mut oldest: Option<usize> = None;
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy) {
            let likeness = common(&slot.list.tokens, prompt) as f64 / prompt.len() as f64;
            if !slot.list.tokens.is_empty() && likeness > most {
                (best, most) = (Some(index), likeness);
            }
            if oldest.is_none_or(|oldest| slot.last_used <= self.slots[oldest].last_used) {
                oldest = Some(index);
            }
        }
        match best {
            Some(index) => (index, true),
            None => (oldest.expect("a slot is idle"), false),
        }
    }

    fn load(&mut self, index: usize, prompt: &[u64]) {
        let share = |part: u64, whole: usize| part as f64 / whole.max(1) as f64;
        let list = &self.slots[index].list;
        let here = common(&list.tokens, prompt);
        let (mut most, mut best_share) =
            (share(here, list.tokens.len()), share(here, prompt.len()));
        let mut best = None;
        for (place, (saved, _)) in self.host.iter().enumerate() {
            let there = common(&saved.tokens, prompt);
            let (kept, served) = (share(there, saved.tokens.len()), share(there, prompt.len()));
            if kept >= 0.25 && kept > most && served > best_share {
                (most, best_share, best) = (kept, served, Some(place));
            }
        }
        if let Some(place) = best {
            self.slots[index].list = self.host.remove(place).0;
        }
    }

    /// Begins a request; returns how many tokens it finds.
    fn launch(&mut self, call: &Call) -> u64 {
        let prompt = self.prompt(call);
        let (index, alike) = self.choose(&prompt);
        let list = self.slots[index].list.clone();
        let loses = common(&list.tokens, &prompt) * 2 < list.tokens.len() as u64;
        if !self.settings.cache_prompt {
            self.slots[index].list = List::default();
        } else if !alike || loses {
            self.save(&list);
            self.load(index, &prompt);
        }
        if self.settings.cache_prompt
            && self.settings.cache_idle_slots
            && self.settings.cache_ram != Some(0)
        {
            for other in (0..self.slots.len()).filter(|&other| other != index) {
                if !self.slots[other].busy {
                    let list = self.slots[other].list.clone();
                    self.save(&list);
                    if self.settings.pool.is_some() {
                        self.slots[other].list = List::default();
                    }
                }
            }
        }
        let warm = call.warm.0;
        let slot = &mut self.slots[index];
        if warm > 0 && self.settings.cache_prompt {
            slot.list.tokens = prompt[..warm as usize].to_vec();
            slot.list.checkpoints = vec![warm.saturating_sub(4)];
        }
        let here = common(&slot.list.tokens, &prompt).min(prompt.len() as u64 - 1);
        let whole = here == slot.list.tokens.len() as u64;
        let kept = if self.settings.rolls_back || whole {
            here
        } else {
            let earlier = slot.list.checkpoints.iter().filter(|&&at| at <= here);
            earlier.copied().max().unwrap_or(0)
        };
        slot.list.checkpoints.retain(|&at| at <= kept);
        slot.busy = true;
        self.serving.insert(call.id.0, (index, kept));
        kept
    }

    fn end(&mut self, call: &Call, output: u64) {
        let (index, kept) = self.serving.remove(&call.id.0).expect("it was launched");
        let mut tokens = token_ids(call, self.content);
        let prompt = call.prompt_tokens.0;
        let length = prompt + output.saturating_sub(1);
        for at in tokens.len() as u64..length {
            tokens.push((u64::from(call.id.0) << 32 | at) ^ u64::MAX);
        }
        tokens.truncate(length as usize);
        let settings = self.settings;
        let slot = &mut self.slots[index];
        slot.busy = false;
        self.uses += 1;
        slot.last_used = self.uses;
        for at in kept + 1..prompt {
            let stops = at + 4 == prompt
                || at + 4 + settings.n_ubatch == prompt
                || settings
                    .checkpoint_every
                    .is_some_and(|every| at % every == 0);
            let apart = slot
                .list
                .checkpoints
                .last()
                .is_none_or(|&last| at >= last + 64);
            if settings.rolls_back || !stops || at < 64 || !apart || settings.ctx_checkpoints == 0 {
                continue;
            }
            if slot.list.checkpoints.len() == settings.ctx_checkpoints {
                slot.list.checkpoints.remove(0);
            }
            slot.list.checkpoints.push(at);
        }
        slot.list.tokens = tokens;
        if !settings.cache_prompt {
            slot.list = List::default();
        }
    }
}

/// Replays what happened on the simulated server; returns how many calls found something.
fn agree(events: &[Event], mut server: Server<'_>, seed: u64) -> u64 {
    let mut calls = BTreeMap::new();
    let mut moments = Vec::new();
    for event in events {
        match *event {
            Event::Called { call, .. } => {
                calls.insert(call.id, call);
            }
            Event::Answered { reply } if !reply.outcome.failed() => {
                let admitted = reply.admitted.expect("it was served");
                moments.push((admitted, true, reply.call, reply));
                moments.push((reply.finished, false, reply.call, reply));
            }
            _ => {}
        }
    }
    // At the end of a step requests end before others are launched, first come, first served.
    moments.sort_by_key(|&(at, launched, call, _): &(_, bool, _, Reply)| (at, launched, call));
    let mut found = 0;
    for together in moments.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let mut together = together.to_vec();
        if !together[0].1 {
            // Requests that end in one step let go of their slots in slot order.
            together.sort_by_key(|(_, _, id, _)| server.serving[&id.0].0);
        }
        for (_, launched, id, reply) in together {
            let call = &calls[&id];
            if launched {
                let cached = server.launch(call);
                assert_eq!(cached, reply.cached.0, "SEED={seed} {call:?}");
                found += u64::from(cached > 0);
            } else {
                server.end(call, reply.output.0);
            }
        }
    }
    found
}

#[test]
fn slots_find_what_lists_of_tokens_find() {
    let mut found = 0;
    for seed in seeds(600) {
        let mut world = World::new(seed);
        // The lists know nothing of time.
        world.plan.conduct.cache_lifetime = None;
        let Settings::Llama(mut settings) = world.settings else {
            continue;
        };
        if settings.pool.is_some() {
            // What happens when the pool is full is for other tests.
            settings.pool = Some(1 << 30);
            settings.slot_context = 1 << 30;
        }
        let content = &world.trace.content;
        let server = LlamaCpp::new(settings, Arc::clone(content));
        let events = world.replay_on(server, false);
        let refused = |event: &Event| {
            let Event::Answered { reply } = event else {
                return false;
            };
            reply.outcome == Outcome::RefusedMemory
        };
        assert!(!events.iter().any(refused));
        found += agree(&events, Server::new(settings, content), seed);
    }
    assert!(found > 500, "only {found} calls found anything");
}
