//! Questions asked of real engines, through the binary: here the engines are rigs that are served, and faster than life.

use crate::cli::{Lab, Ran, TRACE};
use crate::http::Server;
use serde_json::Value;
use std::fs;

/// A card that is fast enough to be waited for.
const RIG: &str = "h100/llama.cpp/llama-3.1-8b-q8_0";

/// Serves the rig with so many slots.
fn serve(slots: u32) -> Server {
    let set = format!("engine.parallel={slots}");
    let context = format!("engine.ctx_size={}", slots * 16_384);
    Server::start(&[
        "serve",
        "--rig",
        RIG,
        "--set",
        &set,
        "--set",
        &context,
        "--time-scale",
        "8",
    ])
}

fn url(server: &Server) -> String {
    format!("http://{}/v1", server.at)
}

/// Asks about the trace without its waits; the machine may be busy with other tests, which is not what these are about.
fn ask(lab: &Lab, words: &[&str]) -> Ran {
    let usual = [
        "--trace",
        TRACE,
        "--pace",
        "none",
        "--max-client-lag",
        "60s",
    ];
    lab.run(&[words, &usual].concat())
}

fn size(lab: &Lab, server: &Server, budget: &str) -> Ran {
    let target = "run_s.p50<=1000x solo";
    let words = [
        "size",
        "--url",
        &url(server),
        "--target",
        target,
        "--max",
        "4",
        "--budget",
        budget,
        "--out",
        "sized",
        "--json",
        "size.json",
    ];
    ask(lab, &words)
}

fn document(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(lab.path(name)).unwrap()).unwrap()
}

#[test]
fn sizing_goes_on_from_what_was_measured() {
    let (lab, server) = (Lab::new(), serve(2));
    let first = size(&lab, &server, "10m");
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(
        first
            .stdout
            .contains("4 agents, the most that were tried, hold"),
        "{}",
        first.stdout
    );
    let whole = document(&lab, "size.json");
    let rig = &whole["rigs"][0];
    assert_eq!(rig["agents"], 4);
    assert_eq!(rig["trust"], "measured");
    assert_eq!(
        rig["measured"]["times"],
        serde_json::json!({ "1": 1, "2": 1, "4": 1 })
    );
    assert_eq!(
        (&rig["measured"]["kept"], &rig["measured"]["complete"]),
        (&0.into(), &true.into())
    );
    // One measurement is lost; only that one is made again.
    fs::remove_file(lab.path("sized/agents-2/repeat-1/result.json")).unwrap();
    let again = size(&lab, &server, "10m");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(
        document(&lab, "size.json")["rigs"][0]["measured"]["kept"],
        2
    );
    // Without any time there is still the answer that was found before.
    let kept = size(&lab, &server, "1ms");
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    assert!(
        kept.stdout.contains("3 kept from before"),
        "{}",
        kept.stdout
    );
    // What was measured with other slots is something else.
    let other = size(&lab, &serve(3), "10m");
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(
        other.stderr.contains("engine.parallel=2"),
        "{}",
        other.stderr
    );
    assert!(
        other.stderr.contains("another folder with --out"),
        "{}",
        other.stderr
    );
}

#[test]
fn sizing_without_time_says_what_it_would_take() {
    let (lab, server) = (Lab::new(), serve(2));
    let ran = size(&lab, &server, "1ms");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("nothing was measured: no time was left for 1 agent"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("--budget"), "{}", ran.stderr);
}

#[test]
fn sizing_finds_where_slots_run_out_and_says_what_breaks() {
    let (lab, server) = (Lab::new(), serve(1));
    // Whoever waits for the only slot gets its first token late, and loses what it had in the cache.
    let words = [
        "size",
        "--url",
        &url(&server),
        "--target",
        "ttft_s.max<=1.2x solo",
        "--max",
        "8",
        "--runs",
        "8",
        "--json",
        "size.json",
    ];
    let ran = ask(&lab, &words);
    let rig = &document(&lab, "size.json")["rigs"][0];
    assert!(
        rig["agents"].as_u64().is_none_or(|best| best < 4),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("breaks  at"), "{}", ran.stdout);
    assert!(ran.stdout.contains("waits  laps are"), "{}", ran.stdout);
}

