//! Codex rollouts, of all generations: items of a conversation, and the token counts that close each call.
//!
//! An answer's items come before the count that reports it; results that come before that count still follow the
//! answer. Counts repeat when rate limits are refreshed, so one whose running total has not changed is not a call.
//! Tools say in their output how long they ran; where they do not, stamps tell.

use super::super::super::compile::file_stem;
use super::super::super::error::TraceError;
use super::super::super::input::Input;
use super::super::Feed;
use super::chat::{Call, HEAD, Part, Place, Talk, Tool, Usage};
use super::json::{at, count, each_line, either, list, name, real, stamp, text};
use super::notes::Notes;
use super::write;
use serde_json::Value;

/// Events that tell nothing of what the model was asked, or repeat an item.
const ASIDE: [&str; 34] = [
    "user_message",
    "agent_message",
    "agent_reasoning",
    "agent_reasoning_raw_content",
    "agent_reasoning_section_break",
    "task_started",
    "turn_started",
    "task_complete",
    "turn_complete",
    "turn.completed",
    "turn.started",
    "thread_settings_applied",
    "web_search_end",
    "sub_agent_activity",
    "image_generation_end",
    "thread_goal_updated",
    "entered_review_mode",
    "exited_review_mode",
    "item_completed",
    "thread_name_updated",
    "collab_agent_spawn_end",
    "collab_waiting_end",
    "collab_close_end",
    "collab_agent_interaction_end",
    "collab_resume_end",
    "guardian_assessment",
    "view_image_tool_call",
    "dynamic_tool_call_request",
    "account/rateLimits/updated",
    "patch_apply_begin",
    "exec_command_begin",
    "mcp_tool_call_begin",
    "undo_completed",
    "thread_rolled_back",
];

/// Reads a rollout.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "the log is not the request: tool definitions and parts of the instructions are not in it; reasoning is sent again \
         but encrypted, so only usage tells its size",
    );
    notes.always.push(
        "requests count as sent when the last message before them was logged, and as answered with their token count or \
         last item; first-token times are not recorded",
    );
    let mut reader = Reader {
        talk: Talk::new(&file_stem(&input.path)),
        open: None,
        later: Vec::new(),
        total: Usage::default(),
        model: None,
        durations: Vec::new(),
        started: false,
        origin: HEAD,
    };
    each_line(input, feed, |_, line, value| {
        reader.line(notes, line, value);
        Ok(())
    })?;
    reader.close(None);
    for (id, micros) in std::mem::take(&mut reader.durations) {
        if let Some(tool) = reader.talk.main().tool(&id) {
            tool.measured_us = Some(micros);
        }
    }
    write::talk(feed, notes, "codex", &mut reader.talk);
    Ok(())
}

/// What was said while an answer was not yet counted.
enum Later {
    Heard(Part, Option<i64>),
    Result(Option<String>, Part, Option<i64>, Header),
}

/// What a tool's output says of itself in its first lines.
#[derive(Default)]
struct Header {
    micros: Option<u64>,
    exit: Option<i64>,
}

struct Reader {
    talk: Talk,
    /// The answer whose count has not come.
    open: Option<Call>,
    later: Vec<Later>,
    /// The running total.
    total: Usage,
    model: Option<String>,
    durations: Vec<(String, u64)>,
    started: bool,
    /// The place after the instructions, which outlive a compaction.
    origin: Place,
}

impl Reader {
    fn line(&mut self, notes: &mut Notes, line: u64, value: &Value) {
        let at_us = stamp(value, "timestamp");
        let Some(payload) = value.get("payload").filter(|payload| payload.is_object()) else {
            // The first generation wrote items as they are.
            return self.bare(notes, line, value, at_us);
        };
        match text(value, "type") {
            Some("session_meta") => self.meta(payload),
            Some("turn_context") => {
                let model = name(payload, "model");
                self.talk.model = self.talk.model.take().or_else(|| model.clone());
                self.model = model.or(self.model.take());
            }
            Some("response_item") => self.item(notes, line, payload, at_us),
            Some("compacted") => self.compacted(payload, at_us),
            Some("event_msg") => self.event(notes, line, payload, at_us),
            Some("world_state" | "inter_agent_communication_metadata") => {}
            other => {
                let short: String = other.unwrap_or("").chars().take(40).collect();
                notes.count(&format!(
                    "records of the unknown type `{short}`, passed over"
                ));
            }
        }
    }

