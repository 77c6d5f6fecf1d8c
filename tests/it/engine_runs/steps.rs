//! vLLM's cache in the noted order of steps: who came in before which step, and who took part in it.
//!
//! The scheduler itself noted who takes part in each step. A request comes in just before the first step that has it;
//! the simulated engine then plans as many steps as the real one did, and has to come to the same ones.

use super::{Run, Setup};
use laptime::rig::book::{Book, SeqId};
use laptime::rig::engine::vllm::{Settings, Vllm};
use laptime::rig::engine::{Engine, Step};
use laptime::rig::fine::Fine;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Run {
    /// Returns what the simulated engine has cached of each request when they come in as the scheduler noted.
    ///
    /// # Panics
    /// When the run is not one of vLLM, or a request is never served.
    pub(super) fn in_noted_steps(&self) -> Vec<u64> {
        let Setup::Vllm(settings) = self.setup else {
            panic!("{} has no steps", self.name)
        };
        // Steps are planned one ahead; what was noted is when they were planned.
        let settings = Settings {
            async_scheduling: false,
            ..settings
        };
        let mut engine = <Vllm>::new(settings, Arc::clone(&self.content));
        let mut cached = vec![0; self.requests.len()];
        let mut book = Book::default();
        let mut serving: BTreeMap<SeqId, usize> = BTreeMap::new();
        let mut come = BTreeSet::new();
        let (mut step, mut complete) = (Step::default(), Vec::new());
        let noted = self.steps.iter().map(Vec::as_slice);
        for rows in noted.chain(std::iter::repeat(&[][..])) {
            for &index in rows {
                if come.insert(index) {
                    let seq = book.open(self.requests[index].call, Fine::ZERO);
                    engine.arrive(seq, &mut book).expect("it was served");
                    serving.insert(seq, index);
                }
            }
            if serving.is_empty() {
                if come.len() == self.requests.len() {
                    break;
                }
                continue;
            }
            step.clear();
            engine.plan(Fine::ZERO, &mut book, &mut step);
            for row in &step.rows {
                match row.chunk {
                    Some(tokens) => {
                        book.charge_chunk(row.seq, tokens, Fine::ZERO, Fine::ZERO, Fine::ZERO);
                    }
                    None => book.charge_decode(row.seq, 1, Fine::ZERO, Fine::ZERO, Fine::ZERO),
                }
            }
            complete.clear();
            engine.settle(&step, 1, &mut book, &mut complete);
            for &seq in &complete {
                let index = serving.remove(&seq).expect("whoever ends was served");
                cached[index] = book.close(seq, Fine::ZERO).cached.0;
            }
        }
        cached
    }
}
