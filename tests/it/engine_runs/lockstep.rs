//! The simulated engine at the pace of a recording: each of its steps ends when the recorded tokens arrived.
//!
//! Which requests come in before which step is then as it was on the real engine, and so are admissions and releases,
//! without knowing how long anything takes. A token's stamp is when the client saw it: never before the step ended, and
//! later by however long the client was kept waiting, so of the stamps of one step the earliest counts.

use super::{Run, Setup};
use laptime::rig::book::{Book, SeqId};
use laptime::rig::engine::llama_cpp::LlamaCpp;
use laptime::rig::engine::vllm::Vllm;
use laptime::rig::engine::{Engine, Row, Step};
use laptime::rig::fine::Fine;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Run {
    /// Returns what the simulated engine has cached of each request when its steps follow the recording, and a request
    /// takes `latency` seconds to reach it.
    pub(super) fn in_step(&self, latency: f64) -> Vec<u64> {
        let content = Arc::clone(&self.content);
        match self.setup {
            Setup::Vllm(settings) => self.walk(<Vllm>::new(settings, content), latency),
            Setup::LlamaCpp(settings) => self.walk(LlamaCpp::new(settings, content), latency),
        }
    }

    fn walk(&self, mut engine: impl Engine, latency: f64) -> Vec<u64> {
        let mut cached = vec![0; self.requests.len()];
        let mut coming: Vec<usize> = (0..self.requests.len()).collect();
        coming.sort_by(|&a, &b| self.requests[a].sent.total_cmp(&self.requests[b].sent));
        coming.reverse();
        let mut book = Book::default();
        let mut serving: BTreeMap<SeqId, usize> = BTreeMap::new();
        let mut now = 0.0_f64;
        let (mut step, mut complete) = (Step::default(), Vec::new());
        while !(coming.is_empty() && serving.is_empty()) {
            if let (Some(&next), true) = (coming.last(), serving.is_empty()) {
                now = now.max(self.requests[next].sent + latency);
            }
            while let Some(&next) = coming.last() {
                if self.requests[next].sent + latency > now {
                    break;
                }
                coming.pop();
                let at = Fine::from_secs(self.requests[next].sent + latency);
                let seq = book.open(self.requests[next].call, at);
                engine.arrive(seq, &mut book).expect("it was served");
                serving.insert(seq, next);
            }
            step.clear();
            engine.plan(Fine::from_secs(now), &mut book, &mut step);
            let end = self.end(&step, &book, &serving, now);
            charge(&mut book, &step, Fine::from_secs(now), Fine::from_secs(end));
            complete.clear();
            engine.settle(&step, 1, &mut book, &mut complete);
            for &seq in &complete {
                let index = serving.remove(&seq).expect("whoever ends was served");
                cached[index] = book.close(seq, Fine::from_secs(end)).cached.0;
            }
            now = end;
        }
        cached
    }

    /// Returns when a step that began at `now` ended.
    fn end(&self, step: &Step, book: &Book, serving: &BTreeMap<SeqId, usize>, now: f64) -> f64 {
        let answered = |row: &Row| {
            let seq = book.seq(row.seq);
            let whole = row
                .chunk
                .is_none_or(|tokens| seq.computed + tokens == seq.known());
            let request = &self.requests[serving[&row.seq]];
            whole.then(|| request.at[seq.generated as usize])
        };
        let earliest = step.rows.iter().filter_map(answered).min_by(f64::total_cmp);
        // A step that only reads takes its share of the time until the prompt's first token.
        let reads = |row: &Row| {
            let seq = book.seq(row.seq);
            let share = row.chunk.unwrap_or(1) as f64 / (seq.known() - seq.computed) as f64;
            let first = self.requests[serving[&row.seq]].at[seq.generated as usize];
            now + (first - now).max(0.0) * share
        };
        let end = earliest.or_else(|| step.rows.iter().map(reads).min_by(f64::total_cmp));
        end.unwrap_or(now).max(now)
    }
}

/// Charges a step as the engine loop does.
fn charge(book: &mut Book, step: &Step, from: Fine, end: Fine) {
    let length = end - from;
    for row in &step.rows {
        book.charge_standing(row.seq, from);
        match row.chunk {
            Some(tokens) => book.charge_chunk(row.seq, tokens, length, length, end),
            None => book.charge_decode(row.seq, 1, length, length, end),
        }
    }
    for &seq in &step.standing {
        book.charge_standing(seq, end);
    }
}
