//! The plainest question, asked of a real engine: what happens when these sessions run there?
//!
//! Connects, finds out what answers and what prompts must be made of, and lets the driver turn the fleet. Repeats are whole
//! replays, each with content of its own, so that none finds in the engine's cache what another left there.

use super::economy::{Economy, Prices};
use super::replay::{Replay, Workload};
use crate::call::Call;
use crate::event::{Event, Sink};
use crate::fleet::Fleet;
use crate::ids::CallId;
use crate::journal::{Contents, Head, Journal};
use crate::known::Trust;
use crate::live::client::{Address, Client};
use crate::live::clock::Clock;
use crate::live::engine::{self, Engine, Identity, Unusable};
use crate::live::measured::Measured;
use crate::live::prepare::{Prepared, prepare};
use crate::live::prompt::{Form, Prompter};
use crate::live::watch::{Health, Watch};
use crate::live::{self, Ending, Interrupts, Line, Log};
use crate::metrics::stats::Quantiles;
use crate::metrics::{Metrics, RunMetrics};
use crate::operating_point::{Kind, OperatingPoint};
use crate::trace::Trace;
use crate::units::{Span, Time, Tokens};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a live replay is to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the engine is.
    pub address: Address,
    /// Which engine it is; found out when absent.
    pub engine: Option<Engine>,
    /// Which model to ask for; its first when absent.
    pub model: Option<String>,
    /// How prompts are put; the best the engine can do when absent.
    pub form: Option<Form>,
    /// Fields that are added to every request.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The lag of the client from which on a replay is not valid.
    pub limit: Span,
}

/// Why there is no replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The address is none.
    Address(String),
    /// What is there cannot be used.
    Engine(Unusable),
    /// It does not answer the simplest call, or not in the form that was asked for.
    Calls(String),
}

/// An engine that has been met.
#[derive(Debug)]
pub struct Met {
    client: Arc<Client>,
    prepared: Prepared,
    point: OperatingPoint,
    limit: Span,
}

/// What is told of a live replay beside its figures.
#[derive(Clone, PartialEq, Debug)]
pub struct LiveNotes {
    /// What was seen of each call, by its name; nothing for those that did not end.
    pub calls: Vec<Option<Measured>>,
    /// The recorded length of each call's prompt and answer.
    pub planned: Vec<(Tokens, Tokens)>,
    /// How the client fared; nothing where that was lost.
    pub health: Option<Health>,
    /// How it ended.
    pub ending: Ending,
    /// How prompts were put.
    pub form: String,
    /// How many calls were made before the clock started.
    pub warm_up: u32,
    /// The engine's own counters: before, after, and the highest in between.
    pub counters: BTreeMap<String, [f64; 3]>,
    /// The stretch in which all lanes were busy, where there is one.
    pub window: Option<Window>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// The stretch from when every lane had begun to when the first had nothing left to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Window {
    /// Its beginning.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// The laps that began in it.
    pub lap: Option<Quantiles>,
    /// How many those are.
    pub laps: u32,
    /// First tokens of the calls that were made in it.
    pub ttft: Option<Quantiles>,
    /// How many tokens of answers came in it.
    pub output: u64,
}

impl LiveNotes {
    /// Returns whether the engine told of every answered call what came from its cache.
    pub fn tells_cached(&self) -> bool {
        let answered = self
            .calls
            .iter()
            .flatten()
            .filter(|seen| !seen.outcome.failed());
        answered.clone().next().is_some() && answered.clone().all(|seen| seen.cached.is_some())
    }

    /// Returns how far prompts were from their recorded length, as shares of it: the largest, and over all tokens.
    pub fn prompt_error(&self) -> Option<(f64, f64)> {
        let (mut worst, mut off, mut all) = (0.0_f64, 0, 0);
        for (seen, (planned, _)) in self.calls.iter().zip(&self.planned) {
            let Some(counted) = seen.as_ref().and_then(|seen| seen.prompt) else {
                continue;
            };
            let by = counted.abs_diff(planned.0);
            worst = worst.max(by as f64 / planned.as_f64().max(1.0));
            (off, all) = (off + by, all + planned.0);
        }
        (all > 0).then(|| (worst, off as f64 / all as f64))
    }

