//! Runs of real engines as values: what was asked, in which order, and how much of it the engine had cached.
//!
//! Three ways to ask the same of a simulated engine: one request after the other, in the order and at the pace that
//! the recording shows, and freely at a pace of its own.

mod free;
mod lockstep;
mod order;
mod steps;

use laptime::call::{Call, Realms, Reply};
use laptime::ids::{CallId, RunId, ThreadId};
use laptime::rig::Backend;
use laptime::rig::cost::{Coefficients, StepCost};
use laptime::rig::engine::{llama_cpp, vllm};
use laptime::rig::step::StepLoop;
use laptime::trace::content::{Content, ContentBuilder};
use laptime::units::{Time, Tokens};
use std::sync::Arc;

/// The longest from the client's stamp to the engine's queue, in milliseconds: what a busy machine needs.
const LATENCY_MS: u32 = 30;

/// One request and what became of it; times are seconds since the run began, as the client saw them.
pub(crate) struct Request {
    pub(crate) session: usize,
    pub(crate) call: Call,
    pub(crate) cached: u64,
    /// How many tokens the engine computed of the prompt before the answer, and for how long; where it says so.
    pub(crate) read: Option<(u64, f64)>,
    pub(crate) slot: Option<usize>,
    pub(crate) sent: f64,
    /// When each token of the answer arrived.
    pub(crate) at: Vec<f64>,
    pub(crate) end: f64,
}

/// An engine and its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Setup {
    Vllm(vllm::Settings),
    LlamaCpp(llama_cpp::Settings),
}

/// A run: requests in the order in which they ended.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) setup: Setup,
    pub(crate) content: Arc<Content>,
    pub(crate) requests: Vec<Request>,
    /// Which slot was taken (or else let go), in order, where the engine's log says so.
    pub(crate) log: Vec<(bool, usize)>,
    /// Which requests took part in each step, where the engine's scheduler was asked.
    pub(crate) steps: Vec<Vec<usize>>,
}

/// A request whose cached tokens were predicted wrongly, to be shown.
#[derive(Debug)]
#[expect(dead_code, reason = "what is wrong is printed, field by field")]
pub(crate) struct Wrong {
    request: usize,
    session: usize,
    prompt: u64,
    slot: Option<usize>,
    engine: u64,
    predicted: u64,
}

/// Requests whose content is being put into a tree.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) content: ContentBuilder,
    pub(crate) list: Vec<Request>,
    pub(crate) log: Vec<(bool, usize)>,
    pub(crate) steps: Vec<Vec<usize>>,
}

impl Requests {
    /// Adds a request whose prompt and answer end in these nodes.
    pub(crate) fn add(
        &mut self,
        session: usize,
        prompt: laptime::ids::NodeId,
        output: laptime::ids::NodeId,
        cached: u64,
    ) -> &mut Request {
        let index = self.list.len() as u32;
        let prompt_tokens = self.content.end(prompt);
        self.list.push(Request {
            session,
            call: Call {
                id: CallId(index),
                run: RunId(session as u32),
                thread: ThreadId(session as u32),
                prompt,
                prompt_tokens,
                output,
                output_tokens: Tokens(self.content.end(output).0 - prompt_tokens.0),
                output_shared: true,
                realms: Realms::default(),
                seen: Tokens::ZERO,
                seen_computed: Tokens::ZERO,
                again: Tokens::ZERO,
                warm: Tokens::ZERO,
            },
            cached,
            read: None,
            slot: None,
            sent: 0.0,
            at: Vec::new(),
            end: 0.0,
        });
        self.list.last_mut().unwrap()
    }

    pub(crate) fn finish(self, name: String, setup: Setup) -> Run {
        Run {
            name,
            setup,
            content: Arc::new(self.content.finish()),
            requests: self.list,
            log: self.log,
            steps: self.steps,
        }
    }
}

impl Setup {
    /// Returns the engine at rest, in virtual time.
    fn backend(&self, content: &Arc<Content>, cost: StepCost) -> Box<dyn Backend> {
        let content = Arc::clone(content);
        match *self {
            Setup::Vllm(settings) => {
                Box::new(StepLoop::new(<vllm::Vllm>::new(settings, content), cost))
            }
            Setup::LlamaCpp(settings) => Box::new(StepLoop::new(
                llama_cpp::LlamaCpp::new(settings, content),
                cost,
            )),
        }
    }
}

