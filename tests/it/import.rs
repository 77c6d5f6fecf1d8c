//! The rules of each foreign format, on the smallest files that show them.

use crate::cli::Lab;
use laptime::trace::read::{ReadOptions, load, load_bytes};
use laptime::trace::{Ending, Session, Trace, TraceError};
use laptime::units::{Span, Tokens};

fn read(name: &str, text: &str) -> Trace {
    load_bytes(name, text.as_bytes(), &ReadOptions::default())
        .unwrap_or_else(|error| panic!("{error}\nhelp: {}", error.help()))
}

/// Returns what is new and what is repeated in each prompt of a session's main thread.
fn prompts(session: &Session) -> Vec<(u64, u64, u64)> {
    let steps = session.threads[0].steps.iter();
    steps
        .map(|step| (step.prompt_tokens.0, step.seen.0, step.again.0))
        .collect()
}

fn millis(span: Span) -> u64 {
    span.0 / 1_000_000
}

const TRANSCRIPT: &str = r#"{"t":"2026-04-27T18:00:02.000000+00:00","iter":1,"type":"model","wall_s":2.0,"prompt_tokens":1000,"completion_tokens":50,"content_len":0,"tool_calls":[{"name":"bash","args_len":70}],"finish_reason":"tool_calls"}
{"t":"2026-04-27T18:00:03.000000+00:00","iter":1,"type":"tool","name":"bash","wall_s":0.5,"result_len":10}
{"t":"2026-04-27T18:00:03.300000+00:00","iter":1,"type":"tool","name":"bash","wall_s":0.25,"result_len":10}
{"t":"2026-04-27T18:00:06.000000+00:00","iter":2,"type":"model","wall_s":2.0,"prompt_tokens":1100,"completion_tokens":400,"content_len":7,"tool_calls":[{"name":"bash","args_len":70}],"finish_reason":"tool_calls"}
{"t":"2026-04-27T18:00:09.000000+00:00","iter":3,"type":"model","wall_s":2.0,"prompt_tokens":1300,"completion_tokens":10,"content_len":35,"tool_calls":[],"finish_reason":"tool_calls"}
{"t":"2026-04-27T18:00:12.000000+00:00","iter":4,"type":"model","wall_s":2.0,"prompt_tokens":600,"completion_tokens":10,"content_len":35,"tool_calls":[],"finish_reason":"stop"}
"#;

#[test]
fn a_transcript_keeps_answers_but_not_the_reasoning_in_them() {
    let trace = read("some_run.jsonl", TRANSCRIPT);
    let session = &trace.sessions[0];
    assert_eq!(&*session.id, "some_run");
    // 22 of the 400 tokens answered in the second turn were said aloud: (7 + 70) / 3.5.
    assert_eq!(
        prompts(session),
        [
            (1_000, 0, 0),
            (1_100, 1_050, 0),
            (1_300, 1_100, 22),
            (600, 0, 600)
        ]
    );
    let steps = &session.threads[0].steps;
    assert!(!steps[1].break_estimated && steps[2].break_estimated && steps[3].break_estimated);
    assert_eq!(steps[1].seen_computed, Tokens(1_049));
    assert_eq!(
        (millis(steps[0].gap.tool), millis(steps[0].gap.client)),
        (750, 1250)
    );
    assert_eq!(
        (millis(steps[1].gap.tool), millis(steps[1].gap.client)),
        (0, 1000)
    );
    assert_eq!(
        (steps[0].gap.after, steps[3].gap.after),
        (Ending::ToolCall, Ending::EndOfTurn)
    );
}

#[test]
fn a_run_that_begins_again_in_the_same_file_is_another_session() {
    let damaged = format!("\0\0\0{TRANSCRIPT}\0\0{TRANSCRIPT}{{\"t\":\"2026-04-27T18:00:02");
    let trace = read("run.jsonl", &damaged);
    let ids: Vec<&str> = trace.sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids, ["run", "run#2"]);
    assert_eq!(trace.calls(), 8);
    assert_eq!(trace.sources[0].problems.len(), 1);
    assert!(trace.sources[0].problems[0].starts_with("line 13: EOF"));
}

