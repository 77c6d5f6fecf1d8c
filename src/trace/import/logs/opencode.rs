//! opencode sessions: an export in one document, or the files of its storage, one for each message and part.
//!
//! One assistant message holds several calls: each ends with a `step-finish` part that has its counts. Tools have both
//! stamps in milliseconds. A child session is a sub-agent of the session it names.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, Part, Talk, Thread, Tool, Usage};
use super::json::{at, beside, count, documents, flag, list, name, stamp, text};
use super::notes::Notes;
use super::write;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Reads a session with its messages, parts and child sessions.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes
        .always
        .push("the log is not the request: system prompt and tool definitions are not in it");
    notes.always.push(
        "tool times are measured; a call counts as sent with the last stamp before it and as answered with the last of its \
         own parts; first-token times are not recorded",
    );
    for document in documents(input, feed)? {
        let export = document.get("messages").is_some();
        let info = if export {
            at(&document, &["info"])
        } else {
            &document
        };
        let mut talk = Talk::new(&name(info, "id").unwrap_or_else(|| file_stem(&input.path)));
        talk.parent = name(info, "parentID");
        let store = (!export).then(|| storage(&input.path)).flatten();
        let messages = match (&store, export) {
            (_, true) => list(&document, "messages").to_vec(),
            (Some(store), _) => stored(store, &talk.id),
            _ => Vec::new(),
        };
        if messages.is_empty() {
            let why = "no message of this session: they stand in `message/<session>` of the storage, or in an export";
            feed.problem("the session", why);
        }
        conversation(notes, &mut talk, 0, &messages);
        if let Some(store) = &store {
            children(notes, &mut talk, store, &input.path);
        }
        write::talk(feed, notes, "opencode", &mut talk);
    }
    Ok(())
}

/// Returns the storage that a session's file belongs to: it stands in `session/<project>`.
fn storage(path: &Path) -> Option<PathBuf> {
    let folder = path
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "session"))?;
    folder.parent().map(Path::to_path_buf)
}

/// Returns the JSON files of a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "json"))
        .collect();
    found.sort();
    found
}

/// Returns whether a name may be one of a file, so that no id leads elsewhere.
fn plain(id: &str) -> bool {
    !id.is_empty() && !id.contains(['/', '\\']) && id != ".." && id != "."
}

/// Returns the messages of a session with their parts, as an export has them.
fn stored(store: &Path, session: &str) -> Vec<Value> {
    if !plain(session) {
        return Vec::new();
    }
    let read = |path: &PathBuf| {
        let info = beside(path)?;
        let id = text(&info, "id")
            .filter(|id| plain(id))
            .map(str::to_string)?;
        let parts = files(&store.join("part").join(id));
        let parts: Vec<Value> = parts.iter().filter_map(|path| beside(path)).collect();
        Some(json!({ "info": info, "parts": parts }))
    };
    let mut messages: Vec<Value> = files(&store.join("message").join(session))
        .iter()
        .filter_map(read)
        .collect();
    messages.sort_by_key(|message| stamp(at(message, &["info", "time"]), "created"));
    messages
}

/// Returns every file that a session's file is read with.
pub(super) fn companions(path: &Path) -> Vec<PathBuf> {
    let id = beside(path)
        .and_then(|info| name(&info, "id"))
        .filter(|id| plain(id));
    let (Some(store), Some(id)) = (storage(path), id) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for message in files(&store.join("message").join(&id)) {
        let own = beside(&message)
            .and_then(|info| name(&info, "id"))
            .filter(|id| plain(id));
        found.extend(
            own.into_iter()
                .flat_map(|own| files(&store.join("part").join(own))),
        );
        found.push(message);
    }
    found
}

/// Returns the session that a file belongs to, where it does not stand for itself.
pub(super) fn belongs(value: &Value, path: &Path) -> Option<String> {
    let session = name(value, "sessionID").or_else(|| {
        name(value, "parentID")
            .filter(|id| plain(id) && path.with_file_name(format!("{id}.json")).is_file())
    })?;
    Some(format!(
        "it is part of the opencode session {session} and read with it"
    ))
}

