//! Engine time: whole fractions of a nanosecond.
//!
//! Step costs are rounded to this grid once, as coefficients. From then on everything is integer arithmetic, so k
//! coalesced decode steps take exactly as long as k steps walked one by one, wherever the run is cut. What leaves the
//! rig is rounded up to whole nanoseconds.

use crate::units::{Span, Time};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};

/// Binary digits below the nanosecond.
const FRACTION_BITS: u32 = 20;
const PER_NANO: u128 = 1 << FRACTION_BITS;

/// A moment or length of engine time, in units of 2^-20 ns.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fine(pub u128);

impl Fine {
    /// None at all.
    pub const ZERO: Fine = Fine(0);

    /// Returns the nearest multiple of the grid to `secs` seconds.
    ///
    /// # Panics
    /// When `secs` is negative, not a number, or longer than a thousand years.
    pub fn from_secs(secs: f64) -> Fine {
        assert!(
            (0.0..3e10).contains(&secs),
            "a cost of {secs} s makes no sense"
        );
        Fine((secs * 1e9 * PER_NANO as f64).round() as u128)
    }

    /// Returns the moment in engine time.
    pub fn at(time: Time) -> Fine {
        Fine(u128::from(time.0) << FRACTION_BITS)
    }

    /// Returns the first whole nanosecond that is not before this moment.
    pub fn time(self) -> Time {
        Time(self.0.div_ceil(PER_NANO) as u64)
    }

    /// Returns the whole nanoseconds below this length.
    pub fn floor_span(self) -> Span {
        Span((self.0 >> FRACTION_BITS) as u64)
    }

    /// Returns the part below a nanosecond.
    pub fn remainder(self) -> u128 {
        self.0 & (PER_NANO - 1)
    }

    /// Returns the difference, or none when `other` is longer.
    #[must_use]
    pub fn saturating_sub(self, other: Fine) -> Fine {
        Fine(self.0.saturating_sub(other.0))
    }

    /// Returns the length in seconds.
    pub fn secs(self) -> f64 {
        self.0 as f64 / (1e9 * PER_NANO as f64)
    }
}

impl Add for Fine {
    type Output = Fine;
    fn add(self, other: Fine) -> Fine {
        Fine(self.0 + other.0)
    }
}

impl AddAssign for Fine {
    fn add_assign(&mut self, other: Fine) {
        self.0 += other.0;
    }
}

impl Sub for Fine {
    type Output = Fine;
    fn sub(self, other: Fine) -> Fine {
        Fine(self.0 - other.0)
    }
}

impl Mul<u64> for Fine {
    type Output = Fine;
    fn mul(self, times: u64) -> Fine {
        Fine(self.0 * u128::from(times))
    }
}

impl Sum for Fine {
    fn sum<I: Iterator<Item = Fine>>(parts: I) -> Fine {
        parts.fold(Fine::ZERO, Add::add)
    }
}
