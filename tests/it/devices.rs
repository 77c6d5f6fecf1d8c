//! Several devices: what sharing a model gains, what talking costs, and what was measured of it.

#![expect(clippy::print_stdout, reason = "tests tell how exact they are")]

use laptime::agent::Conduct;
use laptime::catalog::Catalog;
use laptime::fleet::{Plan, Share};
use laptime::operating_point::OperatingPoint;
use laptime::study::replay::{Workload, replay};
use laptime::study::rig;
use laptime::trace::read::{ReadOptions, load_bytes};

/// What the measurements asked: a prompt of 1024 tokens and 128 that are decoded after the first.
const TRACE: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":1024,"append":[{"tokens":1024}]},"output":{"tokens":129},"finish":"end-of-turn"}
"#;

/// Returns the tokens a second that `runs` answers are written at together once all have begun, and the first's wait.
fn rate(spec: &str, settings: &[(&str, &str)], runs: u32) -> (f64, f64, OperatingPoint) {
    let trace = load_bytes("one", TRACE.as_bytes(), &ReadOptions::default()).unwrap();
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (format!("engine.{key}"), (*value).to_string()))
        .collect();
    let rig = rig::build(spec, &settings, &Catalog::builtin(), &trace.content).unwrap();
    let point = rig.point.clone();
    let plan = Plan {
        agents: runs,
        runs: Some(runs),
        share: Share::None,
        conduct: Conduct::default(),
    };
    let workload = Workload::new(&trace, plan, 0);
    let replayed = replay(&trace, &workload, rig, &mut Vec::new());
    let (mut begun, mut ended, mut first) = (0.0_f64, 0.0_f64, f64::MAX);
    for call in replayed.metrics.calls() {
        let secs = |at: laptime::units::Time| at.0 as f64 / 1e9;
        begun = begun.max(secs(call.first_token.unwrap()));
        first = first.min(secs(call.first_token.unwrap()));
        ended = ended.max(secs(call.finished));
    }
    (128.0 * f64::from(runs) / (ended - begun), first, point)
}

/// Decode rates of gpt-oss-120b in vLLM on one DGX Spark and on two under tensor parallelism, by answers at once: kubis.ai,
/// gpt-oss-120b topology benchmark, eager.
const SPARKS: [(u32, f64, f64); 6] = [
    (1, 57.5, 69.0),
    (2, 78.4, 104.1),
    (4, 107.9, 155.3),
    (8, 153.5, 231.0),
    (16, 218.5, 342.1),
    (32, 318.7, 471.7),
];

#[test]
fn two_sparks_gain_about_what_was_measured_of_them() {
    let eager = [("enforce_eager", "on")];
    for (runs, one, two) in SPARKS {
        let (single, ..) = rate("dgx-spark/vllm/gpt-oss-120b-mxfp4", &eager, runs);
        let (both, ..) = rate("2x-dgx-spark/vllm/gpt-oss-120b-mxfp4", &eager, runs);
        let (gained, measured) = (both / single, two / one);
        println!("{runs}: {single:.1} {both:.1} x{gained:.2}, measured {one} {two} x{measured:.2}");
        // The link's latency was taken from one answer; the others are predicted. Thirty-two are further off: one Spark
        // is predicted too slow there, because real batches touch fewer experts.
        let bar = match runs {
            1 => 0.02,
            32 => 0.25,
            _ => 0.15,
        };
        let off = (gained / measured - 1.0).abs();
        assert!(off < bar, "{runs}: {gained} {measured}");
    }
}

#[test]
fn a_faster_link_and_fewer_devices_talk_less() {
    let model = "vllm/llama-3.1-70b-fp8";
    let on = |devices: &str| {
        rate(
            &format!("8x-h100/{model}"),
            &[("tensor_parallel_size", devices)],
            1,
        )
        .0
    };
    let (two, four, eight) = (on("2"), on("4"), on("8"));
    assert!(two < four && four < eight, "{two} {four} {eight}");
    // Talking keeps eight from being four times as fast as two.
    assert!(eight < 3.5 * two, "{two} {eight}");
    let (pcie, ..) = rate(&format!("2x-rtx-pro-6000/{model}"), &[], 1);
    let (alone, ..) = rate(&format!("rtx-pro-6000/{model}"), &[], 1);
    assert!(pcie > 1.4 * alone && pcie < 2.0 * alone, "{alone} {pcie}");
}

#[test]
fn layers_in_turn_add_memory_and_no_speed() {
    let spec = |hardware: &str| format!("{hardware}/llama.cpp/llama-3.1-70b-q4_k_m");
    let (one, _, small) = rate(&spec("dgx-spark"), &[], 1);
    let (two, _, large) = rate(&spec("2x-dgx-spark"), &[], 1);
    assert!(two < one && two > 0.98 * one, "{one} {two}");
    let context =
        |point: &OperatingPoint| point.settings["engine.ctx_size"].parse::<u64>().unwrap();
    assert!(context(&large) >= context(&small));
    let (kept, _, alone) = rate(&spec("2x-dgx-spark"), &[("split_mode", "none")], 1);
    assert!((kept / one - 1.0).abs() < 0.02, "{kept} {one}");
    assert_eq!(context(&alone), context(&small));
}

#[test]
fn devices_that_are_not_there_or_do_not_divide_are_refused() {
    let refused = |spec: &str, devices: &str| {
        let trace = load_bytes("one", TRACE.as_bytes(), &ReadOptions::default()).unwrap();
        let settings = [(
            "engine.tensor_parallel_size".to_string(),
            devices.to_string(),
        )];
        let built = rig::build(spec, &settings, &Catalog::builtin(), &trace.content);
        built.map(|_| ()).unwrap_err().to_string()
    };
    let more = refused("2x-rtx-pro-6000/vllm/llama-3.1-8b-bf16", "4");
    assert!(more.contains("there are 2 in all"), "{more}");
    let odd = refused("8x-h100/vllm/llama-3.1-8b-bf16", "3");
    assert!(odd.contains("do not divide by 3"), "{odd}");
}

#[test]
fn keys_of_few_heads_are_kept_more_than_once() {
    // Four heads of keys and values over eight devices: each is kept twice.
    let blocks = |devices: &str| {
        let settings = [("tensor_parallel_size", devices)];
        let (.., point) = rate("8x-h200/vllm/qwen3.6-27b-fp8", &settings, 1);
        point.settings["engine.num_gpu_blocks"]
            .parse::<f64>()
            .unwrap()
    };
    assert!(
        blocks("8") < 1.2 * blocks("4"),
        "twice the memory, twice the copies"
    );
}
