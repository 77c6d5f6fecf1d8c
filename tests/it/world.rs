//! Random worlds: from a seed to a trace, a rig and a plan, small enough to be replayed thousands of times.
//!
//! Everything odd that recordings and rigs can be is made likely here: empty and one-token prompts and answers, dropped
//! answers, compaction, forks, sub-agents of all kinds, pools that hold one prompt, budgets of a few tokens, and waits
//! that end exactly when a step does.

use crate::rigs;
use laptime::agent::{Conduct, History, OnRefusal, Pace, Retries};
use laptime::event::Event;
use laptime::fleet::{Fleet, Plan, Share};
use laptime::rig::cost::{Coefficients, Speculation, StepCost};
use laptime::rig::engine::limited::Limited;
use laptime::rig::engine::{Engine, llama_cpp, mlx_lm, sglang, trt_llm, vllm};
use laptime::rig::kv::blocks::BlockPool;
use laptime::rig::kv::pool::Pool;
use laptime::rig::step::StepLoop;
use laptime::rng::{Stream, stream};
use laptime::sim;
use laptime::trace::compile::Compiler;
use laptime::trace::content::Content;
use laptime::trace::record::{
    AgentRecord, GapRecord, OutputRecord, Piece, PromptEdit, Record, Segment, SessionRecord,
    StepRecord,
};
use laptime::trace::{Source, Trace};
use laptime::units::Span;
use rand::Rng;
use std::sync::Arc;

/// A stream of choices.
pub(crate) struct Dice(Stream);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: &str) -> Dice {
        Dice(stream(seed, purpose, 0))
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    /// Returns a number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// An engine with its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settings {
    Vllm(vllm::Settings),
    Llama(llama_cpp::Settings),
    Ollama(llama_cpp::Settings, u64),
    Sglang(sglang::Settings),
    Mlx(mlx_lm::Settings),
    TrtLlm(trt_llm::Settings),
}

/// A trace, a rig and a plan.
pub(crate) struct World {
    pub(crate) trace: Trace,
    pub(crate) settings: Settings,
    pub(crate) coefficients: Coefficients,
    pub(crate) captured: Vec<u64>,
    pub(crate) speculation: Option<Speculation>,
    pub(crate) plan: Plan,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let trace = trace(&mut Dice::new(seed, "trace"));
        let mut dice = Dice::new(seed, "rig");
        let mut settings = settings(&mut dice, &trace);
        if let Settings::Vllm(vllm) = &mut settings {
            let states = vllm.state_blocks > 0;
            vllm.offload =
                rigs::offload(&mut Dice::new(seed, "offload"), vllm.num_gpu_blocks, states);
        }
        if let Settings::Sglang(sglang) = &mut settings {
            sglang.offload = rigs::offload(&mut Dice::new(seed, "offload"), sglang.pages, false);
            sglang.offload.blocking = true;
        }
        let speculation = rigs::speculation(&mut Dice::new(seed, "speculation"), &mut settings);
        let captured = match settings {
            Settings::Vllm(_) | Settings::Sglang(_) if dice.percent(50) => vec![1, 2, 4, 8],
            _ => Vec::new(),
        };
        World {
            coefficients: coefficients(&mut dice),
            captured,
            speculation,
            settings,
            plan: plan(&mut Dice::new(seed, "plan"), &trace),
            trace,
        }
    }

    /// Replays the world on its own rig, with runs of decode steps made in one go or walked.
    pub(crate) fn replay(&self, walking: bool) -> Vec<Event> {
        match self.settings {
            Settings::Vllm(settings) => self.replay_on(self.vllm::<BlockPool>(settings), walking),
            Settings::Llama(settings) => {
                let server = llama_cpp::LlamaCpp::new(settings, Arc::clone(&self.trace.content));
                self.replay_on(server, walking)
            }
            Settings::Ollama(settings, most) => {
                let server = llama_cpp::LlamaCpp::new(settings, Arc::clone(&self.trace.content));
                self.replay_on(Limited::new(server, most), walking)
            }
            Settings::Sglang(settings) => self.replay_on(self.sglang(settings), walking),
            Settings::Mlx(settings) => {
                let server = mlx_lm::MlxLm::new(settings, Arc::clone(&self.trace.content));
                self.replay_on(server, walking)
            }
            Settings::TrtLlm(settings) => self.replay_on(self.trt_llm(settings), walking),
        }
    }

    pub(crate) fn sglang(&self, settings: sglang::Settings) -> sglang::Sglang {
        sglang::Sglang::new(settings, Arc::clone(&self.trace.content))
    }

    pub(crate) fn trt_llm(&self, settings: trt_llm::Settings) -> trt_llm::TrtLlm {
        trt_llm::TrtLlm::new(settings, Arc::clone(&self.trace.content))
    }

    pub(crate) fn vllm<P: Pool>(&self, settings: vllm::Settings) -> vllm::Vllm<P> {
        vllm::Vllm::new(settings, Arc::clone(&self.trace.content))
    }

    pub(crate) fn replay_on<E: Engine>(&self, engine: E, walking: bool) -> Vec<Event> {
        self.replay_until_rest(engine, walking).0
    }

    /// Replays the world and also returns the engine as it is left.
    pub(crate) fn replay_until_rest<E: Engine>(
        &self,
        engine: E,
        walking: bool,
    ) -> (Vec<Event>, StepLoop<E>) {
        let mut cost = StepCost::new(self.coefficients, self.captured.clone());
        if let Some(speculation) = self.speculation {
            cost = cost.speculating(speculation);
        }
        let mut backend = StepLoop::new(engine, cost);
        if walking {
            backend = backend.walking();
        }
        let mut checked = Checked(backend);
        let mut fleet = Fleet::new(&self.trace, self.plan);
        let mut events = Vec::new();
        sim::run(&mut fleet, &mut checked, &mut events);
        (events, checked.0)
    }
}

