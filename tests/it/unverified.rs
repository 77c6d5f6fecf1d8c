//! What is written of engines that no recording checks, as numbers: cached tokens, admissions, order and stalls.
//!
//! Every test stands for a statement of an engine's source or documentation, see docs/engines.md.

mod sglang_rules;

use laptime::call::{Call, Outcome, Realms, Reply};
use laptime::catalog::Catalog;
use laptime::ids::{CallId, NodeId, RunId, ThreadId};
use laptime::rig::Backend;
use laptime::rig::cost::{Coefficients, Graph, StepCost};
use laptime::rig::engine::limited::Limited;
use laptime::rig::engine::{Engine, llama_cpp, mlx_lm, sglang, trt_llm};
use laptime::rig::fine::Fine;
use laptime::rig::kv::sequences::Rules;
use laptime::rig::kv::tier::Offload;
use laptime::rig::step::StepLoop;
use laptime::study::rig;
use laptime::trace::content::{Content, ContentBuilder, ROOT};
use laptime::units::{Time, Tokens};
use std::sync::Arc;

/// Prompts as they are written, and the calls that send them.
#[derive(Default)]
struct Script {
    tree: ContentBuilder,
    calls: Vec<(u64, Call)>,
}

impl Script {
    /// Appends new content to a prompt.
    fn grow(&mut self, at: NodeId, tokens: u64) -> NodeId {
        self.tree.opaque(at, Tokens(tokens)).unwrap()
    }

    /// Returns the prompt's first `tokens`.
    fn cut(&mut self, at: NodeId, tokens: u64) -> NodeId {
        self.tree.cut(at, Tokens(tokens)).unwrap()
    }

    /// Sends a prompt `at` a number of milliseconds; returns where its answer ends.
    fn call(&mut self, at: u64, prompt: NodeId, answer: u64) -> NodeId {
        let output = self.grow(prompt, answer);
        let id = self.calls.len() as u32;
        let call = Call {
            id: CallId(id),
            run: RunId(id),
            thread: ThreadId(id),
            prompt,
            prompt_tokens: self.tree.end(prompt),
            output,
            output_tokens: Tokens(answer),
            output_shared: true,
            realms: Realms::default(),
            seen: Tokens::ZERO,
            seen_computed: Tokens::ZERO,
            again: Tokens::ZERO,
            warm: Tokens::ZERO,
        };
        self.calls.push((at, call));
        output
    }

    /// Returns the replies in order of their calls, and every pass that was made.
    fn play<E: Engine>(self, engine: impl Fn(Arc<Content>) -> E) -> Played<E> {
        let content = Arc::new(self.tree.finish());
        let mut server = StepLoop::new(engine(content), cost()).noting();
        let mut replies: Vec<Reply> = Vec::new();
        let mut left = self.calls.iter().peekable();
        loop {
            let due = left.peek().map(|(at, _)| Time(at * 1_000_000));
            let now = match (due, server.next_event()) {
                (Some(due), Some(event)) => due.min(event),
                (Some(due), None) => due,
                (None, Some(event)) => event,
                (None, None) => break,
            };
            server.advance(now, &mut replies);
            while let Some((_, call)) = left.next_if(|(at, _)| Time(at * 1_000_000) <= now) {
                server.submit(now, *call);
            }
            server.check();
        }
        replies.sort_by_key(|reply| reply.call);
        let passes = server.take_passes();
        Played {
            replies,
            passes,
            server,
        }
    }
}

struct Played<E> {
    replies: Vec<Reply>,
    passes: Vec<(Graph, u64)>,
    server: StepLoop<E>,
}

impl<E> Played<E> {
    fn cached(&self) -> Vec<u64> {
        self.replies.iter().map(|reply| reply.cached.0).collect()
    }
}