/// Returns the cost of an engine that takes so long for a step and for each prompt token in it.
fn cost(step_s: f64, token_s: f64) -> StepCost {
    let coefficients = Coefficients {
        weights_s: step_s,
        experts_s: 0.0,
        row_s: 0.0,
        second_row_s: 0.0,
        kv_s: 0.0,
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s,
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

impl Run {
    /// Returns what the simulated engine has cached of each request when they come one after the other.
    pub(crate) fn one_by_one(&self) -> Vec<u64> {
        let mut engine = self.setup.backend(&self.content, cost(1e-3, 1e-6));
        let mut now = Time::ZERO;
        let mut cached = Vec::new();
        for request in &self.requests {
            engine.submit(now, request.call);
            let mut replies: Vec<Reply> = Vec::new();
            while replies.is_empty() {
                now = engine.next_event().expect("a call is in flight");
                engine.advance(now, &mut replies);
            }
            replies[0].check(&request.call);
            assert_eq!(replies[0].output, request.call.output_tokens);
            cached.push(replies[0].cached.0);
        }
        cached
    }

    /// Returns the requests that the engine served otherwise than `cached` says.
    pub(crate) fn wrong(&self, cached: &[u64]) -> Vec<Wrong> {
        let pairs = self.requests.iter().zip(cached).enumerate();
        let differ = pairs.filter(|(_, (request, cached))| request.cached != **cached);
        differ
            .map(|(index, (request, &predicted))| Wrong {
                request: index,
                session: request.session,
                prompt: request.call.prompt_tokens.0,
                slot: request.slot,
                engine: request.cached,
                predicted,
            })
            .collect()
    }

    /// Returns by what share the predicted cached tokens miss the engine's, over the whole run.
    pub(crate) fn miss(&self, cached: &[u64]) -> f64 {
        let engine: u64 = self.requests.iter().map(|request| request.cached).sum();
        let predicted: u64 = cached.iter().sum();
        (predicted as f64 - engine as f64) / engine.max(1) as f64
    }

    /// Returns how exact a prediction is, in a line.
    pub(crate) fn line(&self, cached: &[u64]) -> String {
        let all = self.requests.len();
        let exact = all - self.wrong(cached).len();
        let miss = 100.0 * self.miss(cached);
        format!(
            "{:58} {exact:3} of {all:3} exact, total {miss:+.2} %",
            self.name
        )
    }

    /// Returns what the simulated engine has cached of each request in the order in which they met on the real one.
    ///
    /// Of an engine that logs it, or whose scheduler was asked, that order is known. Elsewhere stamps leave some of it open: how long a request was
    /// under way, and which of several sent at the same moment came first. Of the orders that the stamps allow, the one
    /// is taken that explains most.
    pub(crate) fn in_recorded_order(&self) -> Vec<u64> {
        if !self.log.is_empty() {
            return self.in_order();
        }
        if !self.steps.is_empty() {
            return self.in_noted_steps();
        }
        let late = |ms: u32| self.in_step(f64::from(ms) / 1e3);
        let mut found: Vec<Vec<u64>> = (1..=LATENCY_MS).map(late).collect();
        if matches!(self.setup, Setup::LlamaCpp(_)) {
            found.push(self.in_order());
        }
        found
            .into_iter()
            .min_by_key(|cached| self.wrong(cached).len())
            .expect("there is at least one order")
    }

    /// Asserts that the engine had cached exactly what is predicted of every request.
    pub(crate) fn assert_exact(&self, cached: &[u64]) {
        self.assert_close(cached, 1.0, 0.0);
    }

    /// Asserts that at least a share of the calls is exact, and that the total is not off by more than another.
    pub(crate) fn assert_close(&self, cached: &[u64], exact: f64, off: f64) {
        let (wrong, all) = (self.wrong(cached), self.requests.len());
        let share = 1.0 - wrong.len() as f64 / all as f64;
        assert!(
            share >= exact && self.miss(cached).abs() <= off,
            "{}, wanted {exact} of them exact and the total within {off}: {:#?}",
            self.line(cached),
            &wrong[..wrong.len().min(5)]
        );
    }
}
