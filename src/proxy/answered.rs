//! What a model answered, put together from a document or from the events of a stream.

use super::asked::{Api, Item, ToolCall, calls_of, function, said, text_of};
use serde_json::Value;

/// Token counts as reported, prompts including what was cached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Prompt tokens.
    pub prompt: Option<u64>,
    /// Of those, read from a cache.
    pub cached: Option<u64>,
    /// Of those, written to one.
    pub cache_write: Option<u64>,
    /// Answer tokens, reasoning included.
    pub output: Option<u64>,
    /// Of those, reasoning.
    pub reasoning: Option<u64>,
    /// Whether they are llama.cpp's times and not the interface's usage.
    pub from_timings: bool,
}

/// An answer.
#[derive(Clone, Default, Debug)]
pub struct Answered {
    /// What was said.
    pub text: String,
    /// Tools called.
    pub calls: Vec<ToolCall>,
    /// Bytes of reasoning.
    pub reasoning_bytes: u64,
    /// Why it ended, in the interface's word.
    pub finish: Option<String>,
    /// Token counts.
    pub counts: Counts,
    /// The answer's own id.
    pub id: Option<String>,
    /// Whether nothing more will come.
    pub complete: bool,
    /// What the provider says went wrong.
    pub error: Option<String>,
    /// Pieces that held content, an upper bound of what can be counted without a tokenizer.
    pub pieces: u64,
}

impl Answered {
    /// Returns the answer as the item that a later prompt repeats it by.
    pub fn item(&self) -> Item {
        Item::assistant(&self.text, &self.calls)
    }

    /// Returns whether there is anything of an answer.
    pub fn has_content(&self) -> bool {
        !self.text.is_empty() || !self.calls.is_empty() || self.reasoning_bytes > 0
    }

