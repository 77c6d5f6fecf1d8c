//! Reading JSON whose shape is somebody else's: a field of the wrong kind is as good as none.

use super::super::super::error::TraceError;
use super::super::super::input::Input;
use super::super::stamp::stamp_us;
use super::super::{Feed, parse_error, read_document};
use serde_json::Value;

/// No count of tokens or characters is believed beyond this.
const MAX_COUNT: u64 = 1 << 31;
/// No moment lies beyond the year 3000.
const MAX_US: f64 = 32_503_680_000e6;

static NOTHING: Value = Value::Null;

/// Returns what stands at the end of a path of keys, or null.
pub(in crate::trace::import) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    let found = path.iter().try_fold(value, |value, key| value.get(key));
    found.unwrap_or(&NOTHING)
}

/// Returns a field that holds text.
pub(in crate::trace::import) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Returns a field that holds text which is not empty.
pub(in crate::trace::import) fn name(value: &Value, key: &str) -> Option<String> {
    text(value, key)
        .filter(|text| !text.is_empty())
        .map(|text| text.chars().take(200).collect())
}

/// Returns a field that holds a believable count.
pub(in crate::trace::import) fn count(value: &Value, key: &str) -> Option<u64> {
    let field = value.get(key)?;
    let whole = field.as_u64().or_else(|| {
        let real = field.as_f64()?;
        (real.fract() == 0.0 && (0.0..MAX_COUNT as f64).contains(&real)).then_some(real as u64)
    });
    whole.filter(|&whole| whole <= MAX_COUNT)
}

/// Returns the first of several fields that holds a count.
pub(in crate::trace::import) fn either(value: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| count(value, key))
}

/// Returns a field that holds a finite number.
pub(in crate::trace::import) fn real(value: &Value, key: &str) -> Option<f64> {
    let field = value.get(key).and_then(Value::as_f64);
    field.filter(|real| real.is_finite())
}

/// Returns whether a field is true.
pub(in crate::trace::import) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Returns a field's items, none where it is no list.
pub(in crate::trace::import) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Returns a moment in microseconds since 1970: text, or seconds, milliseconds, microseconds or nanoseconds by size.
pub(in crate::trace::import) fn moment(value: &Value) -> Option<i64> {
    if let Some(text) = value.as_str() {
        return stamp_us(&text.replacen(' ', "T", 1));
    }
    let number = value.as_f64().filter(|number| *number > 0.0)?;
    let micros = match number {
        n if n < 1e11 => n * 1e6,
        n if n < 1e14 => n * 1e3,
        n if n < 1e17 => n,
        n => n / 1e3,
    };
    (micros < MAX_US).then_some(micros.round() as i64)
}

/// Returns the moment in a field.
pub(in crate::trace::import) fn stamp(value: &Value, key: &str) -> Option<i64> {
    moment(at(value, &[key]))
}

/// Reads a file of one object a line; what cannot be read or used is a problem with its line.
pub(in crate::trace::import) fn each_line(
    input: &Input,
    feed: &mut Feed<'_>,
    mut take: impl FnMut(&mut Feed<'_>, u64, &Value) -> Result<(), String>,
) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let value = match line {
            Ok(line) => serde_json::from_slice::<Value>(line).map_err(|error| parse_error(&error)),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let number = lines.number;
        if let Err(why) = value.and_then(|value| take(feed, number, &value)) {
            feed.problem(&format!("line {number}"), &why);
        }
    }
    Ok(())
}

/// Reads a file that is one document, or several in a row; returns those before the first damage.
pub(in crate::trace::import) fn documents(
    input: &Input,
    feed: &mut Feed<'_>,
) -> Result<Vec<Value>, TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut reader = input.open().map_err(io)?;
    let (bytes, broken) = read_document(reader.as_mut());
    if let Some(error) = broken {
        feed.problem("the end", &format!("cannot be read: {error}"));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(&bytes);
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter() {
        match value {
            Ok(value) => found.push(value),
            Err(error) => {
                feed.problem(&format!("line {}", error.line()), &parse_error(&error));
                break;
            }
        }
    }
    Ok(found)
}

/// Reads a file beside the one that was named; nothing where it cannot be read.
pub(in crate::trace::import) fn beside(path: &std::path::Path) -> Option<Value> {
    let input = Input::new(path, false).ok()?;
    let (bytes, _) = read_document(input.open().ok()?.as_mut());
    serde_json::from_slice(&bytes).ok()
}
