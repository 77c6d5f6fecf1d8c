//! What real engines are known to do, checked on the simulated ones: the numbered predictions of the engine notes.

use laptime::call::{Call, Outcome, Realms, Reply};
use laptime::ids::{CallId, NodeId, RunId, ThreadId};
use laptime::rig::Backend;
use laptime::rig::cost::{Coefficients, Graph, StepCost};
use laptime::rig::engine::llama_cpp::{self, LlamaCpp};
use laptime::rig::engine::{Engine, vllm};
use laptime::rig::step::StepLoop;
use laptime::trace::content::{ContentBuilder, ROOT};
use laptime::units::{Span, Time, Tokens};
use std::sync::Arc;

/// Calls at moments, and the content they refer to.
#[derive(Default)]
pub(crate) struct Script {
    tree: ContentBuilder,
    calls: Vec<(Time, Call)>,
}

impl Script {
    /// Returns `len` tokens after `at` that equal nothing else.
    pub(crate) fn text(&mut self, at: NodeId, len: u64) -> NodeId {
        self.tree.opaque(at, Tokens(len)).unwrap()
    }

    /// Conversation `thread` asks with the prompt that ends in `prompt` and gets `output` tokens; returns their end.
    pub(crate) fn ask(&mut self, second: u64, thread: u32, prompt: NodeId, output: u64) -> NodeId {
        let end = self.text(prompt, output);
        let prompt_tokens = self.tree.end(prompt);
        let call = Call {
            id: CallId(self.calls.len() as u32),
            run: RunId(0),
            thread: ThreadId(thread),
            prompt,
            prompt_tokens,
            output: end,
            output_tokens: Tokens(output),
            output_shared: true,
            realms: Realms::default(),
            seen: Tokens::ZERO,
            seen_computed: Tokens::ZERO,
            again: Tokens::ZERO,
            warm: Tokens::ZERO,
        };
        self.calls.push((Time(second * 1_000_000_000), call));
        end
    }

    pub(crate) fn last(&mut self) -> &mut Call {
        &mut self.calls.last_mut().expect("a call was made").1
    }

    pub(crate) fn on_vllm(self, settings: vllm::Settings) -> Served<vllm::Vllm> {
        serve(
            self.calls,
            cost(),
            |content| vllm::Vllm::new(settings, content),
            self.tree,
        )
    }

    pub(crate) fn on_llama(self, settings: llama_cpp::Settings) -> Served<LlamaCpp> {
        serve(
            self.calls,
            cost(),
            |content| LlamaCpp::new(settings, content),
            self.tree,
        )
    }
}

pub(crate) struct Served<E> {
    pub(crate) replies: Vec<Reply>,
    pub(crate) backend: StepLoop<E>,
    pub(crate) passes: Vec<Graph>,
}

impl<E> Served<E> {
    pub(crate) fn cached(&self) -> Vec<u64> {
        self.replies.iter().map(|reply| reply.cached.0).collect()
    }
}

fn serve<E: Engine>(
    calls: Vec<(Time, Call)>,
    cost: StepCost,
    engine: impl Fn(Arc<laptime::trace::content::Content>) -> E,
    tree: ContentBuilder,
) -> Served<E> {
    let mut backend = StepLoop::new(engine(Arc::new(tree.finish())), cost)
        .walking()
        .noting();
    let mut calls = calls.into_iter().peekable();
    let mut replies = Vec::new();
    loop {
        let arrival = calls.peek().map(|&(at, _)| at);
        let event = backend.next_event();
        let Some(now) = arrival.into_iter().chain(event).min() else {
            break;
        };
        backend.advance(now, &mut replies);
        while let Some((_, call)) = calls.next_if(|&(at, _)| at == now) {
            backend.submit(now, call);
        }
    }
    backend.check();
    replies.sort_by_key(|reply| reply.call);
    let passes = backend
        .take_passes()
        .into_iter()
        .map(|(graph, _)| graph)
        .collect();
    Served {
        replies,
        backend,
        passes,
    }
}

pub(crate) fn cost() -> StepCost {
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
    StepCost::new(coefficients, vec![1, 2, 4, 8, 16, 24])
}

