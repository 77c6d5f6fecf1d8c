//! Through the binary: exit codes, the standard output, the standard error, files.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A small native trace of two sessions, one with a sub-agent, a compaction and a long wait.
pub(crate) const TRACE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/two-sessions.jsonl");

/// A folder of its own in which the binary runs.
pub(crate) struct Lab {
    folder: PathBuf,
}

/// What came of a command.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// The standard output.
    pub(crate) stdout: String,
    /// The standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// Returns the standard output as the one JSON document it must be.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Lab {
    /// Returns an empty folder, removed when it is dropped.
    pub(crate) fn new() -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("laptime-it-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Lab { folder }
    }

    /// Returns a path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns the command that runs the binary.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laptime"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env_remove("CLICOLOR_FORCE")
            .env_remove("OPENAI_API_KEY")
            // Whoever runs the tests may have a catalogue of their own.
            .env("LAPTIME_CATALOG", "");
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn replay(args: &[&str]) -> Ran {
    let mut all = vec!["replay", "--trace", TRACE, "--rig", "recorded"];
    all.extend(args);
    Lab::new().run(&all)
}

fn seconds(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn a_recording_on_its_own_rig_takes_as_long_as_it_took() {
    let document = replay(&["--agents", "2", "--json", "-"]).json();
    let runs = document["runs"].as_array().unwrap();
    let lasted: Vec<f64> = runs
        .iter()
        .map(|run| seconds(&run["end_s"]) - seconds(&run["start_s"]))
        .collect();
    // Main thread of the first: 1 + 2.1 for the sub-agent + 1.52, 2.123456 + 3, 1.500001, 0.18.
    assert!((lasted[0] - 11.423_457).abs() < 1e-9, "{lasted:?}");
    // Of the second: 1.2 + 0.25 + 60 of the 70 seconds whose cause is unknown, 4.
    assert!((lasted[1] - 65.45).abs() < 1e-9, "{lasted:?}");
    assert_eq!(document["workload"]["idle_cut_s"], 10.0);
    assert_eq!(document["summary"]["tokens"]["prompt"], 20_950);
    assert_eq!(document["summary"]["energy_wh"], Value::Null);
}

#[test]
fn parts_cover_calls_laps_and_runs_exactly() {
    let document = replay(&["--agents", "2", "--runs", "5", "--json", "-"]).json();
    let nanos = |value: &Value| (seconds(value) * 1e9).round() as i64;
    let parts = |row: &Value| {
        row["parts_s"]
            .as_object()
            .unwrap()
            .values()
            .map(nanos)
            .sum::<i64>()
    };
    for call in document["calls"].as_array().unwrap() {
        assert_eq!(
            parts(call),
            nanos(&call["finished_s"]) - nanos(&call["submitted_s"]),
            "{call}"
        );
    }
    let laps = document["laps"].as_array().unwrap();
    for lap in laps {
        assert_eq!(
            parts(lap),
            nanos(&lap["end_s"]) - nanos(&lap["start_s"]),
            "{lap}"
        );
    }
    for run in document["runs"].as_array().unwrap() {
        let main = laps
            .iter()
            .filter(|lap| lap["run"] == run["run"] && lap["thread"] == 0);
        assert_eq!(
            main.map(parts).sum::<i64>(),
            nanos(&run["end_s"]) - nanos(&run["start_s"]),
            "{run}"
        );
    }
}

#[test]
fn rows_are_ordered_and_refer_to_each_other() {
    let document = replay(&["--agents", "3", "--runs", "5", "--json", "-"]).json();
    let calls = document["calls"].as_array().unwrap();
    let key = |call: &Value| {
        (
            seconds(&call["submitted_s"]),
            call["run"].as_u64().unwrap(),
            call["call"].as_u64().unwrap(),
        )
    };
    assert!(calls.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
    for child in calls.iter().filter(|call| call["thread"] == 1) {
        assert_eq!(child["parent_call"].is_null(), child["lap"] != 0);
    }
    let of_laps: u64 = document["laps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lap| lap["calls"].as_array().unwrap().len() as u64)
        .sum();
    assert_eq!(of_laps, calls.len() as u64);
}

#[test]
fn the_report_reads_well() {
    insta::assert_snapshot!("report", replay(&["--agents", "2", "--runs", "4"]).stdout);
}

#[test]
fn several_rigs_stand_side_by_side() {
    let ran = replay(&["--rig", "recorded"]);
    insta::assert_snapshot!(
        "side_by_side",
        ran.stdout.lines().take(19).collect::<Vec<_>>().join("\n")
    );
    let document = replay(&["--rig", "recorded", "--json", "-", "--threads", "2"]).json();
    assert_eq!(document["schema"], "laptime.results/1");
    assert_eq!(document["results"][0], document["results"][1]);
}

#[test]
fn the_document_reads_well() {
    let ran = Lab::new().run(&[
        "replay", "--trace", TRACE, "--rig", "recorded", "--agents", "2", "--json", "-",
    ]);
    let text = ran.stdout.replace(TRACE, "TRACE");
    insta::assert_snapshot!("document", text);
}

#[test]
fn colour_is_for_terminals_alone() {
    let ran = replay(&[]);
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'));
    assert!(ran.stdout.is_ascii(), "no block characters in a pipe");
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    let once = || {
        replay(&[
            "--agents", "3", "--runs", "7", "--rig", "recorded", "--json", "-",
        ])
        .stdout
    };
    assert_eq!(once(), once());
}

#[test]
fn a_wrong_command_line_exits_2_and_says_what_helps() {
    for (args, expected) in [
        (vec!["--agents", "0"], "--agents"),
        (vec!["--runs", "0"], "--runs"),
        (vec!["--pace-scale", "0"], "number above 0"),
        (vec!["--pace-scale=-1"], "number above 0"),
        (vec!["--pace-scale", "nan"], "number above 0"),
        (vec!["--idle-cap", "5 parsecs"], "not a duration"),
        (vec!["--share", "some"], "head, none, all"),
        (vec!["--rig", "toaster"], "expected HARDWARE/ENGINE"),
        (
            vec!["--rig", "rtx-509/vllm/qwen3.6-27b-awq"],
            "did you mean `rtx-5090`",
        ),
        (vec!["--set", "nonsense"], "KEY=VALUE"),
        (vec!["--engine-args", "--port 1"], "has no command line"),
        (vec!["--set", "engine.x=1"], "no setting `engine.x`"),
        (
            vec!["--json", "no/such/folder.json"],
            "cannot write no/such/folder.json",
        ),
        (vec!["--agents", "4000000000"], "at most"),
    ] {
        let ran = replay(&args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(Lab::new().run(&["replay", "--trace", TRACE]).code, Some(2));
    let live = Lab::new().run(&["replay", "--trace", TRACE, "--url", "http://127.0.0.1:1"]);
    assert_eq!(live.code, Some(4), "{}", live.stderr);
}

#[test]
fn a_broken_trace_exits_3() {
    let lab = Lab::new();
    lab.file(
        "broken.jsonl",
        "{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n{\n",
    );
    for path in ["broken.jsonl", "absent.jsonl"] {
        let ran = lab.run(&["replay", "--trace", path, "--rig", "recorded"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains(path), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn an_earlier_result_stays_until_the_new_one_is_whole() {
    let lab = Lab::new();
    let path = lab.file("result.json", "earlier");
    let rejected = lab.run(&[
        "replay",
        "--trace",
        "absent",
        "--rig",
        "recorded",
        "--json",
        "result.json",
    ]);
    assert_eq!(rejected.code, Some(3));
    assert_eq!(fs::read_to_string(&path).unwrap(), "earlier");
    let ran = lab.run(&[
        "replay",
        "--trace",
        TRACE,
        "--rig",
        "recorded",
        "--json",
        "result.json",
    ]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("where the time went"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_ok());
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "no partial file is left"
    );
}

#[test]
fn a_folder_gets_the_document_the_calls_and_the_journal() {
    let lab = Lab::new();
    let ran = lab.run(&[
        "replay", "--trace", TRACE, "--rig", "recorded", "--out", "out/deep", "--quiet",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let read = |name: &str| fs::read_to_string(lab.path("out/deep").join(name)).unwrap();
    let document: Value = serde_json::from_str(&read("result.json")).unwrap();
    let calls = document["calls"].as_array().unwrap().len();
    assert_eq!(read("calls.csv").lines().count(), calls + 1);
    let journal = read("journal.jsonl");
    let events: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events[0]["schema"], "laptime.journal/1");
    let ends = events
        .iter()
        .filter(|event| event["event"] == "answered")
        .count();
    assert_eq!(ends, calls);
    let two = lab.run(&[
        "replay", "--trace", TRACE, "--rig", "recorded", "--rig", "recorded", "--out", "two",
    ]);
    assert_eq!(two.code, Some(0), "{}", two.stderr);
    for name in [
        "two/result.json",
        "two/recorded/calls.csv",
        "two/recorded-2/journal.jsonl",
    ] {
        assert!(Path::new(&lab.path(name)).is_file(), "{name}");
    }
}

#[test]
fn calls_are_left_out_when_asked() {
    let document = replay(&["--no-calls", "--json", "-"]).json();
    assert!(document.get("calls").is_none() && document.get("laps").is_none());
    assert_eq!(document["summary"]["calls"], 8);
}

#[test]
fn settings_of_the_agent_stand_in_the_document_and_do_not_go_with_a_recording() {
    let on = |rig: &str, set: &str| {
        let words = ["replay", "--trace", TRACE, "--rig", rig, "--set", set];
        Lab::new().run(&[&words[..], &["--quiet", "--json", "-"]].concat())
    };
    let rig = "rtx-5090/vllm/llama-3.1-8b-bf16";
    let document = on(rig, "agent.timestamp=system:64").json();
    assert_eq!(
        document["workload"]["settings"]["agent.timestamp"],
        "system:64"
    );
    assert!(document["summary"]["tokens"]["reread_broken"].as_u64() > Some(10_000));
    let wrong = on(rig, "agent.timestmp=system");
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("did you mean `agent.timestamp`?"));
    assert_eq!(on("recorded", "agent.rerender=tool-calls").code, Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = Lab::new();
    let mut child = lab
        .command(&[
            "replay", "--trace", TRACE, "--rig", "recorded", "--runs", "2000", "--json", "-",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn missing_times_are_told() {
    let lab = Lab::new();
    lab.file(
        "untimed.jsonl",
        "{\"k\":\"session\",\"id\":\"s\"}\n{\"k\":\"step\",\"id\":\"1\",\"prompt\":{\"tokens\":9,\"append\":[{\"tokens\":9}]},\"output\":{\"tokens\":2}}\n",
    );
    let ran = lab.run(&[
        "replay",
        "--trace",
        "untimed.jsonl",
        "--rig",
        "recorded",
        "--json",
        "-",
    ]);
    assert!(
        ran.stderr
            .contains("1 of 1 call does not say how long it took"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.json()["summary"]["ttft_s"]["p50"], Value::Null);
}

#[test]
fn what_there_is_can_be_listed() {
    let list = |args: &[&str]| {
        let mut all = vec!["list"];
        all.extend(args);
        Lab::new().run(&all)
    };
    let has = |value: &Value, name: &str| {
        let mut entries = value.as_array().unwrap().iter();
        entries.any(|entry| entry["name"] == name)
    };
    let rigs = list(&["rigs", "--json"]).json();
    assert!(has(&rigs, "recorded") && has(&rigs, "rtx-5090/vllm/qwen3.6-27b-awq"));
    assert!(has(&list(&["hardware", "--json"]).json(), "dgx-spark"));
    assert!(has(&list(&["engines", "--json"]).json(), "llama.cpp"));
    let models = list(&["models", "--json", "qwen3.6"]).json();
    assert!(has(&models, "qwen3.6-27b-awq") && !has(&models, "llama-3.1-8b-bf16"));
    let figure = &models[0]["figures"][0];
    assert!(
        figure["source"].is_string() && figure["trust"].is_string(),
        "{figure}"
    );
    assert!(
        list(&["hardware", "spark", "--sources"])
            .stdout
            .contains("bandwidth_bytes_per_s")
    );
    assert!(list(&["rigs"]).stdout.contains("rtx-5090/vllm/MODEL"));
    let unknown = list(&["hardwear"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("hardware"));
}

#[test]
fn simulated_rigs_replay_through_the_binary() {
    let lab = Lab::new();
    let rigs = [
        "rtx-5090/vllm/qwen3.6-27b-awq",
        "m5-max-40/llama.cpp/qwen3.6-27b-q8_0",
    ];
    let run = |threads: &str| {
        lab.run(&[
            "replay",
            "--trace",
            TRACE,
            "--rig",
            rigs[0],
            "--rig",
            rigs[1],
            "--agents",
            "2",
            "--json",
            "-",
            "--threads",
            threads,
            "--set",
            "engine.prefix_caching=off",
        ])
    };
    let document = run("1").json();
    for (result, rig) in document["results"].as_array().unwrap().iter().zip(rigs) {
        assert_eq!(result["operating_point"]["rig"], rig);
        assert_eq!(result["summary"]["tokens"]["cached"], 0, "caching is off");
        let reread = &result["summary"]["parts_s"]["reread_uncached"];
        assert!(seconds(reread) > 0.0, "{rig}");
    }
    assert_eq!(run("2").stdout, run("1").stdout, "threads change nothing");
}

#[test]
fn an_engine_is_set_as_on_its_own_command_line() {
    let run = |line: &str| {
        let rig = "rtx-5090/vllm/qwen3.6-27b-awq";
        let args = ["replay", "--trace", TRACE, "--rig", rig, "--json", "-"];
        let own = ["--engine-args", line, "--set", "engine.max_num_seqs=3"];
        Lab::new().run(&[&args[..], &own].concat())
    };
    let ran = run("vllm serve x --max-num-seqs 16 --no-enable-prefix-caching --port 80");
    assert!(ran.stderr.contains("`--port` of vLLM"), "{}", ran.stderr);
    let settings = &ran.json()["operating_point"]["settings"];
    assert_eq!(settings["engine.prefix_caching"], "off");
    assert_eq!(settings["engine.max_num_seqs"], "3", "named alone wins");
    let ran = run("--max-num-seq 16");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `max_num_seqs`"));
}

#[test]
fn refused_calls_are_told_and_are_no_failure_of_ours() {
    let ran = Lab::new().run(&[
        "replay",
        "--trace",
        TRACE,
        "--rig",
        "rtx-5090/vllm/qwen3.6-27b-awq",
        "--set",
        "engine.max_model_len=2700",
        "--json",
        "-",
    ]);
    let document = ran.json();
    let failed = document["summary"]["failed_calls"].as_u64().unwrap();
    assert!(failed > 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("{failed} refused:context")),
        "{}",
        ran.stderr
    );
    let refused = document["calls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|call| call["outcome"] == "refused:context");
    for call in refused {
        assert!(call["first_token_s"].is_null() && call["finished_s"].is_number());
        assert_eq!(
            (&call["cached_tokens"], &call["output_tokens"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn a_trace_is_inspected_and_imported() {
    let lab = Lab::new();
    let found = lab.run(&["inspect", TRACE, "--json", "-"]).json();
    assert_eq!(found["schema"], "laptime.inspection/1");
    assert_eq!(found["total"]["calls"], 8);
    assert!(
        lab.run(&["inspect", TRACE])
            .stdout
            .contains("2 sessions, 3 conversations, 8 calls")
    );
    let report = lab
        .run(&["import", TRACE, "-o", "native.jsonl", "--json"])
        .json();
    assert_eq!(report["calls"], 8);
    let replays = |path: &str| {
        let mut document = lab
            .run(&[
                "replay", "--trace", path, "--rig", "recorded", "--json", "-",
            ])
            .json();
        document["workload"]["traces"].take();
        document
    };
    assert_eq!(
        replays("native.jsonl"),
        replays(TRACE),
        "an import replays as its source"
    );
    let absent = lab.run(&["import", "absent", "-o", "other.jsonl"]);
    assert_eq!(absent.code, Some(3), "{}", absent.stderr);
    let left = fs::read_dir(lab.path(".")).unwrap().count();
    assert_eq!(left, 1, "a failed import leaves nothing behind");
}
