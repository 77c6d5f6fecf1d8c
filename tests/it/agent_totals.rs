//! Every shared sample of an agent's log imports with the totals of its own usage fields.
//!
//! What is expected is added up here, straight over the source's JSON and never through the importer.

#![expect(clippy::print_stdout, reason = "tests tell what they measured")]

use crate::trace::shared;
use laptime::trace::read::{ImportReport, ReadOptions, import};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const NOTHING: &Value = &Value::Null;

/// What a sample adds up to.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Totals {
    pub(crate) sessions: usize,
    pub(crate) calls: u64,
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    /// The tools whose time is known.
    pub(crate) tools: u64,
    pub(crate) tool_us: u64,
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn imported(path: &Path) -> (Vec<Value>, ImportReport) {
    let mut native = Vec::new();
    let report = import(
        &[path.to_path_buf()],
        &ReadOptions::default(),
        &mut |_| {},
        &mut native,
    );
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    let lines = std::str::from_utf8(&native).unwrap().lines();
    (
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        report,
    )
}

/// Adds up an imported file: what calls report, or the sizes they are replayed with.
pub(crate) fn totals(records: &[Value], reported: bool) -> Totals {
    let mut totals = Totals::default();
    for record in records {
        match record["k"].as_str() {
            Some("session") => totals.sessions += 1,
            Some("step") if !reported || !record["usage"].is_null() => {
                totals.calls += 1;
                totals.prompt += if reported {
                    number(record, "/usage/prompt")
                } else {
                    number(record, "/prompt/tokens")
                };
                totals.cached += number(record, "/usage/cached");
                totals.output += if reported {
                    number(record, "/usage/output")
                } else {
                    number(record, "/output/tokens")
                };
            }
            Some("tool") => {
                totals.tools += u64::from(!record["duration_us"].is_null());
                totals.tool_us += number(record, "/duration_us");
            }
            _ => {}
        }
    }
    totals
}

/// Compares what calls report with what the source's own fields add up to.
fn agree(path: &Path, expected: &Totals) {
    let (records, report) = imported(path);
    let found = totals(&records, true);
    let name = path.display();
    println!("{name}: {found:?}");
    assert_eq!(
        (found.calls, found.prompt, found.cached, found.output),
        (
            expected.calls,
            expected.prompt,
            expected.cached,
            expected.output
        ),
        "calls, prompt, cached and output tokens of {name}"
    );
    for source in &report.sources {
        assert_eq!(source.problems, Vec::<String>::new(), "{name}");
    }
}

fn add(totals: &mut Totals, prompt: u64, cached: u64, output: u64) {
    if prompt > 0 {
        totals.calls += 1;
        totals.prompt += prompt;
        totals.cached += cached;
        totals.output += output;
    }
}

#[test]
fn claude_code_samples_have_the_totals_of_their_usage() {
    let Some(folder) = shared("claude-code") else {
        return;
    };
    for name in [
        "tracelab_claude_session.jsonl",
        "agent-sessions_small.jsonl",
        "agent-sessions_large.jsonl",
        "sample_session.jsonl",
        "representative_messages.jsonl",
        "edge_cases.jsonl",
        "ccusage_session-alpha.jsonl",
        "subagent/0a1b2c3d-4e5f-4061-8071-2a3b4c5d6e7f.jsonl",
    ] {
        let path = folder.join(name);
        // The last counts of each message id; lines without one stand for themselves.
        let mut last: BTreeMap<String, Value> = BTreeMap::new();
        for (index, line) in lines(&path).iter().enumerate() {
            let usage = &line["message"]["usage"];
            if usage.is_object() && line["message"]["model"] != "<synthetic>" {
                let id = line["message"]["id"]
                    .as_str()
                    .map_or_else(|| index.to_string(), str::to_string);
                if number(usage, "/input_tokens") > 0 || !last.contains_key(&id) {
                    last.insert(id, usage.clone());
                }
            }
        }
        let mut expected = Totals::default();
        for usage in last.values() {
            let cached = number(usage, "/cache_read_input_tokens");
            let written = number(usage, "/cache_creation_input_tokens");
            add(
                &mut expected,
                number(usage, "/input_tokens") + cached + written,
                cached,
                number(usage, "/output_tokens"),
            );
        }
        agree(&path, &expected);
    }
}

