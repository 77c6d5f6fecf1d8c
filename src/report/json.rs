//! The result document: schema `laptime.result/1`, described in `docs/result.schema.json`.
//!
//! One replay gives one document; replays on several rigs give one `laptime.results/1` that holds a document for each,
//! in the order asked. Rows are written one at a time and one a line; nothing is gathered in memory. Seconds are exact
//! to the nanosecond; unknown is null.

mod economy;
mod live;

use crate::call::{CallParts, TokenClasses};
use crate::metrics::lap::{Binds, LapParts};
use crate::metrics::stats::Quantiles;
use crate::metrics::{CallRow, LapRow, RunRow, Summary};
use crate::operating_point::OperatingPoint;
use crate::study::replay::{Replay, Workload};
use crate::units::{Joules, Span, Time};
use serde::{Serialize, Serializer};
use std::io::{self, Write};

/// The schema of a result.
pub const RESULT: &str = "laptime.result/1";
/// The schema of several results in one document.
pub const RESULTS: &str = "laptime.results/1";

/// Writes one result, or several as one document. Without `rows`, `laps` and `calls` are left out.
pub fn write(out: &mut impl Write, replays: &[Replay<'_>], rows: bool) -> io::Result<()> {
    if let [replay] = replays {
        write_lines(out, 1, &Document { replay, rows })?;
    } else {
        let results = replays.iter().map(|replay| Document { replay, rows });
        let results = Results {
            schema: RESULTS,
            laptime_version: env!("CARGO_PKG_VERSION"),
            results: results.collect(),
        };
        write_lines(out, 3, &results)?;
    }
    out.write_all(b"\n")
}

/// Writes any small answer for programs, indented.
pub fn write_value(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

fn write_lines(out: &mut impl Write, depth: usize, value: &impl Serialize) -> io::Result<()> {
    let lines = Lines {
        depth: 0,
        keys: depth,
    };
    let mut serializer = serde_json::Serializer::with_formatter(out, lines);
    Ok(value.serialize(&mut serializer)?)
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the document's")]
struct Results<'a> {
    schema: &'static str,
    laptime_version: &'static str,
    results: Vec<Document<'a>>,
}

struct Document<'a> {
    replay: &'a Replay<'a>,
    rows: bool,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let replay = self.replay;
        let metrics = &replay.metrics;
        let name = |run| &*replay.workload.sessions[metrics.session_of(run)];
        let mut document = serializer.serialize_struct("Document", 12)?;
        document.serialize_field("schema", RESULT)?;
        document.serialize_field("laptime_version", env!("CARGO_PKG_VERSION"))?;
        document.serialize_field("seed", &replay.workload.seed)?;
        document.serialize_field("operating_point", &point(&replay.point))?;
        document.serialize_field("workload", &workload(replay.workload, &metrics.summary))?;
        document.serialize_field("summary", &summary(replay))?;
        document.serialize_field("energy", &replay.energy.as_ref().map(economy::energy))?;
        document.serialize_field("economy", &economy::economy(&replay.economy))?;
        if let Some(notes) = &replay.live {
            let conduct = &replay.workload.plan.conduct;
            document.serialize_field("live", &live::live(notes, conduct))?;
        }
        let runs = metrics.runs.iter().map(|row| run(row, name(row.run)));
        document.serialize_field("runs", &Rows(|| runs.clone()))?;
        if self.rows {
            let laps = || metrics.laps().map(|row| lap(&row, name(row.lap.run)));
            document.serialize_field("laps", &Rows(laps))?;
            let whole = |out| match &replay.live {
                Some(notes) => live::complete(out, notes),
                None => out,
            };
            let calls = || {
                metrics
                    .calls()
                    .map(|row| whole(call(&row, name(row.lap.run))))
            };
            document.serialize_field("calls", &Rows(calls))?;
        }
        document.end()
    }
}

/// A sequence that is made while it is written.
struct Rows<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Rows<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

#[derive(Serialize)]
struct Point<'a> {
    kind: &'static str,
    rig: &'a str,
    hardware: Option<&'a str>,
    engine: Option<&'a str>,
    engine_version: Option<&'a str>,
    model: Option<&'a str>,
    quantization: Option<&'a str>,
    settings: &'a std::collections::BTreeMap<String, String>,
    trust: &'static str,
    error_interval: Option<(f64, f64)>,
    known_by: &'a str,
}

