//! What a replay costs: laps of long prompts, thrashing caches, decode runs, and the block pool by itself.
//!
//! `cargo bench` prints times for each; the first group should not change from one line to the next, because a lap
//! costs what is new in it and not what its prompt holds.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laptime::agent::Conduct;
use laptime::call::{Call, Realms};
use laptime::event::Event;
use laptime::fleet::{Fleet, Plan, Share};
use laptime::ids::{CallId, NodeId, RunId, ThreadId};
use laptime::rig::cost::{Coefficients, StepCost};
use laptime::rig::engine::vllm::{Settings, Vllm};
use laptime::rig::kv::blocks::BlockPool;
use laptime::rig::kv::pool::Pool;
use laptime::rig::step::StepLoop;
use laptime::sim;
use laptime::trace::content::{Content, ContentBuilder, ROOT};
use laptime::trace::{Gap, Join, Recorded, Session, Step, Thread, Trace};
use laptime::units::Tokens;
use std::hint::black_box;
use std::sync::Arc;

const BLOCK: u64 = 16;

/// Returns sessions of `laps` steps: a first prompt of `first` tokens that grows by `growth` after each answer.
fn sessions(count: u32, laps: u32, first: u64, growth: u64, output: u64) -> Trace {
    let mut tree = ContentBuilder::default();
    let grow = |tree: &mut ContentBuilder, at, len| {
        tree.opaque(at, Tokens(len))
            .expect("prompts are short enough")
    };
    let mut sessions = Vec::new();
    for _ in 0..count {
        let mut prompt = grow(&mut tree, ROOT, first);
        let mut steps = Vec::new();
        for lap in 0..laps {
            let prompt_tokens = tree.end(prompt);
            let answer = grow(&mut tree, prompt, output);
            let seen = if lap == 0 {
                0
            } else {
                prompt_tokens.0 - growth
            };
            steps.push(Step {
                prompt,
                prompt_tokens,
                output: answer,
                output_tokens: Tokens(output),
                seen: Tokens(seen),
                seen_computed: Tokens(seen.saturating_sub(1)),
                again: Tokens::ZERO,
                reasoning: None,
                break_estimated: false,
                gap: Gap::default(),
                recorded: Recorded::default(),
            });
            prompt = grow(&mut tree, answer, growth);
        }
        let id = "main".into();
        let threads = vec![Thread {
            id,
            join: Join::Blocking,
            steps,
        }];
        sessions.push(Session {
            id: "session".into(),
            arrival: None,
            resumed: false,
            model: None,
            threads,
        });
    }
    Trace {
        sources: Vec::new(),
        skipped: Vec::new(),
        sessions,
        content: Arc::new(tree.finish()),
    }
}

fn engine(content: &Arc<Content>, tokens: u64) -> StepLoop<Vllm> {
    let settings = Settings {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        long_prefill_token_threshold: 0,
        block_size: BLOCK,
        num_gpu_blocks: 1 + tokens / BLOCK,
        max_model_len: 1 << 20,
        enable_prefix_caching: true,
        enable_chunked_prefill: true,
        scheduler_reserve_full_isl: true,
        async_scheduling: true,
        state_blocks: 0,
        offload: laptime::rig::engine::vllm::Offload::default(),
        drafts: 0,
        drops_last_block: false,
    };
    let coefficients = Coefficients {
        weights_s: 0.014,
        experts_s: 0.0,
        row_s: 0.000_3,
        second_row_s: 0.001,
        kv_s: 4e-8,
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s: 1.9e-4,
        half_tokens: 96.0,
        attention_s: 1.7e-9,
        request_s: 0.0,
        matrix_s: 0.0,
        vector_tokens: 0,
        expert_share: 0.0,
        overlap: 1.0,
        link_token_s: 0.0,
        intake_token_s: 0.0,
    };
    let engine = <Vllm>::new(settings, Arc::clone(content));
    StepLoop::new(
        engine,
        StepCost::new(coefficients, vec![1, 2, 4, 8, 16, 24, 32]),
    )
}

fn replay(trace: &Trace, agents: u32, mut backend: StepLoop<Vllm>) -> usize {
    let plan = Plan {
        agents,
        runs: None,
        share: Share::Head,
        conduct: Conduct::default(),
    };
    let mut events: Vec<Event> = Vec::new();
    sim::run(&mut Fleet::new(trace, plan), &mut backend, &mut events);
    events.len()
}

fn laps_of_long_prompts(c: &mut Criterion) {
    let mut group = c.benchmark_group("one session of 200 laps, by its first prompt");
    for first in [50_000, 100_000, 200_000, 400_000] {
        let trace = sessions(1, 200, first, 1_000, 300);
        group.throughput(Throughput::Elements(200));
        group.bench_with_input(BenchmarkId::from_parameter(first), &trace, |b, trace| {
            b.iter(|| replay(trace, 1, engine(&trace.content, 2_000_000)));
        });
    }
    group.finish();
}

fn thrashing_cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 agents of 100 laps");
    let trace = sessions(16, 100, 40_000, 500, 300);
    group.throughput(Throughput::Elements(1_600));
    // All fit; half of them do.
    for tokens in [4_000_000, 700_000] {
        group.bench_with_input(
            BenchmarkId::from_parameter(tokens),
            &tokens,
            |b, &tokens| {
                b.iter(|| replay(&trace, 16, engine(&trace.content, tokens)));
            },
        );
    }
    group.finish();
}

fn decode_runs(c: &mut Criterion) {
    let mut group = c.benchmark_group("8 agents writing 2,000 tokens in each of 10 laps");
    let trace = sessions(8, 10, 10_000, 100, 2_000);
    group.throughput(Throughput::Elements(8 * 10 * 2_000));
    group.bench_function("in runs", |b| {
        b.iter(|| replay(&trace, 8, engine(&trace.content, 1_000_000)));
    });
    group.bench_function("step by step", |b| {
        b.iter(|| replay(&trace, 8, engine(&trace.content, 1_000_000).walking()));
    });
    group.finish();
}

fn block_pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("a prompt taken from the pool and given back, by its length");
    for tokens in [10_000, 100_000, 1_000_000] {
        let mut tree = ContentBuilder::default();
        let prompt = tree
            .opaque(ROOT, Tokens(tokens))
            .expect("it is short enough");
        let content = tree.finish();
        let call = call(prompt, tokens);
        let mut pool = BlockPool::new(2 * tokens / BLOCK, true, 0);
        let path = BlockPool::path(&call, &content, BLOCK);
        group.bench_with_input(BenchmarkId::from_parameter(tokens), &path, |b, path| {
            b.iter(|| {
                let (hit, _) = pool.look_up(path, u64::MAX);
                let mut holding = pool.take_hit(path, hit);
                pool.grow(&mut holding, tokens / BLOCK);
                pool.register(path, &mut holding, tokens / BLOCK);
                pool.release(path, black_box(holding));
            });
        });
    }
    group.finish();
}

fn call(prompt: NodeId, tokens: u64) -> Call {
    Call {
        id: CallId(0),
        run: RunId(0),
        thread: ThreadId(0),
        prompt,
        prompt_tokens: Tokens(tokens),
        output: prompt,
        output_tokens: Tokens::ZERO,
        output_shared: true,
        realms: Realms::default(),
        seen: Tokens::ZERO,
        seen_computed: Tokens::ZERO,
        again: Tokens::ZERO,
        warm: Tokens::ZERO,
    }
}

criterion_group!(
    benches,
    laps_of_long_prompts,
    thrashing_cache,
    decode_runs,
    block_pool
);
criterion_main!(benches);
