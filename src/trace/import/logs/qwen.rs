//! Qwen Code chats: one record a line, linked by `parentUuid`, with the telemetry of calls and tools among them.
//!
//! One answer may come in fragments under one uuid. A rewind names the record it goes back to; a compression holds the
//! history that takes the place of the old one. Sub-agents carry their agent's id.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, How, Part, Place, Talk, Tool, Usage};
use super::json::{at, count, each_line, flag, list, name, real, stamp, text};
use super::notes::Notes;
use super::write;
use rustc_hash::FxHashMap;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// Telemetry of a call comes within so long of its record.
const NEAR_US: i64 = 5_000_000;

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
        "model and tool times are those of the telemetry records, where there are any, else the differences of stamps; \
         first-token times are not recorded",
    );
    let mut reader = Reader {
        talk: Talk::new(&file_stem(&input.path)),
        named: false,
        threads: FxHashMap::default(),
        left: FxHashMap::default(),
        open: FxHashMap::default(),
        api: None,
    };
    each_line(input, feed, |_, line, value| {
        reader.line(notes, line, value);
        Ok(())
    })?;
    write::talk(feed, notes, "qwen-code", &mut reader.talk);
    Ok(())
}

/// How long a call took by its telemetry, and when that was written.
#[derive(Clone, Copy)]
struct Api {
    at_us: Option<i64>,
    micros: u64,
}

struct Reader {
    talk: Talk,
    named: bool,
    threads: FxHashMap<String, usize>,
    left: FxHashMap<u64, (usize, Place, usize)>,
    open: FxHashMap<u64, (usize, usize)>,
    api: Option<Api>,
}

impl Reader {
    fn line(&mut self, notes: &mut Notes, line: u64, value: &Value) {
        let thread = self.thread_of(value);
        if let Some(id) = name(value, "sessionId").filter(|_| !self.named) {
            self.named = true;
            self.talk.id = id;
        }
        let at_us = stamp(value, "timestamp");
        match text(value, "type") {
            Some("user") => self.user(thread, value, at_us),
            Some("assistant") => self.assistant(thread, line, value, at_us),
            Some("tool_result") => self.result(notes, thread, value, at_us),
            Some("system") => self.system(thread, value, at_us),
            _ => notes.count("records of an unknown type, passed over"),
        }
        if let Some(uuid) = text(value, "uuid") {
            let here = &self.talk.threads[thread];
            let left = (thread, here.place(), here.calls.len());
            self.left.insert(xxh3_64(uuid.as_bytes()), left);
        }
    }

    fn thread_of(&mut self, value: &Value) -> usize {
        let agent = name(value, "agentId").filter(|_| flag(value, "isSidechain"));
        let Some(agent) = agent else {
            return 0;
        };
        if let Some(&thread) = self.threads.get(&agent) {
            return thread;
        }
        let thread = self.talk.spawn(&agent, 0);
        self.talk.threads[thread].kind = name(value, "agentName");
        let last = self.talk.threads[0].calls.last_mut();
        let waiting = last.and_then(|call| {
            let free = |tool: &&mut Tool| tool.child.is_none() && tool.end_us.is_none();
            call.tools.iter_mut().find(free)
        });
        if let Some(tool) = waiting {
            tool.child = Some(thread);
        }
        self.threads.insert(agent, thread);
        thread
    }

    fn parts(value: &Value) -> &[Value] {
        list(at(value, &["message"]), "parts")
    }

    fn user(&mut self, thread: usize, value: &Value, at_us: Option<i64>) {
        let here = &mut self.talk.threads[thread];
        let parent = text(value, "parentUuid").map(|uuid| xxh3_64(uuid.as_bytes()));
        let left = parent.and_then(|uuid| self.left.get(&uuid));
        if let Some(&(_, place, _)) =
            left.filter(|left| left.0 == thread && left.2 < here.calls.len())
        {
            here.go_back(place, "rewind");
        }
        let kind = match text(value, "subtype") {
            Some("notification") => "reminder",
            _ => "user",
        };
        for part in Self::parts(value) {
            here.hear(Part::body(kind, part), at_us);
        }
    }

    fn assistant(&mut self, thread: usize, line: u64, value: &Value, at_us: Option<i64>) {
        let uuid = text(value, "uuid").map(|uuid| xxh3_64(uuid.as_bytes()));
        let known = uuid.and_then(|uuid| self.open.get(&uuid).copied());
        let (thread, call) = known.unwrap_or_else(|| {
            let call = Call {
                line,
                end_us: at_us,
                resends_thoughts: Some(false),
                ..Call::default()
            };
            (thread, self.talk.threads[thread].call(call))
        });
        if let Some(uuid) = uuid {
            self.open.insert(uuid, (thread, call));
        }
        let model = name(value, "model");
        self.talk.model = self.talk.model.take().or_else(|| model.clone());
        let here = &mut self.talk.threads[thread];
        let mut tools = Vec::new();
        let (mut said, mut thought) = (0, 0);
        for part in Self::parts(value) {
            let asked = at(part, &["functionCall"]);
            if asked.is_object() {
                said += Part::body("tool-call", at(asked, &["args"])).chars + 20;
                tools.push(Tool {
                    id: name(asked, "id"),
                    name: name(asked, "name").unwrap_or_else(|| "unknown".to_string()),
                    start_us: at_us,
                    ..Tool::default()
                });
            } else if flag(part, "thought") {
                thought += Part::body("reasoning", part).chars;
            } else {
                said += Part::body("assistant-text", part).chars;
            }
        }
        let open = &mut here.calls[call];
        open.said += said;
        open.thought += thought;
        open.end_us = open.end_us.max(at_us);
        open.model = model.or(open.model.take());
        open.usage = usage(at(value, &["usageMetadata"])).told().or(open.usage);
        for tool in tools {
            here.ask(call, tool);
        }
        if let Some(api) = self.api.take() {
            apply(&mut here.calls[call], api);
        }
    }