#[test]
fn mooncake_rows_of_several_sessions_interleave() {
    let trace = read(
        "m.jsonl",
        r#"{"timestamp": 1000.5, "input_length": 1100, "output_length": 5, "hash_ids": [18446744073709551615, 2, 3], "session_id": "a"}
{"timestamp": 1500.75, "input_length": 1030, "output_length": 6, "hash_ids": [18446744073709551615, 2, 9], "session_id": 7}
{"input_length": 1600, "output_length": 7, "hash_ids": [18446744073709551615, 2, 4, 5], "session_id": "a", "delay": 250.5}
{"input_length": 1024, "output_length": 7, "hash_ids": [18446744073709551615, 8], "session_id": "a", "delay": 100}
{"timestamp": 2000, "input_length": 20, "output_length": 6, "hash_ids": [77]}
"#,
    );
    let ids: Vec<&str> = trace.sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids, ["a", "7", "m-5"]);
    assert_eq!(trace.sessions[1].arrival, Some(Span(500_250_000)));
    let a = &trace.sessions[0];
    assert_eq!(
        prompts(a),
        [(1_100, 0, 0), (1_600, 1_024, 0), (1_024, 512, 512)]
    );
    let gap = &a.threads[0].steps[0].gap;
    assert_eq!((gap.tool, gap.after), (Span(250_500_000), Ending::ToolCall));
    let meeting = trace.content.meeting(
        a.threads[0].steps[0].prompt,
        trace.sessions[1].threads[0].steps[0].prompt,
    );
    assert_eq!(trace.content.end(meeting), Tokens(1_024));
    assert!(trace.content.is_head(meeting));
}

#[test]
fn the_block_size_is_the_power_of_two_that_fits_every_row() {
    let rows = |sizes: &[(u64, usize)]| -> String {
        let row = |&(tokens, blocks): &(u64, usize)| {
            let ids: Vec<String> = (0..blocks).map(|id| id.to_string()).collect();
            let ids = ids.join(",");
            format!(
                "{{\"timestamp\":0,\"input_length\":{tokens},\"output_length\":1,\"hash_ids\":[{ids}],\"session_id\":\"s\"}}\n"
            )
        };
        sizes.iter().map(row).collect()
    };
    let seen = |text: &str, options: &ReadOptions| {
        let trace = load_bytes("m.jsonl", text.as_bytes(), options).unwrap();
        trace.sessions[0].threads[0].steps[1].seen.0
    };
    let usual = ReadOptions::default();
    assert_eq!(seen(&rows(&[(100, 7), (100, 7)]), &usual), 96);
    assert_eq!(seen(&rows(&[(100, 1), (100, 1)]), &usual), 0);
    assert_eq!(seen(&rows(&[(600, 1), (1_100, 2)]), &usual), 0);
    let by_hand = ReadOptions {
        block_size: Some(10),
    };
    assert_eq!(seen(&rows(&[(100, 7), (100, 7)]), &by_hand), 70);
    let error = load_bytes("m.jsonl", rows(&[(100, 7), (100, 3)]).as_bytes(), &usual).unwrap_err();
    assert!(
        matches!(error, TraceError::BlockSize { line: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("m.jsonl, line 2") && error.help().contains("--block-size"));
}

fn ids(blocks: u64) -> String {
    let ids: Vec<String> = (1..=blocks).map(|id| id.to_string()).collect();
    ids.join(",")
}

/// A session of two requests around a sub-agent whose inner moments are `inner`.
fn with_agent(status: &str, t: f64, inner: [f64; 2]) -> Trace {
    let text = format!(
        r#"{{"id":"trace_1","block_size":64,"hash_id_scope":"local","tool_tokens":100,"system_tokens":40,"models":["m"],"requests":[
{{"t":10,"type":"n","in":650,"out":20,"hash_ids":[{}],"stop":"tool_use","api_time":2.0,"input_types":["text"]}},
{{"t":{t},"type":"subagent","agent_id":"agent_001","duration_ms":30000,"status":"{status}","tool_tokens":64,"system_tokens":0,"models":["h"],"requests":[
  {{"t":{},"type":"n","in":200,"out":5,"hash_ids":[501,502,503],"stop":"tool_use","api_time":1.0}},
  {{"t":{},"type":"n","in":300,"out":5,"hash_ids":[501,502,503,504],"stop":"end_turn","api_time":2.0}}]}},
{{"t":50,"type":"n","in":700,"out":20,"hash_ids":[{}],"stop":"end_turn","api_time":3.0,"think_time":38.0}},
{{"t":60,"type":"s","in":720,"out":20,"hash_ids":[{}],"stop":"tool_use"}},
{{"t":75,"type":"s","in":400,"out":20,"hash_ids":[1,2,3,901,902,903],"stop":"tool_use","think_time":22.0}}]}}"#,
        ids(10),
        inner[0],
        inner[1],
        ids(10),
        ids(11)
    );
    read("trace_0001.json", &text)
}

