//! The engine models against real engines that `tests/engines/run` has just driven, fed the same token ids.
//!
//! Reads the rows that the driver wrote, named by an environment variable; without it there is nothing to compare.

#![expect(
    clippy::print_stdout,
    reason = "tests tell how exact they are, and what they skipped"
)]

use crate::engine_runs::{Requests, Run, Setup};
use laptime::rig::engine::{llama_cpp, vllm};
use laptime::trace::content::ROOT;
use serde_json::Value;
use std::collections::BTreeMap;

/// Names the driver's file.
const ROWS: &str = "LAPTIME_ENGINE_ROWS";

/// Bytes of keys and values for one token of the model that `tests/engines/model.py` makes.
const KV_BYTES: u64 = 512;

/// Reads the runs of one mode, each with its header line.
fn runs(mode: &str) -> Vec<Run> {
    let Some(path) = std::env::var_os(ROWS) else {
        println!("skipped: {ROWS} names no rows of real engines");
        return Vec::new();
    };
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<(Value, Requests)> = Vec::new();
    // The place in its case of each request, by number.
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line.get("case").is_some() {
            found.push((line, Requests::default()));
            places.clear();
            continue;
        }
        let Some((_, requests)) = found.last_mut() else {
            continue;
        };
        if line.get("session").is_some() {
            places.insert(line["number"].as_u64().unwrap(), requests.list.len());
            add(requests, &line);
        } else if let Some(steps) = line["steps"].as_array() {
            let place = |number: &Value| places[&number.as_u64().unwrap()];
            let step = |step: &Value| step.as_array().unwrap().iter().map(place).collect();
            requests.steps = steps.iter().map(step).collect();
        } else if let Some(log) = line["log"].as_array() {
            let event = |pair: &Value| (pair[0] == 1, pair[1].as_u64().unwrap() as usize);
            requests.log = log.iter().map(event).collect();
        }
    }
    found.retain(|(head, _)| head["mode"] == mode);
    assert!(!found.is_empty(), "the driver wrote no {mode} case");
    let finish = |(head, requests): (Value, Requests)| {
        let name = format!("{} {}", head["engine"].as_str().unwrap(), head["case"]);
        requests.finish(name, setup(&head))
    };
    found.into_iter().map(finish).collect()
}

fn add(requests: &mut Requests, line: &Value) {
    if line["status"] != 200 {
        return;
    }
    let list = |key: &str| line[key].as_array().unwrap().iter();
    let ids = |key: &str| -> Vec<u64> { list(key).map(|id| id.as_u64().unwrap()).collect() };
    let secs = |key: &str| line[key].as_f64().unwrap();
    let prompt = requests.content.units(ROOT, 1, &ids("prompt")).unwrap();
    let output = requests.content.units(prompt, 1, &ids("output")).unwrap();
    let session = line["session"].as_u64().unwrap() as usize;
    let cached = line["cached"].as_u64().unwrap_or(0);
    let request = requests.add(session, prompt, output, cached);
    (request.sent, request.end) = (secs("sent"), secs("end"));
    request.at = list("at").map(|at| at.as_f64().unwrap()).collect();
    request.slot = line["slot"].as_u64().map(|slot| slot as usize);
    request.read = line["computed"]
        .as_u64()
        .map(|tokens| (tokens, secs("prompt_ms") / 1e3));
}

