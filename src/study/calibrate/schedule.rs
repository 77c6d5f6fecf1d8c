//! Which passes an engine makes for given calls, found by letting the engine model make them.
//!
//! Calls that start together on a cold engine are scheduled alike whatever a pass costs, so their passes can be noted
//! once and priced with any coefficients afterwards.

use crate::call::{Call, Realms};
use crate::ids::{CallId, NodeId, RunId, ThreadId};
use crate::rig::Backend as _;
use crate::rig::cost::{Coefficients, Graph, StepCost};
use crate::rig::engine::{Engine, llama_cpp, vllm};
use crate::rig::step::StepLoop;
use crate::trace::content::{Content, ContentBuilder, ROOT};
use crate::units::{Time, Tokens};
use std::sync::Arc;

/// An engine with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Server {
    /// vLLM.
    Vllm(vllm::Settings),
    /// llama.cpp's server.
    LlamaCpp(llama_cpp::Settings),
}

/// The size of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Tokens of its prompt.
    pub prompt: u64,
    /// Tokens of its answer.
    pub output: u64,
}

/// Returns the passes that `server` makes for calls that start together on a cold engine and share nothing.
pub fn cold_batch(server: &Server, sizes: &[Size]) -> Vec<(Graph, u64)> {
    let (calls, content) = calls(sizes);
    match *server {
        Server::Vllm(settings) => passes(<vllm::Vllm>::new(settings, content), calls),
        Server::LlamaCpp(settings) => passes(llama_cpp::LlamaCpp::new(settings, content), calls),
    }
}

fn passes<E: Engine>(engine: E, calls: Vec<Call>) -> Vec<(Graph, u64)> {
    let mut engine = StepLoop::new(engine, StepCost::new(any(), Vec::new())).noting();
    for call in calls {
        engine.submit(Time::ZERO, call);
    }
    let mut replies = Vec::new();
    while let Some(next) = engine.next_event() {
        engine.advance(next, &mut replies);
    }
    assert!(
        replies.iter().all(|reply| !reply.outcome.failed()),
        "a measured call fits its engine"
    );
    engine.take_passes()
}

/// Returns calls of these sizes, each with content of its own, numbered in their order.
pub fn calls(sizes: &[Size]) -> (Vec<Call>, Arc<Content>) {
    let mut content = ContentBuilder::default();
    let calls = sizes
        .iter()
        .zip(0u32..)
        .map(|(size, number)| {
            let mut after = |node: NodeId, tokens: u64| {
                content
                    .opaque(node, Tokens(tokens))
                    .expect("measured calls are short")
            };
            let prompt = after(ROOT, size.prompt);
            Call {
                id: CallId(number),
                run: RunId(number),
                thread: ThreadId(number),
                prompt,
                prompt_tokens: Tokens(size.prompt),
                output: after(prompt, size.output),
                output_tokens: Tokens(size.output),
                output_shared: true,
                realms: Realms::default(),
                seen: Tokens::ZERO,
                seen_computed: Tokens::ZERO,
                again: Tokens::ZERO,
                warm: Tokens::ZERO,
            }
        })
        .collect();
    (calls, Arc::new(content.finish()))
}

/// Some coefficients, where they do not matter.
fn any() -> Coefficients {
    Coefficients {
        weights_s: 0.01,
        experts_s: 0.0,
        row_s: 0.001,
        second_row_s: 0.0,
        kv_s: 1e-8,
        kv_short_s: None,
        short_tokens: 0,
        kv_imbalance: 0.0,
        token_s: 1e-4,
        half_tokens: 64.0,
        attention_s: 1e-9,
        request_s: 0.0,
        matrix_s: 0.0,
        vector_tokens: 0,
        expert_share: 0.0,
        overlap: 1.0,
        link_token_s: 0.0,
        intake_token_s: 0.0,
    }
}