    fn result(&mut self, notes: &mut Notes, thread: usize, value: &Value, at_us: Option<i64>) {
        let here = &mut self.talk.threads[thread];
        let told = at(value, &["toolCallResult"]);
        for part in Self::parts(value) {
            let response = at(part, &["functionResponse"]);
            let id = text(response, "id").or_else(|| text(told, "callId"));
            let body = Part::body("tool-output", at(response, &["response"]));
            if !here.result(id, body, at_us) {
                notes.unpaired += 1;
            }
            if let Some(tool) = id.and_then(|id| here.tool(id)) {
                tool.failed = text(told, "status") == Some("error");
            }
        }
    }

    fn system(&mut self, thread: usize, value: &Value, at_us: Option<i64>) {
        let payload = at(value, &["systemPayload"]);
        match text(value, "subtype") {
            Some("ui_telemetry") => self.telemetry(thread, at(payload, &["uiEvent"]), at_us),
            Some("rewind") => {
                let target = text(payload, "targetUuid").or_else(|| text(value, "parentUuid"));
                let left = target.and_then(|uuid| self.left.get(&xxh3_64(uuid.as_bytes())));
                if let Some(&(_, place, _)) = left.filter(|left| left.0 == thread) {
                    self.talk.threads[thread].go_back(place, "rewind");
                    self.talk.events.push(("rewind", at_us));
                }
            }
            Some("chat_compression") => {
                self.talk.events.push(("compaction", at_us));
                let here = &mut self.talk.threads[thread];
                here.go_back(HEAD, "compaction");
                Self::history(here, list(payload, "compressedHistory"));
            }
            Some("agent_bootstrap") => {
                let here = &mut self.talk.threads[thread];
                Self::history(here, list(payload, "history"));
            }
            _ => {}
        }
    }

    fn history(here: &mut super::chat::Thread, items: &[Value]) {
        for item in items {
            let kind = match text(item, "role") {
                Some("model") => "assistant-text",
                _ => "summary",
            };
            for part in list(item, "parts") {
                here.hear(Part::body(kind, part), None);
            }
        }
    }

    fn telemetry(&mut self, thread: usize, event: &Value, at_us: Option<i64>) {
        let Some(micros) = real(event, "duration_ms")
            .filter(|millis| *millis > 0.0)
            .and_then(|millis| super::super::micros(millis / 1e3))
        else {
            return;
        };
        let here = &mut self.talk.threads[thread];
        if let Some(tool) = text(event, "function_name") {
            let calls = here.calls.iter_mut().rev().take(4);
            let mut tools = calls.flat_map(|call| call.tools.iter_mut());
            let open = tools.find(|open| open.name == tool && open.measured_us.is_none());
            if let Some(open) = open {
                open.measured_us = Some(micros);
            }
        } else if text(event, "error_message").is_none() {
            let api = Api { at_us, micros };
            let last = here.calls.last_mut().filter(|call| {
                let apart = call.end_us.zip(at_us).map(|(end, at)| (end - at).abs());
                call.how == How::Derived && apart.is_some_and(|apart| apart < NEAR_US)
            });
            match last {
                Some(call) => apply(call, api),
                None => self.api = Some(api),
            }
        }
    }
}

/// Lets a call's telemetry say how long it took.
fn apply(call: &mut Call, api: Api) {
    call.how = How::Measured;
    call.end_us = call.end_us.or(api.at_us);
    call.sent_us = call
        .end_us
        .map(|end| end.saturating_sub(api.micros.cast_signed()));
}

/// Returns the counts of an answer. Providers differ in whether the candidates hold the thoughts; the total tells.
fn usage(usage: &Value) -> Usage {
    let prompt = count(usage, "promptTokenCount");
    let said = count(usage, "candidatesTokenCount");
    let thoughts = count(usage, "thoughtsTokenCount");
    let apart = count(usage, "totalTokenCount").is_some_and(|total| {
        total >= prompt.unwrap_or(0) + said.unwrap_or(0) + thoughts.unwrap_or(0)
    });
    Usage {
        prompt,
        cached: count(usage, "cachedContentTokenCount"),
        cache_write: None,
        output: said.map(|said| said + if apart { thoughts.unwrap_or(0) } else { 0 }),
        reasoning: thoughts,
    }
}
