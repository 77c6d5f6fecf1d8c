//! Quantities with units: time, tokens, bytes, rates, power, money.
//!
//! A number that has a unit is one of these types, so that a bare `f64` or `u64` never crosses a module border with
//! its meaning left to the reader. Time is integer nanoseconds: sums are exact and the same on every machine. Only
//! arithmetic that makes sense is defined; a difference of two moments asserts their order.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub, SubAssign};

/// A moment on the simulated or measured clock, in nanoseconds since the replay began.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span(pub u64);

const NANOS_PER_SEC: f64 = 1e9;

impl Time {
    /// The moment at which a replay begins.
    pub const ZERO: Time = Time(0);

    /// Returns the time passed since `earlier`, or zero when `earlier` lies ahead.
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Returns the moment in seconds; exact to the nanosecond below 104 days when printed.
    pub fn secs(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// Returns the span of `secs` seconds, rounded to the nearest nanosecond.
    ///
    /// # Panics
    /// When `secs` is negative, not a number, or longer than 584 years.
    pub fn from_secs(secs: f64) -> Span {
        Span::try_from_secs(secs)
            .unwrap_or_else(|| panic!("a span must be finite and not negative, found {secs} s"))
    }

    /// Returns the span of `secs` seconds, or nothing when that is no span.
    pub fn try_from_secs(secs: f64) -> Option<Span> {
        let nanos = (secs * NANOS_PER_SEC).round();
        (nanos >= 0.0 && nanos < u64::MAX as f64).then_some(Span(nanos as u64))
    }

    /// Returns the span rounded up to a whole nanosecond: an engine step never ends early.
    pub fn ceil_from_secs(secs: f64) -> Span {
        assert!(
            secs >= 0.0 && secs < u64::MAX as f64 / NANOS_PER_SEC,
            "a step lasted {secs} s"
        );
        Span((secs * NANOS_PER_SEC).ceil() as u64)
    }

    /// Returns the span of `micros` microseconds.
    pub fn from_micros(micros: u64) -> Span {
        Span(micros.saturating_mul(1_000))
    }

    /// Returns the span in seconds.
    pub fn secs(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC
    }

    /// Returns the difference, or zero when `other` is longer.
    pub fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }

    /// Returns the span divided by a positive factor, rounded to the nearest nanosecond.
    pub fn scaled_down(self, factor: f64) -> Span {
        Span((self.0 as f64 / factor).round() as u64)
    }

    /// Reads "30s", "1.5m", "250ms", "2h" or a bare number of seconds.
    pub fn parse(text: &str) -> Result<Span, String> {
        let text = text.trim();
        let split = text
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let wrong = || format!("`{text}` is not a duration; write it as 250ms, 30s, 5m or 2h");
        let value: f64 = number.trim().parse().map_err(|_| wrong())?;
        let secs = match unit {
            "ns" => value / NANOS_PER_SEC,
            "us" => value / 1e6,
            "ms" => value / 1e3,
            "" | "s" => value,
            "m" | "min" => value * 60.0,
            "h" => value * 3600.0,
            "d" => value * 86_400.0,
            _ => return Err(wrong()),
        };
        Span::try_from_secs(secs).ok_or_else(wrong)
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(
            self.0
                .checked_add(span.0)
                .expect("simulated time passed 584 years"),
        )
    }
}

impl Sub for Time {
    type Output = Span;
    fn sub(self, earlier: Time) -> Span {
        assert!(
            self.0 >= earlier.0,
            "time ran backwards: {earlier:?} is after {self:?}"
        );
        Span(self.0 - earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

impl fmt::Display for Span {
    /// Prints three significant digits in the unit a person would choose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.secs();
        let text = if self.0 == 0 {
            "0 s".to_string()
        } else if secs < 1e-3 {
            format!("{} us", three_digits(secs * 1e6))
        } else if secs < 1.0 {
            format!("{} ms", three_digits(secs * 1e3))
        } else if secs < 60.0 {
            format!("{} s", three_digits(secs))
        } else if secs < 3600.0 {
            let whole = secs.round() as u64;
            format!("{}m {:02}s", whole / 60, whole % 60)
        } else {
            let minutes = (secs / 60.0).round() as u64;
            format!("{}h {:02}m", minutes / 60, minutes % 60)
        };
        f.pad(&text)
    }
}

/// Returns `value` with three significant digits and no exponent.
pub fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m >= 99.95 || m == 0.0 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Defines a whole-number quantity with the arithmetic that makes sense for it.
macro_rules! whole {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);

        impl $name {
            /// None at all.
            pub const ZERO: $name = $name(0);

            /// Returns the difference, or zero when `other` is larger.
            pub fn saturating_sub(self, other: $name) -> $name {
                $name(self.0.saturating_sub(other.0))
            }

            /// Returns the largest multiple of `unit` that is not above this.
            pub fn floor_to(self, unit: u64) -> $name {
                $name(self.0 / unit * unit)
            }

            /// Returns the quantity as a floating number, for rates and the cost model.
            pub fn as_f64(self) -> f64 {
                self.0 as f64
            }
        }
    };
}

whole! {
    /// A number of tokens.
    Tokens
}
whole! {
    /// A number of bytes.
    Bytes
}