/// A backend that checks its own accounts whenever it has moved.
struct Checked<E>(StepLoop<E>);

impl<E: Engine> laptime::rig::Backend for Checked<E> {
    fn submit(&mut self, now: laptime::units::Time, call: laptime::call::Call) {
        self.0.submit(now, call);
    }

    fn next_event(&mut self) -> Option<laptime::units::Time> {
        self.0.next_event()
    }

    fn advance(&mut self, now: laptime::units::Time, replies: &mut Vec<laptime::call::Reply>) {
        self.0.advance(now, replies);
        self.0.check();
    }
}

/// Returns the longest prompt and answer of a trace.
pub(crate) fn longest(trace: &Trace) -> u64 {
    let threads = trace.sessions.iter().flat_map(|session| &session.threads);
    let steps = threads.flat_map(|thread| &thread.steps);
    let length = |step: &laptime::trace::Step| step.prompt_tokens.0 + step.output_tokens.0;
    steps.map(length).max().expect("a trace has steps")
}

fn settings(dice: &mut Dice, trace: &Trace) -> Settings {
    match dice.below(100) {
        0..40 => Settings::Vllm(vllm_settings(dice, trace)),
        40..60 => Settings::Llama(llama_settings(dice, trace)),
        60..65 => {
            let llama = llama_settings(dice, trace);
            let (settings, most) = rigs::ollama_settings(dice, llama);
            Settings::Ollama(settings, most)
        }
        65..80 => Settings::Sglang(rigs::sglang_settings(dice, trace)),
        80..90 => Settings::Mlx(rigs::mlx_settings(dice, trace)),
        _ => Settings::TrtLlm(rigs::trt_settings(dice, trace)),
    }
}

fn vllm_settings(dice: &mut Dice, trace: &Trace) -> vllm::Settings {
    let hybrid = dice.percent(35);
    let block_size = if hybrid {
        dice.pick(&[4, 16, 50])
    } else {
        dice.pick(&[1, 2, 4, 16, 16])
    };
    let state_blocks = if hybrid { dice.between(1, 3) } else { 0 };
    let whole = longest(trace).div_ceil(block_size) + 4 * state_blocks + 1;
    let num_gpu_blocks = 1 + whole * dice.pick(&[5, 10, 10, 11, 13, 18, 25, 40, 400]) / 10;
    let least = if hybrid { block_size } else { 1 };
    vllm::Settings {
        max_num_seqs: dice.pick(&[1, 2, 3, 8, 256]),
        max_num_batched_tokens: dice.pick(&[2, 7, 33, 128, 512, 2048, 8192]).max(least),
        long_prefill_token_threshold: dice.pick(&[0, 0, 0, 5, 100]),
        block_size,
        num_gpu_blocks,
        max_model_len: dice.pick(&[
            u64::from(u32::MAX),
            longest(trace),
            longest(trace) * 3 / 4 + 1,
        ]),
        enable_prefix_caching: dice.percent(85),
        enable_chunked_prefill: dice.percent(85),
        scheduler_reserve_full_isl: dice.percent(70),
        async_scheduling: dice.percent(50),
        state_blocks,
        offload: vllm::Offload::default(),
        drafts: 0,
        drops_last_block: false,
    }
}

