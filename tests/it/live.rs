//! Live replays against a server that fails on command: what is measured, what is kept, and how it ends.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what is asked lives in real time"
)]

use crate::cli::{Lab, Ran, TRACE};
use crate::faulty::{Act, Faulty};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Calls of one token before the clock starts, to this kind of engine.
const WARM_UP: u32 = 4;
const KEY: &str = "sk-this-must-never-be-seen-4711";

/// Replays with 16 agents; whatever happens, it must end by itself.
fn replay(lab: &Lab, faulty: &Faulty, more: &[&str]) -> Ran {
    let url = faulty.url();
    let mut args = vec!["replay", "--trace", TRACE, "--url", &url];
    args.extend(more);
    let usual = [
        ("--agents", "16"),
        ("--runs", "16"),
        ("--pace", "none"),
        ("--json", "result.json"),
        ("--out", "out"),
        ("--stall-timeout", "1s"),
        ("--retry-pause", "10ms"),
        // The machine may be busy with other tests; that is not what these are about.
        ("--max-client-lag", "60s"),
    ];
    for (flag, value) in usual.iter().filter(|(flag, _)| !more.contains(flag)) {
        args.extend([flag, value]);
    }
    let began = Instant::now();
    let output = lab
        .command(&args)
        .env("OPENAI_API_KEY", KEY)
        .output()
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "it hung");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn document(lab: &Lab) -> Value {
    serde_json::from_str(&fs::read_to_string(lab.path("result.json")).unwrap()).unwrap()
}

fn outcomes(document: &Value) -> BTreeMap<String, u64> {
    let counted = document["live"]["outcomes"].as_object().unwrap().iter();
    counted
        .map(|(word, count)| (word.clone(), count.as_u64().unwrap()))
        .collect()
}

/// Asserts that every answer the server gave is in the document and in the journal.
fn nothing_is_lost(lab: &Lab, faulty: &Faulty, ran: &Ran) {
    let document = document(lab);
    let given = u64::from(faulty.answered.load(Ordering::SeqCst) - WARM_UP);
    let known = outcomes(&document);
    assert_eq!(
        known.get("ok").copied().unwrap_or(0),
        given,
        "{known:?}\n{}",
        ran.stderr
    );
    let journal = fs::read_to_string(lab.path("out").join("journal.jsonl")).unwrap();
    let measured = journal
        .lines()
        .filter(|line| line.contains("\"event\":\"measured\""));
    assert_eq!(measured.count() as u64, known.values().sum::<u64>());
    for text in [&journal, &ran.stdout, &ran.stderr, &document.to_string()] {
        assert!(!text.contains(KEY), "the key is told: {text}");
    }
}

