//! Every scenario of the repository against what it answered before: the report and the document, byte for byte.
//!
//! The same snapshots on every machine are the test that a replay is deterministic. After a change that is meant to
//! change answers, `cargo insta review` or `INSTA_UPDATE=always cargo test golden` renews them.

use crate::cli::Lab;
use laptime::scenario;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns the names of the files in a folder that end so, without their endings.
fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| name.strip_suffix(ending).map(ToString::to_string))
        .collect()
}

/// Runs the binary in the root of the repository, as the README does.
fn laptime(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laptime"));
    let ran = command
        .args(args)
        .current_dir(root(""))
        .env_remove("CLICOLOR_FORCE")
        .env("LAPTIME_CATALOG", "")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.code(), text(ran.stdout), text(ran.stderr))
}

#[test]
fn every_scenario_answers_as_before() {
    for name in stems("scenarios", ".toml") {
        let file = format!("scenarios/{name}.toml");
        let (code, report, talk) = laptime(&["replay", "--scenario", &file]);
        assert_eq!(code, Some(0), "{file}: {talk}");
        insta::assert_snapshot!(format!("{name}.text"), report);
        let (code, document, talk) = laptime(&[
            "replay",
            "--scenario",
            &file,
            "--json=-",
            "--no-calls",
            "--threads=1",
        ]);
        assert_eq!(code, Some(0), "{file}: {talk}");
        // Indented, so that a change shows as the lines it changes; the version is no part of an answer.
        let mut document: Value = serde_json::from_str(&document).unwrap();
        unversion(&mut document);
        let indented = serde_json::to_string_pretty(&document).unwrap();
        insta::assert_snapshot!(format!("{name}.json"), indented);
    }
}

fn unversion(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(unversion),
        Value::Object(fields) => {
            if let Some(version) = fields.get_mut("laptime_version") {
                *version = Value::from("any");
            }
            fields.values_mut().for_each(unversion);
        }
        _ => {}
    }
}

#[test]
fn every_scenario_has_its_snapshots_and_no_snapshot_is_left_over() {
    let kept: BTreeSet<String> = stems("tests/it/snapshots", ".snap")
        .iter()
        .filter_map(|name| name.strip_prefix("it__golden__").map(ToString::to_string))
        .collect();
    let due: BTreeSet<String> = stems("scenarios", ".toml")
        .iter()
        .flat_map(|name| [format!("{name}.text"), format!("{name}.json")])
        .collect();
    assert_eq!(kept, due);
}

#[test]
fn a_scenario_can_say_all_that_flags_can() {
    let (_, help, _) = laptime(&["replay", "--help"]);
    let flags: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| {
            line.trim_start()
                .trim_start_matches("-q, ")
                .strip_prefix("--")
        })
        .filter_map(|line| line.split([' ', ',']).next())
        .filter(|flag| *flag != "scenario" && *flag != "help")
        .collect();
    let known: BTreeSet<&str> = scenario::keys()
        .filter(|key| *key != "about")
        .chain(scenario::not_keys())
        .collect();
    assert_eq!(flags, known);
}

#[test]
fn the_schema_of_scenarios_names_their_keys() {
    let schema = fs::read_to_string(root("docs/scenario.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    assert_eq!(described, scenario::keys().collect());
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn what_is_typed_replaces_what_a_scenario_says() {
    let lab = Lab::new();
    let file = lab.file(
        "one.toml",
        &format!(
            "trace = {:?}\nrig = 'dgx-spark/vllm/qwen3-8b-bf16'\nagents = 2\nseed = 7\n\
             [set.engine]\nprefix_caching = false\nmax_num_seqs = 3\n",
            crate::cli::TRACE
        ),
    );
    let file = file.to_str().unwrap();
    let said = lab
        .run(&["replay", "--scenario", file, "--json=-", "-q"])
        .json();
    assert_eq!(said["workload"]["agents"], 2);
    assert_eq!(said["seed"], 7);
    let settings = &said["operating_point"]["settings"];
    assert_eq!(settings["engine.prefix_caching"], "off");
    let typed = [
        "replay",
        "--scenario",
        file,
        "--json=-",
        "--agents",
        "1",
        "--set",
        "engine.prefix_caching=on",
    ];
    let said = lab.run(&typed).json();
    assert_eq!(said["workload"]["agents"], 1);
    assert_eq!(said["seed"], 7);
    let settings = &said["operating_point"]["settings"];
    assert_eq!(settings["engine.prefix_caching"], "on");
    assert_eq!(settings["engine.max_num_seqs"], "3");
}

#[test]
fn a_scenario_that_is_wrong_names_the_line_and_exits_with_2() {
    let lab = Lab::new();
    lab.file("one.toml", "trace = 'x'\nrigs = 'y'\n");
    let ran = lab.run(&["replay", "--scenario", "one.toml"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("one.toml:2: unknown key `rigs`; did you mean `rig`?"),
        "{}",
        ran.stderr
    );
    lab.file("two.toml", "rig = 'recorded'\n");
    let ran = lab.run(&["replay", "--scenario", "two.toml"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("two.toml names no `trace`"),
        "{}",
        ran.stderr
    );
}
