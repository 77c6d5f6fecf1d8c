//! Moments as different programs write them: text with or without a zone, and numbers in any unit.

use super::mmbt::stamp_us;
use serde_json::Value;

/// Returns a moment written as text, in microseconds since 1970.
pub(super) fn text_us(text: &str) -> Option<u64> {
    stamp_us(text).and_then(|us| u64::try_from(us).ok())
}

/// Returns a moment in microseconds since 1970. Numbers are seconds, milliseconds, microseconds or nanoseconds, whichever
/// makes them lie between 1973 and 5138.
pub(super) fn moment_us(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => number_us(number),
            Err(_) => text_us(text),
        },
        Value::Number(number) => match number.as_u64() {
            // Beyond 2^53 a floating number would lose digits.
            Some(nanos) if nanos >= 100_000_000_000_000_000 => Some(nanos / 1_000),
            _ => number_us(number.as_f64()?),
        },
        _ => None,
    }
}

fn number_us(number: f64) -> Option<u64> {
    let scale = match number {
        n if !n.is_finite() || n < 0.0 => return None,
        n if n < 1e11 => 1e6,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1.0,
        _ => 1e-3,
    };
    let us = (number * scale).round();
    (us < 1e18).then_some(us as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_moment_in_every_notation_is_the_same() {
        let expected = Some(1_777_316_379_699_704);
        for value in [
            json!("2026-04-27T18:59:39.699704Z"),
            json!("2026-04-27 18:59:39.699704"),
            json!("2026-04-27T20:59:39.699704+02:00"),
            json!(1_777_316_379.699704),
            json!(1_777_316_379_699.704),
            json!(1_777_316_379_699_704_u64),
            json!(1_777_316_379_699_704_123_u64),
            json!("1777316379.699704"),
        ] {
            assert_eq!(moment_us(&value), expected, "{value}");
        }
        for value in [json!(-1), json!("soon"), json!(null), json!(1e300)] {
            assert_eq!(moment_us(&value), None, "{value}");
        }
    }
}