fn llama_settings(dice: &mut Dice, trace: &Trace) -> llama_cpp::Settings {
    let parallel = dice.pick(&[1, 2, 4]);
    let unified = dice.percent(50);
    let whole = longest(trace) * dice.pick(&[5, 10, 11, 15, 25, 40, 400]) / 10 + 1;
    let slot_context = if unified {
        whole
    } else {
        whole.div_ceil(parallel)
    };
    let n_batch = dice.pick(&[5, 64, 512, 2048]);
    let rolls_back = dice.percent(50);
    llama_cpp::Settings {
        parallel,
        slot_context,
        pool: unified.then_some(whole),
        n_batch,
        n_ubatch: dice.pick(&[4, 32, 512]).min(n_batch),
        cache_prompt: dice.percent(85),
        slot_prompt_similarity: dice.pick(&[0.0, 0.1, 0.5]),
        cache_ram: dice.pick(&[None, Some(0), Some(300_000), Some(1_000_000), Some(8 << 30)]),
        cache_ram_keeps_one: dice.percent(50),
        cache_idle_slots: dice.percent(60),
        rolls_back,
        ctx_checkpoints: dice.pick(&[0, 1, 3, 32]),
        checkpoint_every: dice.pick(&[None, Some(100), Some(8192)]),
        kv_bytes: 1_000,
        state_bytes: if rolls_back { 0 } else { 50_000 },
        host_bytes_per_sec: dice.pick(&[1e6, 1e9]),
        split_over_two: dice.percent(20),
        drafts: 0,
    }
}

pub(crate) fn coefficients(dice: &mut Dice) -> Coefficients {
    // Steps of whole milliseconds meet waits of whole milliseconds.
    let even = dice.percent(30);
    let some = |value: f64| if even { 0.0 } else { value };
    Coefficients {
        weights_s: if even { 0.002 } else { 0.001_234_567 },
        experts_s: some(dice.pick(&[0.0, 0.004])),
        row_s: some(0.000_01),
        second_row_s: some(0.000_1),
        kv_s: some(1.7e-7),
        kv_short_s: dice.percent(30).then_some(some(0.7e-7)),
        short_tokens: dice.pick(&[64, 1000]),
        kv_imbalance: dice.pick(&[0.0, 0.5, 1.0]),
        token_s: some(1.9e-5),
        half_tokens: dice.pick(&[0.0, 96.0]),
        attention_s: some(1.1e-9),
        request_s: some(dice.pick(&[0.0, 0.003])),
        matrix_s: dice.pick(&[0.0, 0.0, 0.004]),
        vector_tokens: dice.pick(&[0, 8]),
        expert_share: dice.pick(&[0.0, 0.05]),
        overlap: dice.pick(&[1.0, 0.5]),
        link_token_s: some(3.1e-7),
        intake_token_s: 0.0,
    }
}

fn plan(dice: &mut Dice, trace: &Trace) -> Plan {
    let sessions = trace.sessions.len() as u64;
    let conduct = Conduct {
        pace: dice.pick(&[Pace::Recorded, Pace::Tools, Pace::Tools, Pace::None]),
        pace_scale: dice.pick(&[1.0, 1.0, 2.0, 0.3]),
        idle_cap: dice.pick(&[Span::ZERO, Span(60_000_000_000), Span(1_000_000)]),
        on_refusal: dice.pick(&[OnRefusal::Continue, OnRefusal::Continue, OnRefusal::Stop]),
        history: dice.pick(&[
            History::Said,
            History::Said,
            History::Said,
            History::Recorded,
        ]),
        warm_start: dice.percent(30),
        retries: Retries {
            limit: 2,
            pause: Span(5_000_000),
            ..Conduct::default().retries
        },
        cache_lifetime: dice.percent(15).then_some(Span(400_000_000)),
    };
    let runs = dice.between(1, 2 * sessions + 1) as u32;
    Plan {
        agents: dice.pick(&[1, 1, 2, 3, 5]),
        runs: dice.percent(70).then_some(runs),
        share: dice.pick(&[Share::Head, Share::Head, Share::None, Share::All]),
        conduct,
    }
}

