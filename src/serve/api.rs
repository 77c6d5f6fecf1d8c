//! The requests that a served rig understands, and its answers, as the engines and OpenAI's clients write them.

pub(super) mod answer;

use super::tokens;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a wrong request is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn bad(message: impl Into<String>) -> Wrong {
        Wrong {
            status: 400,
            kind: "BadRequestError",
            message: message.into(),
        }
    }

    /// Returns the body that vLLM and OpenAI's clients know.
    pub(super) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": null, "code": self.status}})
    }
}

/// How much is to be answered, and in which form; the same for chats and completions.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(default)]
pub(super) struct Form {
    pub(super) model: Option<String>,
    pub(super) max_tokens: Option<u64>,
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) min_tokens: u64,
    pub(super) ignore_eos: bool,
    pub(super) stream: bool,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) seed: Option<i64>,
    pub(super) return_token_ids: bool,
    n: Option<u64>,
    best_of: Option<u64>,
    echo: bool,
    logprobs: Option<Value>,
}

/// What a stream says beside the answer.
#[derive(Deserialize, Clone, Copy, Default, Debug)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    pub(super) continuous_usage_stats: bool,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Content {
    messages: Option<Vec<Message>>,
    tools: Option<Value>,
    prompt: Option<Value>,
    /// How llama.cpp calls text to be cut into tokens.
    #[serde(rename = "content")]
    text: Option<String>,
    add_generation_prompt: Option<bool>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Message {
    role: String,
    content: Option<Value>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct ToolCall {
    function: Function,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Function {
    name: String,
    arguments: String,
}

/// A prompt as tokens.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// Whether its last message is a person's; plain text counts as one.
    pub(super) by_person: bool,
}

/// Reads a body; a field that is null is as good as none, as clients have it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    let not_understood =
        |error: serde_json::Error| Wrong::bad(format!("the request is not understood: {error}"));
    let mut value: Value = serde_json::from_slice(body).map_err(not_understood)?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    serde_json::from_value(value).map_err(not_understood)
}

/// Reads what was asked of `/v1/chat/completions` or `/v1/completions`.
pub(super) fn request(body: &[u8], chat: bool) -> Result<(Form, Prompt), Wrong> {
    let form: Form = parse(body)?;
    let several = form.n.unwrap_or(1) > 1 || form.best_of.unwrap_or(1) > 1;
    let probabilities = form
        .logprobs
        .as_ref()
        .is_some_and(|asked| !matches!(asked, Value::Bool(false)));
    for (asked, what) in [
        (several, "more than one answer (`n`, `best_of`)"),
        (form.echo, "`echo`"),
        (probabilities, "`logprobs`"),
    ] {
        if asked {
            return Err(Wrong::bad(format!("a simulated rig does not give {what}")));
        }
    }
    if let Some(0) = form.max_completion_tokens.or(form.max_tokens) {
        return Err(Wrong::bad("max_tokens must be at least 1, got 0."));
    }
    let content: Content = parse(body)?;
    let prompt = match (chat, content.messages, content.prompt) {
        (true, Some(messages), _) => of_messages(&messages, content.tools.as_ref(), true)?,
        (true, None, _) => return Err(Wrong::bad("`messages` is missing")),
        (false, _, Some(prompt)) => of_prompt(&prompt)?,
        (false, _, None) => return Err(Wrong::bad("`prompt` is missing")),
    };
    if prompt.ids.is_empty() {
        return Err(Wrong::bad(
            "the prompt is empty; it takes at least one token",
        ));
    }
    Ok((form, prompt))
}

/// Reads what was asked of `/tokenize`: text, or messages.
pub(super) fn to_tokenize(body: &[u8]) -> Result<Vec<u32>, Wrong> {
    let content: Content = parse(body)?;
    if let Some(messages) = content.messages {
        let opens = content.add_generation_prompt.unwrap_or(true);
        return Ok(of_messages(&messages, content.tools.as_ref(), opens)?.ids);
    }
    match (content.text, content.prompt) {
        (Some(text), _) => Ok(of_text(&text)),
        (None, Some(prompt)) => Ok(of_prompt(&prompt)?.ids),
        (None, None) => Err(Wrong::bad("`prompt`, `content` or `messages` is missing")),
    }
}

/// Reads what was asked of `/detokenize`.
pub(super) fn to_detokenize(body: &[u8]) -> Result<Vec<u32>, Wrong> {
    #[derive(Deserialize)]
    struct Asked {
        tokens: Vec<u32>,
    }
    let asked: Asked = parse(body)?;
    Ok(asked.tokens)
}

