//! What is left of an anonymised trace: every result of a replay, and nothing that can be read.

#![expect(clippy::format_collect, reason = "small texts")]
#![expect(clippy::print_stdout, reason = "tests tell what they measured")]

use crate::cli::{Lab, TRACE};
use laptime::trace::anonymize::{Key, Level, write};
use laptime::trace::read::{ReadOptions, load_bytes, load_bytes_printed};
use laptime::trace::{Session, Trace};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Replays a trace on a simulated rig; the names of traces and sessions are taken out and returned apart.
fn replayed(lab: &Lab, trace: &str, rig: &str, share: &str) -> (Value, Vec<String>) {
    let mut document = lab
        .run(&[
            "replay", "--trace", trace, "--rig", rig, "--share", share, "--agents", "3", "--runs",
            "8", "--json", "-", "--quiet",
        ])
        .json();
    document["workload"]["traces"].take();
    if rig == "recorded" {
        // The model is the trace's own, and is left out on purpose.
        document["operating_point"]["model"].take();
    }
    let mut names = Vec::new();
    for list in ["runs", "laps", "calls"] {
        for row in document[list].as_array_mut().unwrap() {
            names.push(row["session"].take().as_str().unwrap().to_string());
        }
    }
    (document, names)
}

/// Asserts that two replays are the same but for the names of sessions, which map one to one.
fn assert_replays_alike(lab: &Lab, source: &str, reduced: &str, share: &str) {
    for rig in [
        "rtx-5090/vllm/qwen3.6-27b-awq",
        "rtx-5090/llama.cpp/qwen3.6-27b-q8_0",
        "rtx-5090/sglang/qwen3.6-27b-awq",
        "recorded",
    ] {
        let (before, names) = replayed(lab, source, rig, share);
        let (after, others) = replayed(lab, reduced, rig, share);
        assert!(before == after, "{source} replays differently on {rig}");
        let forth: BTreeMap<&String, &String> = names.iter().zip(&others).collect();
        let back: BTreeMap<&String, &String> = others.iter().zip(&names).collect();
        assert_eq!(forth.len(), back.len());
        for (name, other) in names.iter().zip(&others) {
            assert_eq!((forth[name], back[other]), (other, name));
        }
    }
}

/// Returns traces of every structure: sub-agents, shared heads, hashes, sizes.
fn sources() -> Vec<PathBuf> {
    let mut sources = vec![PathBuf::from(TRACE)];
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for name in ["fan-out", "pr-triage", "test-fix-loop"] {
        sources.push(root.join(format!("traces/{name}.jsonl")));
    }
    let shared = [
        ("claude-code-hashed", "trace_0014.json.gz"),
        ("claude-code-hashed", "trace_0174.json.gz"),
        ("mooncake", "conversation_trace.head300.jsonl"),
        ("tracelab", "sanitized_round_trace.jsonl"),
        ("mmbt", "p2_triage_27b_v1"),
    ];
    for (folder, name) in shared {
        sources.extend(crate::trace::shared(folder).map(|folder| folder.join(name)));
    }
    sources
}

#[test]
fn anonymised_traces_replay_the_same() {
    let lab = Lab::new();
    for source in sources() {
        let source = source.to_str().unwrap();
        for (level, share) in [("hashed", "head"), ("hashed", "all"), ("sizes", "none")] {
            let done = lab.run(&["anonymize", source, "-o", "out.jsonl", "--level", level]);
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            assert_replays_alike(&lab, source, "out.jsonl", share);
        }
    }
}

#[test]
fn hashes_are_comparable_only_with_the_same_key() {
    let lab = Lab::new();
    lab.file("a.key", "a secret that is long enough");
    lab.file("b.key", "another secret, as long as that");
    lab.file("short.key", "too short");
    let reduce = |key: &[&str]| {
        let mut words = vec!["anonymize", TRACE, "-o", "-", "--level", "hashed"];
        words.extend(key);
        lab.run(&words)
    };
    let a = reduce(&["--key-file", "a.key"]).stdout;
    assert_eq!(a, reduce(&["--key-file", "a.key"]).stdout);
    assert_ne!(a, reduce(&["--key-file", "b.key"]).stdout);
    assert_ne!(
        reduce(&[]).stdout,
        reduce(&[]).stdout,
        "each run draws a key of its own"
    );
    let short = reduce(&["--key-file", "short.key"]);
    assert_eq!(short.code, Some(2));
    assert!(short.stderr.contains("at least 16"), "{}", short.stderr);
    assert_eq!(reduce(&["--key-file", "absent.key"]).code, Some(2));
}

/// Everything of a trace but the names of its sessions and threads, and which model it was.
fn bare(trace: &Trace) -> Vec<Session> {
    let strip = |session: &Session| {
        let mut session = session.clone();
        (session.id, session.model) = ("".into(), None);
        for thread in &mut session.threads {
            thread.id = "".into();
            for step in &mut thread.steps {
                (step.prompt, step.output) = Default::default();
            }
        }
        session
    };
    trace.sessions.iter().map(strip).collect()
}

/// How long the beginning is that each two prompts have in common.
fn meetings(trace: &Trace) -> Vec<u64> {
    let steps = || {
        let sessions = trace.sessions.iter().flat_map(|session| &session.threads);
        sessions.flat_map(|thread| &thread.steps)
    };
    steps()
        .flat_map(|a| steps().map(move |b| (a.output, b.prompt)))
        .map(|(a, b)| trace.content.end(trace.content.meeting(a, b)).0)
        .collect()
}