#[test]
fn codex_samples_have_the_totals_of_their_counts() {
    let Some(folder) = shared("codex") else {
        return;
    };
    for name in [
        "tracelab_codex_session.jsonl",
        "agent-sessions_small.jsonl",
        "agent-sessions_large.jsonl",
        "ccusage_session-alpha.jsonl",
        "codex_053_rate_limit.jsonl",
    ] {
        let path = folder.join(name);
        let mut expected = Totals::default();
        let mut before = Value::Null;
        for line in lines(&path) {
            let info = &line["payload"]["info"];
            if line["payload"]["type"] == "token_count"
                && info.is_object()
                && info["total_token_usage"] != before
            {
                before = info["total_token_usage"].clone();
                let last = &info["last_token_usage"];
                let cached = number(last, "/cached_input_tokens");
                add(
                    &mut expected,
                    number(last, "/input_tokens"),
                    cached,
                    number(last, "/output_tokens"),
                );
            }
        }
        agree(&path, &expected);
    }
    // The oldest counts have other names; those of turns are running totals, which end at the last.
    let old = Totals {
        calls: 1,
        prompt: 1_420,
        output: 910,
        ..Totals::default()
    };
    agree(&folder.join("codex_050_legacy.jsonl"), &old);
    let path = folder.join("codex_051_usage.jsonl");
    let last = lines(&path).last().unwrap()["payload"]["usage"].clone();
    let turns = Totals {
        calls: 2,
        prompt: number(&last, "/input_tokens"),
        cached: number(&last, "/cached_input_tokens"),
        output: number(&last, "/output_tokens"),
        ..Totals::default()
    };
    agree(&path, &turns);
}

/// The rounds of the two real sessions were worked out by TraceLab: an account of the same logs that is not ours.
#[test]
fn real_sessions_agree_with_tracelabs_account_of_them() {
    let (Some(rounds), Some(claude), Some(codex)) =
        (shared("tracelab"), shared("claude-code"), shared("codex"))
    else {
        return;
    };
    let rounds = lines(&rounds.join("sanitized_round_trace.jsonl"));
    for (provider, path) in [
        ("claude", claude.join("tracelab_claude_session.jsonl")),
        ("codex", codex.join("tracelab_codex_session.jsonl")),
    ] {
        let mut expected = Totals::default();
        let mut tool_ms = Vec::new();
        for round in rounds.iter().filter(|round| round["provider"] == provider) {
            let cached = number(round, "/prefix_tokens");
            add(
                &mut expected,
                number(round, "/input_tokens_total"),
                cached,
                number(round, "/output_tokens"),
            );
            for tool in round["tools"].as_array().unwrap() {
                let inside = tool["tool_internal_latency_ms"].as_f64();
                tool_ms.push(
                    inside
                        .or_else(|| tool["tool_wall_latency_ms"].as_f64())
                        .unwrap(),
                );
            }
        }
        agree(&path, &expected);
        let (records, _) = imported(&path);
        let tools = records.iter().filter(|record| record["k"] == "tool");
        let found: Vec<f64> = tools
            .map(|tool| number(tool, "/duration_us") as f64 / 1e3)
            .collect();
        assert_eq!(
            found.len(),
            tool_ms.len(),
            "{provider}: {found:?} and {tool_ms:?}"
        );
        let (sum, told): (f64, f64) = (found.iter().sum(), tool_ms.iter().sum());
        println!("{provider}: tools {sum} ms, TraceLab {told} ms");
        // Codex prints tenths of milliseconds, TraceLab whole ones.
        assert!(
            (sum - told).abs() <= found.len() as f64,
            "{provider}: {found:?} and {tool_ms:?}"
        );
    }
}

#[test]
fn gemini_and_qwen_samples_have_the_totals_of_their_counts() {
    if let Some(folder) = shared("gemini-cli") {
        for name in [
            "jsonl_v040.jsonl",
            "large.json",
            "small.json",
            "thinking_only.json",
            "tool_calls_with_results.json",
        ] {
            let path = folder.join(name);
            let messages = if name.ends_with('l') {
                lines(&path)
            } else {
                document(&path)["messages"].as_array().unwrap().clone()
            };
            let mut expected = Totals::default();
            for message in messages {
                let tokens = &message["tokens"];
                let output = number(tokens, "/output") + number(tokens, "/thoughts");
                add(
                    &mut expected,
                    number(tokens, "/input") + number(tokens, "/tool"),
                    number(tokens, "/cached"),
                    output,
                );
            }
            agree(&path, &expected);
        }
    }
    if let Some(folder) = shared("qwen-code") {
        for name in [
            "019f0000-0000-7000-8000-000000000001.jsonl",
            "019f0000-0000-7000-8000-000000000004.jsonl",
            "system_telemetry.jsonl",
        ] {
            let path = folder.join(name);
            let mut expected = Totals::default();
            for line in lines(&path) {
                let usage = &line["usageMetadata"];
                let cached = number(usage, "/cachedContentTokenCount");
                add(
                    &mut expected,
                    number(usage, "/promptTokenCount"),
                    cached,
                    number(usage, "/candidatesTokenCount"),
                );
            }
            agree(&path, &expected);
        }
    }
}

