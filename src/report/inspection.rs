//! What is in a trace, for people and for programs: schema `laptime.inspection/1`.
//!
//! Says what will be replayed: sizes, how prompts grow and break, waits, sub-agents, and what a cache could save at
//! best. What an import lost is reported here too.
#![expect(
    clippy::format_push_string,
    reason = "text that is built up reads better with its templates in place"
)]

use super::json::write_value;
use super::table::{Align, Cell, Look, Table, bar, clipped, painted};
use super::text::{counted, percent};
use crate::trace::inspect::{
    Break, Distribution, Inspection, LIFETIMES, PROMPT_SIZES, Summary, Wait,
};
use crate::trace::read::ImportReport;
use crate::trace::{Source, Trace};
use crate::units::{Bytes, Span, Tokens};
use anstyle::Style;
use serde::Serialize;
use std::io::{self, Write};

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
/// How many sessions are shown one by one.
const SHOWN: usize = 20;

/// What a model keeps for a conversation.
#[derive(Clone, PartialEq, Debug)]
pub struct Memory {
    /// The model's name.
    pub model: String,
    /// For each token.
    pub per_token: Bytes,
    /// For each conversation, whatever its length.
    pub per_sequence: Bytes,
}

impl Memory {
    /// Returns what all distinct content takes, with the fixed part of each conversation.
    fn whole(&self, of: &Summary) -> Bytes {
        self.bytes(of.distinct, of.threads)
    }

    /// Returns what the largest prompt takes.
    fn largest(&self, of: &Summary) -> Bytes {
        self.bytes(of.largest_prompt, 1)
    }

    fn bytes(&self, tokens: Tokens, sequences: u64) -> Bytes {
        let tokens = self.per_token.0.saturating_mul(tokens.0);
        Bytes(tokens.saturating_add(self.per_sequence.0.saturating_mul(sequences)))
    }
}

/// Returns the report for people; `memory` says what a model would keep of it.
pub fn render(trace: &Trace, found: &Inspection, memory: Option<&Memory>, look: Look) -> String {
    let total = &found.total;
    let mut text = String::new();
    for source in &trace.sources {
        text += &format!(
            "{}  {}\n",
            painted(&source.name, TITLE),
            painted(&source.format, FAINT)
        );
    }
    text += &format!(
        "\n  {}, {}, {}\n",
        counted(total.sessions, "session"),
        counted(total.threads, "conversation"),
        counted(total.calls, "call"),
    );
    if total.resumed > 0 {
        text += &format!("  {} in mid-conversation\n", begin(total.resumed));
    }
    text += &format!("\n{}\n{}", painted("tokens", TITLE), tokens(total).render());
    text += &format!("\n{}\n{}", painted("sizes", TITLE), sizes(total).render());
    text += &format!(
        "\n{}\n{}",
        painted("calls by the size of their prompt", TITLE),
        prompt_sizes(total, look).render()
    );
    text += &format!(
        "\n{}\n{}",
        painted("what a cache could save", TITLE),
        ceilings(total).render()
    );
    if let Some(memory) = memory {
        text += &format!(
            "\n{}\n  {} for all distinct content, {} for the largest prompt ({} a token)\n",
            painted(&format!("working set with {}", memory.model), TITLE),
            memory.whole(total),
            memory.largest(total),
            memory.per_token,
        );
    }
    let breaks = breaks(total);
    text += &section(
        "breaks of the prefix",
        breaks,
        "none: every prompt continues the one before",
    );
    text += &section("waits", waits(total), "none recorded");
    let agents = &total.agents;
    if agents.count > 0 {
        text += &format!(
            "\n{}\n  {} ({} joined) from {}, at most {} at once: {}, {} prompt tokens\n",
            painted("sub-agents", TITLE),
            counted(agents.count, "sub-agent"),
            agents.joined,
            counted(agents.launches, "launch").replace("launchs", "launches"),
            agents.largest_launch,
            counted(agents.calls, "call"),
            agents.prompt,
        );
        text += &format!(
            "  sub-agents a launch: p50 {}, p90 {}, max {}\n",
            total.fan_out.p50, total.fan_out.p90, total.fan_out.max
        );
    }
    text + &sessions(found, look)
}

fn begin(sessions: u64) -> String {
    if sessions == 1 {
        "1 begins".to_string()
    } else {
        format!("{sessions} begin")
    }
}