/// Reads the child sessions that stand beside a session's file.
fn children(notes: &mut Notes, talk: &mut Talk, store: &Path, path: &Path) {
    let Some(folder) = path.parent() else {
        return;
    };
    let mut sessions: Vec<Value> = files(folder)
        .iter()
        .filter_map(|path| beside(path))
        .collect();
    sessions.retain(|info| text(info, "parentID") == Some(talk.id.as_str()));
    sessions.sort_by_key(|info| stamp(at(info, &["time"]), "created"));
    for info in sessions {
        let Some(id) = name(&info, "id") else {
            continue;
        };
        let created = stamp(at(&info, &["time"]), "created");
        let thread = talk.spawn(&id, 0);
        let calls = &mut talk.threads[0].calls;
        let holds = |tool: &Tool| {
            let after = tool.start_us.is_none_or(|start| Some(start) <= created);
            let before = tool
                .end_us
                .is_none_or(|end| created.is_none_or(|created| created <= end));
            tool.child.is_none()
                && matches!(tool.name.as_str(), "task" | "agent")
                && after
                && before
        };
        let by_tool = calls.iter().position(|call| call.tools.iter().any(holds));
        let by_time = calls.iter().rposition(|call| call.end_us <= created);
        let call = by_tool.or(by_time).unwrap_or(0);
        if by_tool.is_some() {
            let mut tools = calls[call].tools.iter_mut();
            if let Some(tool) = tools.find(|tool| holds(tool)) {
                tool.child = Some(thread);
            }
        }
        talk.threads[thread].parent = Some((0, call));
        let messages = stored(store, &id);
        conversation(notes, talk, thread, &messages);
    }
}

fn conversation(notes: &mut Notes, talk: &mut Talk, thread: usize, messages: &[Value]) {
    for (index, message) in messages.iter().enumerate() {
        let info = at(message, &["info"]);
        let parts = list(message, "parts");
        let model = name(info, "modelID").or_else(|| name(at(info, &["model"]), "modelID"));
        if thread == 0 {
            talk.model = talk.model.take().or_else(|| model.clone());
        }
        let created = stamp(at(info, &["time"]), "created");
        let here = &mut talk.threads[thread];
        if text(info, "role") == Some("assistant") {
            if flag(info, "summary") {
                talk.events.push(("compaction", created));
            }
            let mut answer = Answer::new(index as u64 + 1, model);
            for part in parts {
                answer.part(notes, here, info, part);
            }
            answer.end(here, info);
            if flag(info, "summary") {
                // What follows stands on the summary, which is part of the next prompt.
                here.go_back(HEAD, "compaction");
                for part in parts
                    .iter()
                    .filter(|part| text(part, "type") == Some("text"))
                {
                    here.hear(Part::body("summary", at(part, &["text"])), None);
                }
            }
        } else {
            for part in parts {
                match text(part, "type") {
                    Some("compaction") => here.go_back(HEAD, "compaction"),
                    Some("text") => here.hear(Part::body("user", at(part, &["text"])), created),
                    Some("file") => {
                        here.hear(Part::body("user", at(part, &["source", "text"])), created);
                    }
                    _ => {}
                }
            }
            here.heard(created);
        }
    }
}

/// An assistant message while its parts are read: the call that is being answered.
struct Answer {
    line: u64,
    model: Option<String>,
    call: Call,
    results: Vec<(Part, Option<i64>)>,
    counted: bool,
    compacted: bool,
}

impl Answer {
    fn new(line: u64, model: Option<String>) -> Answer {
        Answer {
            line,
            model,
            call: Call::default(),
            results: Vec::new(),
            counted: false,
            compacted: false,
        }
    }

