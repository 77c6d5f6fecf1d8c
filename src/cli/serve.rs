//! `laptime serve`: a simulated rig as an OpenAI-compatible endpoint, in real time.

use super::{replay, rigs, talk};
use crate::error::{Error, Exit};
use crate::listen::{self, Bounds};
use crate::serve::{self, Settings};
use crate::trace::content::Content;
use crate::units::Bytes;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  laptime serve --rig dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0
  laptime serve --rig h100/vllm/qwen3.6-27b-fp8 --set engine.max_num_seqs=16 --listen 8001
  curl -N localhost:8000/v1/chat/completions -d '{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}'";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// HARDWARE/ENGINE[@VERSION]/MODEL to simulate.
    #[arg(long, value_name = "RIG")]
    rig: String,
    /// A setting of the engine or rig, such as `engine.prefix_caching=off`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = rigs::setting)]
    set: Vec<(String, String)>,
    /// Flags as the engine's own command line takes them, such as "--max-num-seqs 16".
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    engine_args: Option<String>,
    /// Where to listen: ADDRESS:PORT, or a port on loopback; 0 takes any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000", value_parser = listen::address)]
    listen: SocketAddr,
    /// The model's name in requests and answers, instead of the catalogue's.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Tokens of an answer where neither `max_tokens` nor `min_tokens` decides.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    answer_tokens: u64,
    /// How many times faster than the rig time passes.
    #[arg(long, value_name = "X", default_value = "1", value_parser = replay::positive)]
    time_scale: f64,
    /// The longest request.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = Bytes::parse)]
    max_body: Bytes,
    /// Connections at the same time; further ones wait.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR")]
    catalog: Vec<PathBuf>,
    /// Say nothing but warnings and errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Serve {
    /// Serves until it is interrupted.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let not_open = || {
            Error::usage(format!(
                "the rig `{}` takes no calls from outside",
                self.rig
            ))
            .with_help("name HARDWARE/ENGINE/MODEL; `laptime list rigs` shows some")
        };
        if self.rig == rigs::RECORDED {
            return Err(not_open());
        }
        let catalog = rigs::catalog(&self.catalog)?;
        let line = self.engine_args.as_deref();
        let settings = rigs::settings(&self.rig, line, &self.set, &catalog)?;
        let content = Arc::new(Content::default());
        let rig = rigs::of_content(&self.rig, &settings, &catalog, &content)?;
        drop(content);
        let known_by = format!("{}: {}", rig.point.trust.word(), rig.point.known_by);
        let settings = Settings {
            model: self.model.clone(),
            answer_tokens: self.answer_tokens,
            time_scale: self.time_scale,
            bounds: Bounds {
                connections: self.max_connections as usize,
                body: self.max_body.0,
            },
        };
        let served = super::edge::runtime()?.block_on(async {
            let listener = TcpListener::bind(self.listen).await;
            let listener =
                listener.map_err(|error| super::edge::cannot_listen(self.listen, &error))?;
            let at = super::edge::announce(
                &listener,
                self.listen,
                "the rig answers whoever can reach it",
            );
            talk::note(self.quiet, &format!("{} at http://{at}/v1", self.rig));
            talk::note(self.quiet, &known_by);
            talk::note(self.quiet, "Ctrl-C ends it");
            let stop = super::edge::interrupted();
            let served = serve::run(listener, rig, settings, stop).await;
            served.map_err(|error| Error::usage(format!("cannot start a thread: {error}")))
        })?;
        if served {
            Ok(Exit::Interrupted)
        } else {
            Err(not_open())
        }
    }
}