#[test]
fn a_replay_makes_the_calls_that_a_simulation_makes() {
    let (lab, faulty) = (Lab::new(), Faulty::start(|_| Act::Answer));
    let ran = replay(&lab, &faulty, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    nothing_is_lost(&lab, &faulty, &ran);
    let live = document(&lab);
    let args = [
        "replay", "--trace", TRACE, "--rig", "recorded", "--agents", "16", "--runs", "16",
        "--pace", "none",
    ];
    let simulated = lab.run(&[&args[..], &["--json", "-"]].concat()).json();
    let calls = |document: &Value, prompt: &str, output: &str| -> BTreeSet<String> {
        let rows = document["calls"].as_array().unwrap().iter();
        let row = |row: &Value| {
            let place = (&row["run"], &row["session"], &row["thread"], &row["lap"]);
            format!(
                "{place:?} {} {}",
                row.pointer(prompt).unwrap(),
                row.pointer(output).unwrap()
            )
        };
        rows.map(row).collect()
    };
    assert_eq!(
        calls(
            &live,
            "/wire/planned_prompt_tokens",
            "/wire/planned_output_tokens"
        ),
        calls(&simulated, "/prompt_tokens", "/output_tokens")
    );
    assert_eq!(live["operating_point"]["kind"], "live");
    // The server counts words and four tokens for each message; the plan is met all the same.
    let off = live["live"]["prompt_error"]["overall"].as_f64().unwrap();
    assert!(off <= 0.005, "prompts are {off} off");
    assert_eq!(live["live"]["answers_of_wrong_length"], 0);
    // It does not tell what came from a cache: unknown is null.
    assert_eq!(live["summary"]["tokens"]["cached"], Value::Null);
    assert_eq!(live["calls"][0]["cached_tokens"], Value::Null);
}

#[test]
fn equal_content_is_equal_text_and_answers_come_back() {
    let (lab, faulty) = (Lab::new(), Faulty::start(|_| Act::Answer));
    let ran = replay(&lab, &faulty, &["--agents", "1", "--runs", "4"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let bodies = faulty.bodies.lock().unwrap();
    let calls: Vec<Vec<(String, String)>> = bodies[WARM_UP as usize..]
        .iter()
        .map(|body| {
            let messages = body["messages"].as_array().unwrap().iter();
            let word = |value: &Value| value.as_str().unwrap().to_string();
            messages
                .map(|one| (word(&one["role"]), word(&one["content"])))
                .collect()
        })
        .collect();
    let heads: BTreeSet<&String> = calls.iter().map(|messages| &messages[0].1).collect();
    assert!(
        heads.len() < calls.len() / 2,
        "heads are shared between runs"
    );
    let firsts = calls.iter().filter(|messages| messages.len() == 2);
    let firsts: Vec<&String> = firsts.map(|messages| &messages[1].1).collect();
    let distinct: BTreeSet<&&String> = firsts.iter().collect();
    assert!(distinct.len() > 4, "what is private is private");
    let mut said = calls
        .iter()
        .flatten()
        .filter(|(role, _)| role == "assistant");
    assert!(said.clone().count() > 4);
    assert!(said.all(|(_, text)| text.split_whitespace().all(|word| word == "said")));
    for messages in &calls {
        assert_eq!(messages.last().unwrap().0, "user");
    }
}

/// What the server does to the 20th to the 35th call, how that is counted, and how it ends.
fn fault(act: &Act, word: &str, code: i32) {
    let (lab, script) = (Lab::new(), act.clone());
    let faulty = Faulty::start(move |number| match number {
        20..36 => script.clone(),
        _ => Act::Answer,
    });
    let ran = replay(&lab, &faulty, &[]);
    assert_eq!(ran.code, Some(code), "{act:?}: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    nothing_is_lost(&lab, &faulty, &ran);
    let known = outcomes(&document(&lab));
    if word != "ok" {
        assert_eq!(known.get(word), Some(&16), "{act:?}: {known:?}");
    }
}

#[test]
fn a_connection_that_closes_is_counted_and_the_call_made_again() {
    fault(&Act::Close, "failed:reset", 0);
}

#[test]
fn an_engine_that_falls_silent_is_given_up() {
    fault(&Act::Silence, "failed:stalled", 0);
    fault(&Act::Stall, "failed:stalled", 0);
}

#[test]
fn half_an_answer_is_no_answer() {
    fault(&Act::Half, "failed:cut", 0);
}

#[test]
fn what_is_no_answer_is_told_as_such() {
    fault(&Act::Garbage, "failed:malformed", 0);
    fault(&Act::Error, "failed:server_error", 0);
}

#[test]
fn an_engine_with_too_much_to_do_is_asked_again_when_it_says() {
    let began = Instant::now();
    fault(
        &Act::Status(429, "Retry-After: 1\r\n", "{\"error\": \"busy\"}"),
        "failed:busy",
        0,
    );
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");
    fault(
        &Act::Status(503, "", "<html>busy</html>"),
        "failed:server_error",
        0,
    );
}

#[test]
fn a_key_is_never_told_even_when_the_engine_tells_it() {
    fault(
        &Act::Status(500, "", "you sent {key}"),
        "failed:server_error",
        0,
    );
}

#[test]
fn a_prompt_that_is_too_long_is_a_refusal_and_the_run_goes_on() {
    let text = "{\"error\": {\"message\": \"This model's maximum context length is 10 tokens\"}}";
    fault(&Act::Status(400, "", text), "refused:context", 0);
    fault(
        &Act::Status(400, "", "{\"error\": \"no\"}"),
        "failed:rejected",
        0,
    );
}

#[test]
fn a_slow_first_token_is_a_measurement_and_no_fault() {
    fault(&Act::Late(Duration::from_millis(500)), "ok", 0);
}

#[test]
fn an_engine_that_dies_is_lost_and_what_was_measured_is_kept() {
    let lab = Lab::new();
    let faulty = Faulty::start(|number| if number == 30 { Act::Die } else { Act::Answer });
    let ran = replay(&lab, &faulty, &[]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert_eq!(document(&lab)["live"]["ended"], "lost");
    assert!(outcomes(&document(&lab))["ok"] > 0);
    assert!(ran.stderr.contains("the engine was lost"), "{}", ran.stderr);
}

#[test]
fn an_engine_that_is_not_there_is_told_before_anything_is_done() {
    let lab = Lab::new();
    let ran = lab.run(&["replay", "--trace", TRACE, "--url", "http://127.0.0.1:9"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("no engine answers"), "{}", ran.stderr);
    let ran = lab.run(&["replay", "--trace", TRACE, "--url", "localhost:8000"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let faulty = Faulty::start(|_| Act::Answer);
    let ran = lab.run(&[
        "replay",
        "--trace",
        TRACE,
        "--url",
        &faulty.url(),
        "--model",
        "other",
    ]);
    assert_eq!(
        (ran.code, ran.stderr.contains("it serves faulty")),
        (Some(2), true),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_client_that_was_too_slow_makes_a_replay_invalid() {
    let (lab, faulty) = (Lab::new(), Faulty::start(|_| Act::Answer));
    let ran = replay(&lab, &faulty, &["--max-client-lag", "1ns"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(document(&lab)["live"]["client"]["valid"], false);
}

#[cfg(unix)]
mod interrupted {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn begin(lab: &Lab, faulty: &Faulty) -> Child {
        let url = faulty.url();
        let args = [
            "replay",
            "--trace",
            TRACE,
            "--url",
            &url,
            "--agents",
            "2",
            "--runs",
            "4",
            "--pace",
            "none",
            "--out",
            "out",
            "--json",
            "result.json",
            "--max-client-lag",
            "60s",
        ];
        let mut command = lab.command(&args);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while faulty.calls.load(Ordering::SeqCst) < WARM_UP + 5 {
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    fn signal(child: &Child, which: &str) {
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([which, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn slow() -> Faulty {
        Faulty::start(|number| match number {
            0..WARM_UP => Act::Answer,
            _ => Act::Late(Duration::from_millis(300)),
        })
    }

    #[test]
    fn once_lets_calls_end_and_reports_twice_stops_at_once() {
        let (lab, faulty) = (Lab::new(), slow());
        let mut child = begin(&lab, &faulty);
        signal(&child, "-INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let document = document(&lab);
        assert_eq!(document["live"]["ended"], "drained");
        let given = faulty.answered.load(Ordering::SeqCst) - WARM_UP;
        assert_eq!(outcomes(&document)["ok"], u64::from(given));
        assert!(
            document["runs"]
                .as_array()
                .unwrap()
                .iter()
                .any(|run| run["outcome"] == "interrupted")
        );

        let (lab, faulty) = (
            Lab::new(),
            Faulty::start(|number| match number {
                0..9 => Act::Answer,
                _ => Act::Silence,
            }),
        );
        let mut child = begin(&lab, &faulty);
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, "-INT");
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, "-INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(super::document(&lab)["live"]["ended"], "aborted");
    }

    #[test]
    fn a_killed_replay_is_recovered_from_its_journal() {
        let (lab, faulty) = (Lab::new(), slow());
        let mut child = begin(&lab, &faulty);
        signal(&child, "-KILL");
        child.wait().unwrap();
        let document = lab.run(&["report", "out", "--json", "-"]).json();
        assert_eq!(document["operating_point"]["kind"], "live");
        assert!(outcomes(&document)["ok"] >= 1);
        assert_eq!(document["calls"][0]["wire"]["status"], 200);
        // A line that was cut in the middle takes nothing else with it.
        let path = lab.path("out").join("journal.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let end = text.trim_end().rfind('\n').unwrap();
        fs::write(&path, &text[..end + 20]).unwrap();
        let ran = lab.run(&["report", "out"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("the rest is left out"),
            "{}",
            ran.stderr
        );
        fs::write(&path, "no journal\n").unwrap();
        assert_eq!(lab.run(&["report", "out"]).code, Some(3));
    }
}
