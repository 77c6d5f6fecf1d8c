//! The driver in virtual time: turns a fleet and a backend against each other until both are at rest.
//!
//! It holds no policy. At equal times the backend moves before the fleet, and every call of a moment is submitted
//! before the backend is asked for its next event.

use crate::event::Sink;
use crate::fleet::Fleet;
use crate::rig::Backend;
use crate::units::Time;

/// Replays the fleet on the backend to its end.
///
/// # Panics
/// When the backend is at rest while calls are still in flight: a rig with work never idles.
pub fn run(fleet: &mut Fleet<'_>, backend: &mut impl Backend, sink: &mut impl Sink) {
    let (mut calls, mut replies) = (Vec::new(), Vec::new());
    let mut now = Time::ZERO;
    loop {
        fleet.advance(now, &mut calls, sink);
        for call in calls.drain(..) {
            backend.submit(now, call);
        }
        let next = match (fleet.next_wake(), backend.next_event()) {
            (Some(wake), Some(event)) => wake.min(event),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => break,
        };
        assert!(next >= now, "time ran backwards from {now:?} to {next:?}");
        now = next;
        backend.advance(now, &mut replies);
        for reply in replies.drain(..) {
            fleet.deliver(now, reply, sink);
        }
    }
    assert_eq!(
        fleet.calls_in_flight(),
        0,
        "the backend is at rest with calls in flight"
    );
}
