//! What aider writes: its chat history, its log of prompts, and its analytics.
//!
//! The chat history is Markdown and tells rounded counts after each answer; the log of prompts holds every prompt in
//! full, with stamps of one second; the analytics hold exact counts, with stamps, and no text.

use super::super::super::compile::file_stem;
use super::super::super::error::TraceError;
use super::super::super::input::Input;
use super::super::Feed;
use super::chat::{Call, HEAD, How, Part, Talk, Usage};
use super::json::{at, count, each_line, name, stamp, text};
use super::lists::Path;
use super::notes::Notes;
use super::write;
use crate::trace::import::stamp::stamp_us;

/// The line with which a chat begins.
pub(super) const CHAT: &str = "# aider chat started at ";

/// Reads whichever of the three a file is.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    let first = match lines.next() {
        Some(Ok(line)) => String::from_utf8_lossy(line).into_owned(),
        _ => String::new(),
    };
    drop(lines);
    if first.starts_with('{') {
        return analytics(input, feed, notes);
    }
    if first.starts_with('#') {
        return history(input, feed, notes);
    }
    prompts(input, feed, notes)
}

/// Reads every line as text, blank ones left out.
fn texts(
    input: &Input,
    feed: &mut Feed<'_>,
    mut take: impl FnMut(&mut Feed<'_>, u64, &str),
) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let line = match line {
            Ok(line) => String::from_utf8_lossy(line).into_owned(),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        take(feed, lines.number, &line);
    }
    Ok(())
}

fn history(input: &Input, feed: &mut Feed<'_>, notes: &mut Notes) -> Result<(), TraceError> {
    notes.always.push(
        "the chat history is not the request: system prompt, files and repository map are not in it; counts are rounded as \
         aider prints them, and no moment but a chat's start is recorded",
    );
    let stem = file_stem(&input.path);
    let mut talk: Option<Talk> = None;
    let mut number = 0;
    let (mut asked, mut said) = (String::new(), 0);
    texts(input, feed, |feed, line, content| {
        if content.starts_with(CHAT) || talk.is_none() {
            if let Some(mut done) = talk.take() {
                write::talk(feed, notes, "aider", &mut done);
            }
            number += 1;
            let id = if number == 1 {
                stem.clone()
            } else {
                format!("{stem}#{number}")
            };
            talk = Some(Talk::new(&id));
            asked.clear();
            said = 0;
        }
        let Some(talk) = &mut talk else {
            return;
        };
        if let Some(words) = content.strip_prefix("#### ") {
            asked.push_str(words);
            asked.push('\n');
        } else if let Some(report) = content.strip_prefix("> Tokens: ") {
            let main = talk.main();
            main.hear(Part::text("user", &asked), None);
            asked.clear();
            main.call(Call {
                line,
                usage: report_usage(report).told(),
                said: std::mem::take(&mut said),
                finish: Some("end-of-turn"),
                ..Call::default()
            });
        } else if let Some(model) = content
            .strip_prefix("> Model: ")
            .or_else(|| content.strip_prefix("> Main model: "))
        {
            talk.model = model.split_whitespace().next().map(str::to_string);
        } else if !content.starts_with(['>', '#']) {
            said += content.chars().count() as u64 + 1;
        }
    })?;
    if let Some(mut talk) = talk {
        write::talk(feed, notes, "aider", &mut talk);
    }
    Ok(())
}

/// Reads `2.9k sent, 2.4k cache write, 0 cache hit, 53 received. Cost: ...`.
fn report_usage(report: &str) -> Usage {
    let mut usage = Usage::default();
    let counts = report.split(". ").next().unwrap_or("");
    for told in counts.trim_end_matches('.').split(", ") {
        let mut words = told.splitn(2, ' ');
        let number = words.next().unwrap_or("").replace(',', "");
        let (digits, scale) = match number.strip_suffix('k') {
            Some(digits) => (digits, 1e3),
            None => match number.strip_suffix('M') {
                Some(digits) => (digits, 1e6),
                None => (number.as_str(), 1.0),
            },
        };
        let tokens = digits
            .parse::<f64>()
            .ok()
            .map(|value| (value * scale).round());
        let tokens = tokens
            .filter(|tokens| (0.0..2e9).contains(tokens))
            .map(|tokens| tokens as u64);
        match words.next() {
            Some("sent") => usage.prompt = tokens,
            Some("received") => usage.output = tokens,
            Some("cache hit") => usage.cached = tokens,
            Some("cache write") => usage.cache_write = tokens,
            _ => {}
        }
    }
    usage
}