/// A millisecond a pass and a microsecond a prompt token.
fn cost() -> StepCost {
    let coefficients = Coefficients {
        weights_s: 1e-3,
        experts_s: 0.0,
        row_s: 0.0,
        second_row_s: 0.0,
        kv_s: 0.0,
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s: 1e-6,
        half_tokens: 0.0,
        attention_s: 0.0,
        request_s: 0.0,
        matrix_s: 0.0,
        vector_tokens: 0,
        expert_share: 0.0,
        overlap: 1.0,
        link_token_s: 0.0,
        intake_token_s: 0.0,
    };
    StepCost::new(coefficients, Vec::new())
}

/// No tier behind the tree.
const NO_TIER: Offload = Offload {
    blocks: 0,
    latency: Fine::ZERO,
    block_time: Fine::ZERO,
    compute_time: Fine::ZERO,
    chunk: 0,
    blocking: false,
    disk_blocks: 0,
    disk_latency: Fine::ZERO,
    disk_block_time: Fine::ZERO,
};

const SGLANG: sglang::Settings = sglang::Settings {
    page_size: 1,
    pages: 400_000,
    schedule_policy: sglang::Policy::Fcfs,
    chunked_prefill_size: Some(8192),
    max_prefill_tokens: 16384,
    enable_mixed_chunk: false,
    prefill_decode_interval: 0,
    max_running_requests: 2048,
    schedule_conservativeness: 1.0,
    overlap: true,
    context_length: 131_072,
    radix_cache: true,
    states: None,
    max_tokens: None,
    drafts: 0,
    offload: NO_TIER,
};

fn sglang(settings: sglang::Settings) -> impl Fn(Arc<Content>) -> sglang::Sglang {
    move |content| sglang::Sglang::new(settings, content)
}

const TRT: trt_llm::Settings = trt_llm::Settings {
    tokens_per_block: 32,
    blocks: 10_000,
    enable_block_reuse: true,
    enable_partial_reuse: true,
    guaranteed_no_evict: true,
    enable_chunked_prefill: false,
    max_num_tokens: 8192,
    max_batch_size: 2048,
    max_seq_len: 131_072,
    max_tokens: None,
    state_blocks: 0,
};

fn trt(settings: trt_llm::Settings) -> impl Fn(Arc<Content>) -> trt_llm::TrtLlm {
    move |content| trt_llm::TrtLlm::new(settings, content)
}

fn mlx(trims: bool) -> mlx_lm::Settings {
    mlx_lm::Settings {
        decode_concurrency: 32,
        prompt_concurrency: 8,
        prefill_step_size: 2048,
        polls: true,
        cache: mlx_lm::Cache::Sequences(Rules {
            count: 10,
            bytes: None,
            trims,
        }),
        context: None,
        room_bytes: 1 << 40,
        kv_bytes: 1000,
        state_bytes: 0,
    }
}

const LM_STUDIO: mlx_lm::Settings = mlx_lm::Settings {
    decode_concurrency: 4,
    prompt_concurrency: 1,
    prefill_step_size: 2048,
    polls: false,
    cache: mlx_lm::Cache::Chunks(256),
    context: None,
    room_bytes: 1 << 40,
    kv_bytes: 1000,
    state_bytes: 0,
};

fn mlx_server(settings: mlx_lm::Settings) -> impl Fn(Arc<Content>) -> mlx_lm::MlxLm {
    move |content| mlx_lm::MlxLm::new(settings, content)
}

/// A prompt, an answer of 200 tokens, the verbatim continuation, and one that parts 30 tokens into the answer.
fn turns(prompt: u64, answer: u64, parts_at: u64) -> Script {
    let mut script = Script::default();
    let first = script.grow(ROOT, prompt);
    let answered = script.call(0, first, answer);
    let parted = script.cut(answered, parts_at);
    let next = script.grow(answered, 50);
    script.call(60_000, next, 5);
    let changed = script.grow(parted, 90);
    script.call(120_000, changed, 5);
    script
}