    fn bare(&mut self, notes: &mut Notes, line: u64, value: &Value, at_us: Option<i64>) {
        match text(value, "type") {
            Some("turn.completed") => self.event(notes, line, value, at_us),
            Some(_) => self.item(notes, line, value, at_us),
            None if value.get("id").is_some() => self.meta(value),
            None if value.get("record_type").is_some() => {}
            None => notes.count("records without a type, passed over"),
        }
    }

    fn meta(&mut self, meta: &Value) {
        // A fork repeats its origin's first line after its own.
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        if let Some(id) = name(meta, "id") {
            self.talk.id = id;
        }
        let parent = at(
            meta,
            &["source", "subagent", "thread_spawn", "parent_thread_id"],
        );
        self.talk.parent = parent
            .as_str()
            .map(str::to_string)
            .or_else(|| name(meta, "forked_from_id"));
        let told = [
            at(meta, &["base_instructions", "text"]),
            at(meta, &["instructions"]),
        ];
        for instructions in told {
            let part = Part::body("system", instructions);
            self.talk.main().hear(part, None);
        }
        self.origin = self.talk.main().place();
    }

    fn item(&mut self, notes: &mut Notes, line: u64, item: &Value, at_us: Option<i64>) {
        let Some(kind) = text(item, "type") else {
            return notes.count("items without a type, passed over");
        };
        match kind {
            "message" | "agent_message" => {
                let part = Part::body("user", at(item, &["content"]));
                match text(item, "role") {
                    Some("assistant") => self.answer(line, at_us).said += part.chars,
                    Some("user") | None => self.hear(part, at_us),
                    Some(_) => self.hear(
                        Part {
                            kind: "system",
                            ..part
                        },
                        at_us,
                    ),
                }
            }
            "reasoning" => {
                let call = self.answer(line, at_us);
                call.thought += Part::body("reasoning", at(item, &["content"])).chars;
            }
            "ghost_snapshot" | "compaction" | "compaction_summary" | "compaction_trigger" => {}
            "tool_result" => self.result(item, at(item, &["result"]), at_us),
            _ if kind.ends_with("_output") => self.result(item, at(item, &["output"]), at_us),
            _ if kind.ends_with("_call") => self.ask(line, kind, item, at_us),
            other => {
                let short: String = other.chars().take(40).collect();
                notes.count(&format!("items of the unknown type `{short}`, passed over"));
            }
        }
    }

    /// Returns the answer that is being read; what was said meanwhile ends the one before.
    fn answer(&mut self, line: u64, at_us: Option<i64>) -> &mut Call {
        if !self.later.is_empty() {
            self.close(None);
        }
        let model = self.model.clone();
        let call = self.open.get_or_insert_with(|| Call {
            line,
            model,
            resends_thoughts: Some(true),
            ..Call::default()
        });
        call.end_us = call.end_us.max(at_us);
        call
    }

    fn ask(&mut self, line: u64, kind: &str, item: &Value, at_us: Option<i64>) {
        let told = ["arguments", "input", "action"];
        let said = told
            .iter()
            .map(|key| Part::body("tool-call", at(item, &[key])).chars);
        let said: u64 = said.sum();
        let named = name(item, "name").or_else(|| name(at(item, &["function"]), "name"));
        let tool = Tool {
            id: name(item, "call_id").or_else(|| name(item, "id")),
            name: named.unwrap_or_else(|| kind.trim_end_matches("_call").to_string()),
            start_us: at_us,
            ..Tool::default()
        };
        let call = self.answer(line, at_us);
        call.said += said + 20;
        // The provider searches while it answers: no time of the client's.
        if kind != "web_search_call" && kind != "image_generation_call" {
            call.tools.push(tool);
        }
    }

