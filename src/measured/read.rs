//! Finds out which benchmark wrote a text, and reads its rows.

use super::{Format, Of, Read, Row, Unreadable, What, llama_bench, serving, tables};
use serde_json::Value;

/// A file while it is read.
#[derive(Debug)]
pub(super) struct Source<'t> {
    pub(super) name: &'t str,
    pub(super) text: &'t str,
}

/// Reads the measurements in `text`, whoever wrote it; `name` is for messages.
pub fn read(name: &str, text: &str) -> Result<Read, Unreadable> {
    let source = Source {
        name,
        text: text.trim_start_matches('\u{feff}'),
    };
    let read = if source.text.trim_start().starts_with(['{', '[']) {
        json(&source)?
    } else if let Some(read) = llama_bench::markdown(&source)? {
        read
    } else {
        match tables::csv(&source)? {
            Some(read) => read,
            None => return Err(source.unknown()),
        }
    };
    if read.rows.is_empty() {
        return Err(Unreadable::Empty {
            file: name.to_string(),
            title: read.format.title(),
            notes: read.notes,
        });
    }
    Ok(read)
}

/// Reads one document, or one on every line.
fn json(source: &Source<'_>) -> Result<Read, Unreadable> {
    if let Ok(whole) = serde_json::from_str::<Value>(source.text) {
        let documents = match &whole {
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        };
        let places = documents.iter().enumerate();
        let placed: Vec<(usize, &Value)> = places
            .map(|(nth, document)| (source.line_of_nth(document, nth), *document))
            .collect();
        return documents_of(source, &placed);
    }
    let mut values = Vec::new();
    for (line, text) in source.text.lines().enumerate() {
        let text = text.trim();
        // llama-batched-bench prints a line of its own before its JSON.
        if text.is_empty() || !text.starts_with('{') {
            continue;
        }
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let found = format!("this is not JSON ({error})");
            source.wrong(line + 1, found, "one JSON document, or one on every line")
        })?;
        values.push((line + 1, value));
    }
    let placed: Vec<(usize, &Value)> = values.iter().map(|(line, value)| (*line, value)).collect();
    documents_of(source, &placed)
}

fn documents_of(source: &Source<'_>, documents: &[(usize, &Value)]) -> Result<Read, Unreadable> {
    let Some((_, first)) = documents.first() else {
        return Err(source.unknown());
    };
    let has = |key: &str| first.get(key).is_some();
    if has("n_prompt") && has("n_gen") {
        llama_bench::objects(source, documents)
    } else if has("pl") && has("t_tg") {
        llama_bench::batched(source, documents)
    } else if first.get("schema").and_then(Value::as_str) == Some("laptime.result/1") {
        tables::result(source, documents)
    } else if has("benchmarks") {
        serving::guidellm(source, documents)
    } else if has("mean_ttft_ms") || has("mean_tpot_ms") {
        serving::vllm(source, documents)
    } else if has("inter_token_latency") || has("records") || has("time_to_first_token") {
        serving::aiperf(source, documents)
    } else if has("avg_latency") || has("tokens_per_second") {
        let found = "`vllm bench latency` and `throughput` do not write the sizes of their calls";
        Err(source.wrong(
            1,
            found.to_string(),
            "the output of `vllm bench serve --save-result`",
        ))
    } else {
        Err(source.unknown())
    }
}

impl Source<'_> {
    /// Returns a row that stands on this line; its sizes and time are to be filled in.
    pub(super) fn row(&self, line: usize, what: What, of: &Of) -> Row {
        Row {
            what,
            prompt: 0,
            depth: 0,
            answer: 0,
            sequences: 1,
            chunk: None,
            seconds: 0.0,
            of: of.clone(),
            file: self.name.to_string(),
            line,
        }
    }

    pub(super) fn wrong(&self, line: usize, found: String, expected: &str) -> Unreadable {
        Unreadable::Wrong {
            file: self.name.to_string(),
            line,
            found,
            expected: expected.to_string(),
        }
    }

    /// Returns a number that must be there and be above 0.
    pub(super) fn positive(&self, line: usize, from: &Value, key: &str) -> Result<f64, Unreadable> {
        let value = from.get(key);
        number(value).filter(|&number| number > 0.0).ok_or_else(|| {
            let found = value.map_or("nothing".to_string(), ToString::to_string);
            self.wrong(line, format!("`{key}` is {found}"), "a number above 0")
        })
    }

    /// Returns a count that must be there.
    pub(super) fn count(&self, line: usize, from: &Value, key: &str) -> Result<u64, Unreadable> {
        let value = from.get(key);
        let whole = number(value).filter(|number| *number >= 0.0 && number.fract() == 0.0);
        whole.map(|number| number as u64).ok_or_else(|| {
            let found = value.map_or("nothing".to_string(), ToString::to_string);
            self.wrong(line, format!("`{key}` is {found}"), "a whole number")
        })
    }

    fn unknown(&self) -> Unreadable {
        let start: String = self.text.trim_start().chars().take(40).collect();
        let start = start.lines().next().unwrap_or_default().trim().to_string();
        Unreadable::Unknown {
            file: self.name.to_string(),
            found: if start.is_empty() {
                "nothing in it".to_string()
            } else {
                format!("`{start}`")
            },
        }
    }

    /// Returns the line on which the nth document of a list begins: where the first of its keys stands.
    fn line_of_nth(&self, document: &Value, nth: usize) -> usize {
        let keys = document
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::keys);
        let first = keys
            .filter_map(|key| {
                let quoted = format!("\"{key}\"");
                self.text.match_indices(&quoted).nth(nth).map(|(at, _)| at)
            })
            .min();
        first.map_or(1, |at| self.line_at(at))
    }

    /// Returns the line of a place in the text.
    pub(super) fn line_at(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }
}

/// Returns a finite number, also where it is written as text.
pub(super) fn number(value: Option<&Value>) -> Option<f64> {
    let number = match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// Returns a text that is not empty.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// Puts together what a file held.
pub(super) fn read_of(format: Format, rows: Vec<Row>, notes: Vec<String>) -> Read {
    Read {
        format,
        rows,
        notes,
    }
}