    fn part(&mut self, notes: &mut Notes, here: &mut Thread, info: &Value, part: &Value) {
        let time = at(part, &["time"]);
        match text(part, "type") {
            Some("text") => {
                self.call.said += Part::body("assistant-text", at(part, &["text"])).chars;
                self.until(stamp(time, "end").or_else(|| stamp(time, "start")));
            }
            Some("reasoning") => {
                self.call.thought += Part::body("reasoning", at(part, &["text"])).chars;
                self.until(stamp(time, "end").or_else(|| stamp(time, "start")));
            }
            Some("tool") => self.tool(notes, part),
            Some("step-finish") => {
                self.counted = true;
                self.close(here, info, usage(at(part, &["tokens"])));
            }
            Some("compaction") => self.compacted = true,
            _ => {}
        }
    }

    fn until(&mut self, end_us: Option<i64>) {
        self.call.end_us = self.call.end_us.max(end_us);
    }

    fn tool(&mut self, notes: &mut Notes, part: &Value) {
        let state = at(part, &["state"]);
        let time = at(state, &["time"]);
        let (start_us, end_us) = (stamp(time, "start"), stamp(time, "end"));
        let output = match at(state, &["output"]) {
            Value::Null => at(state, &["error"]),
            output => output,
        };
        let result = Part::body("tool-output", output);
        if time
            .get("compacted")
            .is_some_and(|moment| !moment.is_null())
        {
            notes.count("tool outputs pruned from later prompts, at a moment the rebuilt prompts do not follow");
        }
        let took = start_us
            .zip(end_us)
            .and_then(|(start, end)| u64::try_from(end - start).ok());
        self.call.said += Part::body("tool-call", at(state, &["input"])).chars + 20;
        self.until(start_us);
        self.call.tools.push(Tool {
            id: name(part, "callID"),
            name: name(part, "tool").unwrap_or_else(|| "unknown".to_string()),
            start_us,
            end_us,
            measured_us: took,
            result_chars: Some(result.chars),
            exit_status: at(state, &["metadata", "exit"]).as_i64(),
            failed: text(state, "status") == Some("error"),
            ..Tool::default()
        });
        self.results.push((result, end_us));
    }

    /// Ends a call, whose tools' results follow it.
    fn close(&mut self, here: &mut Thread, info: &Value, usage: Usage) {
        let mut call = std::mem::take(&mut self.call);
        call.line = self.line;
        call.model.clone_from(&self.model);
        call.usage = usage.told();
        if call.end_us.is_none() {
            call.end_us = stamp(at(info, &["time"]), "completed");
        }
        here.heard(stamp(at(info, &["time"]), "created").filter(|_| here.calls.is_empty()));
        here.call(call);
        for (result, at_us) in std::mem::take(&mut self.results) {
            here.hear(result, at_us);
        }
        if std::mem::take(&mut self.compacted) {
            here.go_back(HEAD, "compaction");
        }
    }

    /// Ends the message: without a step of its own it is one call.
    fn end(mut self, here: &mut Thread, info: &Value) {
        let begun = self.call.said + self.call.thought > 0;
        if !self.counted {
            let told = usage(at(info, &["tokens"]));
            if begun || told.told().is_some() {
                self.close(here, info, told);
            }
        } else if begun {
            self.close(here, info, Usage::default());
        }
        if self.compacted {
            here.go_back(HEAD, "compaction");
        }
    }
}

/// Returns the counts of a step: neither `input` nor `output` holds what has a count of its own.
fn usage(tokens: &Value) -> Usage {
    let cache = at(tokens, &["cache"]);
    let (read, written) = (count(cache, "read"), count(cache, "write"));
    let reasoning = count(tokens, "reasoning");
    Usage {
        prompt: count(tokens, "input")
            .map(|input| input + read.unwrap_or(0) + written.unwrap_or(0)),
        cached: read,
        cache_write: written,
        output: count(tokens, "output").map(|output| output + reasoning.unwrap_or(0)),
        reasoning,
    }
}
