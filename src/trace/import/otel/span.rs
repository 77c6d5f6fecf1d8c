//! Spans as OTLP JSON has them, and where each stands among the others.

use super::MAX_DEPTH;
use rustc_hash::FxHashMap;
use serde_json::Value;

/// A span, as far as it matters.
pub(super) struct Span {
    trace: String,
    id: String,
    parent: String,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) failed: bool,
    pub(super) fields: FxHashMap<String, Value>,
    pub(super) place: String,
}

impl Span {
    pub(super) fn text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.fields.get(*key)?.as_str())
    }

    pub(super) fn count(&self, keys: &[&str]) -> Option<u64> {
        keys.iter().find_map(|key| match self.fields.get(*key)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64().or_else(|| {
                let real = value.as_f64().filter(|real| (0.0..9e15).contains(real));
                real.map(|real| real as u64)
            }),
        })
    }

    pub(super) fn operation(&self) -> &str {
        self.text(&["gen_ai.operation.name"]).unwrap_or("")
    }

    pub(super) fn input(&self) -> Option<u64> {
        self.count(&[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.usage.prompt_tokens",
        ])
        .filter(|&tokens| tokens > 0)
    }

    /// Agents and workflows count what their requests count again.
    pub(super) fn is_request(&self) -> bool {
        let whole = [
            "invoke_agent",
            "create_agent",
            "invoke_workflow",
            "execute_tool",
            "embeddings",
        ];
        !whole.contains(&self.operation()) && self.input().is_some()
    }

    pub(super) fn is_agent(&self) -> bool {
        self.operation() == "invoke_agent"
    }
}

/// Adds the spans of a batch.
pub(super) fn gather(batch: &Value, place: &str, spans: &mut Vec<Span>) {
    let get = |value: &Value, names: [&str; 2]| -> Vec<Value> {
        let found = names.iter().find_map(|name| value[*name].as_array());
        found.cloned().unwrap_or_default()
    };
    for resource in get(batch, ["resourceSpans", "resource_spans"]) {
        let mut scopes = get(&resource, ["scopeSpans", "scope_spans"]);
        scopes.extend(get(&resource, ["instrumentationLibrarySpans", ""]));
        for span in scopes.iter().flat_map(|scope| get(scope, ["spans", ""])) {
            let text = |names: [&str; 2]| {
                let found = names.iter().find_map(|name| span[*name].as_str());
                found.unwrap_or("").to_string()
            };
            let nanos = |names: [&str; 2]| {
                let found = names.iter().find_map(|name| match &span[*name] {
                    Value::String(text) => text.parse::<u64>().ok(),
                    value => value.as_u64(),
                });
                found.unwrap_or(0) / 1_000
            };
            let start_us = nanos(["startTimeUnixNano", "start_time_unix_nano"]);
            let mut fields = attributes(&span["attributes"]);
            // Older producers put the content into events.
            for event in span["events"].as_array().into_iter().flatten() {
                for (key, value) in attributes(&event["attributes"]) {
                    fields.entry(key).or_insert(value);
                }
            }
            spans.push(Span {
                trace: text(["traceId", "trace_id"]),
                id: text(["spanId", "span_id"]),
                parent: text(["parentSpanId", "parent_span_id"]),
                start_us,
                end_us: nanos(["endTimeUnixNano", "end_time_unix_nano"]).max(start_us),
                failed: span["status"]["code"] == 2
                    || span["status"]["code"] == "STATUS_CODE_ERROR",
                fields,
                place: place.to_string(),
            });
        }
    }
}

fn attributes(list: &Value) -> FxHashMap<String, Value> {
    let pairs = list.as_array().into_iter().flatten().filter_map(|pair| {
        let key = pair["key"].as_str()?;
        Some((key.to_string(), plain(&pair["value"], 0)))
    });
    pairs.collect()
}

/// Returns an attribute's value without its type.
fn plain(value: &Value, depth: usize) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        _ if depth > MAX_DEPTH => Value::Null,
        // 64-bit numbers are text in JSON.
        "intValue" => match inner {
            Value::String(text) => text.parse::<i64>().map_or(Value::Null, Value::from),
            other => other.clone(),
        },
        "arrayValue" => {
            let values = inner["values"].as_array().into_iter().flatten();
            Value::Array(values.map(|value| plain(value, depth + 1)).collect())
        }
        "kvlistValue" => {
            let values = inner["values"].as_array().into_iter().flatten();
            let pairs = values.filter_map(|pair| {
                Some((
                    pair["key"].as_str()?.to_string(),
                    plain(&pair["value"], depth + 1),
                ))
            });
            Value::Object(pairs.collect())
        }
        _ => inner.clone(),
    }
}

/// Where a span stands among the others.
pub(super) struct Forest {
    pub(super) spans: Vec<Span>,
    by_id: FxHashMap<(String, String), usize>,
}

impl Forest {
    /// Returns the spans by their names; how many came twice.
    pub(super) fn new(spans: Vec<Span>) -> (Forest, u64) {
        let mut by_id = FxHashMap::default();
        let mut twice = 0;
        let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            // Exporters that try again deliver a span twice.
            if !span.id.is_empty() {
                let key = (span.trace.clone(), span.id.clone());
                if by_id.contains_key(&key) {
                    twice += 1;
                    continue;
                }
                by_id.insert(key, kept.len());
            }
            kept.push(span);
        }
        (Forest { spans: kept, by_id }, twice)
    }

    fn parent(&self, at: usize) -> Option<usize> {
        let span = &self.spans[at];
        let key = (span.trace.clone(), span.parent.clone());
        self.by_id.get(&key).copied().filter(|&parent| parent != at)
    }

    /// Returns the agents around a span, the nearest first.
    pub(super) fn agents(&self, at: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut up = self.parent(at);
        for _ in 0..MAX_DEPTH {
            let Some(one) = up else { break };
            if self.spans[one].is_agent() {
                found.push(one);
            }
            up = self.parent(one);
        }
        found
    }

    /// Returns the conversation a span belongs to: its own, or that of a span around it, or the trace.
    pub(super) fn session(&self, at: usize) -> String {
        let mut up = Some(at);
        for _ in 0..MAX_DEPTH {
            let Some(one) = up else { break };
            let keys = ["gen_ai.conversation.id", "session.id", "gen_ai.thread.id"];
            if let Some(id) = self.spans[one].text(&keys) {
                return id.to_string();
            }
            up = self.parent(one);
        }
        self.spans[at].trace.clone()
    }
}
