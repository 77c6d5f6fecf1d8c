//! `laptime replay --url`: the same replay against a real engine.

use super::output::{self, Target};
use super::replay::{Replay, on_one, warn_of_failures};
use super::talk::{self, Progress, Watched};
use crate::agent::{self, Conduct, Retries};
use crate::error::{Error, Exit};
use crate::journal::Journal;
use crate::live::client::Address;
use crate::live::engine::{self, Unusable};
use crate::live::prompt::Form;
use crate::live::{Ending, Interrupts};
use crate::report::{live as report, text};
use crate::rig::Rig;
use crate::study::live::{Met, Refused, Wanted, any_answered, meet};
use crate::study::replay::{Replay as Replayed, Workload};
use crate::trace::Trace;
use crate::units::Span;
use clap::{Args, ValueEnum};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Which engine and model are asked, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Live")]
#[group(id = "engine_asked")]
pub(super) struct Asked {
    /// The model to ask for at the URL; its first when absent.
    #[arg(long, value_name = "NAME", requires = "url")]
    model: Option<String>,
    /// Which engine is at the URL; found out when absent.
    #[arg(long, value_name = "NAME", requires = "url", value_parser = engine)]
    engine: Option<engine::Engine>,
    #[command(flatten)]
    way: Way,
}

/// How a real engine is reached and asked.
#[derive(Args, Debug)]
#[command(next_help_heading = "Live")]
pub(super) struct Way {
    /// How prompts are put: as messages, as token ids, or whichever the engine does best.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Prompts::Auto, requires = "url")]
    prompts: Prompts,
    /// The environment variable that holds the engine's key.
    #[arg(
        long,
        value_name = "VARIABLE",
        default_value = "OPENAI_API_KEY",
        requires = "url"
    )]
    api_key_env: String,
    /// A header for every request, `NAME: VALUE`; may be repeated.
    #[arg(long, value_name = "HEADER", requires = "url", value_parser = header)]
    header: Vec<(String, String)>,
    /// Fields for every request, such as `{"top_k": 1}`.
    #[arg(long, value_name = "JSON", requires = "url", value_parser = object)]
    extra_body: Option<serde_json::Map<String, serde_json::Value>>,
    /// How long a connection may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = Span::parse, requires = "url")]
    connect_timeout: Span,
    /// How long the engine may say nothing before a call counts as stalled.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = Span::parse, requires = "url")]
    stall_timeout: Span,
}