pub(crate) fn vllm() -> vllm::Settings {
    vllm::Settings {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        long_prefill_token_threshold: 0,
        block_size: 16,
        num_gpu_blocks: 100_000,
        max_model_len: 262_144,
        enable_prefix_caching: true,
        enable_chunked_prefill: true,
        scheduler_reserve_full_isl: true,
        async_scheduling: true,
        state_blocks: 0,
        offload: vllm::Offload::default(),
        drafts: 0,
        drops_last_block: false,
    }
}

/// Qwen3.6-27B in bf16: blocks of 784 tokens, three groups of recurrent layers.
pub(crate) fn hybrid() -> vllm::Settings {
    vllm::Settings {
        block_size: 784,
        num_gpu_blocks: 1_000,
        state_blocks: 3,
        ..vllm()
    }
}

pub(crate) fn llama() -> llama_cpp::Settings {
    llama_cpp::Settings {
        parallel: 4,
        slot_context: 262_144,
        pool: Some(262_144),
        n_batch: 2048,
        n_ubatch: 512,
        cache_prompt: true,
        slot_prompt_similarity: 0.1,
        cache_ram: Some(8192 << 20),
        cache_ram_keeps_one: false,
        cache_idle_slots: true,
        rolls_back: true,
        ctx_checkpoints: 32,
        checkpoint_every: None,
        kv_bytes: 65_536,
        state_bytes: 0,
        host_bytes_per_sec: 5e9,
        split_over_two: false,
        drafts: 0,
    }
}

fn llama_hybrid() -> llama_cpp::Settings {
    llama_cpp::Settings {
        rolls_back: false,
        state_bytes: 150 << 20,
        ..llama()
    }
}

#[test]
fn vllm_1_a_shared_prefix_is_found_in_whole_blocks() {
    let mut script = Script::default();
    let shared = script.text(ROOT, 1000);
    for thread in 0..2 {
        let prompt = script.text(shared, 500);
        script.ask(u64::from(thread) * 100, thread, prompt, 5);
    }
    assert_eq!(script.on_vllm(vllm()).cached(), [0, 992]);
}

#[test]
fn vllm_2_a_prompt_sent_again_computes_at_least_one_token() {
    for (tokens, cached) in [(1008, 992), (1009, 1008), (1, 0), (16, 0), (17, 16)] {
        let mut script = Script::default();
        let prompt = script.text(ROOT, tokens);
        script.ask(0, 0, prompt, 5);
        script.ask(100, 1, prompt, 5);
        assert_eq!(script.on_vllm(vllm()).cached(), [0, cached], "{tokens}");
    }
}

#[test]
fn vllm_3_the_last_token_of_an_answer_was_never_computed() {
    for (output, cached) in [(200, 1184), (201, 1200), (0, 992)] {
        let mut script = Script::default();
        let prompt = script.text(ROOT, 1000);
        let answer = script.ask(0, 0, prompt, output);
        let next = script.text(answer, 300);
        script.ask(100, 0, next, 5);
        assert_eq!(script.on_vllm(vllm()).cached(), [0, cached], "{output}");
    }
}

/// Two equal prompts that come in while somebody decodes, on an engine that admits both in one step.
fn twins(settings: vllm::Settings) -> Served<vllm::Vllm> {
    let mut script = Script::default();
    let other = script.text(ROOT, 10);
    script.ask(0, 0, other, 500);
    let prompt = script.text(ROOT, 4000);
    script.ask(1, 1, prompt, 20);
    script.ask(1, 2, prompt, 20);
    script.on_vllm(vllm::Settings {
        async_scheduling: false,
        ..settings
    })
}

#[test]
fn vllm_4_a_twin_in_the_same_step_finds_what_is_being_computed() {
    let served = twins(vllm());
    assert_eq!(served.cached()[1..], [0, 3984]);
    assert_eq!(served.replies[1].admitted, served.replies[2].admitted);
    // A recurrent state is there one step later.
    let served = twins(hybrid());
    assert_eq!(served.cached()[1..], [0, 3920]);
    assert!(served.replies[1].admitted < served.replies[2].admitted);
}

