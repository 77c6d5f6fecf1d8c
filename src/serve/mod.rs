//! A rig behind an OpenAI-compatible endpoint: what an agent would live with, at the speed it would have there.
//!
//! `house.rs` opens the rig to calls from outside and is told the time; `clock.rs` brings the time; this file and
//! `api.rs` bring the calls. What is said means nothing: the words are made up, their number and their times are the
//! point. `docs/serve.md` says what is understood.

mod api;
mod clock;
mod counters;
pub mod house;
pub mod library;
mod route;
pub mod tokens;
pub mod words;

use crate::listen::{self, Bounds};
use crate::rig::Rig;
use clock::Desk;
use counters::Counters;
use house::House;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How a rig is served.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The name of the model; the catalogue's when absent.
    pub model: Option<String>,
    /// Tokens of an answer that nothing else limits, its end included.
    pub answer_tokens: u64,
    /// Seconds of the rig that pass in a second.
    pub time_scale: f64,
    /// What is taken in.
    pub bounds: Bounds,
}

/// Whose words errors and times are told in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// vLLM's, which others follow.
    Vllm,
    /// llama.cpp's server's.
    LlamaCpp,
}

/// All that answering a request takes.
struct Server {
    desk: Desk,
    counters: Counters,
    manner: Manner,
    model: String,
    /// The longest prompt and answer, where the engine has one limit for both.
    context: Option<u64>,
    /// How the rig is set up, by full keys.
    setup: BTreeMap<String, String>,
    settings: Settings,
}

/// Serves `rig` on `listener` until `stop` is done; returns false at once for a rig that takes no calls from outside.
pub async fn run(
    listener: TcpListener,
    rig: Rig,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> std::io::Result<bool> {
    let point = &rig.point;
    let limit = |key: &str| point.settings.get(key).and_then(|text| text.parse().ok());
    let keys = [
        "max_model_len",
        "slot_context",
        "context_length",
        "max_seq_len",
        "ctx_size",
    ];
    let context = keys.iter().find_map(|key| limit(&format!("engine.{key}")));
    let manner = match point.engine.as_deref() {
        Some("llama.cpp" | "ollama" | "lm-studio") => Manner::LlamaCpp,
        _ => Manner::Vllm,
    };
    // The catalogue's name of the model is the last part of the rig's.
    let own = point.name.rsplit('/').next().unwrap_or_default();
    let model = settings.model.clone().unwrap_or_else(|| own.to_string());
    let setup = point.settings.clone();
    let Some(house) = House::open(rig) else {
        return Ok(false);
    };
    let desk = Desk::start(house, settings.time_scale)?;
    let bounds = settings.bounds;
    let server = Arc::new(Server {
        desk,
        counters: Counters::default(),
        manner,
        model,
        context,
        setup,
        settings,
    });
    let handler = move |request| route::answer(Arc::clone(&server), request);
    listen::serve(listener, bounds, handler, stop).await;
    Ok(true)
}