/// What can be said of a replay on a real engine.
#[derive(Args, Debug)]
#[command(next_help_heading = "Live")]
pub(super) struct Flags {
    #[command(flatten)]
    asked: Asked,
    /// Which answer the next prompt carries.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = History::Said)]
    history: History,
    /// How many times a call that failed for now is made again.
    #[arg(long, value_name = "N", default_value_t = Conduct::default().retries.limit)]
    retries: u32,
    /// The pause before the first time; each further one is twice as long, and none shorter than the engine asks for.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = Span::parse)]
    retry_pause: Span,
    /// How late this client may be before the replay is not valid; at least 1 % of the median time to the first token.
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = Span::parse, requires = "url")]
    max_client_lag: Span,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Prompts {
    /// Token ids where the engine takes them and tells those of its answers; else messages.
    Auto,
    /// Messages, through the engine's chat template and tokenizer.
    Chat,
    /// Token ids.
    Tokens,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum History {
    /// What the model says now.
    Said,
    /// What stands in for the recording's answer.
    Recorded,
}

fn engine(text: &str) -> Result<engine::Engine, String> {
    let found = engine::Engine::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, engine)| *engine).ok_or_else(|| {
        let names: Vec<&str> = engine::Engine::NAMES
            .iter()
            .map(|(name, _)| *name)
            .collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

impl Flags {
    /// Meets the engine at `url`, and says who answers there.
    pub(super) async fn met(&self, url: &str, quiet: bool) -> Result<Met, Error> {
        let wanted = self.asked.wanted(url, self.max_client_lag);
        let met = meet(&wanted).await.map_err(|why| refused(url, why))?;
        talk::note(quiet, &introduction(&met));
        Ok(met)
    }

    /// Adds to a plan how agents behave towards a real engine.
    pub(super) fn join(&self, conduct: &mut Conduct) {
        conduct.history = self.history();
        conduct.retries = self.retries();
    }

    /// Returns which answer the next prompt carries.
    fn history(&self) -> agent::History {
        match self.history {
            History::Said => agent::History::Said,
            History::Recorded => agent::History::Recorded,
        }
    }

    /// Returns what happens to calls that fail for now.
    fn retries(&self) -> Retries {
        Retries {
            limit: self.retries,
            pause: self.retry_pause,
            ..Conduct::default().retries
        }
    }
}

impl Asked {
    /// Returns how the engine at `url` is to be asked, by a client that may be late by `limit`.
    pub(super) fn wanted(&self, url: &str, limit: Span) -> Wanted {
        self.way.wanted(url, self.engine, self.model.clone(), limit)
    }
}

impl Way {
    /// Returns how `model` of the `engine` at `url` is to be asked, each found out when absent.
    pub(super) fn wanted(
        &self,
        url: &str,
        engine: Option<engine::Engine>,
        model: Option<String>,
        limit: Span,
    ) -> Wanted {
        let key = std::env::var(&self.api_key_env).ok();
        Wanted {
            address: Address {
                url: url.to_string(),
                key: key.filter(|key| !key.is_empty()),
                headers: self.header.clone(),
                connect: self.connect_timeout,
                stall: self.stall_timeout,
            },
            engine,
            model,
            form: match self.prompts {
                Prompts::Auto => None,
                Prompts::Chat => Some(Form::Messages),
                Prompts::Tokens => Some(Form::Ids),
            },
            extra: self.extra_body.clone().unwrap_or_default(),
            limit,
        }
    }
}

/// Returns the runtime that waits for engines: one thread, so that what is measured is not moved between cores.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::live(Exit::Internal, format!("cannot wait for events: {error}")))
}

impl Replay {
    /// Replays against the engine at `url`, and on `rigs` beside it where some are named.
    pub(super) fn run_live(
        &self,
        url: &str,
        trace: &Trace,
        workload: &Workload,
        rigs: Vec<Rig>,
        json: Option<Target>,
    ) -> Result<(), Error> {
        if let Some((key, _)) = self.settings_of_rigs().filter(|_| rigs.is_empty()) {
            let what = format!("`{key}` is a setting of simulated rigs, and none is named");
            return Err(Error::usage(what).with_help(
                "a real engine is set up where it is started; or name a --rig as well",
            ));
        }
        let done = runtime()?.block_on(self.repeats(url, trace, workload))?;
        let progress = Progress::new(workload.calls * rigs.len() as u64, self.asked.quiet);
        let mut replays = done;
        let live = replays.len();
        for rig in rigs {
            replays.push(on_one(trace, workload, rig, None, &progress)?);
        }
        progress.finish();
        for replayed in &replays {
            warn_of_failures(replayed);
        }
        let folders = (0..live as u32).filter_map(|repeat| self.folder(repeat));
        let folders: Vec<PathBuf> = folders.collect();
        let told = || {
            let beside = report::beside(&replays[..live], &replays[live..]);
            text::render(&replays, output::look()) + &beside
        };
        self.deliver(&replays, json, &folders, told)?;
        verdict(&replays[..live])
    }

    async fn repeats<'w>(
        &self,
        url: &str,
        trace: &Trace,
        workload: &'w Workload,
    ) -> Result<Vec<Replayed<'w>>, Error> {
        let met = self.live.met(url, self.asked.quiet).await?;
        let mut interrupts = Interrupts::of_process();
        let mut replays = Vec::new();
        for repeat in 0..self.repeat {
            let folder = self.folder(repeat);
            let of = (trace, workload);
            let folder = folder.as_deref();
            let replayed = once(&met, of, repeat, folder, self.asked.quiet, &mut interrupts);
            let replayed = replayed.await?;
            let ending = replayed.live.as_ref().map(|live| live.ending);
            replays.push(replayed);
            if ending != Some(Ending::Completed) {
                break;
            }
        }
        Ok(replays)
    }

    /// Returns the folder for a repeat: `--out` itself, or one in it for each of several.
    fn folder(&self, repeat: u32) -> Option<PathBuf> {
        let out = self.out.as_deref()?;
        Some(if self.repeat == 1 {
            out.to_path_buf()
        } else {
            out.join(format!("repeat-{}", repeat + 1))
        })
    }
}

