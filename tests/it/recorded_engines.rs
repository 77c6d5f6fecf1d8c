//! The engine models against recorded runs of the real engines, call by call.
//!
//! The recordings stand beside the repository and hold each request's token counts as the engine reported them. One
//! request at a time, cache hits do not depend on timing, so every count must be equal.

#![expect(clippy::print_stdout, reason = "tests tell what they skipped")]

use laptime::call::{Call, Realms, Reply};
use laptime::ids::{CallId, RunId, ThreadId};
use laptime::rig::Backend;
use laptime::rig::cost::{Coefficients, StepCost};
use laptime::rig::engine::{llama_cpp, vllm};
use laptime::rig::step::StepLoop;
use laptime::trace::Trace;
use laptime::trace::compile::Compiler;
use laptime::trace::record::{
    AgentRecord, OutputRecord, Piece, PromptEdit, Record, Segment, SessionRecord, StepRecord,
};
use laptime::units::{Time, Tokens};
use std::path::PathBuf;
use std::sync::Arc;

/// One recorded request.
struct Request {
    session: usize,
    turn: usize,
    prompt: u64,
    output: u64,
    cached: u64,
}

/// A recorded run: how the engine was set up, and what it answered.
struct Recording {
    note: String,
    system: u64,
    requests: Vec<Request>,
}

fn recordings() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/engines/runs"
    ));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no recorded runs of real engines beside the repository");
    None
}

fn read(path: &std::path::Path) -> Recording {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let head = lines.next().unwrap();
    let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap_or(0);
    let requests = lines
        .filter(|line| line.get("turn").is_some())
        .map(|line| Request {
            session: number(&line, "session") as usize,
            turn: number(&line, "turn") as usize,
            prompt: number(&line, "prompt_tokens"),
            output: number(&line, "output_tokens"),
            cached: number(&line, "cached_tokens"),
        })
        .collect();
    Recording {
        note: head["run"]["note"].as_str().unwrap().to_string(),
        system: number(&head["run"], "system"),
        requests,
    }
}

/// Builds the trace of a run: every prompt extends the session's last prompt and answer; the system part is shared.
fn trace(run: &Recording) -> Trace {
    let mut compiler = Compiler::default();
    compiler.begin(laptime::trace::Source::default());
    let mut add = |record: Record| compiler.add(&record).unwrap();
    let system = Segment {
        id: "system".into(),
        kind: "system".into(),
        tokens: run.system,
        ..Segment::default()
    };
    add(Record::Segment(Box::new(system)));
    let sessions = run
        .requests
        .iter()
        .map(|request| request.session)
        .max()
        .unwrap()
        + 1;
    for session in 0..sessions {
        let name = format!("s{session}");
        add(Record::Session(Box::new(SessionRecord {
            id: name.clone(),
            ..SessionRecord::default()
        })));
        add(Record::Agent(Box::new(AgentRecord {
            id: "main".into(),
            session: name.clone(),
            ..AgentRecord::default()
        })));
        let mut kept = 0;
        for request in run
            .requests
            .iter()
            .filter(|request| request.session == session)
        {
            let mut append = Vec::new();
            if kept == 0 {
                append.push(Piece {
                    seg: Some("system".into()),
                    ..Piece::default()
                });
                kept = run.system;
            }
            append.push(Piece {
                tokens: Some(request.prompt - kept),
                ..Piece::default()
            });
            let keep = if request.turn == 0 { 0 } else { kept };
            add(Record::Step(Box::new(StepRecord {
                id: format!("{session}/{}", request.turn),
                session: Some(name.clone()),
                agent: Some("main".into()),
                prompt: PromptEdit {
                    tokens: request.prompt,
                    keep,
                    append,
                    ..PromptEdit::default()
                },
                output: OutputRecord {
                    tokens: request.output,
                    ..OutputRecord::default()
                },
                ..StepRecord::default()
            })));
            kept = request.prompt + request.output;
        }
    }
    compiler.finish()
}

/// Any cost will do: one request at a time, hits do not depend on it.
fn cost() -> StepCost {
    let coefficients = Coefficients {
        weights_s: 1e-3,
        experts_s: 0.0,
        row_s: 0.0,
        second_row_s: 0.0,
        kv_s: 1e-9,
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s: 1e-6,
        half_tokens: 0.0,
        attention_s: 0.0,
        request_s: 0.0,
        expert_share: 0.0,
        overlap: 1.0,
    };
    StepCost::new(coefficients, Vec::new())
}

