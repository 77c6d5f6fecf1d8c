//! Through the binary: measurements of every format in, a rig out that replays as they say.

use crate::cli::{Lab, TRACE};
use std::fmt::Write as _;

const LLAMA_BENCH: &str = r#"[
  {
    "build_commit": "abc", "build_number": 9151, "model_type": "qwen35 27B Q8_0",
    "n_ubatch": 512, "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ns": 1, "avg_ts": 700.0
  },
  {
    "build_commit": "abc", "build_number": 9151, "model_type": "qwen35 27B Q8_0",
    "n_ubatch": 512, "n_prompt": 0, "n_gen": 128, "n_depth": 0, "avg_ns": 1, "avg_ts": 7.6
  },
  {
    "build_commit": "abc", "build_number": 9151, "model_type": "qwen35 27B Q8_0",
    "n_ubatch": 512, "n_prompt": 0, "n_gen": 128, "n_depth": 16384, "avg_ns": 1, "avg_ts": 7.1
  },
  {
    "build_commit": "abc", "build_number": 9151, "model_type": "qwen35 27B Q8_0",
    "n_ubatch": 512, "n_prompt": 2048, "n_gen": 0, "n_depth": 16384, "avg_ns": 1, "avg_ts": 600.0
  }
]"#;

const MARKDOWN: &str = "\
ggml_cuda_init: found 1 CUDA devices
| model          |      size |  params | backend | ngl | fa |           test |            t/s |
| -------------- | --------: | ------: | ------- | --: | -: | -------------: | -------------: |
| qwen35 27B Q8_0| 26.63 GiB | 26.90 B | CUDA    |  99 |  1 |          pp512 | 700.12 ± 3.10  |
| qwen35 27B Q8_0| 26.63 GiB | 26.90 B | CUDA    |  99 |  1 |          tg128 |   7.60 ± 0.01  |
| qwen35 27B Q8_0| 26.63 GiB | 26.90 B | CUDA    |  99 |  1 | tg128 @ d16384 |   7.10 ± 0.01  |

build: abc (9151)
";

const BATCHED: &str = "\
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   512 |    128 |    1 |    640 |    0.731 |   700.41 |   16.842 |     7.60 |   17.573 |    36.42 |
|   512 |    128 |    4 |   2560 |    2.930 |   698.98 |   21.333 |    24.00 |   24.263 |   105.51 |
|   512 |    128 |    8 |   5120 |    5.860 |   698.98 |   27.000 |    37.93 |   32.860 |   155.81 |
";

const VLLM: &str = r#"{"date": "20260501", "backend": "vllm", "model_id": "m", "num_prompts": 64, "completed": 64, "duration": 100.0, "max_concurrency": 1, "total_input_tokens": 65536, "total_output_tokens": 16384, "mean_ttft_ms": 120.0, "mean_tpot_ms": 14.5}
{"date": "20260501", "backend": "vllm", "model_id": "m", "num_prompts": 64, "completed": 64, "duration": 50.0, "max_concurrency": 4, "total_input_tokens": 65536, "total_output_tokens": 16384, "mean_ttft_ms": 300.0, "mean_tpot_ms": 16.9}
{"date": "20260501", "backend": "vllm", "model_id": "m", "num_prompts": 64, "completed": 64, "duration": 30.0, "max_concurrency": 16, "total_input_tokens": 65536, "total_output_tokens": 16384, "mean_ttft_ms": 500.0, "mean_tpot_ms": 24.0}
"#;

const AIPERF: &str = r#"{
  "time_to_first_token": {"unit": "ms", "avg": 120.0},
  "inter_token_latency": {"unit": "ms", "avg": 14.5},
  "input_sequence_length": {"unit": "tokens", "avg": 1024.0},
  "output_sequence_length": {"unit": "tokens", "avg": 256.0},
  "input_config": {"loadgen": {"concurrency": 1}, "endpoint": {"model_names": ["m"]}}
}"#;

const GUIDELLM: &str = r#"{"benchmarks": [
  {"metrics": {"prompt_token_count": {"successful": {"mean": 1024}}, "output_token_count": {"successful": {"mean": 256}},
   "request_concurrency": {"successful": {"mean": 1.0}}, "inter_token_latency_ms": {"successful": {"mean": 14.5}},
   "time_to_first_token_ms": {"successful": {"mean": 120.0}}}},
  {"metrics": {"prompt_token_count": {"successful": {"mean": 1024}}, "output_token_count": {"successful": {"mean": 256}},
   "request_concurrency": {"successful": {"mean": 7.9}}, "inter_token_latency_ms": {"successful": {"mean": 19.5}},
   "time_to_first_token_ms": {"successful": {"mean": 400.0}}}}
]}"#;

const SPARK: [&str; 6] = [
    "--hardware",
    "dgx-spark",
    "--engine",
    "llama.cpp",
    "--model",
    "qwen3.6-27b-q8_0",
];
const CARD: [&str; 6] = [
    "--hardware",
    "rtx-pro-6000",
    "--engine",
    "vllm",
    "--model",
    "qwen3.6-27b-awq",
];

fn with<'a>(files: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["calibrate", "--from"];
    words.extend(files);
    words.extend(rest);
    words
}

