//! The thing an agent runs on: hardware x engine x model, in virtual time.
//!
//! [`Backend`] is the whole contract between a driver and whatever answers calls. Nothing here knows agents, traces as
//! files, or a clock.

pub mod book;
pub mod by_seq;
pub mod ceiling;
pub mod cost;
pub mod engine;
pub mod fine;
pub mod intake;
pub mod kv;
pub mod memory;
pub mod meter;
pub mod power;
pub mod recorded;
pub mod roofline;
pub mod speculation;
pub mod step;

use crate::call::{Call, Reply};
use crate::catalog::Price;
use crate::ids::CallId;
use crate::operating_point::OperatingPoint;
use crate::trace::content::Content;
use crate::units::{Time, Tokens};
use meter::{Busy, Heat, Limits};
use power::Draw;

/// Answers calls in virtual time.
///
/// A driver submits every call of a moment before it asks for the next event; work that can begin at that moment
/// begins when [`Backend::next_event`] is asked.
pub trait Backend {
    /// Takes in a call made at `now`.
    fn submit(&mut self, now: Time, call: Call);

    /// Returns the next moment at which a call may end, or nothing when no call is in flight.
    fn next_event(&mut self) -> Option<Time>;

    /// Tells it what limits its engine and how its machine slows under load, before the first call.
    fn equip(&mut self, _limits: Limits, _heat: Option<Heat>) {}

    /// Returns how long it was busy so far and with what, where that is known.
    fn busy(&self) -> Option<Busy> {
        None
    }

    /// Moves on to `now` and appends every reply that is complete by then, in order of their end, then of their call.
    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>);

    /// Returns what a server needs beside; nothing of a backend that only answers what was recorded.
    fn open(&mut self) -> Option<&mut dyn Open> {
        None
    }
}

/// What a server asks of a backend whose calls come from outside, one by one.
pub trait Open {
    /// Returns the tree that calls point into, to let it grow.
    fn content(&mut self) -> &mut Content;

    /// Has every token noted from now on.
    fn watch(&mut self);

    /// Appends what was written since the last time, in order of time.
    fn take_written(&mut self, written: &mut Vec<Written>);

    /// Ends a call whose caller has gone: at once if it was never admitted, else after the token being written.
    ///
    /// A prompt that is being read is read to its end.
    fn give_up(&mut self, now: Time, call: CallId);

    /// Returns how busy the backend is.
    fn load(&mut self) -> Load;
}

/// How long an answer is by when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Whose.
    pub call: CallId,
    /// When its latest token appeared.
    pub at: Time,
    /// How many tokens it has by then.
    pub tokens: u64,
}

/// How busy a backend is.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Load {
    /// Calls that are being served.
    pub running: usize,
    /// Calls that wait to be.
    pub waiting: usize,
    /// The share of the cache that calls under way hold, where it is one pool.
    pub used: Option<f64>,
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn submit(&mut self, now: Time, call: Call) {
        (**self).submit(now, call);
    }

    fn next_event(&mut self) -> Option<Time> {
        (**self).next_event()
    }

    fn equip(&mut self, limits: Limits, heat: Option<Heat>) {
        (**self).equip(limits, heat);
    }

    fn busy(&self) -> Option<Busy> {
        (**self).busy()
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        (**self).advance(now, replies);
    }

    fn open(&mut self) -> Option<&mut dyn Open> {
        (**self).open()
    }
}

/// What an engine's cache is able to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    /// Prefixes are found in whole units of so many tokens.
    pub granularity: Tokens,
    /// How many tokens fit, in all memory from which they can be reused; nothing when there is no end.
    pub capacity: Option<Tokens>,
}

/// A backend, and what its answers hold for.
pub struct Rig {
    /// What it is and how far it can be trusted.
    pub point: OperatingPoint,
    /// What its cache can hold, be it switched on or off; nothing where that is not known.
    pub cache: Option<CacheShape>,
    /// What it draws, where it is a machine of the catalogue.
    pub draw: Option<Draw>,
    /// What it costs, where that is known.
    pub price: Option<Price>,
    /// What answers.
    pub backend: Box<dyn Backend + Send>,
}