fn section(title: &str, table: Option<Table>, otherwise: &str) -> String {
    let body = table.map_or_else(|| format!("  {otherwise}\n"), |table| table.render());
    format!("\n{}\n{body}", painted(title, TITLE))
}

fn tokens(total: &Summary) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Right]);
    let mut row = |name: &str, count: Tokens, of: Option<Tokens>| {
        let share = of.map_or_else(String::new, |of| percent(count.as_f64(), of.as_f64()));
        table.row([name.into(), count.into(), Cell::from(share).styled(TITLE)]);
    };
    row("prompts", total.prompt, None);
    row("  reusable at best", total.reusable, Some(total.prompt));
    row("  new", total.new, Some(total.prompt));
    row("  again at another place", total.again, Some(total.prompt));
    row("answers", total.output, None);
    row("distinct", total.distinct, None);
    table
}

fn sizes(total: &Summary) -> Table {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    table.row(["", "p10", "p50", "p90", "max"].map(|head| Cell::from(head).styled(FAINT)));
    for (name, spread) in [
        ("first prompt", &total.first_prompt),
        ("shared head", &total.head),
        ("growth per call", &total.growth),
    ] {
        if spread.count > 0 {
            let figures = [spread.p10, spread.p50, spread.p90, spread.max].map(signed);
            table.row(std::iter::once(name.into()).chain(figures));
        }
    }
    let largest = ["", "", ""]
        .map(Cell::from)
        .into_iter()
        .chain([total.largest_prompt.into()]);
    table.row(std::iter::once("largest prompt".into()).chain(largest));
    table
}

fn prompt_sizes(total: &Summary, look: Look) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let most = total.prompt_sizes.iter().copied().max().unwrap_or(0);
    let first = total.prompt_sizes.iter().position(|&calls| calls > 0);
    let last = total.prompt_sizes.iter().rposition(|&calls| calls > 0);
    for place in first.unwrap_or(0)..=last.unwrap_or(0) {
        let calls = total.prompt_sizes[place];
        let name = match PROMPT_SIZES.get(place) {
            Some(&size) => format!("up to {}", Tokens(size)),
            None => "more".to_string(),
        };
        let share = calls as f64 / most.max(1) as f64;
        let room = look.width.saturating_sub(34).clamp(10, 50);
        table.row([name.into(), calls.into(), bar(share, room, look).into()]);
    }
    table
}

fn ceilings(total: &Summary) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let mut row = |name: String, share: Option<f64>, of: &str| {
        if let Some(share) = share {
            let share = Cell::from(percent(share, 1.0)).styled(TITLE);
            table.row([name.into(), share, Cell::from(of).styled(FAINT)]);
        }
    };
    row(
        "one that never forgets".to_string(),
        total.hit_ceiling(),
        "of all prompt tokens",
    );
    let elsewhere = total.elsewhere.as_f64() / total.prompt.as_f64().max(1.0);
    let several = (total.sessions > 1).then_some(elsewhere);
    row("  of which from other sessions".to_string(), several, "");
    row(
        "the prompt before".to_string(),
        total.shared_with_previous(),
        "of prompts that follow one",
    );
    for (place, lifetime) in LIFETIMES.iter().enumerate() {
        row(
            format!("  kept for {lifetime}"),
            total.lives(place),
            "of those whose times are known",
        );
    }
    table
}

fn signed(tokens: i64) -> Cell {
    let sign = if tokens < 0 { "-" } else { "" };
    Cell::from(format!("{sign}{}", Tokens(tokens.unsigned_abs())))
}

fn breaks(total: &Summary) -> Option<Table> {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let breaks = &total.breaks;
    let mut some = false;
    for (name, kind) in [
        ("answer dropped or rewritten", breaks.answer_dropped),
        ("end of the prompt changed", breaks.tail),
        ("middle of the prompt rewritten", breaks.rewritten),
        ("prompt shrunk", breaks.shrunk),
    ] {
        if kind.count > 0 {
            some = true;
            let lost = format!(
                "{} prompt tokens not kept, {} to compute behind them",
                kind.lost, kind.cost
            );
            table.row([
                name.into(),
                kind.count.into(),
                Cell::from(lost).styled(FAINT),
            ]);
        }
    }
    if breaks.estimated > 0 {
        table.row([
            "  of these at an estimated place".into(),
            breaks.estimated.into(),
        ]);
    }
    some.then_some(table)
}

