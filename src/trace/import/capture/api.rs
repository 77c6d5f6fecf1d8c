//! Requests and answers of the model APIs, brought to one form: chat completions, Responses, Anthropic Messages, Ollama.
//!
//! Only what reaches the model counts: `cache_control` marks, ids of calls and empty fields are left out, so a message
//! that a client sends again compares equal to the answer it came from.

use super::super::super::record::UsageRecord;
use super::super::lenient::Num;
use super::super::pieces::{Said, cut};
use serde_json::{Map, Value};

/// A request as the model reads it.
#[derive(Default, Debug)]
pub(in super::super) struct Asked {
    pub(in super::super) model: Option<String>,
    /// Tools and system, then what was said.
    pub(in super::super) said: Vec<Said>,
    /// How many of the pieces are tools and system.
    pub(in super::super) head: usize,
    /// The answer that this request continues without repeating it.
    pub(super) continues: Option<String>,
    /// What the client says of whose conversation this is.
    pub(super) session: Option<String>,
}

/// An answer as a client would send it again.
#[derive(Default, Debug)]
pub(in super::super) struct Answered {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
    pub(in super::super) said: Vec<Said>,
    pub(in super::super) finish: Option<&'static str>,
    pub(super) usage: UsageRecord,
    /// Reasoning tokens as counted by the provider.
    pub(super) reasoning: Option<u64>,
    /// Whether the reasoning is among the pieces.
    shown: bool,
}

impl Answered {
    /// Returns the reasoning that is in no piece.
    pub(super) fn hidden(&self) -> Option<u64> {
        self.reasoning
            .map(|tokens| if self.shown { 0 } else { tokens })
    }
}

/// Returns whether a JSON object is a request to a model.
pub(super) fn is_request(body: &Map<String, Value>) -> bool {
    let list = |key: &str| body.get(key).is_some_and(Value::is_array);
    list("messages")
        || (body.contains_key("input") && (body.contains_key("model") || list("tools")))
        || (body.contains_key("prompt") && body.contains_key("model"))
}

/// Reads a request.
pub(in super::super) fn request(body: &Map<String, Value>) -> Asked {
    let mut asked = Asked {
        model: text(body, "model"),
        continues: text(body, "previous_response_id"),
        session: session(body),
        ..Asked::default()
    };
    let said = &mut asked.said;
    for key in ["tools", "functions"] {
        for tool in list(body, key) {
            cut("tool", &plainly(tool), "tools", said);
        }
    }
    for key in ["system", "instructions"] {
        content("system", body.get(key), "system", said);
    }
    asked.head = said.len();
    if let Some(Value::String(prompt)) = body.get("prompt") {
        cut("prompt", prompt, "user", said);
    }
    match body.get("input") {
        Some(Value::String(input)) => cut("user", input, "user", said),
        Some(Value::Array(items)) => items.iter().for_each(|item| message(item, said)),
        _ => {}
    }
    let mut leading = true;
    for one in list(body, "messages") {
        message(one, said);
        // A system prompt is the first message of chat completions.
        leading &= matches!(one["role"].as_str(), Some("system" | "developer"));
        if leading {
            asked.head = said.len();
        }
    }
    asked
}

/// Returns what names the conversation in a request: Claude Code, for one, puts it behind `_session_`.
fn session(body: &Map<String, Value>) -> Option<String> {
    let metadata = body.get("metadata").and_then(Value::as_object);
    let user = metadata.and_then(|metadata| text(metadata, "user_id"));
    let own = user.and_then(|user| user.rsplit_once("_session_").map(|(_, id)| id.to_string()));
    own.or_else(|| metadata.and_then(|metadata| text(metadata, "session_id")))
        .or_else(|| text(body, "session_id"))
        .or_else(|| text(body, "prompt_cache_key"))
        .filter(|name| !name.is_empty())
}

