//! `OpenHands` completion logs: one call a file, with the whole request, the response, and how long it took.
//!
//! The files of a folder are read together. Calls that begin with the same messages are one session; the time between
//! an answer and the next request is tools and client together, which these files do not tell apart.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, How, Part, Talk, Tool};
use super::json::{at, beside, documents, list, moment, name, real, text};
use super::lists::{self, Path};
use super::notes::Notes;
use super::write;
use serde_json::Value;
use std::path::PathBuf;

/// Reads a completion and, where its folder was asked for, the others in it.
pub(super) fn read(
    input: &Input,
    with: &[PathBuf],
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "requests and answers are whole, and model times are measured; what came between two calls (tools, client) is one \
         wait of unknown cause; first-token times are not recorded",
    );
    let mut exchanges: Vec<Exchange> = Vec::new();
    for document in documents(input, feed)? {
        exchanges.extend(Exchange::new(&document));
    }
    for path in with {
        exchanges.extend(beside(path).and_then(|document| Exchange::new(&document)));
    }
    exchanges.sort_by_key(|exchange| exchange.end_us);
    let stem = if with.is_empty() {
        file_stem(&input.path)
    } else {
        let folder = input.path.parent().and_then(std::path::Path::file_name);
        folder.map_or_else(
            || file_stem(&input.path),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let mut sessions: Vec<(u64, Talk, Path)> = Vec::new();
    for exchange in exchanges {
        let key = exchange.begins();
        let at = sessions.iter().position(|(known, ..)| *known == key);
        let at = at.unwrap_or_else(|| {
            let id = match sessions.len() {
                0 => stem.clone(),
                more => format!("{stem}#{}", more + 1),
            };
            let mut talk = Talk::new(&id);
            talk.main().complete = true;
            talk.model.clone_from(&exchange.call.model);
            talk.resumed = exchange.parts.iter().any(|(_, assistant)| *assistant);
            sessions.push((key, talk, Path::default()));
            sessions.len() - 1
        });
        let (_, talk, path) = &mut sessions[at];
        let main = talk.main();
        path.prompt(main, &exchange.parts, exchange.call.sent_us);
        main.call(exchange.call);
        path.answered(main);
    }
    for (_, mut talk, _) in sessions {
        write::talk(feed, notes, "openhands-completions", &mut talk);
    }
    Ok(())
}

/// One request with its response.
struct Exchange {
    parts: Vec<(Part, bool)>,
    call: Call,
    end_us: Option<i64>,
}

impl Exchange {
    fn new(document: &Value) -> Option<Exchange> {
        let response = document.get("response")?;
        // Where the client talks a dialect of its own, the raw messages are what was sent.
        let raw = list(document, "raw_messages");
        let messages = if raw.is_empty() {
            list(document, "messages")
        } else {
            raw
        };
        let tools = document.get("tools").filter(|_| raw.is_empty());
        let tools = tools.filter(|tools| tools.as_array().is_some_and(|list| !list.is_empty()));
        let mut parts: Vec<(Part, bool)> = Vec::new();
        parts.extend(tools.map(|tools| (Part::body("tools", tools), false)));
        parts.extend(messages.iter().map(|message| {
            let assistant = text(message, "role") == Some("assistant");
            (lists::part(message), assistant)
        }));
        let end_us = moment(at(document, &["timestamp"]));
        let micros = real(document, "latency_sec").and_then(super::super::micros);
        let choice = list(response, "choices").first();
        let message = choice.map_or(&Value::Null, |choice| at(choice, &["message"]));
        let asked = list(message, "tool_calls").iter().map(|tool| Tool {
            id: name(tool, "id"),
            name: name(at(tool, &["function"]), "name").unwrap_or_else(|| "unknown".to_string()),
            ..Tool::default()
        });
        let call = Call {
            line: 1,
            model: name(response, "model"),
            usage: lists::usage(at(response, &["usage"])).told(),
            said: lists::part(message).chars,
            sent_us: end_us
                .zip(micros)
                .map(|(end, micros)| end.saturating_sub(micros.cast_signed())),
            end_us,
            how: if micros.is_some() {
                How::Measured
            } else {
                How::Derived
            },
            tools: asked.collect(),
            finish: match choice.and_then(|choice| text(choice, "finish_reason")) {
                Some("tool_calls" | "function_call") => Some("tool-call"),
                Some("length") => Some("length"),
                _ => None,
            },
            ..Call::default()
        };
        Some(Exchange {
            parts,
            call,
            end_us,
        })
    }

    /// Returns what calls of one session have in common: the first things said to the model.
    fn begins(&self) -> u64 {
        let said = self.parts.iter().filter(|(part, _)| part.kind != "tools");
        said.take(2)
            .fold(0, |key: u64, (part, _)| key.rotate_left(21) ^ part.hash)
    }
}