    /// Reads a whole document.
    pub fn document(&mut self, api: Api, body: &Value) {
        self.error = text_of(body.pointer("/error/message"));
        self.id = text_of(body.get("id"));
        self.count(body);
        match api {
            Api::Chat => {
                let choice = body.pointer("/choices/0").unwrap_or(&Value::Null);
                let message = choice.get("message").unwrap_or(&Value::Null);
                self.text = said(message.get("content").unwrap_or(&Value::Null));
                self.calls = calls_of(message);
                self.reason(message);
                self.finish = text_of(choice.get("finish_reason"));
            }
            Api::Messages => {
                self.text = said(body.get("content").unwrap_or(&Value::Null));
                self.calls = calls_of(body);
                for block in body
                    .get("content")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    self.think(block.get("thinking"));
                }
                self.finish = text_of(body.get("stop_reason"));
            }
            Api::Responses => self.response(body),
        }
        self.pieces += u64::from(self.has_content());
        self.complete = true;
    }

    /// Reads the data of an event; returns whether it held content, the first of which is the first token.
    pub fn event(&mut self, api: Api, data: &str) -> bool {
        if data.trim() == "[DONE]" {
            self.complete = true;
            return false;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            return false;
        };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            self.error = text_of(error.get("message")).or_else(|| Some(error.to_string()));
        }
        let held = match api {
            Api::Chat => self.chat_chunk(&event),
            Api::Messages => self.message_event(&event),
            Api::Responses => self.response_event(&event),
        };
        self.pieces += u64::from(held);
        held
    }

    fn chat_chunk(&mut self, chunk: &Value) -> bool {
        self.count(chunk);
        if self.id.is_none() {
            self.id = text_of(chunk.get("id"));
        }
        let Some(choice) = chunk.pointer("/choices/0") else {
            return false;
        };
        if let Some(finish) = text_of(choice.get("finish_reason")) {
            self.finish = Some(finish);
        }
        let delta = choice.get("delta").unwrap_or(&Value::Null);
        let before = (self.text.len(), self.reasoning_bytes);
        self.text += delta.get("content").and_then(Value::as_str).unwrap_or("");
        self.reason(delta);
        let mut called = false;
        for part in delta
            .get("tool_calls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let last = self.calls.len().saturating_sub(1) as u64;
            let index = part.get("index").and_then(Value::as_u64).unwrap_or(last) as usize;
            // A place far beyond the last would be nonsense; it becomes the next one.
            let index = index.min(self.calls.len());
            if index == self.calls.len() {
                self.calls.push(ToolCall::default());
            }
            let call = &mut self.calls[index];
            if let Some(id) = text_of(part.get("id")) {
                call.id = id;
            }
            call.name += &text_of(part.pointer("/function/name")).unwrap_or_default();
            call.arguments += &text_of(part.pointer("/function/arguments")).unwrap_or_default();
            called = true;
        }
        called || before != (self.text.len(), self.reasoning_bytes)
    }

    fn message_event(&mut self, event: &Value) -> bool {
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                let message = event.get("message").unwrap_or(&Value::Null);
                self.id = text_of(message.get("id"));
                self.count(message);
            }
            Some("content_block_start") => {
                let block = event.get("content_block").unwrap_or(&Value::Null);
                if block.get("type").and_then(Value::as_str) == Some("tool_use") {
                    self.calls.push(ToolCall {
                        id: text_of(block.get("id")).unwrap_or_default(),
                        name: text_of(block.get("name")).unwrap_or_default(),
                        arguments: String::new(),
                    });
                    return true;
                }
            }
            Some("content_block_delta") => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                if let Some(text) = delta.get("text").and_then(Value::as_str) {
                    self.text += text;
                }
                if let (Some(json), Some(call)) = (
                    delta.get("partial_json").and_then(Value::as_str),
                    self.calls.last_mut(),
                ) {
                    call.arguments += json;
                }
                self.think(delta.get("thinking"));
                return delta.get("type").and_then(Value::as_str) != Some("signature_delta");
            }
            Some("message_delta") => {
                self.finish = text_of(event.pointer("/delta/stop_reason")).or(self.finish.take());
                self.count(event);
            }
            Some("message_stop") => self.complete = true,
            _ => {}
        }
        false
    }

    fn response_event(&mut self, event: &Value) -> bool {
        let kind = event.get("type").and_then(Value::as_str).unwrap_or("");
        match kind {
            "response.completed" | "response.incomplete" | "response.failed" => {
                let response = event.get("response").unwrap_or(&Value::Null);
                (self.text, self.calls, self.reasoning_bytes) = (String::new(), Vec::new(), 0);
                self.error = text_of(response.pointer("/error/message"));
                self.id = text_of(response.get("id"));
                self.count(response);
                self.response(response);
                self.complete = true;
            }
            "response.output_text.delta" => {
                self.text += event.get("delta").and_then(Value::as_str).unwrap_or("");
                return true;
            }
            _ => {
                // Thoughts, arguments of tools and whatever comes later: their deltas are content all the same.
                let delta = kind.strip_suffix(".delta");
                if delta.is_some_and(|kind| kind.starts_with("response.reasoning")) {
                    self.think(event.get("delta"));
                }
                return delta.is_some();
            }
        }
        false
    }

    fn response(&mut self, response: &Value) {
        for item in response
            .get("output")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            match item.get("type").and_then(Value::as_str) {
                Some("message") => self.text += &said(item.get("content").unwrap_or(&Value::Null)),
                Some("function_call" | "custom_tool_call") => self.calls.push(function(item)),
                Some("reasoning") => {
                    let text = said(
                        item.get("content")
                            .or(item.get("summary"))
                            .unwrap_or(&Value::Null),
                    );
                    self.reasoning_bytes += text.len() as u64;
                }
                _ => {}
            }
        }
        let cut = text_of(response.pointer("/incomplete_details/reason"));
        self.finish = cut.or_else(|| text_of(response.get("status")));
    }

    fn reason(&mut self, message: &Value) {
        self.think(
            message
                .get("reasoning_content")
                .or(message.get("reasoning")),
        );
    }

    fn think(&mut self, thought: Option<&Value>) {
        self.reasoning_bytes += thought
            .and_then(Value::as_str)
            .map_or(0, |text| text.len() as u64);
    }

    /// Takes in the counts of a document or event; later ones replace earlier ones.
    fn count(&mut self, body: &Value) {
        let usage = body.get("usage").unwrap_or(&Value::Null);
        let number = |place: &str| usage.pointer(place).and_then(Value::as_u64);
        let counts = &mut self.counts;
        let put = |into: &mut Option<u64>, number: Option<u64>| *into = number.or(*into);
        if let Some(input) = number("/input_tokens") {
            // Anthropic counts what was cached beside the input, OpenAI's responses within it.
            let read = number("/cache_read_input_tokens");
            let write = number("/cache_creation_input_tokens");
            counts.prompt = Some(input + read.unwrap_or(0) + write.unwrap_or(0));
            put(
                &mut counts.cached,
                read.or(number("/input_tokens_details/cached_tokens")),
            );
            put(&mut counts.cache_write, write);
        }
        put(&mut counts.prompt, number("/prompt_tokens"));
        put(
            &mut counts.cached,
            number("/prompt_tokens_details/cached_tokens"),
        );
        put(
            &mut counts.output,
            number("/output_tokens").or(number("/completion_tokens")),
        );
        let reasoning = number("/output_tokens_details/reasoning_tokens");
        put(
            &mut counts.reasoning,
            reasoning.or(number("/completion_tokens_details/reasoning_tokens")),
        );
        if let Some(timings) = body.get("timings").filter(|_| counts.output.is_none()) {
            let number = |name: &str| timings.get(name).and_then(Value::as_u64);
            if let (Some(read), Some(output)) = (number("prompt_n"), number("predicted_n")) {
                let cached = number("cache_n");
                counts.prompt = Some(read + cached.unwrap_or(0));
                (counts.cached, counts.output) = (cached, Some(output));
                counts.from_timings = true;
            }
        }
    }
}