/// Adds what a message says.
pub(in super::super) fn message(message: &Value, said: &mut Vec<Said>) {
    let role = message["role"].as_str().unwrap_or("");
    let kind = match role {
        "system" | "developer" => "system",
        "assistant" | "model" => "assistant-text",
        "tool" | "function" => "tool-output",
        _ => "user",
    };
    // Items of the Responses API that are no messages.
    match message["type"].as_str() {
        Some("function_call" | "custom_tool_call") => {
            let given = message.get("arguments").or_else(|| message.get("input"));
            return call(message["name"].as_str(), given, said);
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            return content("tool", message.get("output"), "tool-output", said);
        }
        Some("reasoning") => {
            let hidden = message["encrypted_content"].as_str();
            let shown = plainly(&message["content"]);
            let seen = hidden.unwrap_or(&shown);
            return cut("assistant", seen, "reasoning", said);
        }
        _ => {}
    }
    for key in ["reasoning_content", "reasoning", "thinking"] {
        if let Some(thought) = message[key].as_str() {
            cut("assistant", thought, "reasoning", said);
            break;
        }
    }
    let voice = if kind == "tool-output" { "tool" } else { role };
    content(
        voice,
        message.get("content").or_else(|| message.get("parts")),
        kind,
        said,
    );
    if let Some(calls) = message["tool_calls"].as_array() {
        for one in calls {
            let function = one.get("function").unwrap_or(one);
            call(function["name"].as_str(), function.get("arguments"), said);
        }
    }
}

/// Adds a tool call. Arguments are compared as JSON where they are JSON: clients format them anew.
fn call(name: Option<&str>, given: Option<&Value>, said: &mut Vec<Said>) {
    let given = match given {
        Some(Value::String(text)) => serde_json::from_str::<Value>(text)
            .map_or_else(|_| text.clone(), |value| plainly(&value)),
        Some(value) => plainly(value),
        None => String::new(),
    };
    let text = format!("{}({given})", name.unwrap_or(""));
    cut("call", &text, "tool-call", said);
}

/// Adds the content of a message: a text, or a list of blocks.
fn content(voice: &str, content: Option<&Value>, kind: &'static str, said: &mut Vec<Said>) {
    let blocks = match content {
        Some(Value::String(text)) => return cut(voice, text, kind, said),
        Some(Value::Array(blocks)) => blocks,
        Some(Value::Object(_)) => {
            return content_block(voice, content.unwrap_or(&Value::Null), kind, said);
        }
        _ => return,
    };
    for block in blocks {
        content_block(voice, block, kind, said);
    }
}

fn content_block(voice: &str, block: &Value, kind: &'static str, said: &mut Vec<Said>) {
    match block["type"].as_str() {
        Some("tool_use" | "server_tool_use") => {
            call(block["name"].as_str(), block.get("input"), said);
        }
        Some("tool_call") => call(block["name"].as_str(), block.get("arguments"), said),
        Some("tool_result") => content("tool", block.get("content"), "tool-output", said),
        Some("tool_call_response") => {
            let result = block.get("response").or_else(|| block.get("result"));
            match result {
                Some(Value::String(text)) => cut("tool", text, "tool-output", said),
                Some(value) => cut("tool", &plainly(value), "tool-output", said),
                None => {}
            }
        }
        Some("thinking" | "redacted_thinking" | "reasoning") => {
            let shown = ["thinking", "data", "content"]
                .iter()
                .find_map(|key| block[key].as_str());
            let seen = shown
                .filter(|text| !text.is_empty())
                .or(block["signature"].as_str());
            cut("assistant", seen.unwrap_or(""), "reasoning", said);
        }
        _ => match block["text"]
            .as_str()
            .or_else(|| block["content"].as_str())
            .or(block.as_str())
        {
            Some(text) => cut(voice, text, kind, said),
            // Pictures and documents, as far as they are there.
            None => cut(voice, &plainly(block), "image", said),
        },
    }
}

/// Reads an answer: JSON, or a stream of server-sent events.
pub(super) fn response(body: &Value) -> Answered {
    match body {
        Value::String(text) => stream(text),
        Value::Array(chunks) => {
            let mut streamed = Streamed::default();
            for chunk in chunks {
                streamed.take(chunk);
            }
            streamed.finish()
        }
        whole => document(whole),
    }
}

