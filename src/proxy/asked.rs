//! What an agent asked of a model, in the words of any of three interfaces: brought to one list of items.
//!
//! An item is a message, or the list of tools. Two items are the same when what the model reads of them is: the order
//! of fields, cache markers and ids do not count.

use serde_json::Value;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

/// Which interface a request uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl Api {
    /// Returns the interface that a path belongs to; nothing for what is passed on without being recorded.
    pub fn of_path(path: &str) -> Option<Api> {
        let path = path.trim_end_matches('/');
        let ends = |with: &str| path.ends_with(with);
        if ends("/chat/completions") {
            Some(Api::Chat)
        } else if ends("/responses") {
            Some(Api::Responses)
        } else if ends("/messages") {
            Some(Api::Messages)
        } else {
            None
        }
    }
}

/// What an item is, as segments of a trace call it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The tools on offer.
    Tools,
    /// What the system says.
    System,
    /// What a person says.
    User,
    /// What the model said.
    Assistant,
    /// What a tool answered.
    Tool,
}

impl Kind {
    /// Returns the word used in traces.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Tools => "tools",
            Kind::System => "system",
            Kind::User => "user",
            Kind::Assistant => "assistant-text",
            Kind::Tool => "tool-output",
        }
    }
}

/// A message, or the list of tools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// What the model reads of it, calls of tools included.
    pub text: String,
    /// A hash of kind and text.
    pub key: u64,
}

impl Item {
    /// Returns the item with this content.
    pub fn new(kind: Kind, text: String) -> Item {
        let key = xxh3_64(text.as_bytes()) ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Item { kind, text, key }
    }

    /// Returns what the model said as an item.
    pub fn assistant(text: &str, calls: &[ToolCall]) -> Item {
        let mut whole = text.to_string();
        for call in calls {
            let _ = write!(whole, "\n{} {}", call.name, canonical(&call.arguments));
        }
        Item::new(Kind::Assistant, whole)
    }
}

/// A tool that the model called.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ToolCall {
    /// The call's own id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, JSON as text.
    pub arguments: String,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// How it was asked.
    pub api: Api,
    /// Of which model.
    pub model: Option<String>,
    /// The tools, what the system says, and the messages.
    pub items: Vec<Item>,
    /// How many of the items are tools and system, at the beginning.
    pub head: usize,
    /// The names of the tools on offer, sorted.
    pub tools: Vec<String>,
    /// Results of tools among the items: which call, and how many characters.
    pub results: Vec<(String, u64)>,
    /// What the client calls its session, where it says so.
    pub hint: Option<String>,
    /// The answer that this request continues, where the engine keeps it.
    pub previous: Option<String>,
    /// Whether the answer is to come as a stream without token counts.
    pub uncounted_stream: bool,
}