/// Reads the log of prompts: `TO LLM <moment>`, messages, `LLM RESPONSE <moment>`, the answer.
fn prompts(input: &Input, feed: &mut Feed<'_>, notes: &mut Notes) -> Result<(), TraceError> {
    notes.always.push(
        "prompts are whole, their sizes estimated from text; stamps have one second: a request is stamped when sent, its \
         answer when it ended, and what came between is one wait of unknown cause",
    );
    let mut talk = Talk::new(&file_stem(&input.path));
    talk.main().complete = true;
    let mut path = Path::default();
    let mut parts: Vec<(Part, bool)> = Vec::new();
    let mut message = (String::new(), String::new());
    let mut sent_us = None;
    let mut answering: Option<Call> = None;
    texts(input, feed, |_, line, content| {
        let role = content.split(' ').next().unwrap_or("");
        if let Some(moment) = content.strip_prefix("TO LLM ") {
            finish(&mut talk, &mut path, answering.take());
            parts.clear();
            message.1.clear();
            sent_us = stamp_us(moment);
        } else if let Some(moment) = content.strip_prefix("LLM RESPONSE ") {
            say(&mut parts, &mut message);
            path.prompt(talk.main(), &parts, sent_us);
            answering = Some(Call {
                line,
                sent_us,
                end_us: stamp_us(moment),
                how: How::Measured,
                finish: Some("end-of-turn"),
                ..Call::default()
            });
        } else if let Some(call) = &mut answering {
            call.said += content.chars().count() as u64;
        } else if content.starts_with("-------") {
            say(&mut parts, &mut message);
        } else if matches!(role, "SYSTEM" | "USER" | "ASSISTANT" | "TOOL") {
            if role != message.0 {
                say(&mut parts, &mut message);
                message.0 = role.to_string();
            }
            message
                .1
                .push_str(content.get(role.len() + 1..).unwrap_or(""));
            message.1.push('\n');
        }
    })?;
    finish(&mut talk, &mut path, answering);
    write::talk(feed, notes, "aider", &mut talk);
    Ok(())
}

/// Adds a message to a prompt.
fn say(parts: &mut Vec<(Part, bool)>, message: &mut (String, String)) {
    let (role, words) = message;
    if !words.is_empty() {
        let kind = match role.as_str() {
            "SYSTEM" => "system",
            "ASSISTANT" => "assistant-text",
            "TOOL" => "tool-output",
            _ => "user",
        };
        parts.push((Part::text(kind, words), kind == "assistant-text"));
        words.clear();
    }
}

fn finish(talk: &mut Talk, path: &mut Path, call: Option<Call>) {
    if let Some(call) = call {
        let main = talk.main();
        main.call(call);
        path.answered(main);
    }
}

fn analytics(input: &Input, feed: &mut Feed<'_>, notes: &mut Notes) -> Result<(), TraceError> {
    notes.always.push(
        "analytics hold counts and no text: what prompts have in common is told by their growth alone; stamps of one second \
         mark the ends of answers, so model times and waits are not told apart",
    );
    let stem = file_stem(&input.path);
    let mut talks: Vec<Talk> = Vec::new();
    each_line(input, feed, |_, line, value| {
        let event = text(value, "event")
            .ok_or("`event` is missing; expected an event of aider's analytics")?;
        let used = talks
            .last()
            .is_none_or(|talk| !talk.threads[0].calls.is_empty());
        if used && matches!(event, "launched" | "cli session") || talks.is_empty() {
            let id = match talks.len() {
                0 => stem.clone(),
                more => format!("{stem}#{}", more + 1),
            };
            talks.push(Talk::new(&id));
        }
        let properties = at(value, &["properties"]);
        let talk = talks.last_mut().ok_or("no session")?;
        if event == "message_send" {
            let model = name(properties, "main_model");
            talk.model = talk.model.take().or_else(|| model.clone());
            talk.main().call(Call {
                line,
                model,
                usage: Usage {
                    prompt: count(properties, "prompt_tokens"),
                    output: count(properties, "completion_tokens"),
                    ..Usage::default()
                }
                .told(),
                end_us: stamp(value, "time"),
                person: true,
                ..Call::default()
            });
        } else if event == "command_clear" || event == "command_reset" {
            talk.main().go_back(HEAD, "clear");
        }
        Ok(())
    })?;
    for mut talk in talks {
        write::talk(feed, notes, "aider", &mut talk);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_counts_are_read_as_printed() {
        let told = report_usage(
            "2.9k sent, 2.4k cache write, 0 cache hit, 53 received. Cost: $0.01 message",
        );
        assert_eq!((told.prompt, told.output), (Some(2_900), Some(53)));
        assert_eq!((told.cached, told.cache_write), (Some(0), Some(2_400)));
        assert_eq!(
            report_usage("12,345 sent, 7 received.").prompt,
            Some(12_345)
        );
    }
}
