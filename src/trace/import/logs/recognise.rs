//! Which agent's log a file is, by the fields of its first objects or, of a long document, by what its beginning holds.

use super::Log;
use serde_json::{Map, Value};

/// What a file was recognised as, or what it is instead.
type Found = Option<Result<Log, String>>;

/// Records that Claude Code writes before the first message.
const CLAUDE_FIRST: [&str; 9] = [
    "summary",
    "mode",
    "permission-mode",
    "file-history-snapshot",
    "queue-operation",
    "last-prompt",
    "ai-title",
    "custom-title",
    "agent-name",
];

/// Tells a format from one object: a line of a file, or a whole small document.
pub(in crate::trace::import) fn object(object: &Map<String, Value>) -> Found {
    let has = |key: &str| object.contains_key(key);
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let list = |key: &str| object.get(key).is_some_and(Value::is_array);
    let kind = text("type").unwrap_or("");
    let message = object.get("message");
    let inner = |key: &str| message.and_then(|message| message.get(key));
    if text("schema_version").is_some_and(|version| version.starts_with("ATIF")) {
        return Some(Ok(Log::Atif));
    }
    if has("payload") && has("type") && (has("timestamp") || kind == "session_meta") {
        return Some(Ok(Log::Codex));
    }
    // The first generation of rollouts: a line about the session, then items as they are.
    let first_rollout = has("id") && has("timestamp") && (has("instructions") || has("git"));
    if first_rollout && !has("type") && !has("messages") && !has("source") || has("record_type") {
        return Some(Ok(Log::Codex));
    }
    if has("sessionId") && has("uuid") && (inner("parts").is_some() || has("systemPayload")) {
        return Some(Ok(Log::Qwen));
    }
    if has("sessionId") && has("projectHash") {
        return Some(Ok(Log::Gemini));
    }
    let spoken = inner("role").is_some() || inner("usage").is_some();
    let session = has("sessionId") || has("session_id");
    if session && (has("uuid") && has("type") || spoken)
        || CLAUDE_FIRST.contains(&kind) && (session || has("leafUuid") || has("snapshot"))
    {
        return Some(Ok(Log::Claude));
    }
    if has("event") && has("properties") && has("time") {
        return Some(Ok(Log::Aider));
    }
    if let Some(found) = opencode(object) {
        return Some(found);
    }
    if has("instance_id") && (has("history") || has("test_result") || has("instruction")) {
        return Some(Ok(Log::OpenHands));
    }
    if has("persistence_dir") && has("execution_status") {
        return Some(Err(
            "it is the state of an OpenHands conversation; the events beside it are the recording"
                .to_string(),
        ));
    }
    let source = matches!(
        text("source"),
        Some("agent" | "user" | "environment" | "hook")
    );
    if source && has("timestamp") && (has("kind") || has("action") || has("observation")) {
        return Some(Ok(Log::OpenHands));
    }
    if list("messages") && has("response") && (has("latency_sec") || has("kwargs") || has("cost")) {
        return Some(Ok(Log::Completions));
    }
    if list("messages")
        && (has("trajectory_format")
            || object
                .get("info")
                .is_some_and(|info| info.get("model_stats").is_some()))
    {
        return Some(Ok(Log::MiniSweAgent));
    }
    let history = object.get("history").and_then(Value::as_array);
    let steps = object.get("trajectory").and_then(Value::as_array);
    let told = |list: &Vec<Value>| list.iter().any(|item| item.get("role").is_some());
    if history.is_some_and(told)
        || steps.is_some_and(|steps| steps.iter().any(|step| step.get("observation").is_some()))
    {
        return Some(Ok(Log::SweAgent));
    }
    None
}

/// Tells opencode's files apart: only a session's own stands for a recording.
fn opencode(object: &Map<String, Value>) -> Found {
    let has = |key: &str| object.contains_key(key);
    let info = object.get("info");
    if has("messages")
        && info.is_some_and(|info| info.get("time").is_some() && info.get("id").is_some())
    {
        return Some(Ok(Log::Opencode));
    }
    if has("projectID") && has("id") && has("time") && !has("sessionID") {
        return Some(Ok(Log::Opencode));
    }
    let piece = has("sessionID") && has("id") && (has("role") || has("messageID"));
    piece.then(|| {
        let session = object.get("sessionID").and_then(Value::as_str).unwrap_or("");
        Err(format!("it is part of the opencode session {session}; the session's own file, or an export, is the recording"))
    })
}

