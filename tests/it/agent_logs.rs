//! The rules of each agent's log, on the smallest logs that show them.

use crate::agent_samples as samples;
use laptime::trace::read::{ReadOptions, import_bytes, load_bytes, load_bytes_as};
use laptime::trace::{Ending, Join, Trace, TraceError};
use serde_json::Value;

fn read(name: &str, text: &str) -> Trace {
    let trace = load_bytes(name, text.as_bytes(), &ReadOptions::default());
    let trace = trace.unwrap_or_else(|error| panic!("{error}\nhelp: {}", error.help()));
    assert_eq!(trace.sources[0].problems, Vec::<String>::new(), "{name}");
    trace
}

/// Returns prompt, what of it was seen before, cached and output tokens of each call of a thread.
fn calls(trace: &Trace, thread: usize) -> Vec<(u64, u64, Option<u64>, u64)> {
    let steps = trace.sessions[0].threads[thread].steps.iter();
    steps
        .map(|step| {
            let cached = step.recorded.cached().map(|tokens| tokens.0);
            (
                step.prompt_tokens.0,
                step.seen.0,
                cached,
                step.output_tokens.0,
            )
        })
        .collect()
}

/// Returns tool, client, human and unknown milliseconds after each call of a thread.
fn waits(trace: &Trace, thread: usize) -> Vec<[u64; 4]> {
    let steps = trace.sessions[0].threads[thread].steps.iter();
    let millis = |span: laptime::units::Span| span.0 / 1_000_000;
    steps
        .map(|step| {
            let gap = &step.gap;
            [gap.tool, gap.client, gap.human, gap.unknown].map(millis)
        })
        .collect()
}

/// Returns the records of the native file that a log becomes.
fn records(name: &str, text: &str, kind: &str) -> Vec<Value> {
    let mut native = Vec::new();
    import_bytes(name, text.as_bytes(), &ReadOptions::default(), &mut native).unwrap();
    let lines = std::str::from_utf8(&native).unwrap().lines();
    let values = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter(|value| value["k"] == kind).collect()
}

