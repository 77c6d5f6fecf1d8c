//! Captured requests: what prompts share, down to the message, whatever API and container they were captured in.

#![expect(
    clippy::float_cmp,
    clippy::format_collect,
    reason = "exact sums, and small texts"
)]

use crate::serving::{calls, lines, read, secs};
use laptime::trace::Ending;
use serde_json::{Value, json};

/// A request to chat completions, and its answer.
fn asked(messages: &[Value]) -> Value {
    json!({"model": "m", "messages": messages, "tools": [{"type": "function", "function": {"name": "bash"}}]})
}

fn said(content: &str, prompt: u64, output: u64) -> Value {
    json!({"id": format!("r{prompt}"), "choices": [{"message": {"role": "assistant", "content": content, "refusal": null},
        "finish_reason": "stop"}], "usage": {"prompt_tokens": prompt, "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": 64}}})
}

pub(crate) fn says(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn logged_requests_share_exactly_what_their_messages_share() {
    let (system, user) = (
        says("system", &"You are careful. ".repeat(200)),
        says("user", "Fix the login."),
    );
    let first = [system.clone(), user.clone()];
    let second = [
        system.clone(),
        user.clone(),
        says("assistant", "It is fixed."),
        says("user", "Add a test."),
    ];
    let edited = [
        system.clone(),
        user.clone(),
        says("assistant", "It was fixed."),
        says("user", "Add a test."),
    ];
    let other = [system.clone(), says("user", "Something else entirely.")];
    let log = [
        json!({"timestamp": 1_780_000_000.0, "request": asked(&first), "response": said("It is fixed.", 1_000, 5), "duration_ms": 2_000}),
        json!({"timestamp": 1_780_000_010.0, "request": asked(&second), "response": said("Done.", 1_030, 3), "duration_ms": 1_000}),
        json!({"timestamp": 1_780_000_020.0, "request": asked(&edited), "response": said("Done.", 1_031, 3), "duration_ms": 1_000}),
        json!({"timestamp": 1_780_000_030.0, "request": asked(&other), "response": said("No.", 990, 3), "duration_ms": 1_000}),
    ];
    let trace = read("log.jsonl", &lines(&log));
    let ids: Vec<&str> = trace.sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids, ["log-1", "log-2"]);
    let session = &trace.sessions[0];
    // The second prompt holds the first and its answer; the third has another answer in its place.
    assert_eq!(
        calls(session, 0),
        [(1_000, 0, 5), (1_030, 1_005, 3), (1_031, 1_000, 3)]
    );
    let steps = &session.threads[0].steps;
    assert_eq!(
        (
            secs(steps[0].gap.human),
            secs(steps[0].recorded.model().unwrap())
        ),
        (8.0, 2.0)
    );
    assert_eq!(steps[0].recorded.cached().unwrap().0, 64);
    // The other conversation shares the tools and the system prompt, and nothing else.
    let tip = |session: usize| trace.sessions[session].threads[0].steps[0].prompt;
    let head = trace.content.meeting(tip(0), tip(1));
    assert!(trace.content.is_head(head));
    let common = trace.content.end(head).0;
    assert!((900..1_000).contains(&common), "{common}");
}

#[test]
fn har_entries_are_read_with_their_times_and_streams() {
    let stream = |text: &str, prompt: u64| {
        let chunks = [
            json!({"choices": [{"delta": {"content": &text[..3]}}]}),
            json!({"choices": [{"delta": {"content": &text[3..], "tool_calls": [{"index": 0, "function": {"name": "bash", "arguments": "{\"a\":"}}]}}]}),
            json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": 40}}),
        ];
        let events: String = chunks
            .iter()
            .map(|chunk| format!("data: {chunk}\n\n"))
            .collect();
        events + "data: [DONE]\n\n"
    };
    let entry = |at: &str, body: &Value, answer: &str| {
        json!({"startedDateTime": at, "time": 1_500.0, "timings": {"blocked": -1, "send": 1, "wait": 250, "receive": 1_249},
            "request": {"method": "POST", "headers": [{"name": "X-Session-Id", "value": "work"}], "postData": {"text": body.to_string()}},
            "response": {"status": 200, "content": {"text": answer}}})
    };
    let call = json!({"role": "assistant", "content": "Look:", "tool_calls": [{"id": "c1", "type": "function",
        "function": {"name": "bash", "arguments": "{\"a\": 1}"}}]});
    let first = asked(&[says("user", "go")]);
    let second = asked(&[
        says("user", "go"),
        call,
        json!({"role": "tool", "tool_call_id": "c1", "content": "a file"}),
    ]);
    let har = json!({"log": {"version": "1.2", "creator": {"name": "x"}, "entries": [
        entry("2026-05-01T10:00:00.000Z", &first, &stream("Look:", 500)),
        {"startedDateTime": "2026-05-01T10:00:01.000Z", "request": {"method": "GET"}, "response": {"status": 200}},
        entry("2026-05-01T12:00:05.000+02:00", &second, &stream("Good.", 560)),
    ]}});
    let trace = read("capture.har", &serde_json::to_string_pretty(&har).unwrap());
    let session = &trace.sessions[0];
    assert_eq!((&*session.id, trace.sessions.len()), ("work", 1));
    assert_eq!(calls(session, 0), [(500, 0, 40), (560, 540, 40)]);
    let first = &session.threads[0].steps[0];
    assert_eq!(secs(first.recorded.first_token().unwrap()), 0.251);
    assert_eq!(
        (first.gap.after, secs(first.gap.unknown)),
        (Ending::ToolCall, 3.5)
    );
    assert!(
        trace.sources[0]
            .losses
            .iter()
            .any(|loss| loss.starts_with("1 entries"))
    );
}