fn setup(head: &Value) -> Setup {
    let settings = &head["settings"];
    if head["engine"] == "vllm" {
        let number = |key: &str| settings[key].as_u64().unwrap();
        return Setup::Vllm(vllm::Settings {
            max_num_seqs: number("max-num-seqs"),
            max_num_batched_tokens: number("max-num-batched-tokens"),
            long_prefill_token_threshold: 0,
            block_size: number("block-size"),
            num_gpu_blocks: number("num-gpu-blocks-override"),
            max_model_len: number("max-model-len"),
            enable_prefix_caching: true,
            enable_chunked_prefill: true,
            scheduler_reserve_full_isl: true,
            async_scheduling: true,
            state_blocks: 0,
            offload: vllm::Offload::default(),
            drafts: 0,
            drops_last_block: false,
        });
    }
    let automatic = settings["n_parallel"] == -1;
    let slots = settings["n_parallel"].as_u64().unwrap_or(4);
    let context = settings["n_ctx"].as_u64().unwrap();
    let unified = automatic || settings["kv_unified"] == true;
    let host = settings["cache_ram_mib"].as_u64().unwrap();
    Setup::LlamaCpp(llama_cpp::Settings {
        parallel: slots,
        slot_context: if unified { context } else { context / slots },
        pool: unified.then_some(context),
        n_batch: 2048,
        n_ubatch: 512,
        cache_prompt: true,
        slot_prompt_similarity: 0.1,
        cache_ram: Some(host << 20),
        cache_ram_keeps_one: false,
        cache_idle_slots: true,
        rolls_back: true,
        ctx_checkpoints: 32,
        checkpoint_every: None,
        kv_bytes: KV_BYTES,
        state_bytes: 0,
        host_bytes_per_sec: 1e10,
        split_over_two: false,
        drafts: 0,
    })
}

#[test]
fn every_call_of_a_serial_run_is_predicted_exactly() {
    for run in runs("serial") {
        let cached = run.one_by_one();
        println!("{}", run.line(&cached));
        run.assert_exact(&cached);
    }
}

#[test]
fn concurrent_runs_are_predicted_from_the_order_of_their_requests() {
    for run in runs("concurrent") {
        // Both engines tell in which order they served, and then nothing is left to chance.
        assert!(!run.log.is_empty() || !run.steps.is_empty());
        let cached = run.in_recorded_order();
        println!("{}", run.line(&cached));
        run.assert_exact(&cached);
    }
}

/// How far the cached tokens of all runs of an engine may be off when the simulated one keeps its own time.
const FREELY: f64 = 0.03;

/// How many standard errors of the engine's own repetitions they may be off, where those differ by more.
const ERRORS: f64 = 3.0;

#[test]
fn concurrent_runs_are_predicted_at_a_pace_of_ones_own() {
    let runs = runs("concurrent");
    for engine in ["llama", "vllm"] {
        let runs: Vec<&Run> = runs
            .iter()
            .filter(|run| run.name.starts_with(engine))
            .collect();
        if runs.is_empty() {
            continue;
        }
        let (mut real, mut predicted, mut variance) = (0.0, 0.0, 0.0);
        for pair in runs.chunks_exact(2) {
            let [one, other] = [0, 1].map(|which| total(pair[which]));
            let freely = [0, 1].map(|which| 1.0 + pair[which].miss(&pair[which].freely()));
            real += one + other;
            predicted += one * freely[0] + other * freely[1];
            // Of two draws, the square of the difference estimates the variance of their sum.
            variance += (one - other).powi(2);
            println!(
                "{:58} freely {:+.2} and {:+.2} %; the engine twice: {one} and {other} tokens",
                pair[0].name,
                100.0 * (freely[0] - 1.0),
                100.0 * (freely[1] - 1.0),
            );
        }
        let off = predicted / real - 1.0;
        // The simulation draws once as well.
        let error = (2.0 * variance).sqrt() / real;
        println!(
            "{engine}, all runs at a pace of their own: {:+.2} % off; the standard error of that is {:.2} %",
            100.0 * off,
            100.0 * error
        );
        assert!(
            off.abs() <= FREELY.max(ERRORS * error),
            "{engine}: off by {:.2} %, which its own repetitions do not explain",
            100.0 * off
        );
    }
}

fn total(run: &Run) -> f64 {
    let cached: u64 = run.requests.iter().map(|request| request.cached).sum();
    cached as f64
}