#[test]
fn vllm_5_decodes_miss_no_step_while_a_long_prompt_is_read() {
    let mut script = Script::default();
    for thread in 0..20 {
        let prompt = script.text(ROOT, 10);
        script.ask(0, thread, prompt, 200);
    }
    let long = script.text(ROOT, 20_000);
    script.ask(2, 20, long, 5);
    let served = script.on_vllm(vllm());
    let mixed = served
        .passes
        .iter()
        .filter(|pass| !pass.chunks.is_empty() && pass.rows > 1);
    let chunks: Vec<(u64, u64)> = mixed
        .map(|pass| (pass.rows, pass.chunks[0].tokens))
        .collect();
    assert_eq!(chunks, [(20, 8172), (20, 8172), (20, 3656)]);
}

#[test]
fn vllm_6_the_last_admitted_is_preempted_and_read_again() {
    let mut script = Script::default();
    for thread in 0..2 {
        let prompt = script.text(ROOT, 320);
        script.ask(u64::from(thread), thread, prompt, 200);
    }
    // Room for both prompts and some of their answers: 60 blocks.
    let served = script.on_vllm(vllm::Settings {
        num_gpu_blocks: 61,
        ..vllm()
    });
    assert_eq!(served.backend.engine().preemptions(), 1);
    let [first, second] = &served.replies[..] else {
        unreachable!()
    };
    assert!(first.finished < second.finished);
    assert_eq!(first.parts.reread_evicted, Span::ZERO);
    assert!(second.parts.reread_evicted > Span::ZERO && second.parts.queue > Span::ZERO);
    assert_eq!((second.cached, second.output), (Tokens(0), Tokens(200)));
}

#[test]
fn vllm_7_a_hybrid_resumes_at_the_last_block_before_a_prompts_end() {
    for (tokens, cached) in [(5000, 4704), (700, 0), (784, 0), (785, 784)] {
        let mut script = Script::default();
        let prompt = script.text(ROOT, tokens);
        let answer = script.ask(0, 0, prompt, 900);
        script.ask(100, 1, prompt, 5);
        // The boundary inside the answer is not retained.
        let next = script.text(answer, 100);
        script.ask(200, 0, next, 5);
        assert_eq!(
            script.on_vllm(hybrid()).cached(),
            [0, cached, cached],
            "{tokens}"
        );
    }
}

#[test]
fn vllm_third_request_sharing_a_system_prompt_finds_the_junction() {
    let mut script = Script::default();
    let system = script.text(ROOT, 3000);
    for thread in 0..3 {
        let prompt = script.text(system, 2000);
        script.ask(u64::from(thread) * 100, thread, prompt, 5);
    }
    assert_eq!(script.on_vllm(hybrid()).cached(), [0, 0, 2352]);
}

#[test]
fn vllm_8_a_batch_costs_as_much_as_the_next_captured_one() {
    let time = |rows: u64| {
        let mut graph = Graph::default();
        (0..rows).for_each(|_| graph.add_row(1000));
        cost().step(&[graph]).secs() - rows as f64 * 1000.0 * 4e-8
    };
    let fixed: Vec<f64> = (5..=9).map(time).collect();
    // Only what is computed for each row differs within a graph's size.
    assert!((fixed[3] - fixed[0]).abs() < 2e-4, "{fixed:?}");
    assert!(fixed[4] - fixed[3] > 8.0 * 0.000_3, "{fixed:?}");
}

#[test]
fn vllm_10_salted_prompts_share_nothing() {
    let mut script = Script::default();
    let prompt = script.text(ROOT, 4000);
    for salt in 0..2 {
        script.ask(u64::from(salt) * 100, salt, prompt, 5);
        script.last().realms = Realms {
            head: salt,
            private: salt,
        };
    }
    assert_eq!(script.on_vllm(vllm()).cached(), [0, 0]);
}

#[test]
fn vllm_a_warm_start_holds_whole_blocks() {
    let mut script = Script::default();
    let prompt = script.text(ROOT, 4000);
    script.ask(0, 0, prompt, 5);
    script.last().warm = Tokens(3_000);
    assert_eq!(script.on_vllm(vllm()).cached(), [2992]);
}

