//! `OpenHands` runs: the event streams of both generations, and the results of evaluations that hold them.
//!
//! The first generation repeats a call's reply on each of its actions and observations, and keeps counts and latencies
//! in the run's metrics. The second tells running totals before the actions of a call.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, How, Part, Place, Talk, Tool, Usage};
use super::json::{at, beside, count, documents, list, name, real, stamp, text};
use super::lists;
use super::notes::Notes;
use super::write;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::path::PathBuf;

/// Reads event streams: evaluations, lists of events, or events one after the other.
pub(super) fn read(
    input: &Input,
    with: &[PathBuf],
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "the log is not the request: its messages are rebuilt from events, and tool definitions are not in all of them; \
         stamps are local times without a zone",
    );
    notes.always.push(
        "tool times are differences of the stamps of actions and observations; model times are measured where the run's \
         metrics hold latencies; first-token times are not recorded",
    );
    let stem = file_stem(&input.path);
    let mut loose = Vec::new();
    for document in documents(input, feed)? {
        if document.get("history").is_some() || document.get("instance_id").is_some() {
            let id = name(&document, "instance_id").unwrap_or_else(|| stem.clone());
            let model = name(at(&document, &["metadata", "llm_config"]), "model");
            let mut reader = Reader::new(&id, model);
            reader.metrics(at(&document, &["metrics"]));
            // The oldest runs pair each action with its observation.
            let events = list(&document, "history")
                .iter()
                .flat_map(|event| match event {
                    Value::Array(pair) => pair.as_slice(),
                    event => std::slice::from_ref(event),
                });
            events
                .enumerate()
                .for_each(|(index, event)| reader.event(notes, index, event));
            write::talk(feed, notes, "openhands", &mut reader.talk);
        } else if let Value::Array(events) = document {
            loose.extend(events);
        } else {
            loose.push(document);
        }
    }
    loose.extend(with.iter().filter_map(|path| beside(path)));
    let mut reader = Reader::new(&stem, None);
    for (index, event) in loose.iter().enumerate() {
        reader.event(notes, index, event);
    }
    write::talk(feed, notes, "openhands", &mut reader.talk);
    Ok(())
}

struct Reader {
    talk: Talk,
    /// Counts and latencies by the id of the reply.
    counts: FxHashMap<String, Usage>,
    latencies: FxHashMap<String, u64>,
    /// The reply of the last call.
    reply: Option<String>,
    /// The running totals of the second generation; those of the condenser are not the conversation's.
    total: Usage,
    /// Whether the last call has no action yet.
    waiting: bool,
    /// What was heard, by event id, with the place before it.
    heard: Vec<(u64, Part, Place)>,
}

impl Reader {
    fn new(id: &str, model: Option<String>) -> Reader {
        let mut talk = Talk::new(id);
        talk.model = model;
        Reader {
            talk,
            counts: FxHashMap::default(),
            latencies: FxHashMap::default(),
            reply: None,
            total: Usage::default(),
            waiting: false,
            heard: Vec::new(),
        }
    }

    fn metrics(&mut self, metrics: &Value) {
        for usage in list(metrics, "token_usages") {
            if let Some(id) = name(usage, "response_id") {
                self.counts.insert(id, lists::usage(usage));
            }
        }
        for latency in list(metrics, "response_latencies") {
            let micros = real(latency, "latency").and_then(super::super::micros);
            if let (Some(id), Some(micros)) = (name(latency, "response_id"), micros) {
                self.latencies.insert(id, micros);
            }
        }
    }

    fn event(&mut self, notes: &mut Notes, index: usize, event: &Value) {
        let at_us = stamp(event, "timestamp");
        if event.get("kind").is_some_and(Value::is_string) {
            return self.second(notes, index, event, at_us);
        }
        let number = count(event, "id").unwrap_or(index as u64);
        if let Some(observation) = text(event, "observation") {
            return self.observed(notes, number, observation, event, at_us);
        }
        match (text(event, "source"), text(event, "action")) {
            (_, Some("system")) => {
                let args = at(event, &["args"]);
                self.hear(number, Part::body("system", at(args, &["content"])), None);
                self.hear(number, Part::body("tools", at(args, &["tools"])), None);
            }
            (Some("user"), Some("message")) => {
                let part = Part::body("user", at(event, &["args", "content"]));
                self.hear(number, part, at_us);
            }
            (_, Some("condensation")) => self.condensed(at(event, &["args"]), at_us),
            (_, Some("recall" | "change_agent_state" | "null") | None) => {}
            (Some("agent"), Some(action)) => self.acted(index, number, action, event, at_us),
            _ => notes.count("events of an unknown kind, passed over"),
        }
    }