/// A gate that no busy machine fails; with a single slot runs take twice as long.
const GATE: &str = "baseline = 'baseline.json'\ntarget = 'failed_calls<=0'\nexact = ['calls', 'tokens.prompt', 'tokens.output']\n\
                    [tolerance]\n'run_s.p50' = '40%'\n";

#[test]
fn a_live_gate_passes_the_same_and_fails_fewer_slots_and_says_so() {
    let (lab, old, same, fewer) = (Lab::new(), serve(4), serve(4), serve(1));
    lab.file("gate.toml", GATE);
    let check = |new: &Server, more: &[&str]| {
        let words = [
            "check",
            "--gate",
            "gate.toml",
            "--url",
            &url(new),
            "--against",
            &url(&old),
            "--agents",
            "4",
            "--runs",
            "8",
            "--repeat",
            "5",
        ];
        ask(&lab, &[&words, more].concat())
    };
    let passed = check(&same, &[]);
    assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
    let files = [
        "--json=c.json",
        "--junit=c.xml",
        "--markdown=c.md",
        "--out=kept",
    ];
    let failed = check(&fewer, &files);
    assert_eq!(failed.code, Some(1), "{}{}", failed.stdout, failed.stderr);
    assert!(
        failed.stdout.contains("fail  tolerance run_s.p50"),
        "{}",
        failed.stdout
    );
    assert!(
        failed.stdout.contains("engine.parallel=4"),
        "{}",
        failed.stdout
    );
    for name in ["c.json", "c.xml", "c.md"] {
        let text = fs::read_to_string(lab.path(name)).unwrap();
        assert!(text.contains("engine.parallel=1"), "{text}");
    }
    // All pairs are kept: the second time the answer comes without measuring.
    let again = check(&fewer, &files);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    assert_eq!(again.stdout, failed.stdout);
}

#[test]
fn a_live_gate_holds_an_engine_to_a_stored_baseline() {
    let (lab, old, fewer) = (Lab::new(), serve(4), serve(1));
    lab.file("gate.toml", GATE);
    let check = |server: &Server, more: &[&str]| {
        let words = [
            "check",
            "--gate",
            "gate.toml",
            "--url",
            &url(server),
            "--agents",
            "4",
            "--runs",
            "8",
            "--repeat",
            "4",
        ];
        ask(&lab, &[&words, more].concat())
    };
    let stored = check(&old, &["--update-baseline"]);
    assert_eq!(stored.code, Some(0), "{}", stored.stderr);
    assert!(
        stored.stderr.contains("holds 4 results now"),
        "{}",
        stored.stderr
    );
    let passed = check(&old, &[]);
    assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
    let failed = check(&fewer, &[]);
    assert_eq!(failed.code, Some(1), "{}{}", failed.stdout, failed.stderr);
    assert!(
        failed.stdout.contains("engine.parallel=1"),
        "{}",
        failed.stdout
    );
}

#[test]
fn live_flags_without_an_engine_are_refused() {
    for words in [
        [
            "size",
            "--rig",
            RIG,
            "--target",
            "lap_s.p95<=30s",
            "--budget",
            "1m",
        ],
        [
            "check",
            "--rig",
            RIG,
            "--gate",
            "gate.toml",
            "--against",
            "http://localhost:1/v1",
        ],
    ] {
        let ran = ask(&Lab::new(), &words);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("--url"), "{}", ran.stderr);
    }
    let nobody = ask(
        &Lab::new(),
        &[
            "check",
            "--url",
            "http://127.0.0.1:9/v1",
            "--connect-timeout",
            "1s",
        ],
    );
    assert_eq!(nobody.code, Some(4), "{}", nobody.stderr);
}