#[test]
fn the_turn_table_holds() {
    let check = |name: &str, cached: Vec<u64>, expected: [u64; 2]| {
        assert_eq!(
            cached[1..],
            expected,
            "{name}: verbatim, then parting at 1030"
        );
    };
    let turns = || turns(1000, 200, 1030);
    check(
        "SGLang",
        turns().play(sglang(SGLANG)).cached(),
        [1199, 1030],
    );
    let paged = sglang::Settings {
        page_size: 64,
        ..SGLANG
    };
    check(
        "SGLang, pages",
        turns().play(sglang(paged)).cached(),
        [1152, 1024],
    );
    let hybrid = mlx_server(mlx(false));
    // What the person said ends four tokens before the first prompt does.
    check("mlx-lm, hybrid", turns().play(hybrid).cached(), [1199, 996]);
    check(
        "mlx-lm",
        turns().play(mlx_server(mlx(true))).cached(),
        [1199, 1030],
    );
    check(
        "LM Studio",
        turns().play(mlx_server(LM_STUDIO)).cached(),
        [1024, 1024],
    );
    check(
        "TensorRT-LLM",
        turns().play(trt(TRT)).cached(),
        [1199, 1030],
    );
    let whole = trt_llm::Settings {
        enable_partial_reuse: false,
        ..TRT
    };
    check(
        "TensorRT-LLM, whole blocks",
        turns().play(trt(whole)).cached(),
        [1184, 1024],
    );
}

#[test]
fn mlx_goes_on_from_a_longer_entry() {
    let mut script = Script::default();
    let prompt = script.grow(ROOT, 3000);
    script.call(0, prompt, 20);
    script.call(20_000, prompt, 20);
    assert_eq!(script.play(mlx_server(mlx(true))).cached(), [0, 2999]);
}

#[test]
fn an_eleventh_conversation_evicts_one_of_ten_in_mlx() {
    let mut script = Script::default();
    let prompts: Vec<NodeId> = (0..11).map(|_| script.grow(ROOT, 500)).collect();
    for (turn, &prompt) in prompts.iter().chain(&prompts[..1]).enumerate() {
        script.call(10_000 * turn as u64, prompt, 20);
    }
    let cached = script.play(mlx_server(mlx(true))).cached();
    assert_eq!(cached[11], 0, "the first was evicted by the eleventh");
    let mut script = Script::default();
    let prompts: Vec<NodeId> = (0..5).map(|_| script.grow(ROOT, 500)).collect();
    for (turn, &prompt) in prompts.iter().chain(&prompts[..1]).enumerate() {
        script.call(10_000 * turn as u64, prompt, 20);
    }
    assert_eq!(script.play(mlx_server(mlx(true))).cached()[5], 499);
}

#[test]
fn mlx_looks_for_requests_every_half_second_under_load() {
    let mut script = Script::default();
    let busy = script.grow(ROOT, 100);
    script.call(0, busy, 3000);
    let late = script.grow(ROOT, 100);
    script.call(700, late, 10);
    let played = script.play(mlx_server(mlx(true)));
    let admitted = played.replies[1].admitted.unwrap();
    let ms = admitted.0 / 1_000_000;
    assert!((1000..1003).contains(&ms), "looked at {ms} ms");
}

#[test]
fn mlx_stalls_answers_by_one_piece_of_a_prompt() {
    let mut script = Script::default();
    let busy = script.grow(ROOT, 100);
    script.call(0, busy, 3000);
    let late = script.grow(ROOT, 2048 * 4 + 1);
    script.call(700, late, 10);
    let played = script.play(mlx_server(mlx(true)));
    let reads = |(graph, _): &(Graph, u64)| graph.chunks.iter().any(|chunk| chunk.tokens == 2048);
    let at: Vec<usize> = (0..played.passes.len())
        .filter(|&index| reads(&played.passes[index]))
        .collect();
    assert_eq!(at.len(), 4);
    for piece in at {
        let (before, times) = &played.passes[piece - 1];
        assert_eq!(
            (before.rows, *times),
            (1, 1),
            "a decode step before each piece"
        );
    }
}