impl Asked {
    /// Reads a request's body; nothing when it is none that this interface knows.
    pub fn read(api: Api, body: &[u8], session: Option<&str>) -> Option<Asked> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let list = match api {
            Api::Chat | Api::Messages => body.get("messages")?.as_array()?.clone(),
            Api::Responses => match body.get("input")? {
                Value::Array(list) => list.clone(),
                text => vec![serde_json::json!({"role": "user", "content": text})],
            },
        };
        let mut asked = Asked {
            api,
            model: text_of(body.get("model")),
            items: Vec::new(),
            head: 0,
            tools: Vec::new(),
            results: Vec::new(),
            hint: session.map(ToString::to_string).or_else(|| hint(&body)),
            previous: text_of(body.get("previous_response_id")),
            uncounted_stream: false,
        };
        let streams = body.get("stream").and_then(Value::as_bool) == Some(true);
        let counted = body
            .pointer("/stream_options/include_usage")
            .and_then(Value::as_bool);
        asked.uncounted_stream = api == Api::Chat && streams && counted != Some(true);
        asked.add_head(&body);
        for message in &list {
            asked.add(message);
        }
        let in_head = |item: &&Item| matches!(item.kind, Kind::Tools | Kind::System);
        asked.head = asked.items.iter().take_while(in_head).count();
        (!asked.items.is_empty()).then_some(asked)
    }

    fn add_head(&mut self, body: &Value) {
        if let Some(Value::Array(tools)) = body.get("tools")
            && !tools.is_empty()
        {
            let name = |tool: &Value| {
                let inside = tool.pointer("/function/name").or(tool.get("name"));
                text_of(inside).or_else(|| text_of(tool.get("type")))
            };
            self.tools = tools.iter().filter_map(name).collect();
            self.tools.sort_unstable();
            let text = plain(&Value::Array(tools.clone())).to_string();
            self.items.push(Item::new(Kind::Tools, text));
        }
        for field in ["instructions", "system"] {
            if let Some(system) = body.get(field).filter(|system| !system.is_null()) {
                self.items.push(Item::new(Kind::System, said(system)));
            }
        }
    }

    /// Adds a message, or an item of the Responses interface. Pieces of one answer become one item.
    fn add(&mut self, message: &Value) {
        let role = message.get("role").and_then(Value::as_str);
        let kind = message
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("message");
        let content = message.get("content").unwrap_or(&Value::Null);
        match (role, kind) {
            (_, "function_call" | "custom_tool_call") => {
                let call = function(message);
                self.join_assistant(&Item::assistant("", &[call]).text);
            }
            (_, "function_call_output" | "custom_tool_call_output") => {
                let output = said(message.get("output").unwrap_or(&Value::Null));
                self.result(message.get("call_id"), &output);
                self.items.push(Item::new(Kind::Tool, output));
            }
            // What the model thought is not compared: it is often left out or sealed.
            (_, "reasoning") => {}
            (Some("system" | "developer"), _) => {
                self.items.push(Item::new(Kind::System, said(content)));
            }
            (Some("assistant"), _) => {
                let calls = calls_of(message);
                let item = Item::assistant(&said(content), &calls);
                if self.api == Api::Responses {
                    self.join_assistant(&item.text);
                } else {
                    self.items.push(item);
                }
            }
            (Some("tool" | "function"), _) => {
                let output = said(content);
                self.result(message.get("tool_call_id"), &output);
                self.items.push(Item::new(Kind::Tool, output));
            }
            _ => self.add_user(content),
        }
    }

    fn add_user(&mut self, content: &Value) {
        let mut kind = Kind::User;
        for block in content.as_array().into_iter().flatten() {
            if block.get("type").and_then(Value::as_str) == Some("tool_result") {
                kind = Kind::Tool;
                let output = said(block.get("content").unwrap_or(&Value::Null));
                self.result(block.get("tool_use_id"), &output);
            }
        }
        self.items.push(Item::new(kind, said(content)));
    }

    fn join_assistant(&mut self, text: &str) {
        match self.items.last_mut() {
            Some(last) if last.kind == Kind::Assistant => {
                *last = Item::new(Kind::Assistant, last.text.clone() + text);
            }
            _ => self
                .items
                .push(Item::new(Kind::Assistant, text.to_string())),
        }
    }

    fn result(&mut self, call: Option<&Value>, output: &str) {
        if let Some(id) = text_of(call) {
            self.results.push((id, output.chars().count() as u64));
        }
    }
}

/// Returns the tools that a chat's or Anthropic's message calls.
pub fn calls_of(message: &Value) -> Vec<ToolCall> {
    let of_chat = message.get("tool_calls").and_then(Value::as_array);
    let of_chat = of_chat.into_iter().flatten().map(|call| ToolCall {
        id: text_of(call.get("id")).unwrap_or_default(),
        name: text_of(call.pointer("/function/name")).unwrap_or_default(),
        arguments: text_of(call.pointer("/function/arguments")).unwrap_or_default(),
    });
    let blocks = message.get("content").and_then(Value::as_array);
    let is_use = |block: &&Value| block.get("type").and_then(Value::as_str) == Some("tool_use");
    let of_blocks = blocks
        .into_iter()
        .flatten()
        .filter(is_use)
        .map(|block| ToolCall {
            id: text_of(block.get("id")).unwrap_or_default(),
            name: text_of(block.get("name")).unwrap_or_default(),
            arguments: block
                .get("input")
                .map(ToString::to_string)
                .unwrap_or_default(),
        });
    of_chat.chain(of_blocks).collect()
}