fn waits(total: &Summary) -> Option<Table> {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    table.row(["", "count", "p50", "p90", "sum"].map(|head| Cell::from(head).styled(FAINT)));
    let waits = &total.waits;
    let mut some = false;
    for (name, wait) in [
        ("tools", waits.tool),
        ("unknown cause after a tool call", waits.unknown_tool),
        ("people", waits.human),
        ("unknown cause", waits.unknown),
        ("client", waits.client),
        ("the model, as recorded", waits.model),
    ] {
        if wait.count > 0 {
            some = true;
            table.row([
                name.into(),
                wait.count.into(),
                wait.p50.into(),
                wait.p90.into(),
                wait.sum.into(),
            ]);
        }
    }
    some.then_some(table)
}

fn sessions(found: &Inspection, look: Look) -> String {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    let heads = ["session", "calls", "prompt tokens", "largest", "reusable"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for (name, summary) in found.sessions.iter().take(SHOWN) {
        table.row([
            clipped(name, look.width.saturating_sub(48).max(16)).into(),
            summary.calls.into(),
            summary.prompt.into(),
            summary.largest_prompt.into(),
            percent(summary.reusable.as_f64(), summary.prompt.as_f64()).into(),
        ]);
    }
    let mut text = format!("\n{}\n{}", painted("sessions", TITLE), table.render());
    if found.sessions.len() > SHOWN {
        text += &format!(
            "  and {} more; --json lists all\n",
            found.sessions.len() - SHOWN
        );
    }
    text
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    laptime_version: &'static str,
    traces: Vec<File<'a>>,
    skipped: &'a [String],
    total: Figures,
    working_set: Option<MemoryOut<'a>>,
    sessions: Vec<SessionOut<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    format: &'a str,
    digest: &'a str,
    losses: &'a [String],
    problems: &'a [String],
}

#[derive(Serialize)]
struct SessionOut<'a> {
    session: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct Figures {
    sessions: u64,
    resumed: u64,
    threads: u64,
    calls: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    new_tokens: u64,
    again_tokens: u64,
    distinct_tokens: u64,
    reusable_tokens: u64,
    hit_ceiling: Option<f64>,
    shared_with_previous: Option<f64>,
    largest_prompt_tokens: u64,
    first_prompt_tokens: Option<Spread>,
    head_tokens: Option<Spread>,
    growth_tokens: Option<Spread>,
    prompt_sizes: Vec<SizeOut>,
    elsewhere_tokens: u64,
    hit_by_lifetime: Vec<LifetimeOut>,
    breaks: BreaksOut,
    waits: WaitsOut,
    subagents: AgentsOut,
}

#[derive(Serialize)]
struct SizeOut {
    up_to_tokens: Option<u64>,
    calls: u64,
}

#[derive(Serialize)]
struct LifetimeOut {
    lifetime_s: f64,
    hit: Option<f64>,
}

#[derive(Serialize)]
struct MemoryOut<'a> {
    model: &'a str,
    bytes_per_token: u64,
    bytes_per_sequence: u64,
    distinct_bytes: u64,
    largest_prompt_bytes: u64,
}

#[derive(Serialize)]
struct Spread {
    p10: i64,
    p50: i64,
    p90: i64,
    max: i64,
}

fn spread(of: &Distribution) -> Option<Spread> {
    let known = of.count > 0;
    known.then_some(Spread {
        p10: of.p10,
        p50: of.p50,
        p90: of.p90,
        max: of.max,
    })
}

#[derive(Serialize)]
struct BreakOut {
    count: u64,
    lost_tokens: u64,
    cost_tokens: u64,
}

impl From<Break> for BreakOut {
    fn from(one: Break) -> BreakOut {
        BreakOut {
            count: one.count,
            lost_tokens: one.lost.0,
            cost_tokens: one.cost.0,
        }
    }
}

#[derive(Serialize)]
struct BreaksOut {
    answer_dropped: BreakOut,
    tail: BreakOut,
    rewritten: BreakOut,
    shrunk: BreakOut,
    estimated: u64,
}

#[derive(Serialize)]
struct WaitOut {
    count: u64,
    sum_s: f64,
    p50_s: Option<f64>,
    p90_s: Option<f64>,
}

impl From<Wait> for WaitOut {
    fn from(wait: Wait) -> WaitOut {
        let known = |span: Span| (wait.count > 0).then_some(span.secs());
        WaitOut {
            count: wait.count,
            sum_s: wait.sum.secs(),
            p50_s: known(wait.p50),
            p90_s: known(wait.p90),
        }
    }
}