/// The framing of server-sent events: bytes in, the data of whole events out.
#[derive(Clone, Default, Debug)]
pub struct Events {
    line: Vec<u8>,
    data: String,
}

impl Events {
    /// Takes in bytes as they come, however they are cut, and hands on the data of each event that ends in them.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.last() != Some(&b'\n') {
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if !self.data.is_empty() {
                    take(&self.data);
                    self.data.clear();
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data += data.strip_prefix(' ').unwrap_or(data);
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHAT: &str = "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Hä\"}}]}\r\n\r\n: ping\n\n\
        data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"ls\",\"arguments\":\"\"}}]}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n\
        data: [DONE]\n\n";

    fn stream(api: Api, bytes: &[u8], cuts: &[usize]) -> Answered {
        let (mut events, mut answer) = (Events::default(), Answered::default());
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let to = to.clamp(from, bytes.len());
            events.feed(&bytes[from..to], |data| {
                answer.event(api, data);
            });
            from = to;
        }
        answer
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_makes_no_difference(mut cuts in proptest::collection::vec(0..700_usize, 0..6)) {
            cuts.sort_unstable();
            let answer = stream(Api::Chat, CHAT.as_bytes(), &cuts);
            prop_assert!(answer.complete);
            prop_assert_eq!(answer.text.as_str(), "Hä");
            prop_assert_eq!(&answer.calls[0], &ToolCall { id: "c".into(), name: "ls".into(), arguments: "{}".into() });
            prop_assert_eq!((answer.counts.prompt, answer.counts.cached, answer.counts.output), (Some(9), Some(8), Some(4)));
            prop_assert_eq!(answer.pieces, 3);
        }
    }

    #[test]
    fn anthropic_counts_what_was_cached_beside_the_input() {
        let text = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":90,\"cache_creation_input_tokens\":7,\"output_tokens\":1}}}\n\n\
            data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"Task\"}}\n\n\
            data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}\"}}\n\n\
            data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":25}}\n\n\
            event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let answer = stream(Api::Messages, text.as_bytes(), &[]);
        assert_eq!(
            (
                answer.counts.prompt,
                answer.counts.cached,
                answer.counts.output
            ),
            (Some(100), Some(90), Some(25))
        );
        assert_eq!(
            (answer.calls[0].arguments.as_str(), answer.complete),
            ("{\"a\":1}", true)
        );
        assert_eq!(answer.finish.as_deref(), Some("tool_use"));
    }

    #[test]
    fn the_last_event_of_a_response_has_all_of_it() {
        let text = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"part\"}\n\n\
            data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\",\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"whole\"}]}],\"usage\":{\"input_tokens\":50,\"input_tokens_details\":{\"cached_tokens\":40},\"output_tokens\":2}}}\n\n";
        let answer = stream(Api::Responses, text.as_bytes(), &[]);
        assert_eq!(
            (
                answer.text.as_str(),
                answer.counts.prompt,
                answer.counts.cached
            ),
            ("whole", Some(50), Some(40))
        );
        assert_eq!(answer.id.as_deref(), Some("r"));
    }
}