#[test]
fn every_format_is_told_by_its_content() {
    let lab = Lab::new();
    for (name, text, target, rows) in [
        ("a", LLAMA_BENCH, SPARK, 4),
        ("b", MARKDOWN, SPARK, 3),
        ("c", BATCHED, SPARK, 6),
        ("d", VLLM, CARD, 4),
        ("e", GUIDELLM, CARD, 3),
    ] {
        lab.file(name, text);
        let mut words = with(&[name], &target);
        words.extend(["--json", "-"]);
        let report = lab.run(&words).json();
        assert_eq!(report["schema"], "laptime.calibration/1", "{name}");
        assert_eq!(report["measurements"], rows, "{name}: {report}");
        let from = report["interval_80"][0].as_f64().unwrap();
        assert!(from > 0.0 && from <= 1.0, "{name}");
    }
    // AIPerf writes one run to a file; three make a fit.
    lab.file("f", AIPERF);
    lab.file(
        "g",
        &AIPERF
            .replace("\"concurrency\": 1", "\"concurrency\": 4")
            .replace("14.5", "16.9"),
    );
    let mut words = with(&["f", "g"], &CARD);
    words.extend(["--json", "-"]);
    assert_eq!(lab.run(&words).json()["measurements"], 3);
}

#[test]
fn lines_are_those_of_the_file() {
    let lab = Lab::new();
    lab.file("a.json", LLAMA_BENCH);
    let mut words = with(&["a.json"], &SPARK);
    words.extend(["--json", "-"]);
    let report = lab.run(&words).json();
    let lines: Vec<u64> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [3, 7, 11, 15]);
}

#[test]
fn a_rig_made_from_a_result_replays_as_that_result() {
    let lab = Lab::new();
    let rig = "rtx-pro-6000/vllm/qwen3.6-27b-awq";
    let replay = [
        "replay",
        "--trace",
        TRACE,
        "--rig",
        rig,
        "--json",
        "first.json",
    ];
    assert_eq!(lab.run(&replay).code, Some(0));
    let done = lab.run(&with(&["first.json"], &["-o", "mine.toml"]));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stdout.contains("80 % of further measurements"),
        "{}",
        done.stdout
    );
    let again = [
        "replay",
        "--trace",
        TRACE,
        "--rig",
        rig,
        "--catalog",
        "mine.toml",
        "--json",
        "-",
    ];
    let seconds = |document: &serde_json::Value| document["summary"]["model_s"].as_f64().unwrap();
    let second = lab.run(&again).json();
    let first =
        serde_json::from_str(&std::fs::read_to_string(lab.path("first.json")).unwrap()).unwrap();
    let ratio = seconds(&second) / seconds(&first);
    assert!((0.97..1.03).contains(&ratio), "{ratio}");
    assert_eq!(second["operating_point"]["trust"], "calibrated");
}

#[test]
fn what_physics_forbids_is_named_with_its_line_and_left_out() {
    let lab = Lab::new();
    // 27 GB for each token: 273 GB/s allow ten tokens a second.
    lab.file("bench.md", &MARKDOWN.replace("7.10 ±", "27.10 ±"));
    let done = lab.run(&with(&["bench.md"], &SPARK));
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    assert!(
        done.stderr.contains("2 usable measurements"),
        "{}",
        done.stderr
    );
    lab.file("more.md", BATCHED);
    let done = lab.run(&with(&["bench.md", "more.md"], &SPARK));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let named = "bench.md:6: ";
    assert!(
        done.stderr.contains(named) && done.stderr.contains("the specification allows no less"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_row_that_the_others_contradict_is_named() {
    let lab = Lab::new();
    let mut table = String::from(
        "hardware,engine,model,depth_tokens,prompt_tokens,answer_tokens,sequences,metric,value\n",
    );
    for (depth, rate) in [
        (0, 7.7),
        (4096, 7.6),
        (8192, 7.5),
        (16384, 5.0),
        (24576, 7.2),
        (32768, 7.1),
    ] {
        let _ = writeln!(
            table,
            "dgx-spark,llama.cpp,qwen3.6-27b-q8_0,{depth},,128,1,decode_tps,{rate}"
        );
    }
    lab.file("points.csv", &table);
    let done = lab.run(&with(&["points.csv"], &["--json", "-"]));
    let report = done.json();
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["line"], 5);
    assert!(done.stderr.contains("points.csv:5: "), "{}", done.stderr);
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let lab = Lab::new();
    lab.file("a.json", LLAMA_BENCH);
    lab.file("odd.txt", "hello\n");
    lab.file("empty", "");
    lab.file(
        "latency.json",
        r#"{"avg_latency": 1.0, "latencies": [1.0]}"#,
    );
    lab.file("bad.json", &LLAMA_BENCH.replace("7.6", "\"fast\""));
    lab.file("metric.csv", "metric,value,sequences\nspeed,3,1\n");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["a.json"], 2, "do not say which hardware"),
        (
            &[
                "a.json",
                "--hardware",
                "dgx-sparkle",
                "--engine",
                "llama.cpp",
                "--model",
                "qwen3.6-27b-q8_0",
            ],
            2,
            "did you mean",
        ),
        (&["missing.json"], 3, "cannot read missing.json"),
        (&["odd.txt"], 3, "not a benchmark result"),
        (&["empty"], 3, "nothing in it"),
        (&["latency.json"], 3, "do not write the sizes"),
        (&["bad.json"], 3, "bad.json:7: `avg_ts` is \"fast\""),
        (&["metric.csv"], 3, "metric.csv:2: `metric` is `speed`"),
        (&["a.json", "-o", "-", "--json", "-"], 2, "cannot both go"),
    ];
    for (words, code, said) in cases {
        let done = lab.run(&with(words, &[]));
        assert_eq!(done.code, Some(code), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{words:?}: {}", done.stderr);
    }
}