fn document(body: &Value) -> Answered {
    let mut answered = Answered {
        id: body["id"].as_str().map(str::to_string),
        model: body["model"].as_str().map(str::to_string),
        ..Answered::default()
    };
    usage(&body["usage"], &mut answered);
    let choice = &body["choices"][0];
    if choice.is_object() {
        let told = choice.get("message").filter(|message| message.is_object());
        match told {
            Some(told) => message(told, &mut answered.said),
            None => content(
                "assistant",
                choice.get("text"),
                "assistant-text",
                &mut answered.said,
            ),
        }
        answered.finish = finish(choice["finish_reason"].as_str());
    } else if let Some(items) = body["output"].as_array() {
        for item in items {
            message(item, &mut answered.said);
        }
        let called = items.iter().any(|item| {
            item["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("_call"))
        });
        answered.finish = match body["status"].as_str() {
            _ if called => Some("tool-call"),
            Some("incomplete") => Some("length"),
            Some("failed") => Some("error"),
            _ => Some("end-of-turn"),
        };
    } else if body["message"].is_object() {
        // Ollama counts beside the message.
        message(&body["message"], &mut answered.said);
        usage(body, &mut answered);
        let calls = body["message"]["tool_calls"]
            .as_array()
            .is_some_and(|calls| !calls.is_empty());
        answered.finish = if calls {
            Some("tool-call")
        } else {
            finish(body["done_reason"].as_str())
        };
    } else {
        content(
            "assistant",
            body.get("content"),
            "assistant-text",
            &mut answered.said,
        );
        answered.finish = finish(body["stop_reason"].as_str());
    }
    answered.shown = answered.said.iter().any(|piece| piece.kind == "reasoning");
    answered
}

fn finish(reason: Option<&str>) -> Option<&'static str> {
    Some(match reason? {
        "tool_calls" | "tool_use" | "function_call" | "tool_call" => "tool-call",
        "stop" | "end_turn" | "stop_sequence" | "eos" => "end-of-turn",
        "length" | "max_tokens" | "max_output_tokens" => "length",
        "error" | "content_filter" | "refusal" => "error",
        _ => return None,
    })
}

/// Returns an answer's ending by the name that another source has for it.
pub(in super::super) fn ending(reason: Option<&str>) -> Option<String> {
    finish(reason).map(str::to_string)
}

/// Reads token counts; prompts include what was cached.
fn usage(told: &Value, answered: &mut Answered) {
    let count = |value: &Value| serde_json::from_value::<Num>(value.clone()).ok()?.count();
    let first = |keys: &[&str]| keys.iter().find_map(|key| count(&told[*key]));
    let written = first(&["cache_creation_input_tokens"]);
    let read = first(&["cache_read_input_tokens", "prompt_cache_hit_tokens"])
        .or_else(|| count(&told["prompt_tokens_details"]["cached_tokens"]))
        .or_else(|| count(&told["input_tokens_details"]["cached_tokens"]));
    // Anthropic counts what was cached beside the input, the others within it.
    let beside = ["cache_read_input_tokens", "cache_creation_input_tokens"];
    let beside = beside
        .iter()
        .filter_map(|key| count(&told[*key]))
        .fold(0, u64::saturating_add);
    let plain = first(&["prompt_tokens", "prompt_eval_count"]);
    let prompt = plain.or_else(|| Some(count(&told["input_tokens"])?.saturating_add(beside)));
    let output = first(&["completion_tokens", "output_tokens", "eval_count"]);
    let usage = &mut answered.usage;
    usage.prompt = prompt.filter(|&tokens| tokens > 0).or(usage.prompt);
    usage.cached = read.or(usage.cached);
    usage.cache_write = written.or(usage.cache_write);
    usage.output = output.or(usage.output);
    answered.reasoning = count(&told["completion_tokens_details"]["reasoning_tokens"])
        .or_else(|| count(&told["output_tokens_details"]["reasoning_tokens"]))
        .or(answered.reasoning);
}

/// An answer that arrives in pieces.
#[derive(Default)]
struct Streamed {
    whole: Option<Answered>,
    thought: String,
    text: String,
    calls: Vec<(String, String)>,
    blocks: Vec<Value>,
    answered: Answered,
}

fn stream(text: &str) -> Answered {
    if let Ok(whole) = serde_json::from_str::<Value>(text)
        && whole.is_object()
    {
        return document(&whole);
    }
    let mut streamed = Streamed::default();
    for line in text.lines() {
        let data = line.strip_prefix("data:").unwrap_or(line).trim();
        if let Ok(event) = serde_json::from_str::<Value>(data) {
            streamed.take(&event);
        }
    }
    streamed.finish()
}

/// The most blocks and calls that an answer may number: a number alone must not take memory.
const MOST_PARTS: usize = 4096;

