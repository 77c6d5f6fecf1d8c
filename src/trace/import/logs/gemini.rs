//! Gemini CLI chats: one document of messages, or one message a line with control lines in between.
//!
//! A message may be written again under its id; the last one counts. Replies carry their tools with the results, and
//! counts in which neither `output` nor what is sent again holds thoughts.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, Part, Place, Talk, Tool, Usage};
use super::json::{at, count, documents, list, name, stamp, text};
use super::notes::Notes;
use super::write;
use rustc_hash::FxHashMap;
use serde_json::Value;

/// Reads a chat.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes
        .always
        .push("the log is not the request: system prompt and tool definitions are not in it");
    notes.always.push(
        "a reply's stamp is taken as its end and a tool's as its result; requests count as sent with the last stamp before \
         them; first-token times are not recorded",
    );
    let mut reader = Reader {
        talk: Talk::new(&file_stem(&input.path)),
        entries: Vec::new(),
        by_id: FxHashMap::default(),
    };
    for (index, document) in documents(input, feed)?.iter().enumerate() {
        reader.entry(index as u64 + 1, document);
    }
    reader.play(notes);
    write::talk(feed, notes, "gemini-cli", &mut reader.talk);
    Ok(())
}

/// What a line or message says.
enum Entry {
    Told(String, Part, Option<i64>),
    Reply(String, Box<Call>, Vec<Part>),
    Rewind(String),
    Replaced(Vec<(String, Part)>),
}

struct Reader {
    talk: Talk,
    entries: Vec<Entry>,
    by_id: FxHashMap<String, usize>,
}

impl Reader {
    fn entry(&mut self, line: u64, value: &Value) {
        if let Some(id) = name(value, "sessionId").filter(|_| value.get("projectHash").is_some()) {
            self.talk.id = id;
        }
        if let Some(target) = text(value, "$rewindTo") {
            self.entries.push(Entry::Rewind(target.to_string()));
        } else if let Some(all) = at(value, &["$set", "messages"]).as_array() {
            let all = all.iter().map(|message| {
                let id = text(message, "id").unwrap_or("").to_string();
                (id, part(message))
            });
            self.entries.push(Entry::Replaced(all.collect()));
        } else if value.get("messages").is_some() {
            for (index, message) in list(value, "messages").iter().enumerate() {
                self.message(index as u64 + 1, message);
            }
        } else {
            self.message(line, value);
        }
    }

    fn message(&mut self, line: u64, message: &Value) {
        let at_us = stamp(message, "timestamp");
        let id = text(message, "id").unwrap_or("").to_string();
        let entry = match text(message, "type") {
            Some("user") => Entry::Told(id.clone(), part(message), at_us),
            Some("gemini") => {
                let (call, results) = reply(line, message, at_us);
                Entry::Reply(id.clone(), Box::new(call), results)
            }
            _ => return,
        };
        if let Some(&known) = self.by_id.get(&id).filter(|_| !id.is_empty()) {
            self.entries[known] = entry;
        } else {
            self.by_id.insert(id, self.entries.len());
            self.entries.push(entry);
        }
    }

    /// Goes through the conversation as it came to stand.
    fn play(&mut self, notes: &mut Notes) {
        // Each message on the way to where the conversation stands, and the places before and after it.
        let mut path: Vec<(String, Place, Place)> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            let model = self.talk.model.take();
            let main = &mut self.talk.threads[0];
            let before = main.place();
            match entry {
                Entry::Told(id, part, at_us) => {
                    main.hear(part, at_us);
                    path.push((id, before, main.place()));
                    self.talk.model = model;
                }
                Entry::Reply(id, call, results) => {
                    self.talk.model = model.or_else(|| call.model.clone());
                    let ends: Vec<Option<i64>> =
                        call.tools.iter().map(|tool| tool.end_us).collect();
                    main.call(*call);
                    for (part, at_us) in results.into_iter().zip(ends) {
                        main.hear(part, at_us);
                    }
                    path.push((id, before, main.place()));
                }
                Entry::Rewind(target) => {
                    self.talk.model = model;
                    match path.iter().rposition(|(id, ..)| *id == target) {
                        Some(index) => {
                            main.go_back(path[index].1, "rewind");
                            path.truncate(index);
                        }
                        None => notes.count("rewinds to messages that are not there, passed over"),
                    }
                }
                Entry::Replaced(all) => {
                    self.talk.model = model;
                    let same = path
                        .iter()
                        .zip(&all)
                        .take_while(|(had, new)| had.0 == new.0);
                    let same = same.count();
                    main.go_back(
                        path[..same].last().map_or(HEAD, |last| last.2),
                        "compaction",
                    );
                    path.truncate(same);
                    for (id, part) in all.into_iter().skip(same) {
                        let before = main.place();
                        main.hear(part, None);
                        path.push((id, before, main.place()));
                    }
                }
            }
        }
    }
}

/// Returns what a message says, as part of a prompt.
fn part(message: &Value) -> Part {
    let kind = match text(message, "type") {
        Some("gemini") => "assistant-text",
        _ => "user",
    };
    Part::body(kind, at(message, &["content"]))
}

/// Returns a reply and the results of its tools.
fn reply(line: u64, message: &Value, at_us: Option<i64>) -> (Call, Vec<Part>) {
    let tokens = at(message, &["tokens"]);
    let thoughts = count(tokens, "thoughts");
    let usage = Usage {
        prompt: count(tokens, "input").map(|input| input + count(tokens, "tool").unwrap_or(0)),
        cached: count(tokens, "cached"),
        cache_write: None,
        output: count(tokens, "output").map(|output| output + thoughts.unwrap_or(0)),
        reasoning: thoughts,
    };
    let mut said = Part::body("assistant-text", at(message, &["content"])).chars;
    let (mut tools, mut results) = (Vec::new(), Vec::new());
    for tool in list(message, "toolCalls") {
        said += Part::body("tool-call", at(tool, &["args"])).chars + 20;
        let result = Part::body("tool-output", at(tool, &["result"]));
        let status = text(tool, "status");
        tools.push(Tool {
            id: name(tool, "id"),
            name: name(tool, "name").unwrap_or_else(|| "unknown".to_string()),
            start_us: at_us,
            end_us: stamp(tool, "timestamp").filter(|&end| Some(end) >= at_us),
            result_chars: Some(result.chars),
            failed: matches!(status, Some("error" | "cancelled")),
            ..Tool::default()
        });
        results.push(result);
    }
    let call = Call {
        line,
        model: name(message, "model"),
        usage: usage.told(),
        said,
        thought: Part::body("reasoning", at(message, &["thoughts"])).chars,
        resends_thoughts: Some(false),
        end_us: at_us,
        tools,
        ..Call::default()
    };
    (call, results)
}
