//! Result documents read back: `laptime.result/1`, and several in one `laptime.results/1`.
//!
//! What [`super::json`] wrote comes back as it was, to the nanosecond; documents of live replays are read the same way.
//! Sums are checked: a document whose parts do not add up is refused, not believed.

mod rows;

use super::json::{RESULT, RESULTS};
use crate::agent::{Conduct, OnRefusal, Pace};
use crate::call::TokenClasses;
use crate::fleet::{Plan, Share};
use crate::known::Trust;
use crate::metrics::stats::Quantiles;
use crate::metrics::{CallRow, FAILURES, RunRow, Summary, TokenTotals};
use crate::operating_point::{Kind, OperatingPoint};
use crate::study::economy::Prices;
use crate::study::figures::{Figures, Lap, Rows};
use crate::study::habits::Habits;
use crate::study::replay::Workload;
use crate::units::{Joules, Money, Span, Time, Tokens};
use rows::{CallIn, LapIn, RunIn, bound_by, lap_parts};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Returns the results in a document, or what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Vec<Figures>, String> {
    single(bytes)?.into_iter().map(one).collect()
}

/// Returns each result in a document as a document of its own.
pub fn split(bytes: &[u8]) -> Result<Vec<String>, String> {
    let texts = single(bytes)?.into_iter().map(|one| one.to_string());
    Ok(texts.collect())
}

/// Returns one document that holds these, each a document of one result.
pub fn join(documents: &[String]) -> String {
    if let [one] = documents {
        return format!("{one}\n");
    }
    let version = env!("CARGO_PKG_VERSION");
    let results = documents.join(",\n");
    format!(
        "{{\"schema\":\"{RESULTS}\",\"laptime_version\":\"{version}\",\"results\":[\n{results}\n]}}\n"
    )
}

fn single(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut document: Value = serde_json::from_slice(bytes)
        .map_err(|error| format!("{}: is no JSON document: {error}", error.line()))?;
    let schema = document["schema"].as_str().unwrap_or("none");
    if schema == RESULT {
        return Ok(vec![document]);
    }
    if schema != RESULTS {
        return Err(format!(
            "schema is {schema}; expected {RESULT} or {RESULTS}"
        ));
    }
    match document["results"].take() {
        Value::Array(results) => Ok(results),
        _ => Err("`results` is no list".to_string()),
    }
}

fn one(document: Value) -> Result<Figures, String> {
    let read: Document = serde_json::from_value(document).map_err(|error| error.to_string())?;
    read.figures()
}

#[derive(Deserialize)]
struct Document {
    seed: u64,
    operating_point: PointIn,
    workload: WorkloadIn,
    summary: SummaryIn,
    economy: Option<EconomyIn>,
    runs: Vec<RunIn>,
    laps: Option<Vec<LapIn>>,
    calls: Option<Vec<CallIn>>,
}

#[derive(Deserialize)]
struct PointIn {
    kind: String,
    rig: Option<String>,
    hardware: Option<String>,
    engine: Option<String>,
    engine_version: Option<String>,
    model: Option<String>,
    quantization: Option<String>,
    settings: BTreeMap<String, String>,
    trust: String,
    error_interval: Option<(f64, f64)>,
    #[serde(default)]
    known_by: String,
}

#[derive(Deserialize)]
struct SourceIn {
    name: String,
    digest: String,
}