impl Streamed {
    fn take(&mut self, event: &Value) {
        let place = event["index"].as_u64().map_or(0, |at| at as usize);
        match event["type"].as_str() {
            Some("response.completed" | "response.incomplete" | "response.failed") => {
                self.whole = Some(document(&event["response"]));
            }
            Some("message_start") => {
                let message = &event["message"];
                self.answered.id = message["id"].as_str().map(str::to_string);
                self.answered.model = message["model"].as_str().map(str::to_string);
                usage(&message["usage"], &mut self.answered);
            }
            Some("content_block_start") if place < MOST_PARTS => {
                if self.blocks.len() <= place {
                    self.blocks.resize(place + 1, Value::Null);
                }
                self.blocks[place] = event["content_block"].clone();
            }
            Some("content_block_delta") => self.delta(place, &event["delta"]),
            Some("message_delta") => {
                // The input side was told at the start; here only what was written since is new.
                let output = event["usage"]["output_tokens"].as_u64();
                self.answered.usage.output = output.or(self.answered.usage.output);
                self.answered.finish = finish(event["delta"]["stop_reason"].as_str());
            }
            _ => self.chunk(event),
        }
    }

    fn delta(&mut self, place: usize, delta: &Value) {
        let Some(block) = self.blocks.get_mut(place).and_then(Value::as_object_mut) else {
            return;
        };
        for (from, to) in [
            ("text", "text"),
            ("thinking", "thinking"),
            ("partial_json", "partial_json"),
            ("signature", "signature"),
        ] {
            if let Some(more) = delta[from].as_str() {
                let entry = block
                    .entry(to)
                    .or_insert_with(|| Value::String(String::new()));
                match entry {
                    Value::String(text) => text.push_str(more),
                    other => *other = Value::String(more.to_string()),
                }
            }
        }
    }

    /// Takes a chunk of a chat completion.
    fn chunk(&mut self, chunk: &Value) {
        let answered = &mut self.answered;
        answered.id = chunk["id"]
            .as_str()
            .map(str::to_string)
            .or(answered.id.take());
        answered.model = chunk["model"]
            .as_str()
            .map(str::to_string)
            .or(answered.model.take());
        usage(&chunk["usage"], answered);
        usage(chunk, answered);
        let choice = &chunk["choices"][0];
        let reason = choice["finish_reason"]
            .as_str()
            .or(chunk["done_reason"].as_str());
        answered.finish = finish(reason).or(answered.finish);
        let delta = if choice["delta"].is_object() {
            &choice["delta"]
        } else {
            &chunk["message"]
        };
        let more = |key: &str| delta[key].as_str().unwrap_or("");
        self.thought.push_str(more("reasoning_content"));
        self.thought.push_str(more("reasoning"));
        self.text.push_str(more("content"));
        self.text.push_str(choice["text"].as_str().unwrap_or(""));
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let place = call["index"]
                .as_u64()
                .map_or(self.calls.len(), |at| at as usize);
            if place >= MOST_PARTS {
                continue;
            }
            if self.calls.len() <= place {
                self.calls.resize(place + 1, (String::new(), String::new()));
            }
            let (name, given) = &mut self.calls[place];
            name.push_str(call["function"]["name"].as_str().unwrap_or(""));
            match &call["function"]["arguments"] {
                Value::String(more) => given.push_str(more),
                Value::Null => {}
                whole => given.push_str(&plainly(whole)),
            }
        }
    }

    fn finish(self) -> Answered {
        if let Some(whole) = self.whole {
            return whole;
        }
        let mut answered = self.answered;
        let said = &mut answered.said;
        cut("assistant", &self.thought, "reasoning", said);
        cut("assistant", &self.text, "assistant-text", said);
        for (name, given) in self.calls {
            call(Some(&name), Some(&Value::String(given)), said);
        }
        for block in &self.blocks {
            if let Some(given) = block["partial_json"].as_str() {
                call(
                    block["name"].as_str(),
                    Some(&Value::String(given.to_string())),
                    said,
                );
            } else {
                content_block("assistant", block, "assistant-text", said);
            }
        }
        answered.shown = answered.said.iter().any(|piece| piece.kind == "reasoning");
        answered
    }
}

/// Writes JSON without what does not reach the model, and with its keys in order.
pub(in super::super) fn plainly(value: &Value) -> String {
    fn sift(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .filter(|(key, value)| *key != "cache_control" && !value.is_null())
                    .map(|(key, value)| (key.clone(), sift(value)))
                    .collect(),
            ),
            Value::Array(items) => Value::Array(items.iter().map(sift).collect()),
            other => other.clone(),
        }
    }
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => sift(other).to_string(),
    }
}

fn text(fields: &Map<String, Value>, key: &str) -> Option<String> {
    fields.get(key)?.as_str().map(str::to_string)
}

fn list<'a>(fields: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    fields
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
