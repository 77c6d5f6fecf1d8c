//! Traces of serving systems and gateways: totals against the files, rules on the smallest files that show them.

#![expect(
    clippy::float_cmp,
    clippy::format_collect,
    reason = "exact sums, and small texts"
)]

use crate::captures::says;
use laptime::trace::read::{ReadOptions, load, load_bytes};
use laptime::trace::{Ending, Session, Trace};
use laptime::units::Span;
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn read(name: &str, text: &str) -> Trace {
    let trace = load_bytes(name, text.as_bytes(), &ReadOptions::default());
    let trace = trace.unwrap_or_else(|error| panic!("{error}\nhelp: {}", error.help()));
    assert_eq!(trace.sources[0].problems, Vec::<String>::new());
    trace
}

pub(crate) fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// Returns the prompt, what of it was seen, and the answer of each step of a thread.
pub(crate) fn calls(session: &Session, thread: usize) -> Vec<(u64, u64, u64)> {
    let steps = session.threads[thread].steps.iter();
    steps
        .map(|step| (step.prompt_tokens.0, step.seen.0, step.output_tokens.0))
        .collect()
}

pub(crate) fn secs(span: Span) -> f64 {
    (span.secs() * 1e6).round() / 1e6
}

fn sums(trace: &Trace) -> (u64, u64) {
    let steps = trace
        .sessions
        .iter()
        .flat_map(|session| &session.threads)
        .flat_map(|thread| &thread.steps);
    steps.fold((0, 0), |(prompt, output), step| {
        (prompt + step.prompt_tokens.0, output + step.output_tokens.0)
    })
}

fn open(path: &Path) -> Result<Trace, String> {
    load(&[path.to_path_buf()], &ReadOptions::default(), &mut |_| {})
        .map_err(|error| error.to_string())
}

