//! Messages in the shape of the chat completions API, and prompts that are whole lists of them.
//!
//! Where a log holds every prompt in full, what two prompts have in common is read off the lists. An assistant's message
//! at the place of an answer is that answer, however it was written again.

use super::chat::{HEAD, Part, Place, Thread, Usage};
use super::json::{at, count, either, list, text};
use serde_json::Value;

/// Returns a message as part of a prompt.
pub(super) fn part(message: &Value) -> Part {
    let kind = match text(message, "role") {
        Some("system" | "developer") => "system",
        Some("assistant") => "assistant-text",
        Some("tool" | "function") => "tool-output",
        _ => "user",
    };
    let mut part = Part::body(kind, at(message, &["content"]));
    let calls = list(message, "tool_calls");
    if !calls.is_empty() {
        let asked = Part::body(kind, at(message, &["tool_calls"]));
        part.chars += asked.chars;
        part.hash = (part.hash.rotate_left(17) ^ asked.hash).max(1);
    }
    part
}

/// Returns the counts of a chat completion; the prompt includes what was cached.
pub(super) fn usage(usage: &Value) -> Usage {
    let prompt = at(usage, &["prompt_tokens_details"]);
    let cached = count(prompt, "cached_tokens");
    let read = either(
        usage,
        &["cache_read_input_tokens", "prompt_cache_hit_tokens"],
    );
    Usage {
        prompt: either(usage, &["prompt_tokens", "input_tokens"]),
        cached: cached.or(read).or(count(usage, "cache_read_tokens")),
        cache_write: either(
            usage,
            &["cache_creation_input_tokens", "cache_write_tokens"],
        )
        .filter(|&tokens| tokens > 0),
        output: either(usage, &["completion_tokens", "output_tokens"]),
        reasoning: count(
            at(usage, &["completion_tokens_details"]),
            "reasoning_tokens",
        )
        .filter(|&tokens| tokens > 0),
    }
}

/// The last prompt of a thread, message by message, with its answer.
#[derive(Default)]
pub(super) struct Path {
    stops: Vec<(Stop, Place)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Message(u64),
    Answer,
}

impl Path {
    /// Lets the conversation stand at the end of a prompt, going back as far as it differs from the last one.
    pub(super) fn prompt(
        &mut self,
        thread: &mut Thread,
        parts: &[(Part, bool)],
        at_us: Option<i64>,
    ) {
        let agree = |(stop, (part, assistant)): &(&(Stop, Place), &(Part, bool))| match stop.0 {
            Stop::Message(hash) => hash == part.hash,
            Stop::Answer => *assistant,
        };
        let same = self.stops.iter().zip(parts).take_while(agree).count();
        if same < self.stops.len() {
            let place = self.stops[..same].last().map_or(HEAD, |last| last.1);
            thread.go_back(place, "edit");
            self.stops.truncate(same);
        }
        thread.heard(at_us);
        for &(part, _) in &parts[same..] {
            thread.hear(part, at_us);
            self.stops.push((Stop::Message(part.hash), thread.place()));
        }
    }

    /// Notes that the last prompt was answered.
    pub(super) fn answered(&mut self, thread: &Thread) {
        self.stops.push((Stop::Answer, thread.place()));
    }
}