fn point(point: &OperatingPoint) -> Point<'_> {
    Point {
        kind: point.kind.word(),
        rig: &point.name,
        hardware: point.hardware.as_deref(),
        engine: point.engine.as_deref(),
        engine_version: point.engine_version.as_deref(),
        model: point.model.as_deref(),
        quantization: point.quantization.as_deref(),
        settings: &point.settings,
        trust: point.trust.word(),
        error_interval: point.error_interval,
        known_by: &point.known_by,
    }
}

#[derive(Serialize)]
struct SourceName<'a> {
    name: &'a str,
    digest: &'a str,
}

#[derive(Serialize)]
struct WorkloadOut<'a> {
    traces: Vec<SourceName<'a>>,
    sessions: usize,
    agents: u32,
    runs: u32,
    share: &'static str,
    pace: &'static str,
    pace_scale: f64,
    idle_cap_s: f64,
    idle_cut_s: f64,
    on_refusal: &'static str,
    warm_start: bool,
    settings: &'a std::collections::BTreeMap<String, String>,
}

fn workload<'a>(workload: &'a Workload, summary: &Summary) -> WorkloadOut<'a> {
    let conduct = &workload.plan.conduct;
    let traces = workload.traces.iter();
    WorkloadOut {
        traces: traces
            .map(|(name, digest)| SourceName { name, digest })
            .collect(),
        sessions: workload.sessions.len(),
        agents: workload.plan.agents,
        runs: workload.runs,
        share: workload.plan.share.word(),
        pace: conduct.pace.word(),
        pace_scale: conduct.pace_scale,
        idle_cap_s: conduct.idle_cap.secs(),
        idle_cut_s: summary.idle_cut.secs(),
        on_refusal: conduct.on_refusal.word(),
        warm_start: conduct.warm_start,
        settings: &workload.settings,
    }
}

/// Named spans as an object of seconds.
struct Parts<const N: usize>([(&'static str, Span); N]);

impl<const N: usize> Serialize for Parts<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, span)| (name, span.secs())))
    }
}

impl From<&CallParts> for Parts<9> {
    fn from(parts: &CallParts) -> Parts<9> {
        Parts(parts.named())
    }
}

impl From<&LapParts> for Parts<12> {
    fn from(parts: &LapParts) -> Parts<12> {
        Parts(parts.named())
    }
}

/// Quantiles as an object whose fields are always there, null where nothing is known.
struct Spread(Option<Quantiles>);

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nothing = Quantiles {
            mean: Span::ZERO,
            p50: Span::ZERO,
            p90: Span::ZERO,
            p95: Span::ZERO,
            p99: Span::ZERO,
            max: Span::ZERO,
        };
        let known = self.0.is_some();
        let fields = self.0.unwrap_or(nothing).named();
        serializer.collect_map(fields.map(|(name, span)| (name, known.then_some(span.secs()))))
    }
}

#[derive(Serialize, Default)]
struct Classes {
    new: Option<u64>,
    reread_evicted: Option<u64>,
    reread_uncached: Option<u64>,
    reread_broken: Option<u64>,
}

impl From<&TokenClasses> for Classes {
    fn from(classes: &TokenClasses) -> Classes {
        Classes {
            new: Some(classes.new.0),
            reread_evicted: Some(classes.evicted.0),
            reread_uncached: Some(classes.uncached.0),
            reread_broken: Some(classes.broken.0),
        }
    }
}

#[derive(Serialize)]
struct Totals {
    prompt: u64,
    cached: Option<u64>,
    cached_optimal: Option<u64>,
    cached_unbounded: Option<u64>,
    computed: Option<u64>,
    output: u64,
    #[serde(flatten)]
    classes: Classes,
}

#[derive(Serialize)]
struct SummaryOut {
    wall_s: f64,
    model_s: f64,
    tool_s: f64,
    runs: u32,
    laps: u32,
    calls: u32,
    failed_calls: u32,
    run_s: Spread,
    lap_s: Spread,
    ttft_s: Spread,
    itl_s: Spread,
    tokens: Totals,
    parts_s: Parts<12>,
    bound_s: Option<Parts<8>>,
    binds: Option<&'static str>,
    energy_wh: Option<f64>,
    cost_usd: Option<f64>,
}