#[test]
fn every_sample_is_read_or_refused_with_what_it_is() {
    for (folder, name, expected) in [
        (
            "azure",
            "AzureLLMInferenceTrace_code.csv",
            Ok((8_819, 8_819)),
        ),
        ("tracelab", "sanitized_round_trace.jsonl", Ok((2, 19))),
        ("tracelab", "derived_round_trace.jsonl", Ok((2, 19))),
        ("tracelab", "multi_session_example.csv", Ok((3, 8))),
        ("tracelab", "session_workload_example.csv", Ok((1, 11))),
        ("mooncake", "synthetic_trace.head300.jsonl", Ok((300, 300))),
        (
            "tracelab",
            "LICENSE-DATASET.md",
            Err("it does not begin with JSON"),
        ),
        (
            "mmbt-contended",
            "measured.csv",
            Err("a table with the columns run, mod, turn, start_s"),
        ),
        (
            "servegen",
            "m-large_chunk-0-trace.csv",
            Err("arrival rates of a ServeGen client"),
        ),
        (
            "servegen",
            "m-large_chunk-1-dataset.json",
            Err("length distributions of a ServeGen client"),
        ),
        (
            "otel-genai",
            "sample-1_VSGitHubCopilot_traces.jsonl",
            Err("none of 4 spans (1 agents, 3 tools)"),
        ),
        (
            "otel-genai",
            "sample-2_VSGitHubCopilot_traces.jsonl",
            Err("none of 4 spans (1 agents, 3 tools)"),
        ),
        (
            "otel-genai",
            "sample-3_VSGitHubCopilot_traces.jsonl",
            Err("none of 3 spans (1 agents, 2 tools)"),
        ),
        (
            "otel-genai",
            "sample-4_VSGitHubCopilot_traces.jsonl",
            Err("none of 5 spans (2 agents, 3 tools)"),
        ),
    ] {
        let Some(folder) = crate::trace::shared(folder) else {
            continue;
        };
        let found = open(&folder.join(name)).map(|trace| {
            assert_eq!(trace.sources[0].problems, Vec::<String>::new());
            assert!(
                !trace.sources[0].losses.is_empty(),
                "{name} says nothing of what it lacks"
            );
            (trace.sessions.len(), trace.calls())
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
            (Err(error), Err(why)) => assert!(error.contains(why), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn azure_rows_have_the_totals_and_arrivals_of_the_file() {
    let Some(folder) = crate::trace::shared("azure") else {
        return;
    };
    let path = folder.join("AzureLLMInferenceTrace_code.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|line| line.trim().split(',').collect())
        .collect();
    let sum = |column: usize| {
        rows.iter()
            .map(|row| row[column].parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let trace = open(&path).unwrap();
    assert_eq!(sums(&trace), (sum(1), sum(2)));
    // 18:17:03.9799600 to 18:17:04.0319600.
    assert_eq!(trace.sessions[1].arrival, Some(Span::from_micros(52_000)));
}

#[test]
fn tracelab_rounds_have_the_totals_and_tools_of_the_file() {
    let Some(folder) = crate::trace::shared("tracelab") else {
        return;
    };
    let path = folder.join("sanitized_round_trace.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let rounds: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sum = |key: &str| {
        rounds
            .iter()
            .map(|round| round[key].as_u64().unwrap())
            .sum::<u64>()
    };
    let trace = open(&path).unwrap();
    assert_eq!(
        sums(&trace),
        (sum("input_tokens_total"), sum("output_tokens"))
    );
    let claude = &trace.sessions[0];
    assert_eq!(&*claude.id, rounds[0]["session_id"]);
    let cached: u64 = trace
        .sessions
        .iter()
        .flat_map(|session| &session.threads[0].steps)
        .map(|step| step.recorded.cached().unwrap().0)
        .sum();
    assert_eq!(cached, sum("prefix_tokens"));
    // The second prompt grew by more than the answer, and holds it: 32,272 + 931.
    assert_eq!(calls(claude, 0)[1], (35_740, 33_203, 1_016));
    // The first answer ends at 31.647, Bash returns at 31.696; the search ran from 31.651 to 50.938. The next round
    // begins with its last input.
    let next = rounds[1]["timing_events"].as_array().unwrap();
    let inputs = next
        .iter()
        .filter(|event| event["event_type"] == "tool_result");
    let last = inputs
        .map(|event| event["timestamp"].as_str().unwrap())
        .max()
        .unwrap();
    let begins: f64 = last[17..23].parse().unwrap();
    let gap = &claude.threads[0].steps[0].gap;
    let between = secs(gap.tool + gap.unknown);
    assert!(
        (between - (begins - 31.647)).abs() < 1e-6,
        "{between} {begins}"
    );
    assert!(secs(gap.tool) <= between && gap.after == Ending::ToolCall);
}

#[test]
fn workloads_reuse_what_they_say() {
    let text = "session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms\n\
                0,0,0,0,512,64,100\n0,0,1,576,128,64,100\n1,200,0,0,400,48,80\n0,0,2,300,500,9,0\n";
    let trace = read("w.csv", text);
    assert_eq!(&*trace.sessions[0].id, "w-0");
    // The third round keeps 300 tokens of what had been 768.
    assert_eq!(
        calls(&trace.sessions[0], 0),
        [(512, 0, 64), (704, 576, 64), (800, 300, 9)]
    );
    let steps = &trace.sessions[0].threads[0].steps;
    assert_eq!(
        (steps[2].again.0, steps[0].gap.tool),
        (468, Span::from_micros(100_000))
    );
    assert_eq!(trace.sessions[1].arrival, Some(Span::from_micros(200_000)));
}

fn span(id: &str, parent: &str, op: &str, from: f64, to: f64, more: &[(&str, Value)]) -> Value {
    let nanos = |secs: f64| format!("{}", ((1_780_000_000.0 + secs) * 1e9) as u64);
    let mut attributes =
        vec![json!({"key": "gen_ai.operation.name", "value": {"stringValue": op}})];
    for (key, value) in more {
        let value = match value {
            Value::Number(number) => json!({"intValue": number.to_string()}),
            Value::Array(list) => {
                let values: Vec<Value> =
                    list.iter().map(|one| json!({"stringValue": one})).collect();
                json!({"arrayValue": {"values": values}})
            }
            other => json!({"stringValue": other}),
        };
        attributes.push(json!({"key": key, "value": value}));
    }
    json!({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [{"traceId": "t1", "spanId": id,
        "parentSpanId": parent, "name": op, "startTimeUnixNano": nanos(from), "endTimeUnixNano": nanos(to),
        "attributes": attributes}]}]}]})
}

fn chat(id: &str, parent: &str, from: f64, to: f64, tokens: (u64, u64), finish: &str) -> Value {
    let more = [
        ("gen_ai.usage.input_tokens", json!(tokens.0)),
        ("gen_ai.usage.output_tokens", json!(tokens.1)),
        ("gen_ai.response.finish_reasons", json!([finish])),
        ("gen_ai.request.model", json!("m")),
    ];
    span(id, parent, "chat", from, to, &more)
}

/// Two turns of an agent, a sub-agent, and its last turn; the last span is exported twice.
fn recorded_spans() -> Vec<Value> {
    // In the order of export, which is that of their ends.
    vec![
        chat("c1", "a1", 0.0, 2.0, (1_000, 50), "tool_calls"),
        span(
            "x1",
            "a1",
            "execute_tool",
            2.0,
            3.0,
            &[("gen_ai.tool.name", json!("grep"))],
        ),
        span(
            "x2",
            "a1",
            "execute_tool",
            2.5,
            4.0,
            &[("gen_ai.tool.name", json!("read"))],
        ),
        chat("c2", "a1", 4.5, 6.0, (1_200, 80), "tool_calls"),
        chat("s1", "a2", 7.0, 8.0, (400, 30), "tool_calls"),
        chat("s2", "a2", 9.0, 10.0, (600, 30), "stop"),
        span(
            "a2",
            "x3",
            "invoke_agent",
            6.9,
            10.1,
            &[("gen_ai.agent.name", json!("explore"))],
        ),
        span(
            "x3",
            "a1",
            "execute_tool",
            6.5,
            10.5,
            &[("gen_ai.tool.name", json!("task"))],
        ),
        chat("c3", "a1", 11.0, 12.0, (1_300, 20), "stop"),
        span(
            "a1",
            "",
            "invoke_agent",
            0.0,
            12.0,
            &[("gen_ai.conversation.id", json!("conv"))],
        ),
        chat("c3", "a1", 11.0, 12.0, (1_300, 20), "stop"),
    ]
}

#[test]
fn spans_become_conversations_tools_and_sub_agents() {
    let spans = recorded_spans();
    let trace = read("spans.jsonl", &lines(&spans));
    assert_eq!((trace.sessions.len(), trace.calls()), (1, 5));
    let session = &trace.sessions[0];
    assert_eq!(
        (&*session.id, session.model.as_deref()),
        ("conv", Some("m"))
    );
    // 1,200 holds the first answer; 1,300 grew by 100 over it, and 80 of those are the second.
    assert_eq!(
        calls(session, 0),
        [(1_000, 0, 50), (1_200, 1_050, 80), (1_300, 1_280, 20)]
    );
    assert_eq!(calls(session, 1), [(400, 0, 30), (600, 430, 30)]);
    let main = &session.threads[0].steps;
    // Two tools at the same time count once: 2.0 to 4.0. The rest until 4.5 is the client's.
    assert_eq!(
        (secs(main[0].gap.tool), secs(main[0].gap.client)),
        (2.0, 0.5)
    );
    // After the sub-agent's last answer the tool around it ran on for half a second.
    assert_eq!(
        (secs(main[1].gap.tool), secs(main[1].gap.client)),
        (0.5, 0.5)
    );
    assert_eq!(
        (
            main[1].gap.spawns[0].thread,
            secs(main[1].gap.spawns[0].offset)
        ),
        (1, 1.0)
    );
    assert_eq!(main[1].gap.joins, [1]);
    assert_eq!(
        (main[2].gap.after, secs(main[0].recorded.model().unwrap())),
        (Ending::EndOfTurn, 2.0)
    );
    // The same as one document.
    let all: Vec<Value> = spans
        .iter()
        .map(|batch| batch["resourceSpans"][0].clone())
        .collect();
    let document = serde_json::to_string_pretty(&json!({"resourceSpans": all})).unwrap();
    crate::trace::assert_same(&trace, &read("spans.json", &document));
}

#[test]
fn dynamo_trajectories_are_agents_with_their_tools() {
    let context = |trajectory: &str, parent: Option<&str>| json!({"session_type_id": "x", "session_id": "run", "trajectory_id": trajectory, "parent_trajectory_id": parent});
    let request = |context: Value,
                   from: u64,
                   took: f64,
                   input: u64,
                   hashes: &[u64],
                   finish: &str| {
        json!({"timestamp": 1, "event": {"schema": "dynamo.agent.trace.v1", "event_type": "request_end",
            "event_time_unix_ms": from as f64 + took, "agent_context": context, "request": {"request_id": "q", "model": "m",
            "output_tokens": 16, "request_received_ms": from, "total_time_ms": took, "ttft_ms": 120.5,
            "finish_reason_metadata": {"finish_reason": finish},
            "replay": {"trace_block_size": 64, "input_length": input, "input_sequence_hashes": hashes}}}})
    };
    let big = u64::MAX - 5;
    let t = 1_777_312_800_000;
    let log = [
        request(context("a", None), t, 1_000.0, 150, &[big, 7], "tool_calls"),
        json!({"event": {"schema": "dynamo.agent.trace.v1", "event_type": "tool_end", "event_time_unix_ms": t + 1_500,
            "agent_context": context("a", None), "tool": {"tool_call_id": "c", "tool_class": "web", "status": "succeeded",
            "started_at_unix_ms": t + 1_080, "ended_at_unix_ms": t + 1_500, "duration_ms": 420.5}}}),
        request(context("b", Some("a")), t + 1_100, 300.0, 64, &[99], "stop"),
        request(
            context("a", None),
            t + 2_000,
            500.0,
            200,
            &[big, 7, 8],
            "stop",
        ),
    ];
    let trace = read("d.jsonl", &lines(&log));
    let session = &trace.sessions[0];
    assert_eq!((&*session.id, session.threads.len()), ("run", 2));
    assert_eq!(calls(session, 0), [(150, 0, 16), (200, 128, 16)]);
    let gap = &session.threads[0].steps[0].gap;
    // The sub-agent ends at 1.4 s; the tool ran on for 0.1 s, and 0.5 s are the client's.
    assert_eq!(
        (secs(gap.tool), secs(gap.client), &gap.joins[..]),
        (0.1, 0.5, &[1][..])
    );
    assert_eq!(secs(gap.spawns[0].offset), 0.1);
    assert_eq!(
        secs(session.threads[0].steps[0].recorded.first_token().unwrap()),
        0.1205
    );
}

#[test]
fn bailian_chats_go_on_where_their_parent_stopped() {
    let row = |id: i64, parent: i64, at: f64, input: u64, ids: &[u64]| {
        json!({"chat_id": id, "parent_chat_id": parent, "timestamp": at, "input_length": input, "output_length": 9,
            "type": "text", "turn": 1, "hash_ids": ids})
    };
    let log = [
        row(10, -1, 5.0, 40, &[1, 2, 3]),
        row(11, -1, 6.0, 32, &[1, 9]),
        row(12, 10, 65.5, 70, &[1, 2, 4, 5, 6]),
        row(13, 999, 70.0, 20, &[8, 8]),
    ];
    let trace = read("b.jsonl", &lines(&log));
    assert_eq!((trace.sessions.len(), trace.calls()), (3, 4));
    assert_eq!(&*trace.sessions[0].id, "b-10");
    assert_eq!(calls(&trace.sessions[0], 0), [(40, 0, 9), (70, 32, 9)]);
    assert_eq!(secs(trace.sessions[0].threads[0].steps[0].gap.human), 60.5);
    assert_eq!(
        trace.sessions[1].arrival,
        Some(Span::from_micros(1_000_000))
    );
    assert!(trace.sessions[2].resumed);
    let tip = |session: usize| trace.sessions[session].threads[0].steps[0].prompt;
    assert_eq!(
        trace.content.end(trace.content.meeting(tip(0), tip(1))).0,
        16
    );
}

#[test]
fn burstgpt_sessions_are_conversations_and_failures_have_no_answer() {
    let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                5,7,2.5,GPT-4,100,50,150,Conversation log\n6,,,ChatGPT,30,0,30,API log\n\
                40,7,3,GPT-4,180,20,200,Conversation log\n41,,,ChatGPT,0,0,0,API log\n";
    let trace = read("burst.csv", text);
    assert_eq!((trace.sessions.len(), trace.calls()), (2, 3));
    assert_eq!(calls(&trace.sessions[0], 0), [(100, 0, 50), (180, 150, 20)]);
    let first = &trace.sessions[0].threads[0].steps[0];
    assert_eq!(
        (secs(first.gap.human), secs(first.recorded.model().unwrap())),
        (32.5, 2.5)
    );
    assert_eq!(calls(&trace.sessions[1], 0), [(30, 0, 0)]);
    assert!(
        trace.sources[0]
            .losses
            .iter()
            .any(|loss| loss.starts_with("1 requests failed"))
    );
    // The first release has no sessions.
    let old = read(
        "old.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n",
    );
    assert_eq!(sums(&old), (472, 18));
}

#[test]
fn aiperf_plans_branch_and_accumulate() {
    let inputs = json!({"data": [{"session_id": "s1", "payloads": [
        {"messages": [says("user", "Hello")], "model": "m", "max_tokens": 1024},
        {"messages": [says("user", "Hello"), says("assistant", "Hi there! How can I help?"), says("user", "Bye")], "max_tokens": 7},
    ]}]});
    let trace = read(
        "inputs.json",
        &serde_json::to_string_pretty(&inputs).unwrap(),
    );
    let steps = calls(&trace.sessions[0], 0);
    // 25 bytes of answer, found in the next payload; then the most that was asked for.
    assert_eq!((steps[0].2, steps[1].1, steps[1].2), (7, steps[0].0 + 7, 7));
    let turns = [
        json!({"session_id": "a", "turns": [{"text": "one two three", "max_tokens": 10}, {"text": "four", "delay": 1500, "max_tokens": 5}]}),
        json!({"text": "alone", "output_length": 3}),
    ];
    let trace = read("turns.jsonl", &lines(&turns));
    let steps = &trace.sessions[0].threads[0].steps;
    assert_eq!(
        (steps[1].seen.0, secs(steps[0].gap.tool)),
        (steps[0].prompt_tokens.0 + 10, 1.5)
    );
    let dag = [
        json!({"session_id": "root", "turns": [{"messages": [says("user", "Plan the work in detail.")], "max_tokens": 20, "spawns": ["fresh"]},
            {"messages": [says("user", "Merge.")], "max_tokens": 4, "forks": ["heir"]}]}),
        json!({"session_id": "fresh", "turns": [{"messages": [says("user", "Look around.")], "max_tokens": 6}]}),
        json!({"session_id": "heir", "turns": [{"messages": [says("user", "Go on.")], "max_tokens": 6}]}),
    ];
    let trace = read("dag.jsonl", &lines(&dag));
    let session = &trace.sessions[0];
    assert_eq!((trace.sessions.len(), session.threads.len()), (1, 3));
    let main = &session.threads[0].steps;
    assert_eq!(main[0].gap.joins, [1]);
    let heir = &session.threads[2].steps[0];
    let common = trace
        .content
        .end(trace.content.meeting(main[1].output, heir.prompt));
    assert_eq!(common, main[1].prompt_tokens + main[1].output_tokens);
    let unknown = load_bytes(
        "u.jsonl",
        b"{\"text\": \"how long is the answer?\"}",
        &ReadOptions::default(),
    );
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("how long it was is unknown")
    );
}
