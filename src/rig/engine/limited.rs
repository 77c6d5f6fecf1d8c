//! An engine behind a queue of limited length, as Ollama has one before its llama-server.

use super::{Engine, Row, Step};
use crate::call::Outcome;
use crate::rig::book::{Book, SeqId};
use crate::rig::cost::Graph;
use crate::rig::fine::Fine;
use crate::trace::content::Content;
use std::sync::Arc;

/// An engine that turns requests away when too many have come in.
#[derive(Clone, Debug)]
pub struct Limited<E> {
    engine: E,
    /// Requests that are served or wait at the same time.
    most: u64,
}

impl<E: Engine> Limited<E> {
    /// Returns the engine with `most` requests taken in at the same time.
    pub fn new(engine: E, most: u64) -> Limited<E> {
        Limited { engine, most }
    }
}

impl<E: Engine> Engine for Limited<E> {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        if book.len() as u64 > self.most {
            return Err(Outcome::Unavailable);
        }
        self.engine.arrive(seq, book)
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        self.engine.plan(at, book, step);
    }

    fn one_pass(&self) -> bool {
        self.engine.one_pass()
    }

    fn graphs(&self, rows: &[Row], book: &Book, graphs: &mut Vec<Graph>) {
        self.engine.graphs(rows, book, graphs);
    }

    fn settle(&mut self, step: &Step, times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        self.engine.settle(step, times, book, complete);
    }

    fn content(&mut self) -> &mut Arc<Content> {
        self.engine.content()
    }

    fn withdraw(&mut self, seq: SeqId) -> bool {
        self.engine.withdraw(seq)
    }

    fn used(&self) -> Option<f64> {
        self.engine.used()
    }

    fn check(&self, book: &Book) {
        self.engine.check(book);
    }
}