    fn hear(&mut self, part: Part, at_us: Option<i64>) {
        if self.open.is_some() {
            self.later.push(Later::Heard(part, at_us));
        } else {
            self.talk.main().hear(part, at_us);
        }
    }

    fn result(&mut self, item: &Value, output: &Value, at_us: Option<i64>) {
        // Older files hold the output as JSON in a string.
        let inner = output.as_str().and_then(|text| {
            let text = text.trim_start().starts_with('{').then_some(text)?;
            serde_json::from_str::<Value>(text).ok()
        });
        let header = header(output, inner.as_ref());
        let part = Part::body("tool-output", output);
        let id = name(item, "call_id");
        if self.open.is_some() {
            self.later.push(Later::Result(id, part, at_us, header));
        } else {
            self.put_result(id.as_deref(), part, at_us, &header);
        }
    }

    fn put_result(&mut self, id: Option<&str>, part: Part, at_us: Option<i64>, header: &Header) {
        let main = self.talk.main();
        main.result(id, part, at_us);
        if let Some(tool) = id.and_then(|id| main.tool(id)) {
            tool.measured_us = tool.measured_us.or(header.micros);
            tool.exit_status = tool.exit_status.or(header.exit);
        }
    }

    /// Ends the answer that is being read.
    fn close(&mut self, usage: Option<Usage>) {
        if let Some(mut call) = self.open.take() {
            call.usage = usage.and_then(Usage::told);
            self.talk.main().call(call);
        }
        for later in std::mem::take(&mut self.later) {
            match later {
                Later::Heard(part, at_us) => self.talk.main().hear(part, at_us),
                Later::Result(id, part, at_us, header) => {
                    self.put_result(id.as_deref(), part, at_us, &header);
                }
            }
        }
    }

    fn event(&mut self, notes: &mut Notes, line: u64, event: &Value, at_us: Option<i64>) {
        let kind = text(event, "type").unwrap_or("");
        match kind {
            "token_count" => self.counted(line, at(event, &["info"]), at_us),
            // Before token counts, a turn told the thread's running total.
            "turn.completed" if event.get("usage").is_some() => {
                let total = usage(at(event, &["usage"]));
                notes.count(
                    "turns that report running totals instead of calls, each taken as one call",
                );
                let own = since(self.total, total);
                self.total = total;
                self.counts(line, own, at_us);
            }
            "exec_command_end" | "mcp_tool_call_end" | "patch_apply_end" => self.ended(event),
            "context_compacted" => self.talk.events.push(("compaction", at_us)),
            "turn_aborted" => self.talk.events.push(("aborted", at_us)),
            "error" | "stream_error" => self.talk.events.push(("error", at_us)),
            other if ASIDE.contains(&other) => {}
            other => {
                let short: String = other.chars().take(40).collect();
                notes.count(&format!(
                    "events of the unknown type `{short}`, passed over"
                ));
            }
        }
    }

    fn counted(&mut self, line: u64, info: &Value, at_us: Option<i64>) {
        if !info.is_object() {
            return;
        }
        let last = info.get("last_token_usage").map(usage);
        let total = info.get("total_token_usage").map(usage);
        let own = match (last, total) {
            (_, Some(total)) if total == self.total && total.prompt.is_some() => return,
            (Some(last), _) => last,
            (None, Some(total)) => since(self.total, total),
            (None, None) => usage(info),
        };
        self.total = total.unwrap_or(self.total);
        self.counts(line, own, at_us);
    }

    fn counts(&mut self, line: u64, own: Usage, at_us: Option<i64>) {
        if own.told().is_none() {
            return;
        }
        let before_results = self.later.is_empty();
        let open = self.open.get_or_insert_with(|| Call {
            line,
            resends_thoughts: Some(true),
            ..Call::default()
        });
        if before_results {
            open.end_us = open.end_us.max(at_us);
        }
        if open.model.is_none() {
            open.model.clone_from(&self.model);
        }
        self.close(Some(own));
    }