/// Replays once, with content of that number; what is measured is in the folder's journal as soon as it is known.
pub(super) async fn once<'w>(
    met: &Met,
    (trace, workload): (&Trace, &'w Workload),
    content: u32,
    folder: Option<&Path>,
    quiet: bool,
    interrupts: &mut Interrupts,
) -> Result<Replayed<'w>, Error> {
    let journal = folder.map(open_journal).transpose()?;
    let progress = Progress::new(workload.calls, quiet);
    let mut watched = Watched::new(&progress, None::<Journal<Vec<u8>>>);
    let replay = met.replay(trace, workload, content, journal, &mut watched, interrupts);
    let (replayed, failed) = replay.await;
    progress.finish();
    if let (Some(error), Some(folder)) = (failed, folder) {
        // The figures are still there; only their copy on disk is not whole.
        talk::warning(&format!("{}: {error}", folder.join(JOURNAL).display()));
    }
    Ok(replayed)
}

const JOURNAL: &str = "journal.jsonl";

fn open_journal(folder: &Path) -> Result<BufWriter<File>, Error> {
    let path = folder.join(JOURNAL);
    let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
    let file = file.map_err(|source| Error::write(&path, source))?;
    Ok(BufWriter::new(file))
}

fn introduction(met: &Met) -> String {
    let point = met.point();
    let version = point
        .engine_version
        .as_deref()
        .unwrap_or("of unknown version");
    format!(
        "{} is {} {version} with {}",
        point.name,
        point.engine.as_deref().unwrap_or("unknown"),
        point.model.as_deref().unwrap_or("no model")
    )
}

/// Returns the error for an engine that cannot be used.
pub(super) fn refused(url: &str, why: Refused) -> Error {
    let none = |what: String| Error::live(Exit::NoSuccess, what);
    match why {
        Refused::Address(why) => Error::usage(format!("--url cannot be used: {why}"))
            .with_help("an address looks like http://localhost:8000/v1"),
        Refused::Engine(Unusable::Unreachable(why)) => none(format!("no engine answers: {why}"))
            .with_help("is it running there, and has it loaded its model?"),
        Refused::Engine(Unusable::Forbidden(status, why)) => none(format!(
            "the engine does not let us in: status {status}: {why}"
        ))
        .with_help("put its key into OPENAI_API_KEY, or name the variable with --api-key-env"),
        Refused::Engine(Unusable::NoSuchModel(models)) => {
            Error::usage("the engine does not serve the model that --model names")
                .with_help(format!("it serves {}", models.join(", ")))
        }
        Refused::Engine(Unusable::NoModels(why)) => {
            let what = format!("{}/v1/models lists no model: {why}", hidden(url));
            none(what).with_help("name one with --model, and see that the address ends before /v1")
        }
        Refused::Calls(why) => none(format!("the engine does not answer: {why}"))
            .with_help("no call was measured; --prompts and --engine change how it is asked"),
    }
}

/// Returns an address without what may be secret in it.
fn hidden(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => host.to_string(),
        None => url.to_string(),
    }
}

/// Says how it ended; the documents have been written by then.
pub(super) fn verdict(replays: &[Replayed<'_>]) -> Result<(), Error> {
    let endings = || replays.iter().filter_map(|one| one.live.as_ref());
    for live in endings() {
        match live.ending {
            Ending::Completed => {}
            Ending::Lost => {
                return Err(Error::live(Exit::NoSuccess, "the engine was lost")
                    .with_help("what was measured before is in the result"));
            }
            Ending::Drained | Ending::Aborted => {
                return Err(Error::live(
                    Exit::Interrupted,
                    "interrupted; what was measured is kept",
                ));
            }
        }
    }
    if !replays.iter().any(any_answered) {
        return Err(Error::live(Exit::NoSuccess, "no call was answered")
            .with_help("the result says how each ended"));
    }
    let bound: Vec<&str> = endings()
        .filter_map(|live| live.health.as_ref())
        .flat_map(|health| health.bound.iter().map(String::as_str))
        .collect();
    if bound.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the client was the bottleneck, so this is not valid: {}",
        bound.join("; ")
    );
    Err(Error::live(Exit::ClientBound, what).with_help(
        "`laptime selftest` says what this machine can measure; free it, or allow more with --max-client-lag",
    ))
}