#[test]
fn claude_traces_count_what_was_cached_and_follow_thinking() {
    let events = |thought: &str, text: &str, read: u64, written: u64| {
        let events = [
            json!({"type": "message_start", "message": {"id": "m1", "model": "c", "usage": {"input_tokens": 10,
                "cache_read_input_tokens": read, "cache_creation_input_tokens": written, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": thought}}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": text}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 60}}),
        ];
        events
            .iter()
            .map(|event| format!("event: x\ndata: {event}\n\n"))
            .collect::<String>()
    };
    let body = |messages: Value| {
        json!({"model": "c", "max_tokens": 9, "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": messages, "metadata": {"user_id": "user_1_account__session_abc-7"}})
    };
    let user = json!({"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]});
    // The client sends the same message without its mark, and the answer with or without its thinking.
    let plain = json!({"role": "user", "content": "Hello"});
    let whole = json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Hi."}]});
    let bare = json!({"role": "assistant", "content": [{"type": "text", "text": "Hi."}]});
    let again = json!({"role": "user", "content": "More"});
    let line = |at: f64, messages: Value, read: u64, written: u64| {
        json!({"request": {"timestamp": at, "method": "POST", "url": "u", "headers": {}, "body": body(messages)},
            "response": {"timestamp": at + 3.0, "status_code": 200, "body_raw": events("hm", "Hi.", read, written)}, "logged_at": "x"})
    };
    let kept = read(
        "l.jsonl",
        &lines(&[
            line(1_780_000_000.0, json!([user]), 0, 390),
            line(1_780_000_009.0, json!([plain, whole, again]), 390, 90),
        ]),
    );
    assert_eq!(&*kept.sessions[0].id, "abc-7");
    assert_eq!(calls(&kept.sessions[0], 0), [(400, 0, 60), (490, 460, 60)]);
    let dropped = read(
        "l.jsonl",
        &lines(&[
            line(1_780_000_000.0, json!([user]), 0, 390),
            line(1_780_000_009.0, json!([plain, bare, again]), 390, 50),
        ]),
    );
    let steps = &dropped.sessions[0].threads[0].steps;
    // Without its thinking the answer stands elsewhere, and was computed before.
    assert_eq!((steps[1].seen.0, steps[1].again.0 > 0), (400, true));
    assert_eq!(steps[1].recorded.cached().unwrap().0, 390);
}

#[test]
fn stored_responses_continue_what_came_before() {
    let answer = |id: &str, text: &str, prompt: u64| {
        json!({"id": id, "object": "response", "status": "completed", "output": [{"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": text}]}], "usage": {"input_tokens": prompt, "output_tokens": 30,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 20}}})
    };
    let log = [
        json!({"timestamp": "2026-05-01T10:00:00Z", "latency_ms": 900, "request": {"model": "g", "instructions": "Be brief.", "input": "Go."}, "response": answer("resp_1", "Gone.", 300)}),
        json!({"timestamp": "2026-05-01T10:00:05Z", "latency_ms": 900, "request": {"model": "g", "instructions": "Be brief.", "input": "Back.", "previous_response_id": "resp_1"}, "response": answer("resp_2", "Here.", 330)}),
    ];
    let trace = read("r.jsonl", &lines(&log));
    assert_eq!(trace.sessions.len(), 1);
    let steps = &trace.sessions[0].threads[0].steps;
    // Twenty of thirty tokens were reasoning, which comes first and is not sent again; the ten others are.
    assert_eq!(
        (steps[1].prompt_tokens.0, steps[1].seen.0, steps[1].again.0),
        (330, 300, 10)
    );
}