fn summary(replay: &Replay<'_>) -> SummaryOut {
    let summary = &replay.metrics.summary;
    // Unknown is null: one call of which it is not known leaves the sum unknown.
    let told = replay.live.as_ref().is_none_or(|live| live.tells_cached());
    SummaryOut {
        wall_s: summary.wall.secs(),
        model_s: summary.model.secs(),
        tool_s: summary.tool.secs(),
        runs: summary.runs,
        laps: summary.laps,
        calls: summary.calls,
        failed_calls: summary.failed_calls,
        run_s: Spread(summary.run),
        lap_s: Spread(summary.lap),
        ttft_s: Spread(summary.ttft),
        itl_s: Spread(summary.itl),
        tokens: Totals {
            prompt: summary.tokens.prompt.0,
            cached: told.then_some(summary.tokens.cached.0),
            cached_optimal: summary.tokens.cached_optimal.map(|tokens| tokens.0),
            cached_unbounded: summary.tokens.cached_unbounded.map(|tokens| tokens.0),
            computed: told.then_some(summary.tokens.computed.0),
            output: summary.tokens.output.0,
            classes: if told {
                (&summary.classes).into()
            } else {
                Classes::default()
            },
        },
        parts_s: (&summary.parts).into(),
        bound_s: summary.bound.map(|bound| Parts(bound.named())),
        binds: summary.binds().map(Binds::name),
        energy_wh: summary.energy.map(Joules::watt_hours),
        cost_usd: summary.cost.map(|cost| cost.0),
    }
}

#[derive(Serialize)]
struct RunOut<'a> {
    run: u32,
    session: &'a str,
    lane: u32,
    start_s: f64,
    end_s: Option<f64>,
    model_s: f64,
    tool_s: f64,
    laps: u32,
    outcome: &'static str,
}

fn run<'a>(row: &RunRow, session: &'a str) -> RunOut<'a> {
    RunOut {
        run: row.run.0,
        session,
        lane: row.lane.0,
        start_s: row.start.secs(),
        end_s: row.end.map(|(at, _)| at.secs()),
        model_s: row.model.secs(),
        tool_s: row.tool.secs(),
        laps: row.laps,
        outcome: row.end.map_or("interrupted", |(_, outcome)| outcome.word()),
    }
}

#[derive(Serialize)]
struct LapOut<'a> {
    run: u32,
    session: &'a str,
    thread: u32,
    lap: u32,
    start_s: f64,
    end_s: f64,
    calls: Vec<u32>,
    parts_s: Parts<12>,
}

fn lap<'a>(row: &LapRow<'_>, session: &'a str) -> LapOut<'a> {
    let calls = std::iter::once(&row.call).chain(row.retries);
    LapOut {
        run: row.lap.run.0,
        session,
        thread: row.lap.thread,
        lap: row.lap.lap,
        start_s: row.start.secs(),
        end_s: row.end().secs(),
        calls: calls.map(|call| call.0).collect(),
        parts_s: (&row.parts).into(),
    }
}

#[derive(Serialize)]
struct CallOut<'a> {
    call: u32,
    run: u32,
    session: &'a str,
    thread: u32,
    lap: u32,
    parent_call: Option<u32>,
    prompt_tokens: u64,
    cached_tokens: Option<u64>,
    computed_tokens: Option<u64>,
    output_tokens: u64,
    submitted_s: f64,
    admitted_s: Option<f64>,
    first_token_s: Option<f64>,
    finished_s: f64,
    outcome: &'static str,
    parts_s: Parts<9>,
    tokens: Option<Classes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire: Option<live::WireOut>,
}

fn call<'a>(row: &CallRow, session: &'a str) -> CallOut<'a> {
    CallOut {
        call: row.call.0,
        run: row.lap.run.0,
        session,
        thread: row.lap.thread,
        lap: row.lap.lap,
        parent_call: row.parent.map(|call| call.0),
        prompt_tokens: row.prompt.0,
        cached_tokens: Some(row.cached.0),
        computed_tokens: Some(row.computed().0),
        output_tokens: row.output.0,
        submitted_s: row.submitted.secs(),
        admitted_s: row.admitted.map(Time::secs),
        first_token_s: row.first_token.map(Time::secs),
        finished_s: row.finished.secs(),
        outcome: row.outcome.word(),
        parts_s: (&row.parts).into(),
        tokens: Some((&row.classes).into()),
        wire: None,
    }
}

/// Puts each field of a document and each row on a line of its own, and everything deeper on that line.
struct Lines {
    depth: usize,
    /// The depth down to which fields have lines; rows lie one deeper.
    keys: usize,
}

impl Lines {
    fn value<W: ?Sized + Write>(&self, out: &mut W, first: bool, down_to: usize) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        if self.depth <= down_to {
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn close<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        down_to: usize,
        end: &[u8],
    ) -> io::Result<()> {
        if self.depth <= down_to {
            out.write_all(b"\n")?;
        }
        self.depth -= 1;
        out.write_all(end)
    }
}

impl serde_json::ser::Formatter for Lines {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, self.keys, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.value(out, first, self.keys)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, self.keys + 1, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.value(out, first, self.keys + 1)
    }
}