    fn hear(&mut self, number: u64, part: Part, at_us: Option<i64>) {
        let main = self.talk.main();
        if !part.is_empty() {
            self.heard.push((number, part, main.place()));
        }
        main.hear(part, at_us);
    }

    fn acted(
        &mut self,
        index: usize,
        number: u64,
        action: &str,
        event: &Value,
        at_us: Option<i64>,
    ) {
        let told = at(event, &["tool_call_metadata"]);
        let response = at(told, &["model_response"]);
        let id = name(response, "id");
        let args = at(event, &["args"]);
        let said = Part::body("assistant-text", args).chars;
        if id.is_none() || id != self.reply {
            let metrics = at(event, &["llm_metrics"]);
            let counted = id.as_ref().and_then(|id| self.counts.get(id).copied());
            let counted = counted.or_else(|| lists::usage(at(response, &["usage"])).told());
            let usage = counted.or_else(|| self.grown(at(metrics, &["accumulated_token_usage"])));
            self.total = totals(at(metrics, &["accumulated_token_usage"]))
                .told()
                .unwrap_or(self.total);
            let micros = id.as_ref().and_then(|id| self.latencies.get(id).copied());
            let model = name(response, "model");
            self.talk.model = self.talk.model.take().or_else(|| model.clone());
            let call = Call {
                line: index as u64 + 1,
                model,
                usage: usage.and_then(Usage::told),
                sent_us: at_us
                    .zip(micros)
                    .map(|(end, micros)| end.saturating_sub(micros.cast_signed())),
                end_us: at_us,
                how: if micros.is_some() {
                    How::Measured
                } else {
                    How::Derived
                },
                ..Call::default()
            };
            self.talk.main().call(call);
            self.reply = id;
        }
        let main = self.talk.main();
        let last = main.calls.len() - 1;
        main.calls[last].said += said;
        if action == "message" || action == "finish" {
            return;
        }
        // Ids of calls repeat in a run; an observation names the event that caused it.
        main.ask(
            last,
            Tool {
                id: Some(number.to_string()),
                name: name(told, "function_name").unwrap_or_else(|| action.to_string()),
                start_us: at_us,
                meaning: Some("wall"),
                ..Tool::default()
            },
        );
    }

    /// Returns what was added to a running total since it was told last.
    fn grown(&self, now: &Value) -> Option<Usage> {
        let now = totals(now);
        let before = self.total;
        let sub = |now: Option<u64>, before: Option<u64>| {
            now.map(|now| now.checked_sub(before.unwrap_or(0)).unwrap_or(now))
        };
        Usage {
            prompt: sub(now.prompt, before.prompt),
            cached: sub(now.cached, before.cached),
            cache_write: sub(now.cache_write, before.cache_write),
            output: sub(now.output, before.output),
            reasoning: sub(now.reasoning, before.reasoning),
        }
        .told()
    }

    fn observed(
        &mut self,
        notes: &mut Notes,
        number: u64,
        kind: &str,
        event: &Value,
        at_us: Option<i64>,
    ) {
        let part = Part::body("tool-output", at(event, &["content"]));
        let cause = count(event, "cause").map(|cause| cause.to_string());
        let main = self.talk.main();
        let known = cause.as_deref().and_then(|id| main.tool(id));
        if let Some(tool) = known {
            tool.end_us = at_us;
            tool.result_chars = Some(part.chars);
            tool.exit_status = at(event, &["extras", "metadata", "exit_code"]).as_i64();
        } else if matches!(kind, "recall" | "agent_state_changed" | "null") {
            return;
        } else {
            notes.unpaired += 1;
        }
        self.hear(number, part, at_us);
    }

    /// Takes in a condensation: a summary stands where events were forgotten.
    fn condensed(&mut self, args: &Value, at_us: Option<i64>) {
        let listed = list(args, "forgotten_event_ids")
            .iter()
            .filter_map(Value::as_u64);
        let (mut first, mut last) = (None, None);
        for id in listed {
            first = Some(first.map_or(id, |first: u64| first.min(id)));
            last = last.max(Some(id));
        }
        let first = first.or_else(|| count(args, "forgotten_events_start_id"));
        let last = last.or_else(|| count(args, "forgotten_events_end_id"));
        let from = first.and_then(|first| self.heard.iter().position(|(id, ..)| *id >= first));
        let place = from.map_or(HEAD, |from| self.heard[from].2);
        let kept: Vec<(u64, Part, Place)> = match from {
            Some(from) => self.heard.split_off(from),
            None => Vec::new(),
        };
        self.talk.events.push(("compaction", at_us));
        self.talk.main().go_back(place, "compaction");
        let summary = Part::body("summary", at(args, &["summary"]));
        self.hear(first.unwrap_or(0), summary, at_us);
        for (id, part, _) in kept {
            if Some(id) > last {
                self.hear(id, part, None);
            }
        }
    }

