//! Answers on the wire: one document, or a stream of events, for chats and completions.

use super::Form;
use crate::call::Reply;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How an answer is written down.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Voice {
    pub(in crate::serve) id: String,
    pub(in crate::serve) model: String,
    /// Seconds since 1970.
    pub(in crate::serve) created: u64,
    pub(in crate::serve) chat: bool,
    pub(in crate::serve) token_ids: bool,
    /// Whether times are told as llama.cpp's server does.
    pub(in crate::serve) timings: bool,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::serve) struct Usage {
    pub(in crate::serve) prompt: u64,
    pub(in crate::serve) output: u64,
    /// Known once the prompt has been read.
    pub(in crate::serve) cached: Option<u64>,
}

impl Usage {
    fn value(self) -> Value {
        let details = self.cached.map(|cached| json!({"cached_tokens": cached}));
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": details,
        })
    }
}

/// A piece of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Piece<'a> {
    pub(in crate::serve) text: &'a str,
    pub(in crate::serve) ids: &'a [u32],
    /// The prompt, with the first piece, where ids are wanted.
    pub(in crate::serve) prompt: Option<&'a [u32]>,
    pub(in crate::serve) finish: Option<&'static str>,
    pub(in crate::serve) usage: Option<Usage>,
}

impl Voice {
    fn head(&self, stream: bool) -> serde_json::Map<String, Value> {
        let object = match (self.chat, stream) {
            (true, true) => "chat.completion.chunk",
            (true, false) => "chat.completion",
            (false, _) => "text_completion",
        };
        let head =
            json!({"id": self.id, "object": object, "created": self.created, "model": self.model});
        match head {
            Value::Object(head) => head,
            _ => unreachable!("a literal object"),
        }
    }

    /// Returns what opens a chat's stream; a completion's has nothing of the kind.
    pub(in crate::serve) fn opening(&self) -> Option<Bytes> {
        let mut chunk = self.head(true);
        let delta = json!({"role": "assistant", "content": ""});
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        chunk.insert("choices".to_string(), json!([choice]));
        self.chat.then(|| event(&Value::Object(chunk)))
    }

    /// Returns a piece of the answer as an event.
    pub(in crate::serve) fn chunk(&self, piece: Piece<'_>) -> Bytes {
        let mut chunk = self.head(true);
        let mut choice = if self.chat {
            let delta = match piece.text {
                "" => json!({}),
                text => json!({"content": text}),
            };
            json!({"index": 0, "delta": delta, "finish_reason": piece.finish})
        } else {
            json!({"index": 0, "text": piece.text, "logprobs": null, "finish_reason": piece.finish})
        };
        if self.token_ids {
            choice["token_ids"] = json!(piece.ids);
            if let Some(prompt) = piece.prompt {
                choice["prompt_token_ids"] = json!(prompt);
            }
        }
        chunk.insert("choices".to_string(), json!([choice]));
        if let Some(usage) = piece.usage {
            chunk.insert("usage".to_string(), usage.value());
        }
        event(&Value::Object(chunk))
    }

    /// Returns the event that ends a stream: the usage where it was asked for, and the times where the engine has them.
    pub(in crate::serve) fn closing(
        &self,
        usage: Usage,
        form: &Form,
        reply: &Reply,
    ) -> Option<Bytes> {
        let asked = form
            .stream_options
            .is_some_and(|options| options.include_usage);
        if !asked && !self.timings {
            return None;
        }
        let mut chunk = self.head(true);
        chunk.insert("choices".to_string(), json!([]));
        if asked {
            chunk.insert("usage".to_string(), usage.value());
        }
        if self.timings {
            chunk.insert("timings".to_string(), timings(reply, usage));
        }
        Some(event(&Value::Object(chunk)))
    }

    /// Returns the whole answer as one document.
    pub(in crate::serve) fn whole(&self, piece: Piece<'_>, usage: Usage, reply: &Reply) -> Vec<u8> {
        let mut document = self.head(false);
        let mut choice = if self.chat {
            let message = json!({"role": "assistant", "content": piece.text});
            json!({"index": 0, "message": message, "logprobs": null, "finish_reason": piece.finish})
        } else {
            json!({"index": 0, "text": piece.text, "logprobs": null, "finish_reason": piece.finish})
        };
        if self.token_ids {
            choice["token_ids"] = json!(piece.ids);
            if let Some(prompt) = piece.prompt {
                choice["prompt_token_ids"] = json!(prompt);
            }
        }
        document.insert("choices".to_string(), json!([choice]));
        document.insert("usage".to_string(), usage.value());
        if self.timings {
            document.insert("timings".to_string(), timings(reply, usage));
        }
        Value::Object(document).to_string().into_bytes()
    }
}

/// Returns the times that llama.cpp's server tells of a request, in the rig's own time.
fn timings(reply: &Reply, usage: Usage) -> Value {
    let admitted = reply.admitted.unwrap_or(reply.submitted);
    let first = reply.first_token.unwrap_or(reply.finished);
    let (read, wrote) = ((first - admitted).secs(), (reply.finished - first).secs());
    let cached = usage.cached.unwrap_or(0);
    let computed = usage.prompt - cached;
    let rate = |tokens: u64, secs: f64| (secs > 0.0).then(|| tokens as f64 / secs);
    json!({
        "cache_n": cached,
        "prompt_n": computed,
        "prompt_ms": read * 1e3,
        "prompt_per_second": rate(computed, read),
        "predicted_n": usage.output,
        "predicted_ms": wrote * 1e3,
        "predicted_per_second": rate(usage.output, wrote),
    })
}

/// Returns a document as a server-sent event.
pub(in crate::serve) fn event(document: &Value) -> Bytes {
    Bytes::from(format!("data: {document}\n\n"))
}

/// Returns the error that ends a stream which had begun.
pub(in crate::serve) fn broken(wrong: &super::Wrong) -> Bytes {
    event(&wrong.body())
}

/// Returns the one model there is, as `/v1/models` lists it.
pub(in crate::serve) fn models(
    name: &str,
    created: u64,
    context: Option<u64>,
    setup: &BTreeMap<String, String>,
) -> Vec<u8> {
    let model = json!({
        "id": name, "object": "model", "created": created, "owned_by": "laptime", "root": name,
        "parent": null, "max_model_len": context, "settings": setup,
    });
    json!({"object": "list", "data": [model]})
        .to_string()
        .into_bytes()
}

/// Returns what `/tokenize` answers, in the words of vLLM and llama.cpp.
pub(in crate::serve) fn tokenized(ids: &[u32], context: Option<u64>) -> Vec<u8> {
    json!({"count": ids.len(), "max_model_len": context, "tokens": ids, "token_strs": null})
        .to_string()
        .into_bytes()
}

/// Returns what `/detokenize` answers, in the words of vLLM and llama.cpp.
pub(in crate::serve) fn detokenized(text: &str) -> Vec<u8> {
    json!({"prompt": text, "content": text})
        .to_string()
        .into_bytes()
}
