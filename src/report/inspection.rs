//! What is in a trace, for people and for programs: schema `laptime.inspection/1`.
//!
//! Says what will be replayed: sizes, how prompts grow and break, waits, sub-agents, and what a cache could save at
//! best. What an import lost is reported here too.
#![expect(
    clippy::format_push_string,
    reason = "text that is built up reads better with its templates in place"
)]

mod tables;

use self::tables::{
    begin, breaks, ceilings, prompt_sizes, section, sessions, sizes, tokens, waits,
};
use super::json::write_value;
use super::table::{Look, painted};
use super::text::counted;
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
