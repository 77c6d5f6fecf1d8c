//! A live replay against a rig that is served is the simulation of that rig: the same calls, the same cache, the same time.

#![expect(clippy::print_stdout, reason = "tests tell how exact they are")]

use crate::cli::{Lab, TRACE};
use crate::http::Server;
use serde_json::Value;

/// How far the run time may be off.
const BOUND: f64 = 0.01;
/// How often a measurement is made: other tests share the machine, and what they delay is no difference of ours.
const TRIES: u32 = 6;

fn replay(more: &[&str]) -> Value {
    let usual = [
        "replay",
        "--trace",
        TRACE,
        "--agents",
        "2",
        "--pace",
        "recorded",
        "--idle-cap",
        "1s",
        "--json",
        "-",
    ];
    Lab::new().run(&[&usual, more].concat()).json()
}

/// Every call in the order in which they were made: whose it is, its tokens, what was in the cache, how it ended.
fn calls(document: &Value) -> Vec<String> {
    let rows = document["calls"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let words = [
            "session",
            "run",
            "thread",
            "lap",
            "prompt_tokens",
            "cached_tokens",
            "output_tokens",
            "outcome",
        ];
        words.map(|word| row[word].to_string()).join(" ")
    };
    rows.map(row).collect()
}

fn wall(document: &Value) -> f64 {
    document["summary"]["wall_s"].as_f64().unwrap()
}

/// Replays live against the served rig, each time anew, until both agree.
fn check(rig: &str) {
    let simulated = replay(&["--rig", rig]);
    let mut told = Vec::new();
    for _ in 0..TRIES {
        let server = Server::start(&["serve", "--rig", rig]);
        let url = format!("http://{}/v1", server.at);
        let live = replay(&["--url", &url, "--max-client-lag", "60s"]);
        assert_eq!(live["operating_point"]["kind"], "live");
        assert_eq!(live["operating_point"]["engine"], "laptime");
        assert_eq!(live["live"]["prompts"], "tokens");
        let off = wall(&live) / wall(&simulated) - 1.0;
        println!(
            "{rig}: {:.3} s live, {:.3} s simulated, {:+.2} %",
            wall(&live),
            wall(&simulated),
            off * 100.0
        );
        let same = calls(&live) == calls(&simulated);
        // A client is never ahead of the rig.
        if same && (-0.001..BOUND).contains(&off) {
            return;
        }
        told.push(format!(
            "{off:+.4}, live {:#?}, simulated {:#?}",
            calls(&live),
            calls(&simulated)
        ));
    }
    panic!("{rig}: {}", told.join("\n"));
}

#[test]
fn a_live_replay_of_a_served_vllm_is_its_simulation() {
    check("rtx-pro-6000/vllm/qwen3.6-27b-awq");
}

#[test]
fn a_live_replay_of_a_served_llama_cpp_is_its_simulation() {
    check("rtx-pro-6000/llama.cpp/qwen3.6-35b-a3b-q8_0");
}

#[test]
fn calls_in_every_dialect_are_answered_by_a_served_rig() {
    let server = Server::start(&["serve", "--rig", "h100/vllm/llama-3.1-8b-bf16"]);
    let url = format!("http://{}/v1", server.at);
    let url = url.as_str();
    // llama.cpp's is its own endpoint for token ids; it is held to the real server.
    let dialects = [
        ("vllm", true),
        ("sglang", true),
        ("trt-llm", true),
        ("ollama", false),
        ("mlx-lm", false),
        ("lm-studio", false),
        ("openai", false),
    ];
    let ask = |engine: &str, exact: bool| {
        let live = replay(&["--url", url, "--engine", engine, "--max-client-lag", "60s"]);
        assert_eq!(live["operating_point"]["engine"], engine);
        assert_eq!(live["summary"]["failed_calls"], 0, "{engine}");
        let lengths = live["calls"].as_array().unwrap().iter();
        let wrong =
            lengths.filter(|call| call["output_tokens"] != call["wire"]["planned_output_tokens"]);
        assert!(!exact || wrong.count() == 0, "{engine}");
        // Without a tokenizer to ask, words are weighed by a few calls.
        let off = live["live"]["prompt_error"]["overall"].as_f64().unwrap();
        assert!(off < 0.01, "{engine}: prompts {off} off");
    };
    std::thread::scope(|all| {
        for (engine, exact) in dialects {
            all.spawn(move || ask(engine, exact));
        }
    });
}