#[test]
fn llama_1_a_kept_answer_is_reused_but_for_its_last_token() {
    let mut script = Script::default();
    let first = script.text(ROOT, 378);
    let answer = script.ask(0, 0, first, 26);
    let second = script.text(answer, 384);
    let answer = script.ask(100, 0, second, 38);
    let third = script.text(answer, 10);
    script.ask(200, 0, third, 5);
    assert_eq!(script.on_llama(llama()).cached(), [0, 403, 825]);
}

#[test]
fn llama_2_a_prompt_sent_again_computes_its_end() {
    for (settings, cached) in [(llama(), 999), (llama_hybrid(), 996)] {
        let mut script = Script::default();
        let prompt = script.text(ROOT, 1000);
        script.ask(0, 0, prompt, 5);
        script.ask(100, 0, prompt, 5);
        assert_eq!(script.on_llama(settings).cached(), [0, cached]);
    }
}

#[test]
fn llama_4_a_hybrid_goes_back_to_a_checkpoint_where_reasoning_is_dropped() {
    let mut script = Script::default();
    let user = script.text(ROOT, 5000);
    script.ask(0, 0, user, 300);
    // The answer comes back without its reasoning.
    let next = script.text(user, 900);
    let answer = script.ask(100, 0, next, 300);
    // A new user message drops all of the turn but its first user message, and an edit of that leaves nothing.
    let turn = script.text(answer, 50);
    script.ask(200, 0, turn, 10);
    let again = script.text(user, 400);
    script.ask(300, 0, again, 10);
    let edited = script.tree.cut(user, Tokens(4000)).unwrap();
    let edited = script.text(edited, 2000);
    script.ask(400, 0, edited, 10);
    assert_eq!(
        script.on_llama(llama_hybrid()).cached(),
        [0, 4996, 6199, 4996, 0]
    );
}

#[test]
fn llama_5_prompts_are_read_strictly_in_slot_order() {
    let mut script = Script::default();
    for thread in 0..2 {
        let prompt = script.text(ROOT, 10_000);
        script.ask(0, thread, prompt, 2);
    }
    let served = script.on_llama(llama());
    // The first request takes the highest slot, so the second's prompt comes first.
    let [first, second] = &served.replies[..] else {
        unreachable!()
    };
    assert!(second.first_token < first.first_token);
    // They share one batch of five.
    assert!(first.parts.contention.secs() > 0.75 * second.parts.prefill_new.secs());
    assert_eq!(second.parts.queue + first.parts.queue, Span::ZERO);
}

#[test]
fn llama_6_a_generating_slot_gets_one_token_for_each_batch_of_a_prompt() {
    let mut script = Script::default();
    let short = script.text(ROOT, 10);
    script.ask(0, 0, short, 500);
    let long = script.text(ROOT, 10_000);
    script.ask(1, 1, long, 2);
    let served = script.on_llama(llama());
    let mixed = served
        .passes
        .iter()
        .filter(|pass| !pass.chunks.is_empty() && pass.rows == 1);
    assert_eq!(mixed.count() as u64, 10_000_u64.div_ceil(2048 - 1));
}

/// Two sessions of 100,000 tokens in turn; returns what the first finds when it comes back.
fn alternating(settings: llama_cpp::Settings) -> u64 {
    let mut script = Script::default();
    let one = script.text(ROOT, 100_000);
    let answer = script.ask(0, 0, one, 100);
    let other = script.text(ROOT, 100_000);
    script.ask(10_000, 1, other, 100);
    let next = script.text(answer, 500);
    script.ask(20_000, 0, next, 100);
    script.on_llama(settings).cached()[2]
}

