//! What each of AIPerf's inputs plans, in one form: conversations of turns.

use super::super::capture::api;
use super::super::micros;
use super::super::pieces::{Said, cut};
use serde_json::{Map, Value};

/// A conversation.
#[derive(Default, Debug)]
pub(super) struct Conversation {
    pub(super) id: String,
    pub(super) place: String,
    pub(super) turns: Vec<Planned>,
}

/// A turn.
#[derive(Default, Debug)]
pub(super) struct Planned {
    pub(super) said: Vec<Said>,
    /// Whether that is the whole prompt, rather than what is new in it.
    pub(super) whole: bool,
    /// The length of the prompt, where it is said.
    pub(super) input: Option<u64>,
    /// The length of the answer, where it is said.
    pub(super) output: Option<u64>,
    /// The most that the answer may have.
    pub(super) most: Option<u64>,
    /// The answer, as a later payload repeats it.
    pub(super) answer: Vec<Said>,
    pub(super) at_ms: Option<f64>,
    pub(super) delay_us: Option<u64>,
    pub(super) model: Option<String>,
    pub(super) branches: Vec<Branch>,
    /// How many messages the prompt has.
    messages: usize,
    /// Answers of earlier turns among its messages, each with its place.
    replies: Vec<(usize, Vec<Said>)>,
}

/// A conversation that a turn starts.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) child: String,
    /// Whether it goes on with its parent's history.
    pub(super) inherits: bool,
    pub(super) join: Join,
}

/// When a parent waits for a branch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Join {
    Never,
    /// Before its next turn.
    Next,
    /// Before the turn of this number, from 0.
    Turn(usize),
}

/// Returns what a JSON object plans: a line, or a whole document.
pub(super) fn conversations(
    value: &Value,
    stem: &str,
    line: u64,
) -> Result<Vec<Conversation>, String> {
    let object = value.as_object().ok_or("expected a JSON object")?;
    if let Some(data) = object.get("data").and_then(Value::as_array) {
        return Ok(data
            .iter()
            .enumerate()
            .map(|(at, one)| payloads(one, stem, at + 1))
            .collect());
    }
    if object.get("orchestrator") == Some(&Value::Bool(true)) {
        // It asks nothing itself; what it starts stands on its own.
        return Ok(Vec::new());
    }
    let named = ["session_id", "conversation_id"];
    let named = named.iter().find_map(|key| text(object, key));
    let id = named.unwrap_or_else(|| format!("{stem}-{line}"));
    let one = |turns: Vec<Planned>| {
        vec![Conversation {
            id: id.clone(),
            place: String::new(),
            turns,
        }]
    };
    if let Some(turns) = object.get("turns").and_then(Value::as_array) {
        let whole = object.get("context_mode").and_then(Value::as_str)
            == Some("message_array_with_responses");
        let turns: Result<Vec<Planned>, String> =
            turns.iter().map(|one| turn(one, whole)).collect();
        return Ok(one(turns?));
    }
    let delta = object.get("message_mode").and_then(Value::as_str) == Some("delta");
    let whole = !delta && object.contains_key("messages");
    Ok(one(vec![turn(value, whole)?]))
}

/// Finds the answers of whole prompts in the prompts after them.
pub(super) fn link(turns: &mut [Planned]) {
    for at in 1..turns.len() {
        let after = turns[at - 1].messages;
        let replies = &turns[at].replies;
        let found = replies.iter().find(|(place, _)| *place == after);
        turns[at - 1].answer = found.map(|(_, said)| said.clone()).unwrap_or_default();
    }
}

/// Reads a session of `inputs.json`.
fn payloads(one: &Value, stem: &str, number: usize) -> Conversation {
    let id = one["session_id"]
        .as_str()
        .map_or_else(|| format!("{stem}-{number}"), str::to_string);
    let list = one["payloads"].as_array().map_or(&[][..], Vec::as_slice);
    let turns = list.iter().filter_map(|payload| turn(payload, true).ok());
    Conversation {
        id,
        place: String::new(),
        turns: turns.collect(),
    }
}

/// Reads a turn, a row, or a payload.
fn turn(value: &Value, whole: bool) -> Result<Planned, String> {
    let object = value.as_object().ok_or("a turn is no JSON object")?;
    let payload = object
        .get("payload")
        .and_then(Value::as_object)
        .unwrap_or(object);
    let count = |key: &str| {
        let inside = payload
            .get(key)
            .or_else(|| object.get(key))
            .or_else(|| object.get("extra")?.get(key));
        inside.and_then(Value::as_u64)
    };
    let real = |key: &str| {
        object
            .get(key)
            .and_then(Value::as_f64)
            .filter(|real| *real >= 0.0)
    };
    let asked = api::request(payload);
    let mut said = asked.said;
    let mut texts = |value: &Value| match value {
        Value::String(text) => cut("user", text, "user", &mut said),
        Value::Array(list) => {
            for one in list {
                let contents = one["contents"]
                    .as_array()
                    .map_or_else(|| vec![one.clone()], Clone::clone);
                for text in contents.iter().filter_map(Value::as_str) {
                    cut("user", text, "user", &mut said);
                }
            }
        }
        _ => {}
    };
    for key in ["text", "texts", "text_input"] {
        if let Some(value) = object.get(key) {
            texts(value);
        }
    }
    let input = count("input_length").filter(|&tokens| tokens > 0);
    if said.is_empty() && input.is_none() {
        return Err(
            "a turn says nothing: expected `messages`, `text`, `texts` or `text_input`".to_string(),
        );
    }
    let whole = whole || object.contains_key("payload");
    let messages = payload
        .get("messages")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let replies = messages
        .iter()
        .enumerate()
        .filter(|(_, one)| whole && one["role"] == "assistant");
    let replies = replies.map(|(place, one)| {
        let mut said = Vec::new();
        api::message(one, &mut said);
        (place, said)
    });
    Ok(Planned {
        said,
        whole,
        input,
        output: count("output_length"),
        most: count("max_tokens")
            .or_else(|| count("max_completion_tokens"))
            .or_else(|| count("max_output_tokens")),
        answer: Vec::new(),
        at_ms: real("timestamp"),
        delay_us: real("delay").and_then(|ms| micros(ms / 1e3)),
        model: asked.model,
        branches: branches(object),
        messages: messages.len(),
        replies: replies.collect(),
    })
}

fn branches(turn: &Map<String, Value>) -> Vec<Branch> {
    let list = |key: &str| {
        turn.get(key)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    let mut found = Vec::new();
    for fork in list("forks") {
        if let Some(child) = fork.as_str().or_else(|| fork["child"].as_str()) {
            found.push(Branch {
                child: child.to_string(),
                inherits: true,
                join: Join::Never,
            });
        }
    }
    for spawn in list("spawns") {
        let at = spawn["join_at"].as_u64();
        let children = spawn["children"]
            .as_array()
            .map_or_else(|| vec![spawn.clone()], Clone::clone);
        for child in children.iter().filter_map(Value::as_str) {
            found.push(Branch {
                child: child.to_string(),
                inherits: false,
                join: at.map_or(Join::Next, |at| Join::Turn(at as usize)),
            });
        }
    }
    found
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