#[test]
fn lm_studio_lets_four_write_and_finds_chunks_of_256() {
    let mut script = Script::default();
    for _ in 0..5 {
        let prompt = script.grow(ROOT, 300);
        script.call(0, prompt, 400);
    }
    let played = script.play(mlx_server(LM_STUDIO));
    let most = played.passes.iter().map(|(graph, _)| graph.rows).max();
    assert_eq!(most, Some(4));
    let first = played.replies[..4].iter().map(|reply| reply.finished).min();
    assert!(played.replies[4].admitted >= first, "the fifth waits");
}

fn ollama(parallel: u64, queue: u64) -> impl Fn(Arc<Content>) -> Limited<llama_cpp::LlamaCpp> {
    let settings = llama_cpp::Settings {
        parallel,
        slot_context: 32_768,
        pool: None,
        n_batch: 512,
        n_ubatch: 512,
        cache_prompt: true,
        slot_prompt_similarity: 0.1,
        cache_ram: Some(8 << 30),
        cache_ram_keeps_one: false,
        cache_idle_slots: true,
        rolls_back: true,
        ctx_checkpoints: 32,
        checkpoint_every: None,
        kv_bytes: 1000,
        state_bytes: 0,
        host_bytes_per_sec: 1e10,
        split_over_two: false,
        drafts: 0,
    };
    move |content| {
        let server = llama_cpp::LlamaCpp::new(settings, content);
        Limited::new(server, parallel + queue)
    }
}

#[test]
fn ollama_serves_one_by_one_unless_told_otherwise() {
    let script = || {
        let mut script = Script::default();
        for _ in 0..2 {
            let prompt = script.grow(ROOT, 400);
            script.call(0, prompt, 50);
        }
        script
    };
    let rows = |played: Played<_>| played.passes.iter().map(|(graph, _)| graph.rows).max();
    assert_eq!(rows(script().play(ollama(1, 512))), Some(1));
    assert_eq!(rows(script().play(ollama(2, 512))), Some(2));
}

#[test]
fn ollama_stalls_neighbours_in_pieces_of_512() {
    let mut script = Script::default();
    let busy = script.grow(ROOT, 100);
    script.call(0, busy, 500);
    let late = script.grow(ROOT, 511 * 8);
    script.call(50, late, 5);
    let played = script.play(ollama(2, 512));
    let reads = |(graph, _): &&(Graph, u64)| graph.chunks.iter().any(|chunk| chunk.tokens > 200);
    assert_eq!(played.passes.iter().filter(reads).count(), 8);
}

#[test]
fn ollama_turns_away_what_its_queue_cannot_hold() {
    let mut script = Script::default();
    for _ in 0..5 {
        let prompt = script.grow(ROOT, 100);
        script.call(0, prompt, 10);
    }
    let played = script.play(ollama(1, 3));
    let busy = played
        .replies
        .iter()
        .filter(|reply| reply.outcome == Outcome::Unavailable);
    assert_eq!(busy.count(), 1);
}

/// How many of eight requests are admitted at once.
fn together(settings: trt_llm::Settings) -> usize {
    let mut script = Script::default();
    for _ in 0..8 {
        let prompt = script.grow(ROOT, 640);
        script.call(0, prompt, 100);
    }
    let played = script.play(trt(settings));
    let at_once = |reply: &&Reply| reply.parts.queue.0 == 0;
    played.replies.iter().filter(at_once).count()
}

#[test]
fn trt_llm_admits_what_can_surely_end() {
    let settings = |max_tokens| trt_llm::Settings {
        blocks: 320,
        max_tokens: Some(max_tokens),
        ..TRT
    };
    // 20 blocks of prompt and 20 of answer fit eight times; with twice the allowance 60 fit five times.
    assert_eq!(together(settings(640)), 8);
    assert_eq!(together(settings(1280)), 5);
    assert_eq!(together(settings(1920)), 4);
    let over = trt_llm::Settings {
        guaranteed_no_evict: false,
        ..settings(1920)
    };
    assert_eq!(together(over), 8);
}