#[test]
fn llama_7_alternating_sessions_live_or_die_by_the_host_cache() {
    // 6.1 GiB of keys and values and two checkpoints: within 8 GiB once, above 4 GiB.
    assert_eq!(alternating(llama_hybrid()), 100_099);
    let small = llama_cpp::Settings {
        cache_ram: Some(4096 << 20),
        ..llama_hybrid()
    };
    assert_eq!(alternating(small), 0);
    let may = llama_cpp::Settings {
        cache_ram_keeps_one: true,
        ..small
    };
    assert_eq!(alternating(may), 100_099);
    let unlimited = llama_cpp::Settings {
        cache_ram: None,
        ..small
    };
    assert_eq!(alternating(unlimited), 100_099);
    let split = llama_cpp::Settings {
        pool: None,
        slot_context: 131_072,
        ..small
    };
    assert_eq!(alternating(split), 100_099);
}

#[test]
fn llama_8_split_slots_refuse_what_a_shared_pool_accepts() {
    let outcome = |settings| {
        let mut script = Script::default();
        let prompt = script.text(ROOT, 20_000);
        script.ask(0, 0, prompt, 5);
        script.on_llama(settings).replies[0].outcome
    };
    let shared = llama_cpp::Settings {
        slot_context: 65_536,
        pool: Some(65_536),
        ..llama()
    };
    let split = llama_cpp::Settings {
        slot_context: 16_384,
        pool: None,
        ..llama()
    };
    assert_eq!(outcome(shared), Outcome::Ok);
    assert_eq!(outcome(split), Outcome::RefusedContext);
}

#[test]
fn llama_9_a_sub_agent_takes_its_parents_slot_and_the_parent_comes_back_from_host_memory() {
    let mut script = Script::default();
    let system = script.text(ROOT, 3_000);
    let parent = script.text(system, 40_000);
    let answer = script.ask(0, 0, parent, 10);
    let child = script.text(system, 17_000);
    script.ask(100, 1, child, 10);
    let next = script.text(answer, 100);
    script.ask(200, 0, next, 10);
    let served = script.on_llama(llama());
    assert_eq!(served.cached(), [0, 3_000, 43_009]);
    assert!(served.replies[2].parts.kv_transfer > Span::ZERO);
}

#[test]
fn llama_10_idle_sessions_in_a_shared_pool_slow_everybody() {
    let decode = |settings| {
        let mut script = Script::default();
        for thread in 0..3 {
            let prompt = script.text(ROOT, 50_000);
            script.ask(u64::from(thread) * 1000, thread, prompt, 5);
        }
        let prompt = script.text(ROOT, 1000);
        script.ask(9000, 4, prompt, 100);
        let reply = script.on_llama(settings).replies[3];
        assert_eq!(reply.parts.contention, Span::ZERO);
        reply.parts.decode
    };
    let resident = llama_cpp::Settings {
        cache_idle_slots: false,
        ..llama()
    };
    assert!(decode(resident).secs() > 1.3 * decode(llama()).secs());
}

#[test]
fn llama_a_full_pool_wipes_idle_slots_then_fails_everybody() {
    let settings = |pool| llama_cpp::Settings {
        slot_context: pool,
        pool: Some(pool),
        cache_idle_slots: false,
        cache_ram: Some(0),
        ..llama()
    };
    let run = |pool| {
        let mut script = Script::default();
        let idle = script.text(ROOT, 4_000);
        let answer = script.ask(0, 0, idle, 10);
        for thread in 1..3 {
            let prompt = script.text(ROOT, 3_000);
            script.ask(100, thread, prompt, 400);
        }
        let next = script.text(answer, 10);
        script.ask(200, 0, next, 10);
        script.on_llama(settings(pool))
    };
    let roomy = run(20_000);
    assert_eq!(roomy.cached(), [0, 0, 0, 4_009]);
    // Without the idle session there is room for both.
    let tight = run(7_000);
    assert!(
        tight
            .replies
            .iter()
            .all(|reply| reply.outcome == Outcome::Ok)
    );
    assert_eq!(tight.cached(), [0, 0, 0, 0]);
    let full = run(6_200);
    let outcomes: Vec<Outcome> = full.replies.iter().map(|reply| reply.outcome).collect();
    let lost = Outcome::RefusedMemory;
    assert_eq!(outcomes, [Outcome::Ok, lost, lost, Outcome::Ok]);
    assert_eq!(full.replies[1].finished, full.replies[2].finished);
}