    /// Returns how many answers were shorter or longer than recorded, and by how many tokens in all.
    pub fn wrong_lengths(&self) -> (u32, u64) {
        let (mut answers, mut tokens) = (0, 0);
        for (seen, (_, planned)) in self.calls.iter().zip(&self.planned) {
            let Some(seen) = seen.as_ref().filter(|seen| !seen.outcome.failed()) else {
                continue;
            };
            let by = seen.output_tokens().0.abs_diff(planned.0);
            answers += u32::from(by > 0);
            tokens += by;
        }
        (answers, tokens)
    }
}

/// Meets the engine: finds out what it is, and what prompts must be made of.
pub async fn meet(wanted: &Wanted) -> Result<Met, Refused> {
    let mut client = Client::new(&wanted.address).map_err(Refused::Address)?;
    client.extra.clone_from(&wanted.extra);
    let identity = engine::identify(&client, wanted.engine, wanted.model.as_deref()).await;
    let identity = identity.map_err(Refused::Engine)?;
    client.engine = identity.engine;
    client.model.clone_from(&identity.model);
    let prepared = prepare(&client, Clock::start(), wanted.form).await;
    let prepared = prepared.map_err(Refused::Calls)?;
    Ok(Met {
        point: point(&client, identity),
        client: Arc::new(client),
        prepared,
        limit: wanted.limit,
    })
}

fn point(client: &Client, identity: Identity) -> OperatingPoint {
    OperatingPoint {
        name: client.shown(),
        kind: Kind::Live,
        hardware: None,
        engine: Some(identity.engine.name().to_string()),
        engine_version: identity.version,
        model: Some(identity.model),
        quantization: None,
        settings: identity.settings,
        trust: Trust::Measured,
        error_interval: None,
        known_by: "measured at the client; waiting inside the engine counts as reading the prompt \
                   unless it tells the two apart, and what neighbours added is in every part"
            .to_string(),
    }
}

fn form_word(form: Form) -> &'static str {
    match form {
        Form::Ids => "tokens",
        Form::Messages => "chat",
    }
}

/// Takes down what happens: figures, what was seen, and both on disk.
struct Notes<'s, W: Write, S> {
    metrics: Metrics,
    calls: Vec<Option<Measured>>,
    planned: Vec<(Tokens, Tokens)>,
    journal: Option<Journal<W>>,
    also: &'s mut S,
}

impl<W: Write, S: Sink> Sink for Notes<'_, W, S> {
    fn event(&mut self, event: Event) {
        if let Event::Called { call, .. } = &event {
            self.planned.push((call.prompt_tokens, call.output_tokens));
            self.calls.push(None);
        }
        if let Some(journal) = &mut self.journal {
            journal.event(event.clone());
        }
        self.also.event(event.clone());
        self.metrics.event(event);
    }
}

impl<W: Write, S: Sink> Log for Notes<'_, W, S> {
    fn measured(&mut self, call: &Call, seen: &Measured) {
        if let Some(journal) = &mut self.journal {
            journal.measured(call, seen);
        }
        let mut kept = seen.clone();
        // What was said is the conversation's; only its size is a figure.
        kept.said = crate::live::prompt::Said::default();
        self.calls[call.id.index()] = Some(kept);
    }
}

/// How often the engine's counters are read while a replay runs.
const COUNTERS_EVERY: Duration = Duration::from_secs(2);

impl Met {
    /// Returns what answers.
    pub fn point(&self) -> &OperatingPoint {
        &self.point
    }

    /// Returns the way to it.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Returns what prompts are made of there.
    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Returns the head of this replay's journal.
    fn head(&self, workload: &Workload) -> Head {
        Head {
            traces: workload.traces.clone(),
            sessions: workload.sessions.iter().map(ToString::to_string).collect(),
            plan: workload.plan,
            runs: workload.runs,
            calls: workload.calls,
            seed: workload.seed,
            settings: workload.settings.clone(),
            prices: workload.prices.settings(),
            point: self.point.clone(),
            form: form_word(self.prepared.form).to_string(),
        }
    }

