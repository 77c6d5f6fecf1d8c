//! Traces in the dialects of other tools: what comes back replays the same, and what does not is told.

use crate::cli::{Lab, TRACE};
use serde_json::Value;

/// Replays a trace and leaves out where it came from.
fn replayed(lab: &Lab, trace: &str) -> Value {
    let mut document = lab
        .run(&[
            "replay",
            "--trace",
            trace,
            "--rig",
            "rtx-5090/vllm/qwen3.6-27b-awq",
            "--agents",
            "2",
            "--json",
            "-",
            "--quiet",
        ])
        .json();
    document["workload"]["traces"].take();
    document
}

fn shared(folder: &str, name: &str) -> Option<String> {
    let path = crate::trace::shared(folder)?.join(name);
    Some(path.to_str().unwrap().to_string())
}

#[test]
fn mooncake_rows_come_back_as_they_went() {
    let files = [
        shared("mooncake", "conversation_trace.head300.jsonl"),
        shared("mmbt-contended", "runs.mooncake.jsonl"),
    ];
    for source in files.into_iter().flatten() {
        let lab = Lab::new();
        let done = lab.run(&["export", &source, "--to", "mooncake", "-o", "out.jsonl"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(
            replayed(&lab, &source) == replayed(&lab, "out.jsonl"),
            "{source}"
        );
        // Lengths and the structure of ids, against the file itself.
        let rows = |text: String| -> Vec<(u64, u64, usize)> {
            let row = |line: &str| {
                let row: Value = serde_json::from_str(line).unwrap();
                let count = |key: &str| row[key].as_u64().unwrap();
                (
                    count("input_length"),
                    count("output_length"),
                    row["hash_ids"].as_array().unwrap().len(),
                )
            };
            text.lines().map(row).collect()
        };
        let mut before = rows(std::fs::read_to_string(&source).unwrap());
        let mut after = rows(std::fs::read_to_string(lab.path("out.jsonl")).unwrap());
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(before, after);
    }
}

#[test]
fn hashed_sessions_come_back_as_they_went() {
    for name in [
        "trace_0014.json.gz",
        "trace_0174.json.gz",
        "trace_0546.json.gz",
        "trace_0027.json.gz",
    ] {
        let Some(source) = shared("claude-code-hashed", name) else {
            return;
        };
        let lab = Lab::new();
        let done = lab.run(&["export", &source, "--to", "weka", "-o", "out.json"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(
            replayed(&lab, &source) == replayed(&lab, "out.json"),
            "{name} replays differently"
        );
    }
}

#[test]
fn what_a_dialect_cannot_say_is_told() {
    let lab = Lab::new();
    let rows = lab.run(&["export", TRACE, "--to", "mooncake", "-o", "out.jsonl"]);
    assert_eq!(rows.code, Some(0), "{}", rows.stderr);
    for loss in [
        "read again in a replay",
        "sub-agents are sessions of their own",
        "what a wait was made of",
    ] {
        assert!(rows.stderr.contains(loss), "{}", rows.stderr);
    }
    // Twice through the dialect is once through it.
    let again = lab.run(&[
        "export",
        "out.jsonl",
        "--to",
        "mooncake",
        "-o",
        "again.jsonl",
        "--quiet",
    ]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(replayed(&lab, "out.jsonl") == replayed(&lab, "again.jsonl"));
}

#[test]
fn several_sessions_become_a_folder_of_documents() {
    let lab = Lab::new();
    let done = lab.run(&["export", TRACE, "--to", "weka", "-o", "sessions"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let document = |name: &str| -> Value {
        let text = std::fs::read_to_string(lab.path("sessions").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let one = document("trace_0001.json");
    assert_eq!(
        (&one["block_size"], &one["hash_id_scope"]),
        (&64.into(), &"local".into())
    );
    let calls = lab.run(&["inspect", "sessions", "--json", "-"]).json();
    assert_eq!(calls["total"]["calls"], 8);
    let other = lab.run(&["export", "sessions", "--to", "weka", "-o", "again"]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert!(replayed(&lab, "sessions") == replayed(&lab, "again"));
    let refused = lab.run(&["export", TRACE, "--to", "weka", "-o", "-"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("name a folder"),
        "{}",
        refused.stderr
    );
}