/// Serves the requests one after the other and returns those whose cached tokens differ, with what was predicted.
fn differences(
    run: &Recording,
    trace: &Trace,
    engine: &mut impl Backend,
) -> Vec<(usize, usize, u64, u64)> {
    let mut now = Time::ZERO;
    let mut wrong = Vec::new();
    for (index, request) in run.requests.iter().enumerate() {
        let step = &trace.sessions[request.session].threads[0].steps[request.turn];
        let call = Call {
            id: CallId(index as u32),
            run: RunId(request.session as u32),
            thread: ThreadId(request.session as u32),
            prompt: step.prompt,
            prompt_tokens: step.prompt_tokens,
            output: step.output,
            output_tokens: step.output_tokens,
            output_shared: true,
            realms: Realms::default(),
            seen: step.seen,
            seen_computed: step.seen_computed,
            again: step.again,
            warm: Tokens::ZERO,
        };
        engine.submit(now, call);
        let mut replies: Vec<Reply> = Vec::new();
        while replies.is_empty() {
            now = engine.next_event().expect("a call is in flight");
            engine.advance(now, &mut replies);
        }
        replies[0].check(&call);
        assert_eq!(replies[0].output.0, request.output);
        if replies[0].cached.0 != request.cached {
            wrong.push((
                request.session,
                request.turn,
                request.cached,
                replies[0].cached.0,
            ));
        }
    }
    wrong
}

/// Returns the number after `key=` in a recording's note.
fn setting(note: &str, key: &str) -> Option<u64> {
    let rest = note
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
    rest.trim_end_matches(',').parse().ok()
}

fn vllm_engine(note: &str, trace: &Trace) -> impl Backend {
    let settings = vllm::Settings {
        max_num_seqs: 8,
        max_num_batched_tokens: 2048,
        long_prefill_token_threshold: 0,
        block_size: 32,
        num_gpu_blocks: setting(note, "BLOCKS").unwrap(),
        max_model_len: 16_352,
        enable_prefix_caching: true,
        enable_chunked_prefill: true,
        scheduler_reserve_full_isl: true,
        async_scheduling: true,
        state_blocks: 0,
    };
    StepLoop::new(
        <vllm::Vllm>::new(settings, Arc::clone(&trace.content)),
        cost(),
    )
}

fn llama_engine(note: &str, trace: &Trace) -> impl Backend {
    let slots = setting(note, "SLOTS").unwrap();
    let context = setting(note, "CTX").unwrap();
    let unified = setting(note, "UNIFIED") == Some(1);
    let host = setting(note, "CACHE_RAM_MIB").unwrap();
    let settings = llama_cpp::Settings {
        parallel: slots,
        slot_context: if unified { context } else { context / slots },
        pool: unified.then_some(context),
        n_batch: 2048,
        n_ubatch: 512,
        cache_prompt: true,
        slot_prompt_similarity: 0.1,
        cache_ram: Some(host << 20),
        cache_ram_keeps_one: false,
        // The server switches it off by itself without host memory.
        cache_idle_slots: host > 0,
        rolls_back: true,
        ctx_checkpoints: 32,
        checkpoint_every: None,
        // The tiny model: 4 layers of 2 heads of 64, keys and values, 2 bytes each.
        kv_bytes: 2048,
        state_bytes: 0,
        host_bytes_per_sec: 1e10,
        split_over_two: false,
    };
    StepLoop::new(
        llama_cpp::LlamaCpp::new(settings, Arc::clone(&trace.content)),
        cost(),
    )
}

#[test]
fn every_cached_token_of_the_serial_runs_is_predicted() {
    let Some(folder) = recordings() else { return };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("serial"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "the recorded serial runs are nine");
    for path in files {
        let run = read(&path);
        let trace = trace(&run);
        let wrong = if run.note.contains("BLOCKS=") {
            differences(&run, &trace, &mut vllm_engine(&run.note, &trace))
        } else {
            differences(&run, &trace, &mut llama_engine(&run.note, &trace))
        };
        let shown = &wrong[..wrong.len().min(6)];
        assert!(
            wrong.is_empty(),
            "{}: {} of {} differ (session, turn, recorded, predicted): {shown:?}",
            path.display(),
            wrong.len(),
            run.requests.len(),
        );
    }
}
