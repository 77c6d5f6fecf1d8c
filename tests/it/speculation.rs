//! Speculative decoding: what it does to answers and caches, what it costs, and what is refused.

use crate::predictions::{Script, vllm};
use laptime::agent::Conduct;
use laptime::catalog::Catalog;
use laptime::fleet::{Plan, Share};
use laptime::known::Trust;
use laptime::rig::Rig;
use laptime::rig::engine::vllm::Settings;
use laptime::study::replay::{Workload, replay};
use laptime::study::rig;
use laptime::trace::content::ROOT;
use laptime::trace::read::{ReadOptions, load_bytes};
use laptime::units::Tokens;

/// A model with a layer for multi-token prediction, and one without.
const WITH_MTP: &str = "rtx-pro-6000/vllm/qwen3.6-27b-awq";
const LLAMA_70B: &str = "rtx-pro-6000/llama.cpp@latest/llama-3.1-70b-q4_k_m";

/// One short prompt, and an answer of 1001 tokens: a first one, and a thousand that are decoded.
const TRACE: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":100,"append":[{"tokens":100}]},"output":{"tokens":1001},"finish":"end-of-turn"}
"#;

fn build(spec: &str, settings: &[(&str, &str)]) -> Result<Rig, String> {
    let trace = load_bytes("one", TRACE.as_bytes(), &ReadOptions::default()).unwrap();
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (format!("engine.{key}"), (*value).to_string()))
        .collect();
    let built = rig::build(spec, &settings, &Catalog::builtin(), &trace.content);
    built.map_err(|error| error.to_string())
}

/// Returns the seconds that `runs` answers of 1001 tokens take side by side, and how many tokens there were.
fn decode(spec: &str, settings: &[(&str, &str)], runs: u32) -> (f64, u64) {
    let trace = load_bytes("one", TRACE.as_bytes(), &ReadOptions::default()).unwrap();
    let plan = Plan {
        agents: runs,
        runs: Some(runs),
        share: Share::None,
        conduct: Conduct::default(),
    };
    let workload = Workload::new(&trace, plan, 0);
    let rig = build(spec, settings).unwrap();
    let replayed = replay(&trace, &workload, rig, &mut Vec::new());
    let (mut most, mut output) = (0.0_f64, 0);
    for call in replayed.metrics.calls() {
        let spent = call.parts.decode + call.parts.contention;
        most = most.max(spent.secs());
        output += call.output.0;
    }
    (most, output)
}

