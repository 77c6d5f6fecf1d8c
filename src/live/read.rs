//! An answer as it comes: every piece is stamped before it is understood.

use super::client::refusal;
use super::measured::Measured;
use super::sse::{Line, Lines};
use super::wire::{Choice, Piece, Usage};
use crate::call::Outcome;
use crate::units::{Span, Time};

/// How far an answer has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// More is to come.
    More,
    /// It is whole.
    All,
    /// Something is wrong with it.
    Wrong(Outcome, String),
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) seen: Measured,
    lines: Lines,
    /// Whether the engine has said why it stopped.
    finished: bool,
}

impl Reader {
    /// Returns a reader that adds to `seen`.
    pub(super) fn new(seen: Measured) -> Reader {
        Reader {
            seen,
            lines: Lines::default(),
            finished: false,
        }
    }

    /// Takes in what came at `now`.
    pub(super) fn read(&mut self, bytes: &[u8], now: Time) -> Said {
        self.lines.feed(bytes);
        // Events that came together were one piece of network traffic, and have one stamp.
        while let Some(line) = self.lines.next() {
            let said = match line {
                Line::Other => continue,
                Line::Data(b"[DONE]") => return Said::All,
                Line::Error(error) => broken(&String::from_utf8_lossy(error)),
                Line::Wrong(line) => malformed(line, "is no event"),
                Line::Data(data) => match serde_json::from_slice::<Piece<'_>>(data) {
                    Ok(piece) => take(&mut self.seen, &mut self.finished, &piece, now),
                    Err(error) => malformed(data, &error.to_string()),
                },
            };
            if said != Said::More {
                return said;
            }
        }
        Said::More
    }

    /// Returns what it means that nothing more comes.
    pub(super) fn ended(&self) -> Said {
        if self.finished && self.lines.rest().is_empty() {
            return Said::All;
        }
        if let (true, rest @ [_, ..]) = (self.seen.pieces.is_empty(), self.lines.rest()) {
            return malformed(rest, "is no event");
        }
        let pieces = self.seen.pieces.len();
        let why = format!("the stream ended after {pieces} pieces of the answer, without its end");
        Said::Wrong(Outcome::Cut, why)
    }
}

fn malformed(line: &[u8], why: &str) -> Said {
    let shown = String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned();
    Said::Wrong(Outcome::Malformed, format!("`{shown}` {why}"))
}

/// Returns what an error in mid-answer means: the code is in it, where there is one.
fn broken(error: &str) -> Said {
    let parsed: serde_json::Value = serde_json::from_str(error).unwrap_or_default();
    let code = parsed["code"]
        .as_u64()
        .or_else(|| parsed["code"].as_str()?.parse().ok());
    let outcome = refusal(code.unwrap_or(500) as u16, error);
    Said::Wrong(outcome, error.to_string())
}

fn take(seen: &mut Measured, finished: &mut bool, piece: &Piece<'_>, now: Time) -> Said {
    if let Some(error) = &piece.error {
        return broken(&error.to_string());
    }
    for choice in &piece.choices {
        take_choice(seen, choice, now);
        if let Some(reason) = &choice.finish_reason {
            *finished = true;
            seen.finish_reason = Some(reason.to_string());
        }
    }
    let native = piece.content.is_some() || piece.stop;
    if native && !piece.stop {
        let text = piece.content.as_deref().unwrap_or_default();
        note(seen, text, &piece.tokens, !text.is_empty(), now);
    }
    if let Some(usage) = &piece.usage {
        count(seen, *usage);
    }
    if let Some(timings) = &piece.timings {
        seen.cached = timings.cache_n.or(seen.cached);
        seen.reading = timings
            .prompt_ms
            .and_then(|ms| Span::try_from_secs(ms / 1e3))
            .or(seen.reading);
        seen.output = timings.predicted_n.or(seen.output);
        if let (Some(cached), Some(computed)) = (timings.cache_n, timings.prompt_n) {
            seen.prompt = Some(cached + computed);
        }
    }
    if piece.stop {
        seen.prompt = piece.tokens_evaluated.or(seen.prompt);
        seen.output = piece.tokens_predicted.or(seen.output);
        seen.finish_reason = piece.stop_type.as_ref().map(ToString::to_string);
        *finished = true;
        return Said::All;
    }
    Said::More
}

fn take_choice(seen: &mut Measured, choice: &Choice<'_>, now: Time) {
    let ids = choice.token_ids.as_deref().unwrap_or_default();
    if let Some(delta) = &choice.delta {
        let text = delta.content.as_deref().unwrap_or_default();
        note(seen, text, ids, delta.says_something(), now);
    }
    if let Some(text) = &choice.text {
        note(seen, text, ids, !text.is_empty(), now);
    }
}

fn note(seen: &mut Measured, text: &str, ids: &[u32], something: bool, now: Time) {
    if !something && ids.is_empty() {
        return;
    }
    let held = u32::try_from(ids.len()).ok().filter(|&held| held > 0);
    seen.pieces.push((now, held));
    seen.said.text += text;
    seen.said.ids.extend_from_slice(ids);
}

fn count(seen: &mut Measured, usage: Usage) {
    seen.prompt = usage.prompt_tokens.or(seen.prompt);
    seen.output = usage.completion_tokens.or(seen.output);
    let cached = usage
        .prompt_tokens_details
        .and_then(|details| details.cached_tokens);
    seen.cached = cached.or(seen.cached);
}