    /// Takes in an event of the second generation.
    fn second(&mut self, notes: &mut Notes, index: usize, event: &Value, at_us: Option<i64>) {
        match text(event, "kind").unwrap_or("") {
            "SystemPromptEvent" => {
                self.hear(0, Part::body("system", at(event, &["system_prompt"])), None);
                self.hear(0, Part::body("tools", at(event, &["tools"])), None);
            }
            "MessageEvent" if text(event, "source") == Some("agent") => {
                let said = Part::body("assistant-text", at(event, &["llm_message"])).chars;
                self.action(index, event, said, at_us);
            }
            "MessageEvent" => {
                let part = Part::body("user", at(event, &["llm_message"]));
                self.hear(index as u64, part, at_us);
            }
            "ActionEvent" => {
                let said = Part::body("assistant-text", at(event, &["thought"])).chars;
                let asked = Part::body("tool-call", at(event, &["action"])).chars;
                let call = self.action(index, event, said + asked, at_us);
                self.talk.main().ask(
                    call,
                    Tool {
                        id: name(event, "tool_call_id"),
                        name: name(event, "tool_name").unwrap_or_else(|| "unknown".to_string()),
                        start_us: at_us,
                        meaning: Some("wall"),
                        ..Tool::default()
                    },
                );
            }
            "ObservationEvent" | "AgentErrorEvent" | "UserRejectObservation" => {
                let output = match at(event, &["observation"]) {
                    Value::Null => at(event, &["error"]),
                    output => output,
                };
                let part = Part::body("tool-output", output);
                let main = self.talk.main();
                if !main.result(text(event, "tool_call_id"), part, at_us) {
                    notes.unpaired += 1;
                }
                if let Some(tool) = text(event, "tool_call_id").and_then(|id| main.tool(id)) {
                    tool.exit_status = at(event, &["observation", "exit_code"]).as_i64();
                }
            }
            "Condensation" => {
                self.talk.events.push(("compaction", at_us));
                self.talk.main().go_back(HEAD, "compaction");
                let summary = Part::body("summary", at(event, &["summary"]));
                self.hear(index as u64, summary, at_us);
            }
            "ConversationStateUpdateEvent" => self.state(index, event, at_us),
            _ => {}
        }
    }

    /// Takes in an action of a call; returns the call. Its counts came before it, where they came.
    fn action(&mut self, index: usize, event: &Value, said: u64, at_us: Option<i64>) -> usize {
        let reply = name(event, "llm_response_id");
        let same = reply.is_some() && reply == self.reply;
        let main = self.talk.main();
        if !same && !std::mem::take(&mut self.waiting) || main.calls.is_empty() {
            main.call(Call {
                line: index as u64 + 1,
                end_us: at_us,
                ..Call::default()
            });
        }
        self.waiting = false;
        self.reply = reply;
        let last = main.calls.len() - 1;
        main.calls[last].said += said;
        main.calls[last].thought +=
            Part::body("reasoning", at(event, &["reasoning_content"])).chars;
        last
    }

    /// Takes in running totals: what was added to them is a call.
    fn state(&mut self, index: usize, event: &Value, at_us: Option<i64>) {
        if text(event, "key") != Some("stats") {
            return;
        }
        let by_use = at(event, &["value", "usage_to_metrics"]);
        let Some(fields) = by_use.as_object() else {
            return;
        };
        let own = fields.iter().find(|(name, _)| !name.contains("condenser"));
        let Some((_, metrics)) = own else {
            return;
        };
        let now = at(metrics, &["accumulated_token_usage"]);
        let Some(grown) = self.grown(now) else {
            return;
        };
        self.total = totals(now);
        let model = name(metrics, "model_name");
        self.talk.model = self.talk.model.take().or_else(|| model.clone());
        self.talk.main().call(Call {
            line: index as u64 + 1,
            model,
            usage: Some(grown),
            end_us: at_us,
            ..Call::default()
        });
        self.waiting = true;
    }
}

/// Returns running totals; reasoning is part of what was completed.
fn totals(value: &Value) -> Usage {
    Usage {
        reasoning: count(value, "reasoning_tokens").filter(|&tokens| tokens > 0),
        ..lists::usage(value)
    }
}