fn mtp(drafts: u64) -> String {
    format!(r#"{{"method":"mtp","num_speculative_tokens":{drafts}}}"#)
}

/// Relative costs of a pass as measured, see `docs/model.md`.
const MEASURED: [f64; 4] = [1.27, 1.41, 1.61, 1.78];

#[test]
fn one_answer_is_faster_by_what_is_accepted_and_slower_by_what_a_pass_costs() {
    let (plain, tokens) = decode(WITH_MTP, &[], 1);
    assert_eq!(tokens, 1001);
    for (drafts, cost) in (1..).zip(MEASURED) {
        let config = mtp(drafts);
        for share in [0.0, 0.5, 1.0] {
            let share_text = share.to_string();
            let settings = [
                ("speculative_config", config.as_str()),
                ("speculative_acceptance", share_text.as_str()),
            ];
            let (time, tokens) = decode(WITH_MTP, &settings, 1);
            assert_eq!(tokens, 1001, "the last pass is cut");
            let expected = plain * cost / (1.0 + share * drafts as f64);
            let off = time / expected - 1.0;
            assert!(off.abs() < 0.03, "{drafts} drafts, {share}: {off}");
        }
    }
}

#[test]
fn gains_shrink_where_many_answers_are_written_at_once() {
    let gain = |runs| {
        let config = mtp(3);
        let settings = [
            ("speculative_config", config.as_str()),
            ("speculative_acceptance", "0.6"),
        ];
        decode(WITH_MTP, &[], runs).0 / decode(WITH_MTP, &settings, runs).0
    };
    let (one, many) = (gain(1), gain(32));
    assert!(one > 1.6 && many < one, "{one} {many}");
}

#[test]
fn acceptance_can_be_told_in_three_ways() {
    let config = mtp(3);
    let mean = |given: &str| {
        let settings = [
            ("speculative_config", config.as_str()),
            ("speculative_acceptance", given),
        ];
        let rig = build(WITH_MTP, &settings).unwrap();
        assert_eq!(
            (rig.point.trust, rig.point.error_interval),
            (Trust::Estimate, None)
        );
        rig.point.settings["engine.speculative_tokens_per_pass"].clone()
    };
    assert_eq!(mean("0.7"), "3.1000");
    assert_eq!(mean("0.9,0.7,0.5"), "3.1000");
    // 1 + 0.5 + 0.25 + 0.125
    assert_eq!(mean("each:0.5"), "1.8750");
}

#[test]
fn without_an_acceptance_nothing_is_simulated() {
    let config = mtp(2);
    let refused = build(WITH_MTP, &[("speculative_config", &config)])
        .map(|_| ())
        .unwrap_err();
    assert!(refused.contains("has no default"), "{refused}");
    assert!(
        refused.contains("`engine.speculative_acceptance`"),
        "{refused}"
    );
    for given in [
        "1.1",
        "-0.1",
        "0.5,0.6",
        "0.5,0.4,0.3",
        "often",
        "each:2",
        "NaN",
    ] {
        let settings = [
            ("speculative_config", config.as_str()),
            ("speculative_acceptance", given),
        ];
        let refused = build(WITH_MTP, &settings).map(|_| ()).unwrap_err();
        assert!(
            refused.contains("expected a share from 0 to 1"),
            "{given}: {refused}"
        );
    }
}

#[test]
fn what_an_engine_or_model_cannot_do_is_said() {
    let one = ("speculative_acceptance", "0.5");
    let said = |spec: &str, settings: &[(&str, &str)], part: &str| {
        let refused = build(spec, settings).map(|_| ()).unwrap_err();
        assert!(refused.contains(part), "{refused}");
    };
    let plain = "rtx-pro-6000/vllm/llama-3.1-8b-bf16";
    said(
        plain,
        &[("speculative_config", &mtp(1)), one],
        "layers for multi-token prediction",
    );
    said(plain, &[one], "has no speculative decoding to apply to");
    said(
        WITH_MTP,
        &[("speculative_config", &mtp(8)), one],
        "known for 1 to 7 drafts",
    );
    said(
        WITH_MTP,
        &[("speculative_config", "mtp"), one],
        "expected a JSON object",
    );
    let medusa = r#"{"method":"medusa","num_speculative_tokens":2}"#;
    said(WITH_MTP, &[("speculative_config", medusa), one], "`medusa`");
    let adaptive = r#"{"method":"mtp","num_speculative_tokens":2,"disable_by_batch_size":4}"#;
    said(
        WITH_MTP,
        &[("speculative_config", adaptive), one],
        "`disable_by_batch_size`",
    );
    said(
        LLAMA_70B,
        &[("model_draft", "llama-3.1-8b-q4_k_m"), one],
        "does not use it until `engine.spec_type=draft-simple`",
    );
    let may = "rtx-pro-6000/llama.cpp@b9151/qwen3.6-27b-q8_0";
    said(may, &[("spec_type", "draft-mtp"), one], "came after b9151");
    let other = [
        ("spec_type", "draft-simple"),
        ("model_draft", "qwen3-8b-q4_k_m"),
        ("draft_max", "4"),
        one,
    ];
    said(LLAMA_70B, &other, "vocabularies");
    let tree = [
        ("speculative_algorithm", "EAGLE3"),
        ("speculative_eagle_topk", "4"),
        one,
    ];
    said(
        "rtx-pro-6000/sglang/llama-3.1-8b-bf16",
        &tree,
        "drafts a tree",
    );
    for engine in ["trt-llm", "lm-studio", "ollama"] {
        let spec = format!(
            "rtx-pro-6000/{engine}/{}",
            if engine == "trt-llm" {
                "llama-3.1-8b-bf16"
            } else {
                "llama-3.1-8b-q8_0"
            }
        );
        assert!(build(&spec, &[("speculative_config", "x")]).is_err());
        assert!(build(&spec, &[("draft_model", "x")]).is_err());
    }
}

#[test]
fn a_model_that_drafts_takes_time_and_memory() {
    let draft = |model: &str| {
        let settings = [
            ("spec_type", "draft-simple"),
            ("model_draft", model),
            ("draft_max", "4"),
            ("speculative_acceptance", "0.7"),
        ];
        let context =
            build(LLAMA_70B, &settings).unwrap().point.settings["engine.ctx_size"].clone();
        (
            decode(LLAMA_70B, &settings, 1).0,
            context.parse::<u64>().unwrap(),
        )
    };
    let ngram = [
        ("spec_type", "ngram-mod"),
        ("draft_max", "4"),
        ("speculative_acceptance", "0.7"),
    ];
    let free = decode(LLAMA_70B, &ngram, 1).0;
    let (plain, _) = decode(LLAMA_70B, &[], 1);
    let (drafted, context) = draft("llama-3.1-8b-q4_k_m");
    assert!(
        free < drafted && drafted < plain,
        "{free} {drafted} {plain}"
    );
    let whole = build(LLAMA_70B, &[]).unwrap().point.settings["engine.ctx_size"].clone();
    assert!(context <= whole.parse().unwrap());
    let sglang = [
        ("speculative_algorithm", "STANDALONE"),
        ("speculative_num_steps", "3"),
        ("speculative_draft_model_path", "llama-3.1-8b-bf16"),
        ("speculative_acceptance", "0.7"),
    ];
    let tokens = |settings: &[(&str, &str)]| {
        let rig = build("h200/sglang/llama-3.1-70b-fp8", settings);
        rig.map(|rig| {
            rig.point.settings["engine.max_total_num_tokens"]
                .parse::<u64>()
                .unwrap()
        })
    };
    if let (Ok(with), Ok(without)) = (tokens(&sglang), tokens(&[])) {
        assert!(
            with * 4 < without * 3,
            "16 GB of weights and a third more keys: {with} {without}"
        );
    }
}

#[test]
fn a_head_that_drafts_has_one_more_block_computed() {
    let found = |drops_last_block| {
        let mut script = Script::default();
        let prompt = script.text(ROOT, 1009);
        script.ask(0, 0, prompt, 4);
        script.ask(10, 1, prompt, 4);
        let settings = Settings {
            drops_last_block,
            ..vllm()
        };
        script.on_vllm(settings).replies[1].cached
    };
    assert_eq!((found(false), found(true)), (Tokens(1008), Tokens(992)));
}

#[test]
fn mlx_lm_serves_one_by_one_with_a_model_that_drafts() {
    let spec = "m5-max-40/mlx-lm/qwen3-32b-mlx-4bit";
    let Ok(_) = build(spec, &[]) else {
        panic!("the rig is in the catalogue");
    };
    let settings = [
        ("draft_model", "qwen3-8b-mlx-4bit"),
        ("speculative_acceptance", "0.6"),
    ];
    let (one, _) = decode(spec, &settings, 1);
    let (two, _) = decode(spec, &settings, 2);
    assert!(
        (two / one - 1.0).abs() < 0.01,
        "nobody decodes beside another: {one} {two}"
    );
}
