//! Live replays against a real engine that `tests/engines/run` has started, told by an environment variable.

#![expect(
    clippy::print_stdout,
    reason = "tests tell how exact they are, and what they skipped"
)]

use crate::cli::Lab;
use laptime::trace::read::{ReadOptions, load_bytes};
use serde_json::Value;

/// Names the engine's address.
const URL: &str = "LAPTIME_ENGINE_URL";
/// Says that there is little time: some engines read every answer again for each of its pieces when asked by messages.
const BRIEF: &str = "LAPTIME_ENGINE_BRIEF";
const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/test-fix-loop.jsonl");

fn replay(url: &str, agents: u32, prompts: &str) -> Value {
    let (lab, agents) = (Lab::new(), agents.to_string());
    let ran = lab.run(&[
        "replay",
        "--trace",
        TRACE,
        "--url",
        url,
        "--agents",
        &agents,
        "--pace",
        "none",
        "--prompts",
        prompts,
        "--json",
        "-",
        "--max-client-lag",
        "60s",
    ]);
    ran.json()
}

fn check(document: &Value) {
    let summary = &document["summary"];
    assert_eq!(summary["failed_calls"], 0);
    for call in document["calls"].as_array().unwrap() {
        let wire = &call["wire"];
        let number = |value: &Value| value.as_f64().unwrap();
        let (sent, planned) = (
            number(&call["prompt_tokens"]),
            number(&wire["planned_prompt_tokens"]),
        );
        assert!(
            (sent / planned - 1.0).abs() <= 0.005,
            "a prompt of {sent} for {planned}"
        );
        assert_eq!(call["output_tokens"], wire["planned_output_tokens"]);
    }
}

#[test]
fn a_real_engine_is_asked_exactly_what_was_recorded() {
    let Ok(url) = std::env::var(URL) else {
        println!("skipped: {URL} names no engine");
        return;
    };
    let brief = std::env::var(BRIEF).is_ok_and(|brief| !brief.is_empty());
    let by_messages: &[u32] = if brief { &[1, 2] } else { &[1, 2, 4, 8] };
    for (prompts, all) in [("tokens", &[1, 2, 4, 8][..]), ("chat", by_messages)] {
        for &agents in all {
            let document = replay(&url, agents, prompts);
            check(&document);
            let tokens = &document["summary"]["tokens"];
            println!(
                "{prompts}, {agents} agents: {} calls, {} prompt tokens, {} from cache, off by {}",
                document["summary"]["calls"],
                tokens["prompt"],
                tokens["cached"],
                document["live"]["prompt_error"]["overall"],
            );
        }
    }
}

#[test]
fn a_lone_agent_finds_in_the_cache_what_the_recording_says_it_can() {
    let Ok(url) = std::env::var(URL) else {
        println!("skipped: {URL} names no engine");
        return;
    };
    let trace = load_bytes(
        "trace",
        &std::fs::read(TRACE).unwrap(),
        &ReadOptions::default(),
    )
    .unwrap();
    let steps = &trace.sessions[0].threads[0].steps;
    // Content of its own: what other tests left in the engine must not be found.
    let (lab, seed) = (Lab::new(), std::process::id().to_string());
    let document = lab
        .run(&[
            "replay",
            "--trace",
            TRACE,
            "--url",
            &url,
            "--pace",
            "none",
            "--prompts",
            "tokens",
            "--seed",
            &seed,
            "--json",
            "-",
            "--max-client-lag",
            "60s",
        ])
        .json();
    let block = &document["operating_point"]["settings"]["engine.block_size"];
    let block: u64 = block.as_str().map_or(1, |size| size.parse().unwrap());
    let calls = document["calls"].as_array().unwrap();
    assert_eq!(calls.len(), steps.len());
    for (call, step) in calls.iter().zip(steps) {
        let found = call["cached_tokens"].as_u64().unwrap();
        // An engine computes at least the last token of every prompt, and finds whole blocks where it keeps such.
        let planned = step.seen_computed.0.min(step.prompt_tokens.0 - 1);
        let planned = planned / block * block;
        let by_chance = block.max(8);
        assert!(
            found >= planned && found <= planned + by_chance,
            "lap {}: {found} tokens from the cache, planned {planned}",
            call["lap"]
        );
    }
}
