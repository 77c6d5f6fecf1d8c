//! Moments as text: ISO 8601, with or without a fraction and a zone.

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

#[cfg(test)]
mod tests {
    use super::*;

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
