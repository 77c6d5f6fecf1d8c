//! Moments as different programs write them: text with or without a zone, and numbers in any unit.

use serde_json::Value;

/// Reads `2026-04-27T18:59:39.699704+00:00` as microseconds since 1970.
pub(super) fn stamp_us(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let sane = (1970..3000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !sane {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut fraction_us = 0;
    if let Some(digits) = rest.strip_prefix('.') {
        let end = digits.find(|c: char| !c.is_ascii_digit());
        let (digits, zone) = digits.split_at(end.unwrap_or(digits.len()));
        fraction_us = format!("{:0<6}", digits.get(..6).unwrap_or(digits))
            .parse()
            .ok()?;
        rest = zone;
    }
    let offset_min = match rest {
        "" | "Z" | "z" => 0,
        zone => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(3..)?.trim_start_matches(':').parse().unwrap_or(0);
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (hours * 60 + minutes.clamp(0, 59))
        }
    };
    // Days from civil, with the year beginning in March.
    let (y, m) = (year - i64::from(month <= 2), (month + 9) % 12);
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let secs = ((days * 24 + hour) * 60 + minute - offset_min) * 60 + second;
    Some(secs * 1_000_000 + fraction_us)
}

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
            json!(1_777_316_379.699_704),
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

    #[test]
    fn stamps_are_read_with_their_zone() {
        assert_eq!(stamp_us("1970-01-01T00:00:00+00:00"), Some(0));
        assert_eq!(stamp_us("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            stamp_us("2026-04-27T18:59:39.699704+00:00"),
            Some(1_777_316_379_699_704)
        );
        assert_eq!(
            stamp_us("2026-04-27T20:59:39.6997+02:00"),
            Some(1_777_316_379_699_700)
        );
        for wrong in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-04-27Tüü:59:39",
        ] {
            assert_eq!(stamp_us(wrong), None, "{wrong}");
        }
    }
}