#[test]
fn a_sub_agent_begins_its_duration_before_its_moment() {
    // Its moment is its end: it began at 13, a second after the answer at 12.
    for inner in [[0.0, 20.0], [13.0, 33.0]] {
        let trace = with_agent("completed", 43.0, inner);
        let session = &trace.sessions[0];
        let main = &session.threads[0].steps;
        assert_eq!(session.threads[1].id, "agent_001");
        let spawn = main[0].gap.spawns[0];
        assert_eq!((spawn.thread, millis(spawn.offset)), (1, 1000), "{inner:?}");
        assert_eq!(main[0].gap.joins, [1]);
        // It was done at 13 + 20 + 2; the parent went on at 50.
        assert_eq!(millis(main[0].gap.unknown), 15000);
        assert_eq!(millis(session.threads[1].steps[0].gap.unknown), 19000);
    }
    let trace = with_agent("async_launched", 13.0, [0.0, 20.0]);
    let main = &trace.sessions[0].threads[0].steps;
    assert_eq!(
        (
            millis(main[0].gap.spawns[0].offset),
            main[0].gap.joins.len()
        ),
        (1000, 0)
    );
    assert_eq!(millis(main[0].gap.unknown), 38000);
}

#[test]
fn waits_of_hashed_sessions_are_differences_where_model_times_are_missing() {
    let trace = with_agent("completed", 43.0, [0.0, 20.0]);
    let main = &trace.sessions[0].threads[0].steps;
    assert_eq!(
        (main[1].gap.after, millis(main[1].gap.human)),
        (Ending::EndOfTurn, 7000)
    );
    // `think_time` has accumulated to 22; start to start is 15.
    assert_eq!(
        (main[2].gap.after, millis(main[2].gap.unknown)),
        (Ending::ToolCall, 15000)
    );
    assert_eq!(main[2].recorded.model(), None);
}

#[test]
fn hashed_prompts_keep_whole_blocks_of_the_best_earlier_request() {
    let trace = with_agent("completed", 43.0, [0.0, 20.0]);
    let session = &trace.sessions[0];
    // 650 + 20 answered; then one that grew by exactly its answer; then three blocks of a rewritten history.
    assert_eq!(
        prompts(session),
        [(650, 0, 0), (700, 670, 0), (720, 720, 0), (400, 192, 208)]
    );
    let head = |thread: usize| {
        let tip = session.threads[thread].steps[0].prompt;
        let head = trace
            .content
            .upwards(tip)
            .find(|&node| trace.content.is_head(node));
        head.map(|node| trace.content.end(node).0)
    };
    assert_eq!((head(0), head(1)), (Some(128), Some(64)));
    assert!(!session.resumed);
}