/// Tells a format from the beginning of a file that is one document, or no JSON at all.
pub(in crate::trace::import) fn document(start: &[u8]) -> Found {
    let trimmed = start.trim_ascii_start();
    if start.starts_with(b"SQLite format 3\0") {
        let what = "it is an SQLite database; of opencode's sessions, `opencode export <session>` writes what can be read";
        return Some(Err(what.to_string()));
    }
    if trimmed.starts_with(super::aider::CHAT.as_bytes()) || trimmed.starts_with(b"TO LLM ") {
        return Some(Ok(Log::Aider));
    }
    let mut documents = serde_json::Deserializer::from_slice(trimmed).into_iter::<Value>();
    match documents.next() {
        Some(Ok(Value::Object(whole))) => return object(&whole),
        Some(Ok(Value::Array(items))) => return array(&items),
        _ => {}
    }
    let begun = String::from_utf8_lossy(start);
    let has = |key: &str| begun.contains(&format!("\"{key}\""));
    match trimmed.first() {
        Some(b'[') => begun_array(&has),
        Some(b'{') => begun_object(trimmed, &has).map(Ok),
        _ => None,
    }
}

/// Tells a format from a list of messages or events.
fn array(items: &[Value]) -> Found {
    let any = |key: &str| items.iter().take(20).any(|item| item.get(key).is_some());
    let role = |item: &Value| item.get("role").and_then(Value::as_str).map(str::to_string);
    if any("say") || any("ask") {
        return Some(Ok(Log::Cline));
    }
    if any("messageId") && any("sessionId") {
        return Some(Err(
            "it is Gemini CLI's list of what users typed; the chats beside it are the recordings"
                .to_string(),
        ));
    }
    if any("action") || any("observation") || any("kind") {
        return Some(Ok(Log::OpenHands));
    }
    match items.first().and_then(role).as_deref() {
        Some("user") if items[0].get("content").is_some_and(Value::is_array) => {
            Some(Ok(Log::Cline))
        }
        Some("system" | "user") => Some(Ok(Log::MiniSweAgent)),
        _ => items.first().and_then(Value::as_object).and_then(object),
    }
}

fn begun_array(has: &impl Fn(&str) -> bool) -> Found {
    if has("ts") && (has("say") || has("ask")) {
        Some(Ok(Log::Cline))
    } else if has("source") && (has("action") || has("observation") || has("kind")) {
        Some(Ok(Log::OpenHands))
    } else if has("role") && has("system") {
        Some(Ok(Log::MiniSweAgent))
    } else if has("role") {
        Some(Ok(Log::Cline))
    } else {
        None
    }
}

/// Tells a format from the beginning of an object that is longer than what is looked at.
fn begun_object(start: &[u8], has: &impl Fn(&str) -> bool) -> Option<Log> {
    let head = String::from_utf8_lossy(&start[..start.len().min(200)])
        .replace([' ', '\n', '\r', '\t'], "");
    if head.contains("\"schema_version\":\"ATIF") {
        Some(Log::Atif)
    } else if has("instance_id") && (has("history") || has("instruction") || has("test_result")) {
        Some(Log::OpenHands)
    } else if has("projectHash") && has("sessionId") {
        Some(Log::Gemini)
    } else if has("sessionID") && (has("info") || has("parts")) {
        Some(Log::Opencode)
    } else if has("payload") && has("session_meta") {
        Some(Log::Codex)
    } else if has("sessionId") && has("parentUuid") {
        Some(if has("parts") { Log::Qwen } else { Log::Claude })
    } else if has("trajectory_format") || (has("info") && has("model_stats") && has("messages")) {
        Some(Log::MiniSweAgent)
    } else if (has("trajectory") && has("observation")) || (has("history") && has("message_type")) {
        Some(Log::SweAgent)
    } else if head.starts_with("{\"messages\":[") && has("role") {
        Some(Log::Completions)
    } else {
        None
    }
}