/// Returns the tool that an item of the Responses interface calls.
pub fn function(item: &Value) -> ToolCall {
    ToolCall {
        id: text_of(item.get("call_id")).unwrap_or_default(),
        name: text_of(item.get("name")).unwrap_or_default(),
        arguments: text_of(item.get("arguments").or(item.get("input"))).unwrap_or_default(),
    }
}

/// Returns the text of some content: a string, or what its parts say. What is no text counts as its JSON.
pub fn said(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part).collect(),
        other => plain(other).to_string(),
    }
}

fn part(part: &Value) -> String {
    match part.get("type").and_then(Value::as_str) {
        // Calls are told apart from text, and thoughts are not compared.
        Some("tool_use" | "thinking" | "redacted_thinking" | "reasoning") => String::new(),
        Some("tool_result") => said(part.get("content").unwrap_or(&Value::Null)),
        _ => match part.get("text").and_then(Value::as_str) {
            Some(text) => text.to_string(),
            None => said(&plain(part)),
        },
    }
}

/// Returns a value without the marks that say what a provider is to cache, which wander from request to request.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| *name != "cache_control");
            Value::Object(
                kept.map(|(name, field)| (name.clone(), plain(field)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// Returns arguments in one spelling.
fn canonical(arguments: &str) -> String {
    serde_json::from_str::<Value>(arguments)
        .map_or_else(|_| arguments.to_string(), |value| value.to_string())
}

pub(super) fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(ToString::to_string)
}

/// Returns what a body says of its session.
fn hint(body: &Value) -> Option<String> {
    let places = [
        "/prompt_cache_key",
        "/metadata/session_id",
        "/metadata/user_id",
    ];
    places.iter().find_map(|place| text_of(body.pointer(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(api: Api, body: &Value) -> Asked {
        Asked::read(api, body.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn the_three_interfaces_say_the_same_of_one_conversation() {
        let chat = read(
            Api::Chat,
            &json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "list files"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{ \"command\": \"ls\" }"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a b"}]}),
        );
        let messages = read(
            Api::Messages,
            &json!({"system": [
            {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}], "messages": [
            {"role": "user", "content": [{"type": "text", "text": "list files"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"},
                {"type": "tool_use", "id": "c1", "name": "bash", "input": {"command": "ls"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a b"}]}]}),
        );
        let responses = read(
            Api::Responses,
            &json!({"instructions": "be brief", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "list files"}]},
            {"type": "reasoning", "encrypted_content": "x"},
            {"type": "function_call", "call_id": "c1", "name": "bash", "arguments": "{\"command\":\"ls\"}"},
            {"type": "function_call_output", "call_id": "c1", "output": "a b"}]}),
        );
        assert_eq!(chat.items, messages.items);
        assert_eq!(chat.items, responses.items);
        assert_eq!((chat.head, chat.items.len()), (1, 4));
        assert_eq!(chat.results, [("c1".to_string(), 3)]);
        assert_eq!(messages.results, responses.results);
    }

    #[test]
    fn cache_marks_do_not_make_a_message_another() {
        let with = |mark: Value| {
            let block = json!({"type": "text", "text": "hello", "cache_control": mark});
            let tool = json!({"name": "bash", "input_schema": {}, "cache_control": mark});
            read(
                Api::Messages,
                &json!({"tools": [tool], "messages": [{"role": "user", "content": [block]}]}),
            )
        };
        assert_eq!(
            with(Value::Null).items,
            with(json!({"type": "ephemeral"})).items
        );
    }
}
