//! llama.cpp's slots in the recorded order of launches and releases, whatever the steps between them.
//!
//! A slot's content changes for others only when a request takes it and when it lets go, so the order of those moments
//! is all that the cache depends on. The server's log has that order; without it, a launch is dated back from the first
//! token by the time the server says it read the prompt for, and a slot is released before it is taken again.

use super::{Run, Setup};
use laptime::rig::book::Book;
use laptime::rig::engine::llama_cpp::LlamaCpp;
use laptime::rig::engine::{Engine, Row, Step};
use laptime::rig::fine::Fine;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request takes a slot, or lets go of it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    Launch(usize),
    Release(usize),
}

impl Run {
    /// Returns what the simulated server has cached of each request in the recorded order.
    ///
    /// # Panics
    /// When the run is not one of llama.cpp.
    pub(super) fn in_order(&self) -> Vec<u64> {
        let Setup::LlamaCpp(settings) = self.setup else {
            panic!("{} has no slots", self.name)
        };
        let mut engine = LlamaCpp::new(settings, Arc::clone(&self.content));
        let mut cached = vec![0; self.requests.len()];
        let (mut book, mut serving) = (Book::default(), BTreeMap::new());
        for event in self.events() {
            match event {
                Event::Launch(index) => {
                    let seq = book.open(self.requests[index].call, Fine::ZERO);
                    engine.arrive(seq, &mut book).expect("it was served");
                    engine.plan(Fine::ZERO, &mut book, &mut Step::default());
                    serving.insert(index, seq);
                }
                Event::Release(index) => {
                    let seq = serving.remove(&index).expect("a request is released once");
                    finish(&mut engine, &mut book, seq);
                    cached[index] = book.close(seq, Fine::ZERO).cached.0;
                }
            }
        }
        cached
    }

    fn events(&self) -> Vec<Event> {
        let mut events: Vec<(f64, Event)> = Vec::new();
        let slots = self.requests.iter().filter_map(|request| request.slot);
        for slot in 0..=slots.max().unwrap_or(0) {
            let mut taken: Vec<usize> = (0..self.requests.len())
                .filter(|&index| self.requests[index].slot == Some(slot))
                .collect();
            // Neither stamp is exact, but of two requests of one slot the earlier one was sent and ended before.
            let middle = |index: usize| self.requests[index].sent + self.requests[index].end;
            taken.sort_by(|&a, &b| middle(a).total_cmp(&middle(b)));
            let places = |launch: bool| {
                let log = self.log.iter().enumerate();
                log.filter(move |(_, event)| **event == (launch, slot))
                    .map(|(place, _)| place as f64)
            };
            let (mut launches, mut releases): (Vec<f64>, Vec<f64>) =
                (places(true).collect(), places(false).collect());
            if self.log.is_empty() {
                launches = taken.iter().map(|&index| self.launched(index)).collect();
                let next = launches.iter().skip(1).copied().chain([f64::INFINITY]);
                let released = taken.iter().zip(next);
                releases = released
                    .map(|(&index, next)| self.requests[index].end.min(next))
                    .collect();
            }
            assert_eq!((launches.len(), releases.len()), (taken.len(), taken.len()));
            for (place, &index) in taken.iter().enumerate() {
                let released = releases[place];
                events.push((launches[place].min(released), Event::Launch(index)));
                events.push((released, Event::Release(index)));
            }
        }
        // Stable: a slot is released before it is taken again, and taken before it is released.
        events.sort_by(|a, b| a.0.total_cmp(&b.0));
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Returns when a request's slot was taken: as long before its first token as its prompt was read.
    fn launched(&self, index: usize) -> f64 {
        let request = &self.requests[index];
        request.at[0] - request.read.map_or(0.0, |(_, secs)| secs)
    }
}

/// Lets a request have its whole answer at once.
fn finish(engine: &mut LlamaCpp, book: &mut Book, seq: usize) {
    let mut complete = Vec::new();
    while complete.is_empty() {
        let (known, computed) = (book.seq(seq).known(), book.seq(seq).computed);
        let chunk = (!book.seq(seq).decoding()).then_some(known - computed);
        match chunk {
            Some(tokens) => book.charge_chunk(seq, tokens, Fine::ZERO, Fine::ZERO, Fine::ZERO),
            None => book.charge_decode(seq, 1, Fine::ZERO, Fine::ZERO, Fine::ZERO),
        }
        let step = Step {
            rows: vec![Row { seq, chunk }],
            ..Step::default()
        };
        engine.settle(&step, 1, book, &mut complete);
    }
}
