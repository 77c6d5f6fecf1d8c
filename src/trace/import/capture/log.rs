//! Where captures keep their requests: HAR entries, claude-trace lines, and lines of request logs by their usual names.

use super::super::lenient::{List, Num, Text};
use super::super::stamp;
use super::Exchange;
use super::api::{self, Answered};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A HAR document, as far as it matters.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Har {
    log: HarLog,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HarLog {
    entries: List<HarEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct HarEntry {
    started_date_time: Text,
    time: Num,
    timings: Timings,
    request: HarRequest,
    response: HarResponse,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Timings {
    blocked: Num,
    dns: Num,
    connect: Num,
    send: Num,
    wait: Num,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct HarRequest {
    headers: List<Header>,
    post_data: Content,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HarResponse {
    status: Num,
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Content {
    text: Text,
    encoding: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Header {
    name: Text,
    value: Text,
}

/// Headers in which clients name their session.
const SESSION_HEADERS: [&str; 4] = [
    "x-claude-code-session-id",
    "x-session-id",
    "session_id",
    "session-id",
];

impl Har {
    /// Calls `take` with each entry's exchange, where it is a request to a model with an answer.
    pub(super) fn each(self, mut take: impl FnMut(Option<Exchange>)) {
        for (index, entry) in self.log.entries.0.into_iter().enumerate() {
            let place = format!("entry {}", index + 1);
            take(entry.exchange(&place));
        }
    }
}

impl HarEntry {
    fn exchange(self, place: &str) -> Option<Exchange> {
        let body: Value = serde_json::from_str(&self.request.post_data.text.0?).ok()?;
        let body = body.as_object().filter(|body| api::is_request(body))?;
        if self
            .response
            .status
            .count()
            .is_some_and(|status| status >= 400)
        {
            return None;
        }
        let answer = self.response.content.text.0?;
        let answer = if self.response.content.encoding.0.as_deref() == Some("base64") {
            String::from_utf8(base64(&answer)?).ok()?
        } else {
            answer
        };
        let answered = answer_of(&Value::String(answer))?;
        let start_us = self.started_date_time.0.as_deref().and_then(stamp::text_us);
        let micros = |num: Num| num.real().and_then(|ms| super::super::micros(ms / 1e3));
        let waited = [
            self.timings.blocked,
            self.timings.dns,
            self.timings.connect,
            self.timings.send,
            self.timings.wait,
        ];
        // A phase that did not happen is -1.
        let first = self.timings.wait.real().map(|_| {
            let spans = waited.iter().filter_map(|&span| micros(span));
            spans.fold(0, u64::saturating_add)
        });
        let header = |header: &Header| {
            let name = header.name.0.as_deref()?.to_ascii_lowercase();
            SESSION_HEADERS
                .contains(&name.as_str())
                .then(|| header.value.0.clone())?
        };
        Some(Exchange {
            start_us,
            end_us: start_us
                .zip(micros(self.time))
                .map(|(start, took)| start.saturating_add(took)),
            first_token_us: first,
            session: self.request.headers.0.iter().find_map(header),
            asked: api::request(body),
            answered,
            place: place.to_string(),
        })
    }
}

/// Reads base64, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
    {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// Returns whether a document is a HAR file.
pub(in super::super) fn is_har(object: &Map<String, Value>) -> bool {
    object
        .get("log")
        .is_some_and(|log| log["entries"].is_array())
}

/// Returns whether a line holds a request to a model.
pub(in super::super) fn is_line(object: &Map<String, Value>) -> bool {
    body_of(object).is_some() && (answer_in(object).is_some() || object.contains_key("response"))
}

/// Returns the request of a line.
fn body_of(object: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let within = |key: &str| object.get(key).and_then(Value::as_object);
    let request = within("request");
    let nested = request
        .and_then(|request| request.get("body"))
        .and_then(Value::as_object);
    [
        nested,
        request,
        within("request_body"),
        within("body"),
        within("kwargs"),
        Some(object),
    ]
    .into_iter()
    .flatten()
    .find(|body| api::is_request(body))
}

fn answer_in(object: &Map<String, Value>) -> Option<&Value> {
    let response = object
        .get("response")
        .filter(|response| !response.is_null());
    let nested = response.and_then(|response| {
        let keys = ["body", "body_raw"];
        keys.iter()
            .find_map(|key| response.get(key).filter(|body| !body.is_null()))
    });
    nested
        .or_else(|| object.get("response_body"))
        .or(response)
        .filter(|answer| answer.is_object() || answer.is_string() || answer.is_array())
}

/// Returns an answer that says something or was counted.
fn answer_of(body: &Value) -> Option<Answered> {
    let answered = api::response(body);
    (answered.usage.output.is_some() || !answered.said.is_empty()).then_some(answered)
}

/// Reads a line: nothing where it is no request, an error where the request was not answered.
pub(super) fn exchange(object: &Map<String, Value>, place: &str) -> Option<Result<Exchange, ()>> {
    let body = body_of(object)?;
    let Some(mut answered) = answer_in(object).and_then(answer_of) else {
        return Some(Err(()));
    };
    // Gateways count beside the answer.
    let outside = |key: &str| object.get(key).and_then(Value::as_u64);
    let usage = &mut answered.usage;
    usage.prompt = usage
        .prompt
        .or_else(|| outside("prompt_tokens"))
        .filter(|&tokens| tokens > 0);
    usage.output = usage.output.or_else(|| outside("completion_tokens"));
    let times = times(object);
    let named = ["session_id", "sessionId", "conversation_id"];
    let named = named.iter().find_map(|key| object.get(*key)?.as_str());
    let header = |(name, value): (&String, &Value)| {
        let name = name.to_ascii_lowercase();
        SESSION_HEADERS
            .contains(&name.as_str())
            .then(|| value.as_str().map(str::to_string))?
    };
    let headers = object
        .get("request")
        .and_then(|request| request.get("headers"));
    let headers = headers.and_then(Value::as_object);
    Some(Ok(Exchange {
        start_us: times.0,
        end_us: times.1,
        first_token_us: times.2,
        session: named
            .map(str::to_string)
            .or_else(|| headers?.iter().find_map(header)),
        asked: api::request(body),
        answered,
        place: place.to_string(),
    }))
}

/// Returns when a line's request began and ended, and how long after its beginning the first token came.
fn times(object: &Map<String, Value>) -> (Option<u64>, Option<u64>, Option<u64>) {
    let part = |name: &str, key: &str| object.get(name).and_then(|part| part.get(key));
    let moment = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| object.get(*key).and_then(stamp::moment_us))
    };
    let span = |keys: &[(&str, f64)]| {
        keys.iter().find_map(|(key, unit)| {
            let value = object.get(*key).or_else(|| part("response", key))?;
            super::super::micros(value.as_f64()? * unit)
        })
    };
    let lasted = span(&[
        ("latency_sec", 1.0),
        ("latency_s", 1.0),
        ("duration_s", 1.0),
        ("response_time", 1.0),
        ("latency_ms", 1e-3),
        ("duration_ms", 1e-3),
        ("delay_ms", 1e-3),
        ("responseTime", 1e-3),
    ]);
    let began = part("request", "timestamp").and_then(stamp::moment_us);
    let ended = part("response", "timestamp")
        .or_else(|| part("response", "completedAt"))
        .and_then(stamp::moment_us);
    let mut start = began.or_else(|| {
        moment(&[
            "startTime",
            "start_time",
            "started_at",
            "request_created_at",
        ])
    });
    let mut end =
        ended.or_else(|| moment(&["endTime", "end_time", "ended_at", "response_created_at"]));
    let single = moment(&["timestamp", "ts", "created_at", "time"]);
    // Logs that tell the latency in seconds stamp the end, as the OpenHands SDK does; the others stamp the beginning.
    if start.is_none() && end.is_none() {
        if object.contains_key("latency_sec") {
            end = single;
        } else {
            start = single;
        }
    }
    start = start.or_else(|| end.zip(lasted).map(|(end, took)| end.saturating_sub(took)));
    end = end.or_else(|| {
        start
            .zip(lasted)
            .map(|(start, took)| start.saturating_add(took))
    });
    end = end.map(|end| end.max(start.unwrap_or(end)));
    let first = moment(&["completionStartTime", "completion_start_time"]);
    let first = first
        .zip(start)
        .and_then(|(first, start)| first.checked_sub(start));
    let first = first.or_else(|| {
        span(&[
            ("ttft_s", 1.0),
            ("ttft_ms", 1e-3),
            ("time_to_first_token", 1e-3),
        ])
    });
    (start, end, first)
}