    /// Replays `workload`, which must be of `trace`, for the `repeat`-th time. `also` takes the events as well; what is
    /// measured is in `journal` as soon as it is known. The second value is what went wrong with the journal.
    pub async fn replay<'w, W: Write, S: Sink>(
        &self,
        trace: &Trace,
        workload: &'w Workload,
        repeat: u32,
        journal: Option<W>,
        also: &mut S,
        interrupts: &mut Interrupts,
    ) -> (Replay<'w>, Option<std::io::Error>) {
        let mut journal = journal.map(Journal::new);
        if let Some(journal) = &mut journal {
            journal.begin(&self.head(workload));
        }
        let prompter = Prompter::new(
            trace,
            self.prepared.form,
            self.prepared.vocabulary.clone(),
            self.prepared.overhead,
            workload.plan.conduct.history,
            // Another repeat is other content; the same words would still be in the engine's cache.
            workload.seed ^ u64::from(repeat).rotate_right(16),
        );
        let before = engine::counters(&self.client.text("/metrics").await);
        let highest = Arc::new(Mutex::new(before.clone()));
        let clock = Clock::start();
        let reading = tokio::spawn(follow(Arc::clone(&self.client), Arc::clone(&highest)));
        let watch = Watch::start(clock);
        let mut line = Line::new(
            Arc::clone(&self.client),
            clock,
            self.prepared.form,
            prompter,
        );
        let mut fleet = Fleet::new(trace, workload.plan);
        let mut notes = Notes {
            metrics: Metrics::default(),
            calls: Vec::new(),
            planned: Vec::new(),
            journal,
            also,
        };
        let agents = workload.plan.agents;
        let ending = live::run(&mut fleet, &mut line, agents, &mut notes, interrupts).await;
        reading.abort();
        let metrics = notes.metrics.finish();
        let ttft = metrics.summary.ttft.map(|ttft| ttft.p50);
        let health = watch.finish(notes.calls.iter().flatten(), ttft, self.limit);
        let after = engine::counters(&self.client.text("/metrics").await);
        let highest = highest
            .lock()
            .map(|highest| highest.clone())
            .unwrap_or_default();
        let mut told = LiveNotes {
            calls: notes.calls,
            planned: notes.planned,
            health: Some(health),
            ending,
            form: form_word(self.prepared.form).to_string(),
            warm_up: self.prepared.calls,
            counters: together(&before, &after, &highest),
            window: window(&metrics, agents),
            notes: self.prepared.notes.clone(),
        };
        told.remark(&self.point);
        let failed = notes.journal.and_then(|journal| journal.finish().err());
        let replay = Replay {
            workload,
            point: self.point.clone(),
            economy: economy(workload.prices, &metrics, &told),
            metrics,
            energy: None,
            live: Some(Box::new(told)),
        };
        (replay, failed)
    }
}

impl LiveNotes {
    /// Adds what a reader should know of what the engine does not tell or do.
    fn remark(&mut self, point: &OperatingPoint) {
        let answered = self
            .calls
            .iter()
            .flatten()
            .any(|seen| !seen.outcome.failed());
        if answered && !self.tells_cached() {
            let mut note = "the engine does not tell what came from its cache".to_string();
            if point.engine.as_deref() == Some("vllm") {
                note += "; start vLLM with --enable-prompt-tokens-details";
            }
            self.notes.push(note);
        }
        let (answers, tokens) = self.wrong_lengths();
        if answers > 0 {
            self.notes.push(format!(
                "{answers} answers were not as long as recorded, by {tokens} tokens in all"
            ));
        }
        if let Some((worst, _)) = self.prompt_error().filter(|(worst, _)| *worst > 0.005) {
            let worst = worst * 100.0;
            self.notes.push(format!(
                "prompts were up to {worst:.1} % off their recorded length"
            ));
        }
    }
}

/// Reads the engine's counters now and then, and keeps the highest.
async fn follow(client: Arc<Client>, highest: Arc<Mutex<BTreeMap<String, f64>>>) {
    loop {
        tokio::time::sleep(COUNTERS_EVERY).await;
        let found = engine::counters(&client.text("/metrics").await);
        if found.is_empty() {
            // It has none; asking again would only disturb it.
            return;
        }
        if let Ok(mut highest) = highest.lock() {
            for (name, value) in found {
                let kept = highest.entry(name).or_insert(value);
                *kept = kept.max(value);
            }
        }
    }
}

fn together(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
    highest: &BTreeMap<String, f64>,
) -> BTreeMap<String, [f64; 3]> {
    let of = |name: &str, after: f64| {
        let before = before.get(name).copied().unwrap_or_default();
        let high = highest.get(name).copied().unwrap_or(before);
        [before, after, high.max(after)]
    };
    after
        .iter()
        .map(|(name, &value)| (name.clone(), of(name, value)))
        .collect()
}