#[derive(Serialize)]
struct WaitsOut {
    tool: WaitOut,
    client: WaitOut,
    human: WaitOut,
    unknown_after_tool_call: WaitOut,
    unknown: WaitOut,
    model: WaitOut,
}

#[derive(Serialize)]
struct AgentsOut {
    count: u64,
    joined: u64,
    launches: u64,
    largest_launch: u64,
    fan_out: Option<Spread>,
    calls: u64,
    prompt_tokens: u64,
}

fn figures(of: &Summary) -> Figures {
    let (breaks, waits, agents) = (&of.breaks, &of.waits, &of.agents);
    Figures {
        sessions: of.sessions,
        resumed: of.resumed,
        threads: of.threads,
        calls: of.calls,
        prompt_tokens: of.prompt.0,
        output_tokens: of.output.0,
        new_tokens: of.new.0,
        again_tokens: of.again.0,
        distinct_tokens: of.distinct.0,
        reusable_tokens: of.reusable.0,
        hit_ceiling: of.hit_ceiling(),
        shared_with_previous: of.shared_with_previous(),
        largest_prompt_tokens: of.largest_prompt.0,
        first_prompt_tokens: spread(&of.first_prompt),
        head_tokens: spread(&of.head),
        growth_tokens: spread(&of.growth),
        prompt_sizes: of
            .prompt_sizes
            .iter()
            .enumerate()
            .map(|(place, &calls)| SizeOut {
                up_to_tokens: PROMPT_SIZES.get(place).copied(),
                calls,
            })
            .collect(),
        elsewhere_tokens: of.elsewhere.0,
        hit_by_lifetime: LIFETIMES
            .iter()
            .enumerate()
            .map(|(place, lifetime)| LifetimeOut {
                lifetime_s: lifetime.secs(),
                hit: of.lives(place),
            })
            .collect(),
        breaks: BreaksOut {
            answer_dropped: breaks.answer_dropped.into(),
            tail: breaks.tail.into(),
            rewritten: breaks.rewritten.into(),
            shrunk: breaks.shrunk.into(),
            estimated: breaks.estimated,
        },
        waits: WaitsOut {
            tool: waits.tool.into(),
            client: waits.client.into(),
            human: waits.human.into(),
            unknown_after_tool_call: waits.unknown_tool.into(),
            unknown: waits.unknown.into(),
            model: waits.model.into(),
        },
        subagents: AgentsOut {
            count: agents.count,
            joined: agents.joined,
            launches: agents.launches,
            largest_launch: agents.largest_launch,
            fan_out: spread(&of.fan_out),
            calls: agents.calls,
            prompt_tokens: agents.prompt.0,
        },
    }
}

fn file(source: &Source) -> File<'_> {
    File {
        name: &source.name,
        format: &source.format,
        digest: &source.digest,
        losses: &source.losses,
        problems: &source.problems,
    }
}

/// Writes the report for programs.
pub fn write(
    out: &mut impl Write,
    trace: &Trace,
    found: &Inspection,
    memory: Option<&Memory>,
) -> io::Result<()> {
    let sessions = found.sessions.iter();
    let document = Document {
        schema: "laptime.inspection/1",
        laptime_version: env!("CARGO_PKG_VERSION"),
        traces: trace.sources.iter().map(file).collect(),
        skipped: &trace.skipped,
        total: figures(&found.total),
        working_set: memory.map(|memory| MemoryOut {
            model: &memory.model,
            bytes_per_token: memory.per_token.0,
            bytes_per_sequence: memory.per_sequence.0,
            distinct_bytes: memory.whole(&found.total).0,
            largest_prompt_bytes: memory.largest(&found.total).0,
        }),
        sessions: sessions
            .map(|(session, summary)| SessionOut {
                session,
                figures: figures(summary),
            })
            .collect(),
    };
    write_value(out, &document)
}

#[derive(Serialize)]
struct Imported<'a> {
    schema: &'static str,
    laptime_version: &'static str,
    sessions: usize,
    calls: usize,
    traces: Vec<File<'a>>,
    skipped: &'a [String],
}

/// Writes for programs what an import did and lost: schema `laptime.import/1`.
pub fn write_import(out: &mut impl Write, report: &ImportReport) -> io::Result<()> {
    let document = Imported {
        schema: "laptime.import/1",
        laptime_version: env!("CARGO_PKG_VERSION"),
        sessions: report.sessions,
        calls: report.calls,
        traces: report.sources.iter().map(file).collect(),
        skipped: &report.skipped,
    };
    write_value(out, &document)
}