#[test]
fn trt_llm_pauses_the_last_one_when_it_admits_too_many() {
    let mut script = Script::default();
    for _ in 0..4 {
        let prompt = script.grow(ROOT, 640);
        script.call(0, prompt, 640);
    }
    let settings = trt_llm::Settings {
        blocks: 120,
        guaranteed_no_evict: false,
        ..TRT
    };
    let played = script.play(trt(settings));
    assert!(played.server.engine().pauses() > 0);
    let queued = |reply: &Reply| reply.parts.queue;
    assert_eq!(queued(&played.replies[0]).0, 0);
    assert!(queued(&played.replies[3]).0 > 0);
}

#[test]
fn trt_llm_copies_the_beginning_of_a_block() {
    let mut script = Script::default();
    let shared = script.grow(ROOT, 1000);
    for at in [0, 10_000] {
        let prompt = script.grow(shared, 500);
        script.call(at, prompt, 10);
    }
    assert_eq!(script.play(trt(TRT)).cached(), [0, 1000], "more than 992");
}

#[test]
fn trt_llm_reads_prompts_whole_unless_it_may_cut_them() {
    let script = || {
        let mut script = Script::default();
        let prompt = script.grow(ROOT, 10_000);
        script.call(0, prompt, 10);
        script
    };
    let whole = script().play(trt(TRT));
    assert_eq!(whole.replies[0].outcome, Outcome::RefusedContext);
    let cuts = trt_llm::Settings {
        enable_chunked_prefill: true,
        ..TRT
    };
    let cut = script().play(trt(cuts));
    assert_eq!(cut.replies[0].outcome, Outcome::Ok);
    assert_eq!(cut.passes[0].0.chunks[0].tokens, 8192);
}

#[test]
fn every_engine_of_the_catalogue_makes_a_rig() {
    let catalog = Catalog::builtin();
    let content = Arc::new(ContentBuilder::default().finish());
    let check = |rig: &str, key: &str, expected: &str| {
        let rig = rig::build(rig, &[], &catalog, &content).unwrap();
        let found = rig.point.settings.get(key).map(String::as_str);
        assert_eq!(found, Some(expected), "{}", rig.point.name);
    };
    check(
        "h100/sglang/llama-3.1-8b-bf16",
        "engine.chunked_prefill_size",
        "8192",
    );
    check(
        "h100/trt-llm/llama-3.1-8b-bf16",
        "engine.tokens_per_block",
        "32",
    );
    check(
        "m4-max/mlx-lm/llama-3.1-8b-mlx-4bit",
        "engine.prompt_concurrency",
        "8",
    );
    check(
        "m4-max/lm-studio/llama-3.1-8b-mlx-4bit",
        "engine.max_concurrent_predictions",
        "4",
    );
    check(
        "rtx-4090/lm-studio/llama-3.1-8b-q4_k_m",
        "engine.parallel",
        "4",
    );
    check(
        "rtx-4090/ollama/llama-3.1-8b-q4_k_m",
        "engine.slot_context",
        "32768",
    );
    let two = [("engine.num_parallel".to_string(), "2".to_string())];
    for (model, parallel) in [("llama-3.1-8b-q4_k_m", "2"), ("qwen3.6-27b-q8_0", "1")] {
        let name = format!("dgx-spark/ollama/{model}");
        let rig = rig::build(&name, &two, &catalog, &content).unwrap();
        assert_eq!(rig.point.settings["engine.parallel"], parallel, "{name}");
    }
    let elsewhere = rig::build(
        "h100/lm-studio/llama-3.1-8b-mlx-4bit",
        &[],
        &catalog,
        &content,
    );
    assert!(elsewhere.is_err(), "MLX runs on Apple's machines only");
}