    /// Takes in an event that says how long a tool ran.
    fn ended(&mut self, event: &Value) {
        let duration = at(event, &["duration"]);
        let secs =
            real(duration, "secs").map(|secs| secs + real(duration, "nanos").unwrap_or(0.0) / 1e9);
        let micros = secs.and_then(super::super::micros);
        if let (Some(id), Some(micros)) = (name(event, "call_id"), micros) {
            self.durations.push((id, micros));
        }
    }

    fn compacted(&mut self, payload: &Value, at_us: Option<i64>) {
        self.close(None);
        self.talk.events.push(("compaction", at_us));
        let resumed = self.talk.main().calls.is_empty();
        self.talk.resumed |= resumed;
        let origin = self.origin;
        self.talk.main().go_back(origin, "compaction");
        let history = list(payload, "replacement_history");
        for item in history {
            let told = ["content", "output", "encrypted_content", "summary"];
            let content = told
                .iter()
                .map(|key| at(item, &[key]))
                .find(|value| !value.is_null());
            let kind = match text(item, "role") {
                Some("assistant") => "assistant-text",
                _ => "summary",
            };
            let part = Part::body(kind, content.unwrap_or(item));
            self.talk.main().hear(part, at_us);
        }
        if history.is_empty() {
            let part = Part::body("summary", at(payload, &["message"]));
            self.talk.main().hear(part, at_us);
        }
    }
}

/// Returns counts in whichever words a generation used; the prompt includes what was cached.
fn usage(value: &Value) -> Usage {
    Usage {
        prompt: either(value, &["input_tokens", "prompt", "prompt_tokens"]),
        cached: either(value, &["cached_input_tokens", "cached"]),
        cache_write: count(value, "cache_write_input_tokens"),
        output: either(value, &["output_tokens", "completion", "completion_tokens"]),
        reasoning: count(value, "reasoning_output_tokens"),
    }
}

/// Returns what was added to a running total; the whole of one that began again.
fn since(before: Usage, now: Usage) -> Usage {
    let sub =
        |now: Option<u64>, before: Option<u64>| now.map(|now| now.checked_sub(before.unwrap_or(0)));
    let own = [
        sub(now.prompt, before.prompt),
        sub(now.cached, before.cached),
        sub(now.cache_write, before.cache_write),
        sub(now.output, before.output),
        sub(now.reasoning, before.reasoning),
    ];
    if own.contains(&Some(None)) {
        return now;
    }
    let [prompt, cached, cache_write, output, reasoning] = own.map(Option::flatten);
    Usage {
        prompt,
        cached,
        cache_write,
        output,
        reasoning,
    }
}

/// Reads what a tool's output says of its own run: in its first lines, or in the `metadata` that older files hold.
fn header(output: &Value, inner: Option<&Value>) -> Header {
    let metadata = at(inner.unwrap_or(output), &["metadata"]);
    let mut header = Header {
        micros: real(metadata, "duration_seconds").and_then(super::super::micros),
        exit: metadata.get("exit_code").and_then(Value::as_i64),
    };
    let first = output
        .as_array()
        .and_then(|blocks| text(blocks.first()?, "text"));
    let said = output.as_str().or(first).or_else(|| text(output, "text"));
    for line in said.unwrap_or("").lines().take(8) {
        if let Some(rest) = line.strip_prefix("Wall time: ") {
            let secs = rest
                .split_whitespace()
                .next()
                .and_then(|secs| secs.parse().ok());
            header.micros = header.micros.or(secs.and_then(super::super::micros));
        } else if let Some(rest) = line.strip_prefix("Process exited with code ") {
            header.exit = header.exit.or(rest.trim().parse().ok());
        } else if line == "Output:" {
            break;
        }
    }
    header
}