#[derive(Deserialize)]
struct WorkloadIn {
    traces: Vec<SourceIn>,
    sessions: usize,
    agents: u32,
    runs: u32,
    share: String,
    pace: String,
    #[serde(default = "one_times")]
    pace_scale: f64,
    idle_cap_s: Option<f64>,
    #[serde(default)]
    idle_cut_s: f64,
    on_refusal: Option<String>,
    #[serde(default)]
    warm_start: bool,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct EconomyIn {
    prices: BTreeMap<String, f64>,
}

fn one_times() -> f64 {
    1.0
}

#[derive(Deserialize)]
struct SpreadIn {
    mean: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

#[derive(Deserialize)]
struct TotalsIn {
    prompt: u64,
    /// Null where a real engine does not tell it, as all that follows from it; counted as none.
    cached: Option<u64>,
    cached_optimal: Option<u64>,
    cached_unbounded: Option<u64>,
    computed: Option<u64>,
    output: u64,
    new: Option<u64>,
    reread_evicted: Option<u64>,
    reread_uncached: Option<u64>,
    reread_broken: Option<u64>,
}

#[derive(Deserialize)]
struct SummaryIn {
    wall_s: f64,
    model_s: f64,
    tool_s: f64,
    runs: u32,
    laps: u32,
    calls: u32,
    failed_calls: u32,
    run_s: SpreadIn,
    lap_s: SpreadIn,
    ttft_s: SpreadIn,
    itl_s: SpreadIn,
    tokens: TotalsIn,
    parts_s: BTreeMap<String, f64>,
    bound_s: Option<BTreeMap<String, f64>>,
    energy_wh: Option<f64>,
    cost_usd: Option<f64>,
}

fn span(secs: f64, what: &str) -> Result<Span, String> {
    Span::try_from_secs(secs)
        .ok_or_else(|| format!("{what} is {secs}; expected seconds of at least 0"))
}

fn time(secs: f64, what: &str) -> Result<Time, String> {
    Ok(Time(span(secs, what)?.0))
}

fn maybe(secs: Option<f64>, what: &str) -> Result<Option<Time>, String> {
    secs.map(|secs| time(secs, what)).transpose()
}

fn from_word<T>(
    word: &str,
    what: &str,
    all: impl IntoIterator<Item = (&'static str, T)>,
) -> Result<T, String> {
    let found = all.into_iter().find(|(name, _)| *name == word);
    found
        .map(|(_, value)| value)
        .ok_or_else(|| format!("{what} is `{word}`, which this version does not know"))
}

impl Document {
    fn figures(self) -> Result<Figures, String> {
        let mut sessions: Vec<String> = Vec::new();
        for run in &self.runs {
            if !sessions.contains(&run.session) {
                sessions.push(run.session.clone());
            }
        }
        let mut main: BTreeMap<u32, Span> = BTreeMap::new();
        let laps = self.laps.map(|laps| {
            laps.iter()
                .map(LapIn::row)
                .collect::<Result<Vec<Lap>, String>>()
        });
        let laps = laps.transpose()?;
        for lap in laps.iter().flatten().filter(|lap| lap.lap.thread == 0) {
            *main.entry(lap.lap.run.0).or_default() += lap.parts.total();
        }
        let runs = self.runs.iter().map(|run| run.row(&sessions, &main));
        let runs = runs.collect::<Result<Vec<RunRow>, String>>()?;
        let calls = self.calls.map(|calls| {
            calls
                .iter()
                .map(CallIn::row)
                .collect::<Result<Vec<CallRow>, String>>()
        });
        let rows = laps
            .zip(calls.transpose()?)
            .map(|(laps, calls)| Rows { laps, calls });
        let summary = self.summary.read(self.workload.idle_cut_s, rows.as_ref())?;
        let mut workload = self.workload.read(self.seed, sessions)?;
        workload.calls = u64::from(summary.calls);
        let tells_cached = self.summary.tokens.cached.is_some();
        if let Some(economy) = &self.economy {
            workload.prices = economy.read()?;
        }
        Ok(Figures {
            point: self.operating_point.read()?,
            workload,
            summary,
            runs,
            rows,
            tells_cached,
        })
    }
}

impl PointIn {
    fn read(self) -> Result<OperatingPoint, String> {
        let kinds = [Kind::Simulated, Kind::Live].map(|kind| (kind.word(), kind));
        let hardware = self.hardware.as_deref().unwrap_or("-");
        let name = [
            hardware,
            self.engine.as_deref().unwrap_or("-"),
            self.model.as_deref().unwrap_or("-"),
        ]
        .join("/");
        Ok(OperatingPoint {
            kind: from_word(&self.kind, "operating_point.kind", kinds)?,
            name: self.rig.unwrap_or(name),
            hardware: self.hardware,
            engine: self.engine,
            engine_version: self.engine_version,
            model: self.model,
            quantization: self.quantization,
            settings: self.settings,
            trust: from_word(
                &self.trust,
                "operating_point.trust",
                Trust::ALL.map(|trust| (trust.word(), trust)),
            )?,
            error_interval: self.error_interval,
            known_by: self.known_by,
        })
    }
}

impl WorkloadIn {
    fn read(self, seed: u64, mut sessions: Vec<String>) -> Result<Workload, String> {
        let shares = [Share::Head, Share::None, Share::All].map(|it| (it.word(), it));
        let paces = [Pace::Recorded, Pace::Tools, Pace::None].map(|it| (it.word(), it));
        let default = Conduct::default();
        let habits: Vec<_> = self.settings.clone().into_iter().collect();
        let habits =
            Habits::parse(&habits).map_err(|error| format!("workload.settings: {error}"))?;
        let conduct = Conduct {
            pace: from_word(&self.pace, "workload.pace", paces)?,
            pace_scale: self.pace_scale,
            idle_cap: match self.idle_cap_s {
                Some(secs) => span(secs, "workload.idle_cap_s")?,
                None => default.idle_cap,
            },
            on_refusal: match self.on_refusal.as_deref() {
                Some("stop") => OnRefusal::Stop,
                _ => OnRefusal::Continue,
            },
            warm_start: self.warm_start,
            cache_lifetime: habits.breakpoints,
            ..default
        };
        if self.agents == 0 {
            return Err("workload.agents is 0; expected at least 1".to_string());
        }
        // Sessions that no run took up have no name here.
        sessions.resize(self.sessions.max(sessions.len()), String::new());
        Ok(Workload {
            traces: self
                .traces
                .into_iter()
                .map(|one| (one.name, one.digest))
                .collect(),
            sessions: sessions.into_iter().map(Into::into).collect(),
            plan: Plan {
                agents: self.agents,
                runs: Some(self.runs),
                share: from_word(&self.share, "workload.share", shares)?,
                conduct,
            },
            runs: self.runs,
            calls: 0,
            seed,
            settings: self.settings,
            prices: Prices::default(),
        })
    }
}

impl EconomyIn {
    fn read(&self) -> Result<Prices, String> {
        let typed = self.prices.iter();
        let typed: Vec<_> = typed
            .map(|(key, price)| (key.clone(), price.to_string()))
            .collect();
        Prices::parse(&typed).map_err(|error| format!("economy.prices: {error}"))
    }
}

impl SpreadIn {
    fn read(&self, what: &str) -> Result<Option<Quantiles>, String> {
        let all = [self.mean, self.p50, self.p90, self.p95, self.p99, self.max];
        if all.iter().any(Option::is_none) {
            return Ok(None);
        }
        let mut spans = [Span::ZERO; 6];
        for (to, secs) in spans.iter_mut().zip(all) {
            *to = span(secs.unwrap_or_default(), what)?;
        }
        let [mean, p50, p90, p95, p99, max] = spans;
        Ok(Some(Quantiles {
            mean,
            p50,
            p90,
            p95,
            p99,
            max,
        }))
    }
}

impl SummaryIn {
    fn read(&self, idle_cut_s: f64, rows: Option<&Rows>) -> Result<Summary, String> {
        let tokens = &self.tokens;
        let mut failures = [0; FAILURES.len()];
        for row in rows.iter().flat_map(|rows| &rows.calls) {
            for (count, failure) in failures.iter_mut().zip(FAILURES) {
                *count += u32::from(row.outcome == failure);
            }
        }
        Ok(Summary {
            wall: span(self.wall_s, "summary.wall_s")?,
            model: span(self.model_s, "summary.model_s")?,
            tool: span(self.tool_s, "summary.tool_s")?,
            runs: self.runs,
            laps: self.laps,
            calls: self.calls,
            failed_calls: self.failed_calls,
            failures,
            run: self.run_s.read("summary.run_s")?,
            lap: self.lap_s.read("summary.lap_s")?,
            ttft: self.ttft_s.read("summary.ttft_s")?,
            itl: self.itl_s.read("summary.itl_s")?,
            tokens: TokenTotals {
                prompt: Tokens(tokens.prompt),
                cached: Tokens(tokens.cached.unwrap_or(0)),
                cached_optimal: tokens.cached_optimal.map(Tokens),
                cached_unbounded: tokens.cached_unbounded.map(Tokens),
                computed: Tokens(tokens.computed.unwrap_or(0)),
                output: Tokens(tokens.output),
            },
            classes: TokenClasses {
                new: Tokens(tokens.new.unwrap_or(0)),
                evicted: Tokens(tokens.reread_evicted.unwrap_or(0)),
                uncached: Tokens(tokens.reread_uncached.unwrap_or(0)),
                broken: Tokens(tokens.reread_broken.unwrap_or(0)),
            },
            parts: lap_parts(&self.parts_s)?,
            bound: self.bound_s.as_ref().map(bound_by).transpose()?,
            idle_cut: span(idle_cut_s, "workload.idle_cut_s")?,
            energy: self.energy_wh.map(|hours| Joules(hours * 3600.0)),
            cost: self.cost_usd.map(Money),
        })
    }
}