/// The segments that prompts are made of: three heads, then shared texts.
const SEGMENTS: u64 = 9;

fn trace(dice: &mut Dice) -> Trace {
    let mut compiler = Compiler::default();
    compiler.begin(Source {
        name: "random".to_string(),
        format: "laptime".to_string(),
        digest: String::new(),
        losses: Vec::new(),
        problems: Vec::new(),
    });
    let mut segments = Vec::new();
    for index in 0..SEGMENTS {
        let tokens = dice.pick(&[1, 16, 30, 64, 150]);
        // Texts that begin alike.
        let ids = (0..tokens).map(|at| if at < 20 { 7 } else { (at + index) as u32 });
        segments.push(tokens);
        let segment = Segment {
            id: format!("s{index}"),
            kind: if index < 3 { "system" } else { "user" }.to_string(),
            tokens,
            token_ids: dice.percent(40).then(|| ids.collect()),
            ..Segment::default()
        };
        add(&mut compiler, &Record::Segment(Box::new(segment)));
    }
    for session in 0..dice.between(1, 4) {
        Writer {
            dice,
            compiler: &mut compiler,
            segments: &segments,
            session: format!("session{session}"),
            lengths: Vec::new(),
            agents: 0,
        }
        .session();
    }
    compiler.finish()
}

fn add(compiler: &mut Compiler, record: &Record) {
    // A complaint leaves a usable step behind; anything else would show as a missing step.
    let _ = compiler.add(record);
}

/// Writes one session.
struct Writer<'w> {
    dice: &'w mut Dice,
    compiler: &'w mut Compiler,
    segments: &'w [u64],
    session: String,
    /// The prompt and the answer of each step so far.
    lengths: Vec<(u64, u64)>,
    agents: u64,
}