#[test]
fn openhands_samples_have_the_totals_of_their_metrics() {
    if let Some(folder) = shared("openhands") {
        let path = folder.join("eval_output.jsonl");
        let mut expected = Totals::default();
        for run in lines(&path) {
            let sum = &run["metrics"]["accumulated_token_usage"];
            expected.calls += run["metrics"]["token_usages"].as_array().unwrap().len() as u64;
            expected.prompt += number(sum, "/prompt_tokens");
            expected.cached += number(sum, "/cache_read_tokens");
            expected.output += number(sum, "/completion_tokens");
        }
        agree(&path, &expected);
        let path = folder.join("sdk_v1_events.jsonl");
        let told = lines(&path);
        let stats = told.iter().filter(|event| event["key"] == "stats");
        let sums: Vec<&Value> = stats
            .map(|event| &event["value"]["usage_to_metrics"]["default"]["accumulated_token_usage"])
            .collect();
        let last = sums.last().copied().unwrap_or(NOTHING);
        let expected = Totals {
            calls: sums.len() as u64,
            prompt: number(last, "/prompt_tokens"),
            cached: number(last, "/cache_read_tokens"),
            output: number(last, "/completion_tokens"),
            ..Totals::default()
        };
        agree(&path, &expected);
    }
    if let Some(folder) = shared("openhands-completions") {
        for name in ["llm-logs", "nonfncall-llm-logs"] {
            let path = folder.join(name);
            let mut expected = Totals::default();
            let mut latency = 0.0;
            for file in std::fs::read_dir(&path).unwrap() {
                let call = document(&file.unwrap().path());
                let usage = &call["response"]["usage"];
                let cached = number(usage, "/prompt_tokens_details/cached_tokens");
                add(
                    &mut expected,
                    number(usage, "/prompt_tokens"),
                    cached,
                    number(usage, "/completion_tokens"),
                );
                latency += call["latency_sec"].as_f64().unwrap();
            }
            agree(&path, &expected);
            let (records, report) = imported(&path);
            assert_eq!(report.sessions, 1, "the calls of a folder are one session");
            let steps = records.iter().filter(|record| record["k"] == "step");
            let model: u64 = steps.map(|step| number(step, "/timing/model_us")).sum();
            assert!((model as f64 / 1e6 - latency).abs() < 1e-4);
        }
    }
}

#[test]
fn swe_agent_and_opencode_samples_have_the_totals_of_their_fields() {
    if let Some(folder) = shared("swe-agent") {
        for name in [
            "6e44b9__sweagenttestrepo-1c2844.traj",
            "default_v07.traj",
            "function_calling_replace_from_source.traj",
            "pydicom__pydicom-1458.traj",
        ] {
            let path = folder.join(name);
            let run = document(&path);
            let steps = run["trajectory"].as_array().unwrap();
            let found = totals(&imported(&path).0, false);
            assert_eq!(found.calls, steps.len() as u64, "{name}");
            let secs: f64 = steps
                .iter()
                .filter_map(|step| step["execution_time"].as_f64())
                .sum();
            assert!((found.tool_us as f64 / 1e6 - secs).abs() < 1e-4, "{name}");
            let (sent, received) = (
                number(&run, "/info/model_stats/tokens_sent"),
                number(&run, "/info/model_stats/tokens_received"),
            );
            if sent > 0 {
                assert_eq!((found.prompt, found.output), (sent, received), "{name}");
            }
        }
    }
    if let Some(folder) = shared("opencode") {
        let session = folder.join("storage_v2/session/proj_test/ses_s_stage0_large.json");
        let mut expected = Totals::default();
        let mut millis = 0;
        for part in std::fs::read_dir(folder.join("storage_v2/part/m_assistant_large_1")).unwrap() {
            let part = document(&part.unwrap().path());
            if part["type"] == "step-finish" {
                add(
                    &mut expected,
                    number(&part, "/tokens/input"),
                    0,
                    number(&part, "/tokens/output"),
                );
            }
            millis +=
                number(&part, "/state/time/end").saturating_sub(number(&part, "/state/time/start"));
        }
        agree(&session, &expected);
        assert_eq!(totals(&imported(&session).0, true).tool_us, millis * 1_000);
    }
}
