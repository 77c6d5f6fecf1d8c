//! Boxes as a buyer asks about them: which can be had, what binds them, what they draw and cost, what is claimed of them.

use crate::cli::{Lab, Ran, TRACE};
use laptime::catalog::Catalog;
use laptime::study::rig::basis;
use serde_json::Value;
use std::fs;
use std::path::Path;

const SPARK: &str = "dgx-spark/llama.cpp/qwen3.6-27b-q8_0";
const CARD: &str = "rtx-pro-6000/llama.cpp/qwen3.6-27b-q8_0";

fn replay(args: &[&str]) -> Ran {
    let mut all = vec!["replay", "-q", "--json=-"];
    if !args.contains(&"--trace") {
        all.extend(["--trace", TRACE]);
    }
    all.extend(args);
    Lab::new().run(&all)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn sum(of: &Value) -> f64 {
    of.as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_f64)
        .sum()
}

#[test]
fn sixty_rigs_and_more_say_what_they_rest_on_within_a_hundred_columns() {
    let lab = Lab::new();
    let rigs = lab.run(&["list", "rigs", "--json"]).json();
    let rigs = rigs.as_array().unwrap();
    let kind = |rig: &Value| rig["basis"]["kind"].as_str().unwrap_or("").to_string();
    for (word, least) in [("calibrated", 12), ("carried over", 60), ("roofline", 60)] {
        let count = rigs.iter().filter(|rig| kind(rig) == word).count();
        assert!(count >= least, "{count} {word}");
    }
    for rig in rigs.iter().filter(|rig| rig["name"] != "recorded") {
        match kind(rig).as_str() {
            "calibrated" => assert!(number(&rig["basis"]["held_out"]["p90"]) > 0.0),
            "carried over" => assert!(rig["basis"]["carried_from"].is_string()),
            other => assert_eq!(other, "roofline", "{rig}"),
        }
    }
    for words in [&["list", "rigs"][..], &["list", "rigs", "o"]] {
        let text = lab.run(words).stdout;
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{words:?}: {widest:?}");
    }
    let cannot = lab.run(&["list", "rigs", "trt-llm", "m5-max-40", "fp8", "--cannot"]);
    let why = "TensorRT-LLM does not run on Apple M5 Max";
    assert!(cannot.stdout.contains(why), "{}", cannot.stdout);
}