fn of_text(text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokens::encode(text.as_bytes(), &mut ids);
    ids
}

fn of_prompt(prompt: &Value) -> Result<Prompt, Wrong> {
    let shape =
        || Wrong::bad("`prompt` must be text, a list of token ids, or a list of one of these");
    let by_person = true;
    match prompt {
        Value::String(text) => Ok(Prompt {
            ids: of_text(text),
            by_person,
        }),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            let id = |value: &Value| {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                id.filter(|&id| id < tokens::VOCABULARY).ok_or_else(|| {
                    let most = tokens::VOCABULARY;
                    Wrong::bad(format!("token id {value} is out of vocabulary ({most})"))
                })
            };
            let ids: Result<Vec<u32>, Wrong> = list.iter().map(id).collect();
            // What only ids say is taken for the middle of a conversation.
            Ok(Prompt {
                ids: ids?,
                by_person: false,
            })
        }
        Value::Array(list) => match list.as_slice() {
            [only] => of_prompt(only),
            _ => Err(shape()),
        },
        _ => Err(shape()),
    }
}

/// Puts messages together: a mark for who speaks, what is said, and a mark for the end of it.
fn of_messages(messages: &[Message], tools: Option<&Value>, opens: bool) -> Result<Prompt, Wrong> {
    let mut ids = Vec::new();
    if let Some(tools) = tools.filter(|tools| !tools.is_null()) {
        ids.push(tokens::TOOLS);
        tokens::encode(tools.to_string().as_bytes(), &mut ids);
        ids.push(tokens::END);
    }
    for message in messages {
        ids.push(match message.role.as_str() {
            "system" | "developer" => tokens::SYSTEM,
            "user" => tokens::USER,
            "assistant" => tokens::ASSISTANT,
            "tool" | "function" => tokens::TOOL,
            other => return Err(Wrong::bad(format!("role `{other}` is unknown"))),
        });
        say(message.content.as_ref(), &mut ids)?;
        for call in message.tool_calls.iter().flatten() {
            ids.push(tokens::CALL);
            tokens::encode(call.function.name.as_bytes(), &mut ids);
            tokens::encode(b"\n", &mut ids);
            tokens::encode(call.function.arguments.as_bytes(), &mut ids);
        }
        ids.push(tokens::END);
    }
    if opens {
        ids.push(tokens::ASSISTANT);
    }
    let last = messages.last().map(|message| message.role.as_str());
    Ok(Prompt {
        ids,
        by_person: last == Some("user"),
    })
}

fn say(content: Option<&Value>, ids: &mut Vec<u32>) -> Result<(), Wrong> {
    match content {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => tokens::encode(text.as_bytes(), ids),
        Some(Value::Array(parts)) => {
            for part in parts {
                let text = part.get("text").and_then(Value::as_str);
                let text = text.ok_or_else(|| {
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or("?");
                    Wrong::bad(format!(
                        "a part of type `{kind}`: only text can be read here"
                    ))
                })?;
                tokens::encode(text.as_bytes(), ids);
            }
        }
        Some(_) => return Err(Wrong::bad("`content` must be text or a list of parts")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_sent_back_continues_the_prompt_it_answered() {
        let first =
            br#"{"messages":[{"role":"user","content":"hi there"}],"tools":[{"type":"function"}]}"#;
        let (_, first) = request(first, true).unwrap();
        let second = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi there"}]},
            {"role":"assistant","content":"the file reads"},{"role":"user","content":"go on"}],"tools":[{"type":"function"}]}"#;
        let (_, second) = request(second, true).unwrap();
        let mut said = first.ids.clone();
        said.extend(of_text("the file reads"));
        said.push(tokens::END);
        assert_eq!(second.ids[..said.len()], said);
    }

    #[test]
    fn what_cannot_be_served_is_told() {
        for (body, says) in [
            (&b"{}"[..], "`messages` is missing"),
            (b"{", "not understood"),
            (br#"{"messages":[],"n":2}"#, "more than one answer"),
            (br#"{"messages":[{"role":"clown","content":""}]}"#, "clown"),
            (
                br#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
                "image_url",
            ),
            (br#"{"messages":[],"max_tokens":0}"#, "at least 1"),
        ] {
            let wrong = request(body, true).unwrap_err();
            assert!(wrong.message.contains(says), "{}", wrong.message);
        }
        let wrong = request(br#"{"prompt":[4000000000]}"#, false).unwrap_err();
        assert!(wrong.message.contains("out of vocabulary"));
        assert!(request(br#"{"prompt":""}"#, false).is_err());
    }
}