impl Writer<'_> {
    fn session(mut self) {
        let record = SessionRecord {
            id: self.session.clone(),
            arrival_us: self.dice.percent(60).then(|| self.dice.below(3_000_000)),
            resumed: self.dice.percent(30),
            ..SessionRecord::default()
        };
        add(self.compiler, &Record::Session(Box::new(record)));
        let main = self.agent(None, "blocking");
        let steps = self.dice.between(1, 7);
        self.conversation(&main, steps, 0);
    }

    fn agent(&mut self, spawn_step: Option<String>, join: &str) -> String {
        let id = format!("agent{}", self.agents);
        self.agents += 1;
        let spawn_offset_us = spawn_step.is_some().then(|| self.dice.below(40) * 1000);
        let record = AgentRecord {
            id: id.clone(),
            session: self.session.clone(),
            spawn_step,
            spawn_offset_us,
            join: Some(join.to_string()),
            ..AgentRecord::default()
        };
        add(self.compiler, &Record::Agent(Box::new(record)));
        id
    }

    fn conversation(&mut self, agent: &str, steps: u64, depth: u64) {
        let mut joins = Vec::new();
        let mut last = None;
        for _ in 0..steps {
            let now = if self.dice.percent(80) {
                std::mem::take(&mut joins)
            } else {
                Vec::new()
            };
            let step = self.step(agent, last, now);
            last = Some(step);
            let children = match depth {
                0 if self.dice.percent(20) => self.dice.between(1, 3),
                1 if self.dice.percent(10) => 1,
                _ => 0,
            };
            for _ in 0..children {
                let join = self
                    .dice
                    .pick(&["blocking", "blocking", "async", "detached"]);
                let child = self.agent(Some(format!("step{step}")), join);
                let steps = self.dice.below(4);
                self.conversation(&child, steps, depth + 1);
                if join == "blocking" && self.dice.percent(80) || self.dice.percent(20) {
                    joins.push(child);
                }
            }
        }
    }

    /// Writes a step; returns its number.
    fn step(&mut self, agent: &str, last: Option<usize>, joins: Vec<String>) -> usize {
        let number = self.lengths.len();
        let fork = number > 0 && self.dice.percent(if last.is_none() { 40 } else { 5 });
        let base = if fork {
            Some(self.dice.below(number as u64) as usize)
        } else {
            last
        };
        let (prompt, output) = base.map_or((0, 0), |base| self.lengths[base]);
        let keep = match self.dice.below(10) {
            0 => prompt,
            1 => prompt + output / 2,
            2 => self.dice.between(0, prompt + output),
            3 => self.dice.between(0, prompt + output) / 4,
            _ => prompt + output,
        };
        let mut append = Vec::new();
        let mut tokens = keep;
        let pieces = if number == 0 || keep == 0 {
            2
        } else {
            self.dice.below(3)
        };
        for piece in 0..pieces {
            let piece = if keep == 0 && piece == 0 && self.dice.percent(80) {
                let head = self.dice.below(3);
                tokens += self.segments[head as usize];
                named(head)
            } else if self.dice.percent(30) {
                let text = self.dice.between(3, SEGMENTS - 1);
                tokens += self.segments[text as usize];
                named(text)
            } else {
                let size = self.dice.pick(&[1, 3, 16, 40, 200, 500]);
                tokens += size;
                Piece {
                    tokens: Some(size),
                    again: self.dice.percent(10),
                    ..Piece::default()
                }
            };
            append.push(piece);
        }
        let output = self.dice.pick(&[0, 1, 1, 2, 15, 16, 17, 40, 120, 250]);
        let tokens = tokens.max(1);
        let record = StepRecord {
            id: format!("step{number}"),
            session: Some(self.session.clone()),
            agent: Some(agent.to_string()),
            prompt: PromptEdit {
                tokens,
                base: base.map(|base| format!("step{base}")),
                keep,
                append,
                ..PromptEdit::default()
            },
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            gap: Some(self.gap()),
            finish: self
                .dice
                .pick(&[None, Some("tool-call"), Some("end-of-turn")])
                .map(str::to_string),
            joins,
            ..StepRecord::default()
        };
        add(self.compiler, &Record::Step(Box::new(record)));
        self.lengths.push((tokens, output));
        number
    }

    fn gap(&mut self) -> GapRecord {
        let mut some = |choices: &[u64]| {
            let micros = self.dice.pick(choices);
            (micros > 0).then_some(micros)
        };
        GapRecord {
            tool_us: some(&[0, 0, 1_000, 2_000, 30_000, 123_457, 900_000_000]),
            client_us: some(&[0, 0, 10, 2_000]),
            human_us: some(&[0, 0, 5_000, 7_200_000_000]),
            unknown_us: some(&[0, 0, 4_000, 90_000_000]),
            tool_how: None,
        }
    }
}

fn named(index: u64) -> Piece {
    Piece {
        seg: Some(format!("s{index}")),
        ..Piece::default()
    }
}

/// Returns the seed in `SEED`, or as many as `LAPTIME_SWARM_RUNS` says.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
        )
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LAPTIME_SWARM_RUNS").unwrap_or(default),
    }
}

/// Runs `check` for many seeds and says which one failed.
pub(crate) fn for_seeds(default: u64, check: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(default) {
        let failed = std::panic::catch_unwind(|| check(seed)).is_err();
        assert!(!failed, "failed with SEED={seed}");
    }
}

/// Returns the tokens of a path as numbers that are equal exactly where content is equal.
pub(crate) fn token_ids(call: &laptime::call::Call, content: &Content) -> Vec<u64> {
    let tip = if call.output_shared {
        call.output
    } else {
        call.prompt
    };
    let mut nodes = Vec::new();
    content.path(tip, &mut nodes);
    let mut ids = Vec::new();
    for node in nodes {
        let realm = if content.is_head(node) {
            call.realms.head
        } else {
            call.realms.private
        };
        for at in content.start(node).0..content.end(node).0 {
            ids.push(xxhash_rust::xxh3::xxh3_64_with_seed(
                &[u64::from(node.0), u64::from(realm), at]
                    .map(u64::to_le_bytes)
                    .concat(),
                0,
            ));
        }
    }
    ids
}
