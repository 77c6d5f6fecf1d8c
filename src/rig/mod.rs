//! The thing an agent runs on: hardware x engine x model, in virtual time.
//!
//! [`Backend`] is the whole contract between a driver and whatever answers calls. Nothing here knows agents, traces as
//! files, or a clock.

pub mod book;
pub mod ceiling;
pub mod cost;
pub mod engine;
pub mod fine;
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
use crate::operating_point::OperatingPoint;
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