#[test]
fn every_format_is_told_by_its_content() {
    for (format, name, text) in samples::ALL {
        let trace = read("x", text);
        assert_eq!(trace.sources[0].format, format, "{name}");
        assert!(
            !trace.sources[0].losses.is_empty(),
            "{name} says what it lacks"
        );
        let told = load_bytes_as(format, name, text.as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(told.calls(), trace.calls(), "{name}");
    }
    assert!(load_bytes_as("no such format", "x", b"{}").is_none());
}

#[test]
fn lines_of_one_claude_answer_are_one_call_with_its_last_counts() {
    let trace = read("claude.jsonl", samples::CLAUDE);
    let session = &trace.sessions[0];
    assert_eq!(
        (&*session.id, session.model.as_deref()),
        ("S1", Some("big"))
    );
    // The second prompt keeps the first with its whole answer; after the compaction only the head is the same.
    let main = calls(&trace, 0);
    assert_eq!(main[0], (10_010, 0, Some(9_000), 100));
    assert_eq!(main[1], (10_315, 10_110, Some(10_010), 20));
    assert_eq!((main[2].0, main[2].2, main[2].3), (10_050, Some(9_000), 30));
    assert!((9_000..10_010).contains(&main[2].1), "{main:?}");
    assert_eq!(calls(&trace, 1), [(3_000, 0, Some(0), 40)]);
    assert_eq!(session.threads[0].steps.len(), 3);
}

#[test]
fn a_claude_sub_agent_runs_inside_its_parents_wait() {
    let trace = read("claude.jsonl", samples::CLAUDE);
    let session = &trace.sessions[0];
    let first = &session.threads[0].steps[0];
    assert_eq!((first.gap.spawns.len(), first.gap.joins.len()), (1, 1));
    assert_eq!(
        (&*session.threads[1].id, session.threads[1].join),
        ("A7", Join::Blocking)
    );
    // The answer ends at 4 s, the child at 9, the next request is sent at 9.5; a person thinks for a minute after it.
    let waits = waits(&trace, 0);
    assert_eq!(waits[0], [0, 0, 0, 500]);
    assert_eq!(waits[1], [0, 0, 60_000, 0]);
    assert_eq!(first.gap.after, Ending::ToolCall);
    // Of the two tools, one is timed by its stamps and one by the log.
    let tools = records("claude.jsonl", samples::CLAUDE, "tool");
    let told: Vec<(&str, u64, &str)> = tools
        .iter()
        .map(|tool| {
            let text = |key: &str| tool[key].as_str().unwrap();
            (
                text("name"),
                tool["duration_us"].as_u64().unwrap(),
                text("how"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Bash", 2_000_000, "derived"),
            ("Task", 4_400_000, "measured")
        ]
    );
}

#[test]
fn a_codex_count_that_is_repeated_is_no_call() {
    let trace = read("codex.jsonl", samples::CODEX);
    let main = calls(&trace, 0);
    assert_eq!(main[0], (5_000, 0, Some(4_096), 200));
    assert_eq!(main[1], (5_300, 5_200, Some(5_120), 10));
    assert_eq!((main.len(), main[2].0, main[2].3), (3, 4_900, 10));
    assert!(
        (4_096..5_000).contains(&main[2].1),
        "the instructions outlive a compaction: {main:?}"
    );
    // Of the 2.9 s between the count and the result the tool says it took 2.5; a person waits 20.9 s.
    assert_eq!(waits(&trace, 0)[0], [2_500, 0, 0, 400]);
    assert_eq!(waits(&trace, 0)[1], [0, 0, 20_900, 0]);
}

#[test]
fn the_first_codex_rollouts_are_sized_from_text() {
    let trace = read("codex-bare.jsonl", samples::CODEX_BARE);
    assert_eq!(trace.calls(), 2);
    let tools = records("x", samples::CODEX_BARE, "tool");
    assert_eq!(tools[0]["duration_us"], 700_000);
    assert!(
        trace.sources[0]
            .losses
            .iter()
            .any(|loss| loss.contains("estimated from the logged text alone"))
    );
}

#[test]
fn qwen_telemetry_says_how_long_calls_and_tools_took() {
    let trace = read("qwen.jsonl", samples::QWEN);
    let main = calls(&trace, 0);
    // Thoughts are part of the 90 tokens, as the total tells, and are not sent again.
    assert_eq!(main[0], (8_000, 0, Some(0), 90));
    assert_eq!((main[1].0, main[1].1), (8_100, 8_000));
    let steps = &trace.sessions[0].threads[0].steps;
    assert_eq!(steps[0].recorded.model().unwrap().0, 4_200_000_000);
    assert_eq!(waits(&trace, 0)[0], [150, 1_850, 0, 0]);
    // The compressed history takes the place of the old one.
    assert!(main[2].1 >= 7_900 && main[2].1 < 8_000, "{main:?}");
}

#[test]
fn gemini_thoughts_are_answered_but_not_sent_again() {
    let trace = read("gemini.jsonl", samples::GEMINI);
    let main = calls(&trace, 0);
    assert_eq!(
        main,
        [(9_000, 0, Some(0), 230), (9_060, 9_000, Some(8_900), 2)]
    );
    assert_eq!(trace.sessions[0].threads[0].steps[1].again.0, 30);
    assert_eq!(waits(&trace, 0)[0], [250, 0, 0, 0]);
}

#[test]
fn an_opencode_message_holds_as_many_calls_as_steps() {
    let trace = read("opencode.json", samples::OPENCODE);
    assert_eq!(
        calls(&trace, 0),
        [(8_000, 0, Some(7_000), 50), (8_070, 8_050, Some(8_000), 10)]
    );
    assert_eq!(waits(&trace, 0)[0], [750, 0, 0, 0]);
}

#[test]
fn mini_swe_agent_stamps_are_ends() {
    let trace = read("mini.traj.json", samples::MINI);
    assert_eq!(
        calls(&trace, 0),
        [(1_200, 0, Some(0), 30), (1_250, 1_230, Some(1_152), 20)]
    );
    assert_eq!(waits(&trace, 0)[0], [1_500, 0, 0, 0]);
    let second = &trace.sessions[0].threads[0].steps[1];
    assert_eq!(second.recorded.model().unwrap().0, 3_000_000_000);
}

#[test]
fn totals_of_a_swe_agent_run_are_shared_out_and_elisions_break_prompts() {
    let trace = read("swe.traj", samples::SWE_QUERY);
    let main = calls(&trace, 0);
    assert_eq!(main.iter().map(|call| call.0).sum::<u64>(), 1_000);
    assert_eq!(main.iter().map(|call| call.3).sum::<u64>(), 101);
    assert_eq!(
        main[1].1,
        main[0].0 + main[0].3,
        "nothing is elided from the second prompt"
    );
    assert_eq!(
        main[2].1,
        main[0].0 + main[0].3,
        "the third differs from the first observation on"
    );
    assert_eq!(
        waits(&trace, 0),
        [[250, 0, 0, 0], [500, 0, 0, 0], [125, 0, 0, 0]]
    );
}

#[test]
fn a_cline_tool_takes_until_the_next_request() {
    let trace = read("ui_messages.json", samples::CLINE);
    // Counts of new tokens leave out what is read from or written to the cache.
    assert_eq!(
        calls(&trace, 0),
        [(9_400, 0, Some(0), 50), (9_620, 9_450, Some(9_400), 15)]
    );
    assert_eq!(waits(&trace, 0)[0], [8_000, 0, 0, 0]);
    let tools = records("ui_messages.json", samples::CLINE, "tool");
    assert_eq!(tools[0]["meaning"], "wall-with-approval");
    let sent = read("api_conversation_history.json", samples::CLINE_SENT);
    assert_eq!(calls(&sent, 0)[0], (9_500, 0, Some(9_000), 40));
    assert_eq!(sent.calls(), 2);
}

#[test]
fn aider_tells_of_itself_in_three_ways() {
    let chat = read("aider.md", samples::AIDER_CHAT);
    let counts: Vec<(u64, u64)> = calls(&chat, 0)
        .iter()
        .map(|call| (call.0, call.3))
        .collect();
    assert_eq!(counts, [(2_900, 53), (3_100, 120)]);
    let analytics = read("aider.jsonl", samples::AIDER_ANALYTICS);
    let counts: Vec<(u64, u64)> = calls(&analytics, 0)
        .iter()
        .map(|call| (call.0, call.3))
        .collect();
    assert_eq!(counts, [(2_900, 53), (3_100, 120)]);
    // The log of prompts has no counts, but every prompt in full: the second holds the first with its answer.
    let prompts = read("aider.log", samples::AIDER_PROMPTS);
    let main = calls(&prompts, 0);
    assert_eq!(main[1].1, main[0].0 + main[0].3);
    let steps = &prompts.sessions[0].threads[0].steps;
    assert_eq!(steps[1].recorded.model().unwrap().0, 7_000_000_000);
    assert_eq!(waits(&prompts, 0)[0], [0, 0, 26_000, 0]);
}

#[test]
fn an_atif_trajectory_brings_its_sub_agents() {
    let trace = read("trajectory.json", samples::ATIF);
    assert_eq!(
        calls(&trace, 0),
        [(4_000, 0, Some(0), 80), (4_200, 4_080, Some(4_000), 10)]
    );
    assert_eq!(calls(&trace, 1), [(700, 0, None, 7)]);
    assert_eq!(trace.sessions[0].threads[1].id, "child");
    let newer = samples::ATIF.replacen("ATIF-v1.7", "ATIF-v9.0", 1);
    let error = load_bytes("t.json", newer.as_bytes(), &ReadOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("ATIF-v9.0") && said.contains("ATIF-v1.x"),
        "{said}"
    );
}

#[test]
fn disagreement_with_the_cache_is_reported() {
    // The second call reads less from the cache than its prefix holds, the third more.
    let text = samples::CLINE.replace(
        "\\\"cacheWrites\\\":200,\\\"cacheReads\\\":9400",
        "\\\"cacheWrites\\\":9100,\\\"cacheReads\\\":500",
    );
    let trace = read("ui_messages.json", &text);
    let losses = &trace.sources[0].losses;
    let told = losses
        .iter()
        .find(|loss| loss.contains("read less from the cache"));
    assert!(
        told.is_some_and(|loss| loss.contains("8950 tokens")),
        "{losses:?}"
    );
}

#[test]
fn files_that_are_no_recording_are_refused_with_what_they_are() {
    let refused = [
        ("SQLite format 3\0 and more", "opencode export"),
        (
            r#"{"id":"p","sessionID":"s","messageID":"m","type":"text"}"#,
            "opencode session s",
        ),
        (
            r#"[{"sessionId":"s","messageId":0,"type":"user","message":"hi"}]"#,
            "what users typed",
        ),
        (
            r#"{"id":"x","persistence_dir":"d","execution_status":"idle"}"#,
            "OpenHands conversation",
        ),
    ];
    for (text, what) in refused {
        let error = load_bytes("x", text.as_bytes(), &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, TraceError::Unknown { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}