/// A trace in which every free text is `canary(n)`; `shape` decides what it is made of.
fn planted(canary: &dyn Fn(usize) -> String, shape: &[u8]) -> String {
    let c = |n: usize| canary(n);
    let mut lines = vec![
        serde_json::json!({"k": "header", "format": "laptime-trace", "version": 1, "note": c(0), "licence": c(1),
            "recorded_on": c(2), "tokenizer": c(3), "source_format": c(4), "losses": [c(5)],
            "sources": [{"name": c(6), "digest": c(7)}], "private": c(8)}),
        serde_json::json!({"k": "segment", "id": c(9), "kind": "system", "tokens": 900, "text": c(10), "source_ref": c(11)}),
        serde_json::json!({"k": "segment", "id": c(12), "kind": c(13), "tokens": 3, "token_ids": [1, 2, 3]}),
        serde_json::json!({"k": "segment", "id": c(14), "kind": "repo-read", "tokens": 70, "hash": "00000000deadbeef"}),
    ];
    let mut tokens = 0;
    for (number, &byte) in shape.iter().enumerate() {
        let session = c(20 + number / 4);
        if number % 4 == 0 {
            lines.push(serde_json::json!({"k": "session", "id": session, "model": c(40), "parent": c(41),
                "labels": {c(42): c(43)}, "arrival_us": number, "block_scope": c(44), "secret": c(45)}));
            tokens = 0;
        }
        let piece = match byte % 4 {
            0 => serde_json::json!({"seg": c(12)}),
            1 => serde_json::json!({"blocks": format!("1-{:x}", 1 + byte % 9), "block_size": 16}),
            2 => serde_json::json!({"seg": c(14), "again": byte > 128}),
            _ => serde_json::json!({"tokens": 50, "again": byte > 128, "kind": c(46)}),
        };
        let held = [3, 16 * (1 + u64::from(byte % 9)), 70, 50][usize::from(byte % 4)];
        let keep = if tokens == 0 {
            0
        } else {
            tokens - u64::from(byte) % 3 * 16
        };
        let (first, held) = if tokens == 0 {
            (vec![serde_json::json!({"seg": c(9)})], held + 900)
        } else {
            (vec![], held)
        };
        tokens = keep + held;
        let mut append = first;
        append.push(piece);
        lines.push(serde_json::json!({"k": "step", "id": format!("{}{number}", c(50)), "session": session,
            "prompt": {"tokens": tokens, "keep": keep, "append": append, "break": c(51)},
            "output": {"tokens": 20}, "model": c(52), "gap": {"tool_us": byte}, "finish": c(53), "extra": {"path": c(54)}}));
        tokens += 20;
        lines.push(serde_json::json!({"k": "tool", "session": session, "step": c(50), "name": c(55), "args": c(56), "error": c(57)}));
        lines.push(
            serde_json::json!({"k": "event", "session": session, "what": c(58), "cwd": c(59)}),
        );
        if number % 4 == 1 {
            lines.push(serde_json::json!({"k": "agent", "id": c(60), "session": session, "type": c(61), "model": c(62),
                "spawn_step": format!("{}{number}", c(50))}));
            lines.push(serde_json::json!({"k": "step", "id": c(63), "session": session, "agent": c(60),
                "prompt": {"tokens": 970, "append": [{"seg": c(9)}, {"seg": c(14)}]}, "output": {"tokens": 5}}));
        }
        lines.push(serde_json::json!({"k": c(64), "later": c(65)}));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_that_was_planted_is_left(seed in any::<u64>(), shape in prop::collection::vec(any::<u8>(), 1..24)) {
        // Letters that no word of the format is made of in this order; eight of them meet by chance once in 10^11.
        let canary = |n: usize| -> String {
            let mut state = seed ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (0..16).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + ((state >> 33) % 26) as u8)
            }).collect()
        };
        let text = planted(&canary, &shape);
        let options = ReadOptions::default();
        let (trace, prints) = load_bytes_printed("planted.jsonl", text.as_bytes(), &options).unwrap();
        let pieces: BTreeSet<String> = (0..80)
            .flat_map(|n| canary(n).as_bytes().windows(8).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect::<Vec<_>>())
            .collect();
        for level in [Level::Hashed, Level::Sizes] {
            let mut out = Vec::new();
            write(&trace, &prints, level, &Key::new([7; 32]), &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            for piece in out.as_bytes().windows(8) {
                let piece = std::str::from_utf8(piece).unwrap();
                prop_assert!(!pieces.contains(piece), "{level:?} leaks {piece}");
            }
            prop_assert!(!out.contains("deadbeef"));
            let again = load_bytes("out.jsonl", out.as_bytes(), &options).unwrap();
            prop_assert_eq!(&again.sources[0].problems, &Vec::<String>::new());
            prop_assert_eq!(bare(&trace), bare(&again), "{:?}", level);
            if level == Level::Hashed {
                prop_assert_eq!(meetings(&trace), meetings(&again));
            }
        }
    }
}

#[test]
fn a_step_of_an_anonymised_trace_takes_few_bytes() {
    let Some(folder) = crate::trace::shared("claude-code-hashed") else {
        return;
    };
    let lab = Lab::new();
    let folder = folder.to_str().unwrap().to_string();
    for level in ["hashed", "sizes"] {
        let done = lab.run(&[
            "anonymize",
            &folder,
            "-o",
            "out.jsonl",
            "--level",
            level,
            "--quiet",
        ]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let bytes = std::fs::metadata(lab.path("out.jsonl")).unwrap().len();
        println!("{level}: {} bytes a step", bytes / 4_343);
        assert!(bytes / 4_343 < 400);
        // Packed as the name says.
        let done = lab.run(&[
            "anonymize",
            &folder,
            "-o",
            "out.jsonl.zst",
            "--level",
            level,
            "--quiet",
        ]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(std::fs::metadata(lab.path("out.jsonl.zst")).unwrap().len() < bytes / 4);
    }
}
