//! What goes over the wire: requests in each engine's dialect, and the pieces in which answers come.

use super::engine::Engine;
use super::prompt::{Prompt, Role};
use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage,
    ChatCompletionRequestSystemMessage, ChatCompletionRequestUserMessage,
    ChatCompletionStreamOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Fields that a user adds to every request.
pub(super) type Extra = Map<String, Value>;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(flatten)]
    content: Content,
    stream: bool,
    stream_options: ChatCompletionStreamOptions,
    #[serde(flatten)]
    dialect: Extra,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Messages(Vec<ChatCompletionRequestMessage>),
    Prompt(Vec<u32>),
}

/// Returns where a request goes, below the server's address, and its body.
pub(super) fn request(
    engine: Engine,
    model: &str,
    prompt: Prompt,
    most: u64,
    extra: &Extra,
) -> (&'static str, Vec<u8>) {
    let mut dialect = length(engine, most);
    let (path, content) = match prompt {
        Prompt::Messages(messages) => {
            let messages = messages.into_iter().map(message).collect();
            ("/v1/chat/completions", Content::Messages(messages))
        }
        // Its own endpoint tells the ids of what it says; the one it has in common with others does not.
        Prompt::Ids(ids) if engine == Engine::LlamaCpp => {
            dialect.extend(fields(json!({"n_predict": most, "return_tokens": true})));
            ("/completion", Content::Prompt(ids))
        }
        Prompt::Ids(ids) => {
            dialect.extend(fields(json!({"return_token_ids": true})));
            ("/v1/completions", Content::Prompt(ids))
        }
    };
    dialect.extend(extra.clone());
    let request = Request {
        model,
        content,
        stream: true,
        stream_options: ChatCompletionStreamOptions {
            include_usage: Some(true),
            include_obfuscation: (engine == Engine::OpenAi).then_some(false),
        },
        dialect,
    };
    let body = serde_json::to_vec(&request).expect("text, numbers and maps of them can be written");
    (path, body)
}

fn fields(value: Value) -> Extra {
    match value {
        Value::Object(fields) => fields,
        _ => Extra::new(),
    }
}

/// Returns the fields that ask for `most` tokens: neither more nor, where the engine allows, less.
fn length(engine: Engine, most: u64) -> Extra {
    fields(match engine {
        Engine::Vllm | Engine::Sglang | Engine::TrtLlm | Engine::Laptime => {
            json!({"max_tokens": most, "min_tokens": most, "ignore_eos": true, "temperature": 0.0})
        }
        Engine::LlamaCpp => {
            json!({"max_tokens": most, "ignore_eos": true, "temperature": 0.0, "cache_prompt": true})
        }
        // Its reasoning models take neither a temperature nor the older name.
        Engine::OpenAi => json!({"max_completion_tokens": most}),
        Engine::Ollama | Engine::MlxLm | Engine::LmStudio | Engine::Unknown => {
            json!({"max_tokens": most, "temperature": 0.0})
        }
    })
}

fn message((role, text): (Role, String)) -> ChatCompletionRequestMessage {
    match role {
        Role::System => ChatCompletionRequestSystemMessage::from(text).into(),
        Role::User => ChatCompletionRequestUserMessage::from(text).into(),
        Role::Assistant => ChatCompletionRequestAssistantMessage::from(text).into(),
    }
}

/// One event of an answer, in any dialect. What is not needed is not read.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Piece<'a> {
    /// What was said.
    #[serde(borrow)]
    pub(super) choices: Vec<Choice<'a>>,
    /// The count of tokens, in the last event but the end.
    pub(super) usage: Option<Usage>,
    /// llama.cpp's account of the call.
    pub(super) timings: Option<Timings>,
    /// What went wrong in mid-answer.
    pub(super) error: Option<Value>,
    /// llama.cpp's own endpoint: text, ids, whether this is the end, and why.
    #[serde(borrow)]
    pub(super) content: Option<Cow<'a, str>>,
    /// See `content`.
    pub(super) tokens: Vec<u32>,
    /// See `content`.
    pub(super) stop: bool,
    /// See `content`.
    #[serde(borrow)]
    pub(super) stop_type: Option<Cow<'a, str>>,
    /// See `content`.
    pub(super) tokens_evaluated: Option<u64>,
    /// See `content`.
    pub(super) tokens_predicted: Option<u64>,
}

/// One of the answers; only one is asked for.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Choice<'a> {
    /// Chat: what is new.
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    /// Completions: what is new.
    #[serde(borrow)]
    pub(super) text: Option<Cow<'a, str>>,
    /// vLLM: the ids of what is new.
    pub(super) token_ids: Option<Vec<u32>>,
    /// Why it ended.
    #[serde(borrow)]
    pub(super) finish_reason: Option<Cow<'a, str>>,
}

/// What is new in a chat.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Delta<'a> {
    /// Text.
    #[serde(borrow)]
    pub(super) content: Option<Cow<'a, str>>,
    /// Thought, under the name that most engines give it.
    #[serde(borrow)]
    pub(super) reasoning_content: Option<Cow<'a, str>>,
    /// Thought, under its other name.
    #[serde(borrow)]
    pub(super) reasoning: Option<Cow<'a, str>>,
    /// Calls of tools.
    pub(super) tool_calls: Option<Vec<Value>>,
}

impl Delta<'_> {
    /// Returns whether any token of the answer is in it.
    pub(super) fn says_something(&self) -> bool {
        let said = |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| !text.is_empty());
        said(&self.content)
            || said(&self.reasoning_content)
            || said(&self.reasoning)
            || self
                .tool_calls
                .as_ref()
                .is_some_and(|calls| !calls.is_empty())
    }
}

/// The count of tokens.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
pub(super) struct Usage {
    /// Of the prompt.
    pub(super) prompt_tokens: Option<u64>,
    /// Of the answer.
    pub(super) completion_tokens: Option<u64>,
    /// Where the prompt's came from.
    pub(super) prompt_tokens_details: Option<Details>,
}

/// Where the prompt's tokens came from.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
pub(super) struct Details {
    /// Those taken from a cache.
    pub(super) cached_tokens: Option<u64>,
}

/// llama.cpp's account of a call.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
pub(super) struct Timings {
    /// Prompt tokens taken from the slot.
    pub(super) cache_n: Option<u64>,
    /// Prompt tokens computed.
    pub(super) prompt_n: Option<u64>,
    /// How long that took.
    pub(super) prompt_ms: Option<f64>,
    /// Tokens of the answer.
    pub(super) predicted_n: Option<u64>,
}
