//! Tasks of Cline and Roo Code: the list of what was shown, and the history that was sent.
//!
//! What was shown has the counts, the moments and the text of every request; the history has only messages, and counts
//! where newer versions add them. A tool is shown when it is asked for, so its time holds the approval.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, How, Part, Talk, Tool, Usage};
use super::json::{at, count, documents, list, moment, name, text};
use super::lists;
use super::notes::Notes;
use super::write;
use serde_json::Value;
use std::path::Path;

/// Reads a task.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes
        .always
        .push("the log is not the request: system prompt and tool definitions are not in it");
    for document in documents(input, feed)? {
        let mut talk = Talk::new(&task_name(&input.path));
        let entries = document.as_array().map_or(&[][..], Vec::as_slice);
        let shown = entries
            .iter()
            .any(|entry| entry.get("say").is_some() || entry.get("ask").is_some());
        if shown {
            notes.always.push(
                "a request is stamped when it begins, what it says when that begins: answers end later than is recorded, and \
                 tools are shown when asked for, so their times hold approvals and the client",
            );
            shown_entries(notes, &mut talk, entries);
        } else {
            notes
                .always
                .push("the history has stamps and counts only where newer versions add them");
            sent_messages(&mut talk, entries);
        }
        write::talk(feed, notes, "cline", &mut talk);
    }
    Ok(())
}

/// Returns a task's name: its folder's, as all its files have the same names.
fn task_name(path: &Path) -> String {
    let stem = file_stem(path);
    if !matches!(stem.as_str(), "ui_messages" | "api_conversation_history") {
        return stem;
    }
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = whole.parent().and_then(Path::file_name);
    folder.map_or(stem, |name| name.to_string_lossy().into_owned())
}

/// Returns the counts of a request. Which of them hold others differs: a whole that has room for its cached part does.
fn usage(told: &Value) -> Usage {
    let new = count(told, "tokensIn");
    let (read, written) = (count(told, "cacheReads"), count(told, "cacheWrites"));
    let cached = read.unwrap_or(0) + written.unwrap_or(0);
    let whole = told.get("apiProtocol").is_some() && new.is_some_and(|new| new >= cached);
    Usage {
        prompt: new.map(|new| if whole { new } else { new + cached }),
        cached: read,
        cache_write: written,
        output: count(told, "tokensOut"),
        reasoning: None,
    }
}

fn shown_entries(notes: &mut Notes, talk: &mut Talk, entries: &[Value]) {
    let main = &mut talk.threads[0];
    // The request being answered; it is passed on when the next begins.
    let mut open: Option<Call> = None;
    let mut said_next: Vec<(Part, Option<i64>)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at_us = moment(at(entry, &["ts"]));
        let said = text(entry, "text").unwrap_or("");
        let kind = text(entry, "say")
            .or_else(|| text(entry, "ask"))
            .unwrap_or("");
        let asks = text(entry, "type") == Some("ask");
        match kind {
            "api_req_started" => {
                if let Some(mut call) = open.take() {
                    // What was asked for is done when the next request begins.
                    for tool in call.tools.iter_mut().filter(|tool| tool.end_us.is_none()) {
                        tool.end_us = at_us;
                    }
                    main.call(call);
                }
                let told: Value = serde_json::from_str(said).unwrap_or_default();
                let usage = usage(&told).told();
                let first = main.calls.is_empty();
                let request = at(&told, &["request"]);
                let heard = std::mem::take(&mut said_next);
                let kind = if first || !heard.is_empty() {
                    "user"
                } else {
                    "tool-output"
                };
                if request.is_string() {
                    main.hear(Part::body(kind, request), None);
                } else {
                    for (part, at_us) in heard {
                        main.hear(part, at_us);
                    }
                }
                if told.get("cancelReason").is_some() && usage.is_none() {
                    talk.events.push(("aborted", at_us));
                    continue;
                }
                open = Some(Call {
                    line: index as u64 + 1,
                    usage,
                    sent_us: at_us,
                    end_us: at_us,
                    how: How::Derived,
                    ..Call::default()
                });
            }
            "task" | "user_feedback" | "followup_answer" => {
                said_next.push((Part::text("user", said), at_us));
            }
            "condense_context" | "compaction" | "summarize_task" => {
                let call = open.take();
                if let Some(call) = call {
                    main.call(call);
                }
                talk.events.push(("compaction", at_us));
                main.go_back(HEAD, "compaction");
                let summary = text(at(entry, &["contextCondense"]), "summary").unwrap_or(said);
                main.hear(Part::text("summary", summary), None);
            }
            _ => {
                let Some(call) = &mut open else {
                    continue;
                };
                answer(call, kind, asks, said, at_us);
            }
        }
    }
    if let Some(call) = open {
        main.call(call);
    }
    if entries.is_empty() {
        notes.count("empty tasks");
    }
}

/// Takes in something shown while a request is answered.
fn answer(call: &mut Call, kind: &str, asks: bool, said: &str, at_us: Option<i64>) {
    let chars = said.chars().count() as u64;
    match kind {
        "reasoning" => call.thought += chars,
        "text" | "completion_result" | "plan_mode_respond" | "followup" => call.said += chars,
        "tool"
        | "command"
        | "use_mcp_server"
        | "browser_action"
        | "browser_action_launch"
        | "newTask" => {
            let told: Value = serde_json::from_str(said).unwrap_or_default();
            call.said += chars;
            // A tool that is asked for is shown again when it was allowed.
            let known = call
                .tools
                .last()
                .is_some_and(|last| last.end_us.is_none() && last.id.as_deref() == Some(kind));
            if !known || asks {
                call.tools.push(Tool {
                    id: Some(kind.to_string()),
                    name: name(&told, "tool").unwrap_or_else(|| kind.to_string()),
                    start_us: at_us,
                    meaning: Some("wall-with-approval"),
                    ..Tool::default()
                });
            }
        }
        _ => return,
    }
    call.end_us = call.end_us.max(at_us);
}

fn sent_messages(talk: &mut Talk, entries: &[Value]) {
    for (index, message) in entries.iter().enumerate() {
        let at_us = moment(at(message, &["ts"]));
        let blocks = list(message, "content");
        if text(message, "role") == Some("assistant") {
            let metrics = at(message, &["metrics", "tokens"]);
            let (prompt, cached) = (count(metrics, "prompt"), count(metrics, "cached"));
            let model = name(at(message, &["modelInfo"]), "modelId");
            let tools = blocks
                .iter()
                .filter(|block| text(block, "type") == Some("tool_use"));
            let tools = tools.map(|block| Tool {
                id: name(block, "id"),
                name: name(block, "name").unwrap_or_else(|| "unknown".to_string()),
                start_us: at_us,
                ..Tool::default()
            });
            let call = Call {
                line: index as u64 + 1,
                model: model.clone(),
                usage: Usage {
                    prompt: prompt.map(|prompt| prompt + cached.unwrap_or(0)),
                    cached,
                    output: count(metrics, "completion"),
                    ..Usage::default()
                }
                .told(),
                said: lists::part(message).chars,
                end_us: at_us,
                tools: tools.collect(),
                ..Call::default()
            };
            talk.model = talk.model.take().or(model);
            talk.main().call(call);
            continue;
        }
        let main = talk.main();
        if blocks.is_empty() {
            main.hear(lists::part(message), at_us);
        }
        for block in blocks {
            if text(block, "type") == Some("tool_result") {
                let part = Part::body("tool-output", at(block, &["content"]));
                main.result(text(block, "tool_use_id"), part, at_us);
            } else {
                main.hear(Part::body("user", block), at_us);
            }
        }
    }
}