/// Defines sums and differences for a quantity.
macro_rules! additive {
    ($($name:ident),*) => {$(
        impl Add for $name {
            type Output = $name;
            fn add(self, other: $name) -> $name { $name(self.0 + other.0) }
        }
        impl Sub for $name {
            type Output = $name;
            fn sub(self, other: $name) -> $name { $name(self.0 - other.0) }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: $name) { self.0 += other.0; }
        }
        impl SubAssign for $name {
            fn sub_assign(&mut self, other: $name) { self.0 -= other.0; }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = $name>>(parts: I) -> $name {
                parts.fold($name::default(), Add::add)
            }
        }
    )*};
}

/// Defines a real-valued quantity.
macro_rules! real {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, PartialOrd, Debug)]
        pub struct $name(pub f64);

        impl Mul<f64> for $name {
            type Output = $name;
            fn mul(self, factor: f64) -> $name { $name(self.0 * factor) }
        }
        impl Div<f64> for $name {
            type Output = $name;
            fn div(self, divisor: f64) -> $name { $name(self.0 / divisor) }
        }
    )*};
}

real! {
    /// Floating-point operations.
    Flops,
    /// Floating-point operations per second.
    FlopsPerSec,
    /// Bytes per second.
    BytesPerSec,
    /// Watts.
    Watts,
    /// Joules.
    Joules,
    /// US dollars.
    Money,
    /// US dollars for a kilowatt-hour.
    MoneyPerKwh,
    /// US dollars for a million tokens.
    MoneyPerMtok,
}

impl Watts {
    /// Returns the energy of drawing this for so long.
    pub fn over(self, span: Span) -> Joules {
        Joules(self.0 * span.secs())
    }
}

impl Joules {
    /// Returns the energy in watt-hours.
    pub fn watt_hours(self) -> f64 {
        self.0 / 3600.0
    }
}

impl MoneyPerKwh {
    /// Returns what this energy costs.
    pub fn of(self, energy: Joules) -> Money {
        Money(self.0 * energy.0 / 3.6e6)
    }
}

impl MoneyPerMtok {
    /// Returns what so many tokens cost.
    pub fn of(self, tokens: Tokens) -> Money {
        Money(self.0 * tokens.as_f64() / 1e6)
    }
}

additive!(Span, Tokens, Bytes, Flops, Watts, Joules, Money);

impl Bytes {
    /// Reads "24 GiB", "96GB", "512MiB" or a bare number of bytes.
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let text = text.trim();
        let split = text
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let wrong = || format!("`{text}` is not a size; write it as 24GiB, 96GB or 512MiB");
        let value: f64 = number.trim().parse().map_err(|_| wrong())?;
        let factor = match unit.trim() {
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return Err(wrong()),
        };
        let bytes = (value * factor).round();
        if bytes >= 0.0 && bytes < u64::MAX as f64 {
            Ok(Bytes(bytes as u64))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            b if b < 1 << 10 => return f.pad(&format!("{b} B")),
            b if b < 1 << 20 => (b as f64 / 1024.0, "KiB"),
            b if b < 1 << 30 => (b as f64 / 1_048_576.0, "MiB"),
            b => (b as f64 / 1_073_741_824.0, "GiB"),
        };
        f.pad(&format!("{} {unit}", three_digits(value)))
    }
}

impl fmt::Display for Tokens {
    /// Prints exact counts below ten thousand, else three significant digits with k, M or G.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            t if t < 10_000 => t.to_string(),
            t if t < 1_000_000 => format!("{}k", three_digits(t as f64 / 1e3)),
            t if t < 1_000_000_000 => format!("{}M", three_digits(t as f64 / 1e6)),
            t => format!("{}G", three_digits(t as f64 / 1e9)),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_the_units_people_type() {
        assert_eq!(Span::parse("250ms"), Ok(Span(250_000_000)));
        assert_eq!(Span::parse("30s"), Ok(Span(30_000_000_000)));
        assert_eq!(Span::parse("1.5m"), Ok(Span(90_000_000_000)));
        assert_eq!(Span::parse("60"), Ok(Span(60_000_000_000)));
        for wrong in ["", "s", "-1s", "5 parsecs", "nan", "1e30h"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        assert_eq!(Bytes::parse("24 GiB"), Ok(Bytes(25_769_803_776)));
        assert_eq!(Bytes::parse("96GB"), Ok(Bytes(96_000_000_000)));
        assert!(Bytes::parse("12 parsecs").is_err());
    }

    #[test]
    fn spans_print_in_the_unit_a_person_would_choose() {
        let shown = |nanos| Span(nanos).to_string();
        assert_eq!(shown(0), "0 s");
        assert_eq!(shown(1_500), "1.50 us");
        assert_eq!(shown(16_400_000), "16.4 ms");
        assert_eq!(shown(4_520_000_000), "4.52 s");
        assert_eq!(shown(798_400_000_000), "13m 18s");
        assert_eq!(shown(8_580_000_000_000), "2h 23m");
    }

    #[test]
    fn seconds_printed_from_nanoseconds_lose_nothing() {
        for nanos in [1, 999_999_999, 1_234_567_891, 86_400_000_000_001] {
            let text = Span(nanos).secs().to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let back: u64 = whole.parse::<u64>().unwrap() * 1_000_000_000
                + format!("{fraction:0<9}").parse::<u64>().unwrap();
            assert_eq!(back, nanos, "{text}");
        }
    }

    #[test]
    #[should_panic(expected = "time ran backwards")]
    fn a_difference_of_moments_asserts_their_order() {
        let _ = Time(1) - Time(2);
    }
}
