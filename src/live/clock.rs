//! Real time as the core wants it: nanoseconds since the replay began, on a clock that never goes back.

use crate::units::Time;
use std::time::Duration;

#[expect(
    clippy::disallowed_types,
    reason = "this is the one clock of a live replay; everything else is told the time"
)]
type Instant = std::time::Instant;

/// A clock that began with the replay.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Returns a clock that begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Returns the moment it is.
    pub fn now(self) -> Time {
        Time(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns when `at` comes, for those who wait for it.
    pub fn instant(self, at: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + Duration::from_nanos(at.0))
    }
}