/// Returns the stretch in which all lanes were busy.
fn window(metrics: &RunMetrics, agents: u32) -> Option<Window> {
    let mut lanes: BTreeMap<u32, (Time, Option<Time>)> = BTreeMap::new();
    for run in &metrics.runs {
        let end = run.end.map(|(at, _)| at);
        let lane = lanes.entry(run.lane.0).or_insert((run.start, end));
        lane.0 = lane.0.min(run.start);
        lane.1 = lane.1.zip(end).map(|(one, other)| one.max(other));
    }
    if lanes.len() < agents as usize {
        return None;
    }
    let from = lanes.values().map(|lane| lane.0).max()?;
    let to = lanes.values().filter_map(|lane| lane.1).min()?;
    if to <= from {
        return None;
    }
    let inside = |at: Time| from <= at && at < to;
    let laps = metrics.laps().filter(|lap| inside(lap.start));
    let mut laps: Vec<Span> = laps.map(|lap| lap.parts.total()).collect();
    let calls = metrics.calls().filter(|call| inside(call.submitted));
    let mut firsts: Vec<Span> = calls.filter_map(|call| call.ttft()).collect();
    let ended = metrics.calls().filter(|call| inside(call.finished));
    Some(Window {
        from,
        to,
        laps: laps.len() as u32,
        lap: Quantiles::of(&mut laps),
        ttft: Quantiles::of(&mut firsts),
        output: ended.map(|call| call.output.0).sum(),
    })
}

/// What a journal held.
#[derive(Clone, Debug)]
pub struct Recovered {
    workload: Workload,
    point: OperatingPoint,
    metrics: RunMetrics,
    notes: LiveNotes,
}

/// Makes a workload and figures of what a journal holds.
pub fn recovered(contents: Contents) -> Recovered {
    let head = contents.head;
    let named = head.prices.iter();
    let named: Vec<(String, String)> = named
        .map(|(key, price)| (key.clone(), price.to_string()))
        .collect();
    // Prices that somebody else wrote there are no reason to lose what was measured.
    let prices = Prices::parse(&named).unwrap_or_default();
    let workload = Workload {
        traces: head.traces,
        sessions: head.sessions.into_iter().map(Into::into).collect(),
        plan: head.plan,
        runs: head.runs,
        calls: head.calls,
        seed: head.seed,
        settings: head.settings,
        prices,
    };
    let (mut metrics, mut planned) = (Metrics::default(), Vec::new());
    for event in contents.events {
        if let Event::Called { call, .. } = &event {
            planned.push((call.prompt_tokens, call.output_tokens));
        }
        metrics.event(event);
    }
    let metrics = metrics.finish();
    let mut calls = vec![None; planned.len()];
    for (CallId(call), seen) in contents.seen {
        if let Some(place) = calls.get_mut(call as usize) {
            *place = Some(seen);
        }
    }
    let whole = metrics.runs.len() as u32 == workload.runs
        && metrics.runs.iter().all(|run| run.end.is_some());
    let mut notes = LiveNotes {
        calls,
        planned,
        health: None,
        ending: if whole {
            Ending::Completed
        } else {
            Ending::Aborted
        },
        form: head.form,
        warm_up: 0,
        counters: BTreeMap::new(),
        window: window(&metrics, workload.plan.agents),
        notes: vec![
            "made from the journal of a replay; how its client fared is not known".to_string(),
        ],
    };
    notes
        .notes
        .extend(contents.cut.map(|cut| format!("the journal is cut: {cut}")));
    notes.remark(&head.point);
    Recovered {
        workload,
        point: head.point,
        metrics,
        notes,
    }
}

impl Recovered {
    /// Returns the replay as it was when it ended.
    pub fn replay(&self) -> Replay<'_> {
        Replay {
            workload: &self.workload,
            point: self.point.clone(),
            metrics: self.metrics.clone(),
            energy: None,
            economy: economy(self.workload.prices, &self.metrics, &self.notes),
            live: Some(Box::new(self.notes.clone())),
        }
    }
}

/// Returns what a live replay would have cost elsewhere; what the engine's own machine draws is not known.
fn economy(prices: Prices, metrics: &RunMetrics, notes: &LiveNotes) -> Economy {
    let mut economy = Economy::of(prices, None, None, &metrics.summary);
    if prices.api_cached.is_some() && !notes.tells_cached() {
        // What an API would have had in its cache is not known either.
        economy.api = None;
    }
    economy
}

/// Returns whether any call was answered.
pub fn any_answered(replay: &Replay<'_>) -> bool {
    replay.metrics.calls().any(|call| !call.outcome.failed())
}
