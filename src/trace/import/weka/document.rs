//! The JSON of a session: read without failing on fields of the wrong kind, and kept as far as it goes when cut short.

use super::super::lenient::{Ids, List, Num, Text};
use super::{Clock, ROUNDING_S};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One session.
#[derive(Default)]
pub(super) struct Document {
    pub(super) id: Text,
    pub(super) block_size: Num,
    pub(super) tool_tokens: Num,
    pub(super) system_tokens: Num,
    pub(super) models: List<Text>,
    pub(super) requests: Vec<Entry>,
}

/// A request, or a sub-agent with requests of its own.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Entry {
    pub(super) t: Num,
    #[serde(rename = "type")]
    kind: Text,
    pub(super) model: Text,
    #[serde(rename = "in")]
    pub(super) tokens: Num,
    #[serde(rename = "out")]
    pub(super) output: Num,
    pub(super) hash_ids: Ids,
    pub(super) input_types: List<Text>,
    pub(super) stop: Text,
    api_time: Num,
    pub(super) think_time: Num,
    pub(super) ttft: Num,
    pub(super) agent_id: Text,
    pub(super) subagent_type: Text,
    pub(super) status: Text,
    duration_ms: Num,
    pub(super) models: List<Text>,
    pub(super) tool_tokens: Num,
    pub(super) system_tokens: Num,
    #[serde(deserialize_with = "entries")]
    pub(super) requests: Vec<Entry>,
}

impl Entry {
    /// Returns whether this is a sub-agent rather than a request.
    pub(super) fn is_agent(&self) -> bool {
        self.kind.0.as_deref() == Some("subagent") || !self.requests.is_empty()
    }

    /// Returns how long the model took, where that is known.
    pub(super) fn model_s(&self) -> Option<f64> {
        self.api_time
            .real()
            .filter(|&secs| (0.0..1e9).contains(&secs))
    }

    /// Returns a sub-agent's clock and its start on the session's clock.
    ///
    /// The moment of one that completed is its end. Some files give a sub-agent's requests moments of the session
    /// instead of moments since its start: then the first of them lies near the sub-agent's own moment.
    pub(super) fn begins(&self, parent: Clock) -> (Clock, f64) {
        let marker = self.t.real().unwrap_or(0.0) + parent.origin_s;
        let launched = self.status.0.as_deref() == Some("async_launched");
        let lasted = self.duration_ms.real().filter(|&ms| ms >= 0.0 && !launched);
        let start = (marker - lasted.unwrap_or(0.0) / 1e3).max(parent.origin_s);
        let inner = self
            .requests
            .iter()
            .find_map(|request| request.t.real())
            .unwrap_or(0.0);
        let near = (inner - start).abs().min((inner - marker).abs());
        if inner > ROUNDING_S && near < inner {
            (Clock { origin_s: 0.0 }, inner)
        } else {
            (Clock { origin_s: start }, start + inner.max(0.0))
        }
    }

    /// Returns when the last of a sub-agent's requests was answered.
    pub(super) fn last_end_s(&self, origin_s: f64) -> f64 {
        let end =
            |request: &Entry| Some(origin_s + request.t.real()? + request.model_s().unwrap_or(0.0));
        self.requests
            .iter()
            .filter_map(end)
            .fold(origin_s, f64::max)
    }
}

/// Reads a list of entries; anything else is an empty list.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    List::<Entry>::deserialize(deserializer).map(|list| list.0)
}

/// Calls `take` for each document in `bytes`: its number, its place, its content, and what is wrong with it.
pub(super) fn each(bytes: &[u8], mut take: impl FnMut(u64, String, Document, Option<String>)) {
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    for number in 1.. {
        if deserializer.end().is_ok() {
            return;
        }
        let mut document = Document::default();
        let read = Fill(&mut document).deserialize(&mut deserializer);
        match read {
            Ok(()) => take(number, format!("document {number}"), document, None),
            Err(error) => {
                // What was read before the damage is used.
                let place = format!("line {}", error.line());
                let why = format!(
                    "{}; what follows was left out",
                    super::super::parse_error(&error)
                );
                take(number, place, document, Some(why));
                return;
            }
        }
    }
}

/// Reads into a document, so that what came before an error stays.
struct Fill<'a>(&'a mut Document);

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a session")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let document = self.0;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => document.id = map.next_value()?,
                "block_size" => document.block_size = map.next_value()?,
                "tool_tokens" => document.tool_tokens = map.next_value()?,
                "system_tokens" => document.system_tokens = map.next_value()?,
                "models" => document.models = map.next_value()?,
                "requests" => map.next_value_seed(FillRequests(&mut document.requests))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct FillRequests<'a>(&'a mut Vec<Entry>);

impl<'de> DeserializeSeed<'de> for FillRequests<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FillRequests<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(entry) = seq.next_element()? {
            self.0.push(entry);
        }
        Ok(())
    }
}