#[test]
fn a_document_that_is_cut_short_keeps_what_came_before() {
    let text = r#"{"id":"x","block_size":64,"hash_id_scope":"local","requests":[{"t":0,"in":64,"out":3,"hash_ids":[1]},{"t":5,"in":-9,"out":3},{"t":9,"in":"#;
    let trace = read("x.json", text);
    assert_eq!((&*trace.sessions[0].id, trace.calls()), ("x", 1));
    assert_eq!(trace.sources[0].problems.len(), 2);
}

#[test]
fn sessions_of_one_name_in_two_files_are_told_apart_and_share_no_blocks() {
    let folder = std::env::temp_dir().join(format!("laptime-{}-collide", std::process::id()));
    std::fs::create_dir_all(folder.join("deep")).unwrap();
    let rows = r#"{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2], "session_id": "a"}"#;
    std::fs::write(folder.join("one.jsonl"), rows).unwrap();
    std::fs::write(folder.join("deep/two.jsonl"), rows).unwrap();
    std::fs::write(folder.join("README.md"), "# no trace").unwrap();
    std::fs::write(folder.join("summary.json"), "{\"run_name\":\"a\"}").unwrap();
    let trace = load(
        std::slice::from_ref(&folder),
        &ReadOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    let ids: Vec<&str> = trace.sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids, ["two/a", "one/a"]);
    assert_eq!(trace.skipped.len(), 2);
    let tip = |at: usize| trace.sessions[at].threads[0].steps[0].prompt;
    assert_eq!(
        trace.content.end(trace.content.meeting(tip(0), tip(1))),
        Tokens(0)
    );
    let mut native = Vec::new();
    let paths = [folder.clone()];
    laptime::trace::read::import(&paths, &ReadOptions::default(), &mut |_| {}, &mut native)
        .unwrap();
    let again = load_bytes("n.jsonl", &native, &ReadOptions::default()).unwrap();
    crate::trace::assert_same(&trace, &again);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_without_a_trace_says_what_is_wrong_with_its_data_rather_than_with_its_readme() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("runs")).unwrap();
    lab.file("runs/README.md", "# What these are\n");
    let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"execute_tool read","traceId":"1","spanId":"2",
        "startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"execute_tool"}}]}]}]}]}"#;
    lab.file("runs/spans.jsonl", &spans.replace('\n', ""));
    let found = lab.run(&["inspect", "runs"]);
    assert_eq!(found.code, Some(3));
    assert!(found.stderr.contains("`chat` spans"), "{}", found.stderr);
    assert!(!found.stderr.contains("README"), "{}", found.stderr);
}

#[test]
fn the_wrong_file_is_refused_with_a_reason_and_a_remedy() {
    let refused = |text: &str| {
        let error = load_bytes("f.jsonl", text.as_bytes(), &ReadOptions::default()).unwrap_err();
        assert!(!error.help().is_empty());
        error.to_string()
    };
    assert_eq!(
        refused(""),
        "f.jsonl, line 1: no trace begins here: it is empty"
    );
    assert_eq!(
        refused("a,b\n1,2\n"),
        "f.jsonl, line 1: no trace begins here: it does not begin with JSON"
    );
    assert!(refused("{\"sessionId\":1,\"uuid\":2}\n").contains("Claude Code"));
    assert!(
        refused("{\"k\":\"header\",\"format\":\"other\",\"version\":1}").contains("format `other`")
    );
    assert!(
        refused("{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":2}")
            .contains("version 2")
    );
    let hollow = refused(
        "{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n{\"k\":\"step\",\"id\":1}",
    );
    assert!(
        hollow.contains("no usable step") && hollow.contains("line 2"),
        "{hollow}"
    );
}