/// The systems that a buyer of 2026 asks about: each works, or there is a sentence that says why not.
#[test]
fn every_hardware_engine_and_model_of_the_list_works_or_says_why_not() {
    let hardware = [
        "rtx-pro-6000",
        "rtx-pro-6000-max-q",
        "2x-rtx-pro-6000",
        "m5-max-40",
        "m5-max-32",
        "m5-max-studio",
        "dgx-spark",
        "2x-dgx-spark",
        "gx10",
        "strix-halo-evo-x2",
        "strix-halo-ms-s1-max",
        "strix-halo-framework",
        "rtx-5090",
        "rtx-4090",
        "m3-ultra",
        "m4-max",
        "h100",
        "h200",
        "b200",
    ];
    let engines = [
        "llama.cpp",
        "vllm",
        "sglang",
        "trt-llm",
        "mlx-lm",
        "lm-studio",
        "ollama",
    ];
    let families = [
        "qwen3.6-27b",
        "qwen3.6-35b-a3b",
        "qwen3-coder-30b-a3b",
        "qwen3-coder-next",
        "llama-3.1-8b",
        "llama-3.1-70b",
        "qwen3-14b",
        "qwen3-32b",
        "qwen2.5-72b",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "deepseek-v3",
        "mistral-7b",
        "phi-4",
        "glm-4.5-air",
        "devstral-small-24b",
    ];
    let catalog = Catalog::builtin();
    let lab = Lab::new();
    let mut works = 0;
    for hardware in hardware {
        for engine in engines {
            for family in families {
                let models: Vec<String> = catalog
                    .all_models()
                    .filter(|model| model.family == family)
                    .map(|model| format!("{hardware}/{engine}/{}", model.name))
                    .collect();
                assert!(!models.is_empty(), "{family}");
                for rig in models {
                    match basis(&rig, &catalog) {
                        Ok(_) => works += 1,
                        Err(error) => {
                            let why = error.to_string();
                            let said = ["does not run on", "does not load", "does not fit"];
                            assert!(said.iter().any(|word| why.contains(word)), "{rig}: {why}");
                        }
                    }
                }
            }
        }
    }
    assert!(works > 1_000, "{works}");
    // One of each engine through the binary.
    for rig in [
        "b200/trt-llm/deepseek-v3-awq",
        "h200/sglang/gpt-oss-120b-mxfp4",
        "m3-ultra/mlx-lm/glm-4.5-air-mlx-4bit",
        "m4-max/lm-studio/qwen3-14b-mlx-8bit",
        "strix-halo-framework/ollama/gpt-oss-20b-mxfp4",
        "2x-dgx-spark/vllm/qwen2.5-72b-awq",
    ] {
        let ran = lab.run(&["replay", "-q", "--trace", TRACE, "--rig", rig, "--json=-"]);
        if ran.code != Some(0) {
            assert!(ran.stderr.contains("does not"), "{rig}: {}", ran.stderr);
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused_in_a_sentence() {
    for (rig, why) in [
        (
            "m5-max-40/trt-llm/qwen3.6-27b-fp8",
            "TensorRT-LLM does not run on",
        ),
        (
            "m5-max-40/vllm/qwen3.6-27b-awq",
            "vLLM (V1 engine) does not run on",
        ),
        ("dgx-spark/vllm/deepseek-v3-fp8", "its weights take"),
        ("rtx-4090/vllm/llama-3.1-70b-awq", "does not fit"),
        (
            "h100/lm-studio/llama-3.1-8b-mlx-8bit",
            "is made for MLX, which does not run on NVIDIA H100",
        ),
        ("h100/llama.cpp/llama-3.1-8b-mlx-8bit", "does not load"),
    ] {
        let ran = replay(&["--rig", rig]);
        assert_eq!(ran.code, Some(2), "{rig}");
        assert!(ran.stderr.contains(why), "{rig}: {}", ran.stderr);
    }
}

#[test]
fn what_bound_the_calls_sums_to_their_time_and_names_the_cause() {
    let bound = |args: &[&str]| {
        let result = replay(args).json();
        let summary = &result["summary"];
        let (bound, model) = (sum(&summary["bound_s"]), number(&summary["model_s"]));
        assert!((bound - model).abs() < 1e-6, "{bound} {model}");
        summary.clone()
    };
    let lab = Lab::new();
    let one = one_call(&lab, 20_000, 200);
    let alone = bound(&["--rig", SPARK, "--trace", &one]);
    for waits in ["slots", "kv_memory", "turn"] {
        assert_eq!(alone["bound_s"][waits], 0.0, "{waits}");
    }
    let one_slot = [
        "--rig",
        SPARK,
        "--agents",
        "6",
        "--pace",
        "none",
        "--set",
        "engine.parallel=1",
    ];
    assert_eq!(bound(&one_slot)["binds"], "slots");
    let small = [
        "--rig",
        "rtx-pro-6000/vllm/qwen3-8b-bf16",
        "--agents",
        "6",
        "--pace",
        "none",
        "--share",
        "none",
        "--set",
        "engine.num_gpu_blocks_override=300",
    ];
    let small = bound(&small);
    assert!(
        number(&small["bound_s"]["kv_memory"]) > 0.2 * number(&small["model_s"]),
        "{small}"
    );
    let recorded = replay(&["--rig", "recorded"]).json();
    assert_eq!(recorded["summary"]["bound_s"], Value::Null);
    assert_eq!(recorded["summary"]["energy_wh"], Value::Null);
}

/// Writes a trace of one call.
fn one_call(lab: &Lab, prompt: u64, output: u64) -> String {
    let lines = [
        r#"{"k":"header","format":"laptime-trace","version":1}"#.to_string(),
        r#"{"k":"session","id":"one"}"#.to_string(),
        format!(
            r#"{{"k":"step","id":"a","session":"one","prompt":{{"tokens":{prompt},"append":[{{"tokens":{prompt}}}]}},"output":{{"tokens":{output}}}}}"#
        ),
    ];
    let path = lab.file("one.jsonl", &(lines.join("\n") + "\n"));
    path.to_str().unwrap().to_string()
}

/// Silicon power of the MMBT fleet study, May 2026: 27B `Q8_0` in llama.cpp on an RTX PRO 6000, one sequence.
#[test]
fn the_power_of_a_card_is_near_what_was_measured() {
    let lab = Lab::new();
    for (prompt, output, measured) in [
        (985, 512, 599.5),
        (985, 2048, 599.8),
        (15_603, 512, 304.2),
        (15_603, 2048, 301.0),
        (31_186, 512, 240.8),
        (31_186, 2048, 243.0),
    ] {
        let trace = one_call(&lab, prompt, output);
        let args = ["replay", "-q", "--trace", &trace, "--rig", CARD, "--json=-"];
        let result = lab.run(&args).json();
        let summary = &result["summary"];
        let machine = number(&summary["energy_wh"]) * 3600.0 / number(&summary["wall_s"]);
        // What the catalogue says of the rest of that tower.
        let card = machine - 205.0;
        assert!(
            (card / measured - 1.0).abs() < 0.05,
            "{prompt}+{output}: {card} W, measured {measured} W"
        );
    }
}

#[test]
fn energy_and_cost_add_up_and_what_is_not_known_is_null() {
    let result = replay(&["--rig", SPARK]).json();
    let (energy, summary) = (&result["energy"], &result["summary"]);
    assert!((sum(energy) - number(&summary["energy_wh"])).abs() < 1e-9);
    let economy = &result["economy"];
    let total = number(&economy["electricity_usd"]) + number(&economy["hardware_usd"]);
    assert!((total - number(&summary["cost_usd"])).abs() < 1e-12);
    assert_eq!(economy["hardware"]["date"], "2026-05");
    assert_eq!(economy["prices"]["cost.years"], 3.0);

    let unknown = replay(&["--rig", "h100/vllm/qwen3-8b-bf16"]).json();
    assert_eq!(unknown["summary"]["energy_wh"], Value::Null);
    assert_eq!(unknown["summary"]["cost_usd"], Value::Null);
    let told = replay(&[
        "--rig",
        "h100/vllm/qwen3-8b-bf16",
        "--set",
        "rig.power_prefill_w=900",
        "--set",
        "rig.power_decode_w=700",
        "--set",
        "rig.power_idle_w=200",
        "--set",
        "cost.hardware_usd=30000",
        "--set",
        "cost.api_usd_mtok_in=3",
        "--set",
        "cost.api_usd_mtok_out=15",
    ])
    .json();
    let wall = number(&told["summary"]["wall_s"]);
    let watts = number(&told["summary"]["energy_wh"]) * 3600.0 / wall;
    assert!((200.0..=900.0).contains(&watts), "{watts}");
    assert!(number(&told["summary"]["cost_usd"]) > 0.0);
    assert!(number(&told["economy"]["api"]["break_even_runs"]) > 1.0);
    let wrong = replay(&["--rig", SPARK, "--set", "cost.electricity_usd_kwh=cheap"]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("expected a number of US dollars"),
        "{}",
        wrong.stderr
    );
}

/// The MMBT power sweep of April 2026: at 300 W one stream keeps 62.6 of 72.1 tokens a second.
#[test]
fn a_power_cap_costs_what_it_was_measured_to_cost() {
    let rig = "rtx-pro-6000/vllm/qwen3.6-27b-awq";
    let lab = Lab::new();
    let trace = one_call(&lab, 100, 2000);
    let run = |cap: &str| {
        let mut args = vec!["--trace", &trace, "--rig", rig];
        if !cap.is_empty() {
            args.extend(["--set", cap]);
        }
        replay(&args).json()
    };
    let (free, capped) = (run(""), run("rig.power_cap_w=300"));
    let itl = |result: &Value| number(&result["summary"]["itl_s"]["p50"]);
    let ratio = itl(&free) / itl(&capped);
    assert!((0.84..0.89).contains(&ratio), "{ratio}");
    let energy = |result: &Value| number(&result["summary"]["energy_wh"]);
    assert!(energy(&capped) < energy(&free));
    assert_eq!(capped["operating_point"]["trust"], "estimate");
    assert_eq!(
        capped["operating_point"]["settings"]["rig.power_cap_w"],
        "300"
    );
    for (rig, cap, why) in [
        (rig, "rig.power_cap_w=250", "the lowest that was measured"),
        (rig, "rig.power_cap_w=650", "is not below the limit"),
        (
            SPARK,
            "rig.power_cap_w=100",
            "nothing in the catalogue says",
        ),
        (
            SPARK,
            "rig.sustained_load=on",
            "how NVIDIA DGX Spark (GB10) slows",
        ),
    ] {
        let ran = replay(&["--rig", rig, "--set", cap]);
        assert_eq!(ran.code, Some(2), "{cap}");
        assert!(ran.stderr.contains(why), "{cap}: {}", ran.stderr);
    }
}

#[test]
fn sustained_prefill_slows_the_laptop_that_was_seen_to() {
    let lab = Lab::new();
    let trace = one_call(&lab, 120_000, 10);
    let rig = "m5-max-40/llama.cpp/qwen3.6-27b-q8_0";
    let wall = |state: &str| {
        let set = format!("rig.sustained_load={state}");
        let result = replay(&["--trace", &trace, "--rig", rig, "--set", &set]).json();
        number(&result["summary"]["wall_s"])
    };
    let (rested, warm) = (wall("off"), wall("on"));
    assert!(
        warm > 1.1 * rested && warm < 1.27 * rested,
        "{rested} {warm}"
    );
}

#[test]
fn the_page_of_claims_is_current_and_contradictions_are_named() {
    let lab = Lab::new();
    let page = lab.run(&["list", "claims", "--markdown"]).stdout;
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/claims.md");
    let kept = fs::read_to_string(kept).unwrap().replace("\r\n", "\n");
    assert!(
        kept == page,
        "laptime list claims --markdown > docs/claims.md"
    );
    let claims = lab.run(&["list", "claims", "--json"]).json();
    let of = |model: &str, low: f64| {
        let mut all = claims.as_array().unwrap().iter();
        let found = all.find(|row| {
            row["hardware"] == "dgx-spark" && row["model"] == model && row["low"] == low
        });
        found.unwrap()["verdict"].as_str().unwrap().to_string()
    };
    assert_eq!(of("llama-3.1-70b-q4_k_m", 55.0), "impossible");
    assert_eq!(of("llama-3.1-70b-fp8", 2.7), "possible");
    let checked = lab.run(&[
        "list",
        "hardware",
        "spark",
        "--check",
        "llama-3.1-70b-q4_k_m 45 tok/s",
        "--json",
    ]);
    let rows = checked.json();
    assert!(
        rows.as_array()
            .unwrap()
            .iter()
            .all(|row| row["verdict"] == "impossible")
    );
    for (claim, why) in [
        ("70b fast", "is no claim"),
        ("llama-3.1-70b-q4_km 4 tok/s", "did you mean"),
    ] {
        let ran = lab.run(&["list", "hardware", "--check", claim]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    assert_eq!(
        lab.run(&["list", "models", "--check", "x 1 tok/s"]).code,
        Some(2)
    );
}

const MINE: &str = r#"name = "my-box"
title = "The box under my desk"
chip = "my-box"
platform = "cuda"
form = "desktop"
devices = 1
unified_memory = false
memory = { value = 48, unit = "GiB", source = "label", trust = "datasheet" }
usable = { value = 47, unit = "GiB", source = "nvidia-smi", trust = "measured" }
bandwidth = { value = 1000, unit = "GB/s", source = "label", trust = "datasheet" }
"#;

/// Lays out a catalogue folder with one machine.
fn folder(lab: &Lab, name: &str, machine: &str) -> String {
    let folder = lab.path(name);
    fs::create_dir_all(folder.join("hardware")).unwrap();
    fs::write(folder.join("hardware").join("my-box.toml"), machine).unwrap();
    folder.to_str().unwrap().to_string()
}

#[test]
fn a_catalogue_of_ones_own_adds_and_overrides_and_is_named() {
    let lab = Lab::new();
    let mine = folder(&lab, "mine", MINE);
    let list = |variable: &str, more: &[&str]| {
        let mut args = vec!["list", "hardware", "my-box", "--json"];
        args.extend(more);
        let ran = lab
            .command(&args)
            .env("LAPTIME_CATALOG", variable)
            .output()
            .unwrap();
        assert_eq!(
            ran.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        serde_json::from_slice::<Value>(&ran.stdout).unwrap()
    };
    assert_eq!(list("", &[]).as_array().unwrap().len(), 0);
    let found = list(&mine, &[]);
    let from = found[0]["from"].as_str().unwrap();
    assert!(from.ends_with("my-box.toml"), "{from}");
    // What the command line names wins over what the environment does.
    let faster = folder(&lab, "faster", &MINE.replace("1000", "2000"));
    let found = list(&mine, &["--catalog", &faster]);
    let figures = found[0]["figures"].as_array().unwrap();
    let bandwidth = figures
        .iter()
        .find(|figure| figure["name"] == "bandwidth_bytes_per_s");
    assert_eq!(bandwidth.unwrap()["value"], 2e12);
    let args = [
        "replay",
        "-q",
        "--trace",
        TRACE,
        "--catalog",
        &mine,
        "--json=-",
        "--rig",
        "my-box/vllm/qwen3-8b-bf16",
    ];
    let known_by = lab.run(&args).json()["operating_point"]["known_by"].to_string();
    assert!(known_by.contains("my-box.toml"), "{known_by}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_folder_of_the_platform_is_found() {
    let lab = Lab::new();
    folder(&lab, "laptime/catalog", MINE);
    let ran = lab
        .command(&["list", "hardware", "my-box"])
        .env_remove("LAPTIME_CATALOG")
        .env("XDG_CONFIG_HOME", lab.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("my-box") && text.contains("(from "), "{text}");
}

#[test]
fn a_wrong_figure_is_named_with_file_line_field_unit_found_and_expected() {
    let lab = Lab::new();
    for (number, (good, bad, said)) in [
        (
            "\"GB/s\"",
            "\"GBps\"",
            "my-box.toml:10: the unit of `bandwidth` is `GBps`; expected B/s, MB/s, GB/s",
        ),
        (
            "value = 1000",
            "value = \"fast\"",
            "my-box.toml:10: `bandwidth.value` is \"fast\"; expected a number from 0, in B/s",
        ),
        (
            "value = 1000",
            "value = -4",
            "my-box.toml:10: `bandwidth.value` is -4; expected a number from 0, in B/s",
        ),
        (
            "trust = \"measured\"",
            "trust = \"sure\"",
            "my-box.toml:9: `usable.trust` is `sure`; expected measured",
        ),
        (
            "devices = 1",
            "device = 1",
            "`devices` is missing; expected a whole number",
        ),
        (
            "\nform = ",
            "\ncolour = \"red\"\nform = ",
            "my-box.toml:5: unknown field `colour`",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = folder(&lab, &format!("wrong-{number}"), &MINE.replace(good, bad));
        let ran = lab.run(&["list", "hardware", "--catalog", &dir]);
        assert_eq!(ran.code, Some(2), "{bad}");
        assert!(ran.stderr.contains(said), "{bad}: {}", ran.stderr);
        assert!(ran.stderr.contains("help"), "{}", ran.stderr);
    }
}
