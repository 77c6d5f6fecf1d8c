//! What is in a trace: sizes, growth, breaks, waits, sub-agents, and what a cache could save at best.
//!
//! Plain values for people and scripts; how they look is decided elsewhere. Every figure is computed from the compiled
//! trace, so it describes what will be replayed.

use super::content::{Content, ROOT};
use super::{Ending, Session, Step, Trace};
use crate::ids::NodeId;
use crate::units::{Span, Tokens};
use rustc_hash::FxHashSet;

/// The analysis of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Inspection {
    /// All sessions together.
    pub total: Summary,
    /// Each session by its id, in input order.
    pub sessions: Vec<(String, Summary)>,
}

/// The analysis of one session, or of all.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// Sessions.
    pub sessions: u64,
    /// Sessions that begin in mid-conversation.
    pub resumed: u64,
    /// Conversations, main threads included.
    pub threads: u64,
    /// Requests.
    pub calls: u64,
    /// Prompt tokens of all requests.
    pub prompt: Tokens,
    /// Answer tokens of all requests.
    pub output: Tokens,
    /// The largest prompt.
    pub largest_prompt: Tokens,
    /// The first prompts of main threads.
    pub first_prompt: Distribution,
    /// Tokens of the first prompts that are a declared or common head.
    pub head: Distribution,
    /// The tokens by which prompts differ in size from those before them in their thread.
    pub growth: Distribution,
    /// The prompts of requests that have one before them in their thread.
    pub followed: Tokens,
    /// How much of those also begins the prompt before.
    pub shared: Tokens,
    /// Prompt tokens that no earlier request of the session sent or received.
    pub new: Tokens,
    /// Prompt tokens that are new at their place but stood elsewhere in the conversation before.
    pub again: Tokens,
    /// Distinct tokens, prompts and answers: what an engine stores that never forgets.
    pub distinct: Tokens,
    /// Prompt tokens that such an engine would not compute.
    pub reusable: Tokens,
    /// Places at which a prompt does not follow the one before, by what happened.
    pub breaks: Breaks,
    /// Waits by cause.
    pub waits: Waits,
    /// Sub-agents.
    pub agents: Agents,
    /// Sub-agents by the steps that start some.
    pub fan_out: Distribution,
    /// What prompts share with the one before them, as far as that was sent no longer ago than each of [`LIFETIMES`].
    pub lived: [Tokens; LIFETIMES.len()],
    /// The prompts of requests of which it is known how long ago the one before was sent.
    pub timed: Tokens,
    /// Prompt tokens that nothing in their session, but an earlier session, sent or received.
    pub elsewhere: Tokens,
    /// Requests by the sizes of their prompts: up to each of [`PROMPT_SIZES`], and larger ones.
    pub prompt_sizes: [u64; PROMPT_SIZES.len() + 1],
}

/// How long a cache may keep what it was not asked for: what providers offer, and an hour.
pub const LIFETIMES: [Span; 3] = [
    Span(60 * 1_000_000_000),
    Span(300 * 1_000_000_000),
    Span(3_600 * 1_000_000_000),
];

/// The sizes by which prompts are sorted into groups.
pub const PROMPT_SIZES: [u64; 9] = [
    2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
];

/// Quantiles of a quantity that may be negative; all zero where nothing was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Distribution {
    /// How many values there are.
    pub count: u64,
    /// A tenth is not above this.
    pub p10: i64,
    /// The median.
    pub p50: i64,
    /// Nine tenths are not above this.
    pub p90: i64,
    /// The largest.
    pub max: i64,
}

/// Breaks of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Break {
    /// How many.
    pub count: u64,
    /// Tokens of the prompts before that were not kept.
    pub lost: Tokens,
    /// Tokens of the prompts behind the break: what an engine that keeps everything has to compute then.
    pub cost: Tokens,
}

/// Places at which a prompt does not follow the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Breaks {
    /// All of the prompt was kept, but not all of the answer.
    pub answer_dropped: Break,
    /// The last 1,024 tokens of the prompt or fewer changed.
    pub tail: Break,
    /// More changed, and the prompt is about as large as before or larger.
    pub rewritten: Break,
    /// The prompt has less than nine tenths of its size before: compaction, clearing, a rewind.
    pub shrunk: Break,
    /// How many of all these lie at an estimated place.
    pub estimated: u64,
}

/// Waits of one cause that are longer than nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wait {
    /// How many.
    pub count: u64,
    /// Together.
    pub sum: Span,
    /// The median.
    pub p50: Span,
    /// Nine tenths are not longer.
    pub p90: Span,
}

/// Waits by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waits {
    /// Measured tool time.
    pub tool: Wait,
    /// Measured client overhead.
    pub client: Wait,
    /// People.
    pub human: Wait,
    /// Unknown cause, after a tool call.
    pub unknown_tool: Wait,
    /// Unknown cause, otherwise.
    pub unknown: Wait,
    /// Recorded model time, for comparison.
    pub model: Wait,
}

/// Sub-agents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Agents {
    /// How many.
    pub count: u64,
    /// How many a parent waits for.
    pub joined: u64,
    /// The steps that start some.
    pub launches: u64,
    /// The most that one step starts.
    pub largest_launch: u64,
    /// Their requests.
    pub calls: u64,
    /// Their prompt tokens.
    pub prompt: Tokens,
}

impl Summary {
    /// Returns the share of prompts that also begins the prompt before, weighted by tokens.
    pub fn shared_with_previous(&self) -> Option<f64> {
        ratio(self.shared, self.followed)
    }

    /// Returns the share of prompts that also begins the prompt before, if that was sent no longer ago than the lifetime
    /// of this place in [`LIFETIMES`].
    pub fn lives(&self, lifetime: usize) -> Option<f64> {
        ratio(self.lived[lifetime], self.timed)
    }

    /// Returns the share of all prompt tokens that a cache that never forgets would hold.
    pub fn hit_ceiling(&self) -> Option<f64> {
        ratio(self.reusable, self.prompt)
    }
}

fn ratio(part: Tokens, whole: Tokens) -> Option<f64> {
    (whole > Tokens::ZERO).then(|| part.as_f64() / whole.as_f64())
}

/// The most that counts as a changed tail.
const TAIL: u64 = 1_024;

/// Analyses a trace.
pub fn inspect(trace: &Trace) -> Inspection {
    let mut total = Gathered::default();
    let mut everything = Seen::default();
    let mut sessions = Vec::with_capacity(trace.sessions.len());
    for session in &trace.sessions {
        let mut own = Gathered::default();
        let mut seen = Seen::default();
        session_of(&trace.content, session, &mut own, &mut seen);
        // The total counts content that sessions share once.
        session_of(&trace.content, session, &mut total, &mut everything);
        sessions.push((session.id.to_string(), own.finish()));
    }
    let mut total = total.finish();
    let own: Tokens = sessions.iter().map(|(_, own)| own.reusable).sum();
    total.elsewhere = total.reusable - own;
    Inspection { total, sessions }
}

/// The content met so far.
#[derive(Default)]
struct Seen(FxHashSet<NodeId>);

impl Seen {
    /// Returns where the part of a path that was met before ends.
    fn deepest(&self, content: &Content, tip: NodeId) -> NodeId {
        let met = |node: &NodeId| self.0.contains(node);
        content.upwards(tip).find(met).unwrap_or(ROOT)
    }

    /// Adds a path; returns how many tokens of it were not met before.
    fn add(&mut self, content: &Content, tip: NodeId) -> Tokens {
        let fresh = content.upwards(tip).take_while(|&node| self.0.insert(node));
        let tokens = fresh.map(|node| content.end(node) - content.start(node));
        tokens.sum()
    }
}

/// A summary while values are added.
#[derive(Default)]
struct Gathered {
    summary: Summary,
    first_prompts: Vec<i64>,
    heads: Vec<i64>,
    growths: Vec<i64>,
    launches: Vec<i64>,
    tool: Vec<Span>,
    client: Vec<Span>,
    human: Vec<Span>,
    unknown_tool: Vec<Span>,
    unknown: Vec<Span>,
    model: Vec<Span>,
}

fn session_of(content: &Content, session: &Session, into: &mut Gathered, seen: &mut Seen) {
    into.summary.sessions += 1;
    into.summary.resumed += u64::from(session.resumed);
    for (place, thread) in session.threads.iter().enumerate() {
        into.summary.threads += 1;
        let first = &thread.steps[0];
        if place == 0 {
            into.first_prompts.push(signed(first.prompt_tokens));
            let mut head = content.upwards(first.prompt);
            let head = head.find(|&node| content.is_head(node)).unwrap_or(ROOT);
            into.heads.push(signed(content.end(head)));
        } else {
            into.summary.agents.count += 1;
            into.summary.agents.calls += thread.steps.len() as u64;
        }
        for (index, step) in thread.steps.iter().enumerate() {
            let previous = index.checked_sub(1).map(|last| &thread.steps[last]);
            if place > 0 {
                into.summary.agents.prompt += step.prompt_tokens;
            }
            into.step(content, step, previous, seen);
        }
    }
}

impl Gathered {
    fn step(&mut self, content: &Content, step: &Step, previous: Option<&Step>, seen: &mut Seen) {
        let summary = &mut self.summary;
        summary.calls += 1;
        summary.prompt += step.prompt_tokens;
        summary.output += step.output_tokens;
        summary.largest_prompt = summary.largest_prompt.max(step.prompt_tokens);
        summary.again += step.again;
        let group = PROMPT_SIZES.partition_point(|&size| size < step.prompt_tokens.0);
        summary.prompt_sizes[group] += 1;
        let reusable = content.end(seen.deepest(content, step.prompt));
        summary.reusable += reusable;
        summary.new += step.prompt_tokens - reusable;
        summary.distinct += seen.add(content, step.prompt);
        summary.distinct += seen.add(content, step.output);
        if let Some(previous) = previous {
            self.growths
                .push(signed(step.prompt_tokens) - signed(previous.prompt_tokens));
            self.follow(content, step, previous);
        }
        self.waits(step);
        let launched = step.gap.spawns.len() as u64;
        let agents = &mut self.summary.agents;
        if launched > 0 {
            self.launches.push(launched.cast_signed());
        }
        agents.launches += u64::from(launched > 0);
        agents.largest_launch = agents.largest_launch.max(launched);
        agents.joined += step.gap.joins.len() as u64;
    }

    /// Compares a prompt with the one before it.
    fn follow(&mut self, content: &Content, step: &Step, previous: &Step) {
        let summary = &mut self.summary;
        let kept = content.end(content.meeting(previous.output, step.prompt));
        let shared = kept.0.min(previous.prompt_tokens.0);
        summary.followed += step.prompt_tokens;
        summary.shared += Tokens(shared);
        if let Some(since) = between(previous, step) {
            summary.timed += step.prompt_tokens;
            for (lived, lifetime) in summary.lived.iter_mut().zip(LIFETIMES) {
                if since <= lifetime {
                    *lived += Tokens(shared);
                }
            }
        }
        let lost = Tokens(previous.prompt_tokens.0 - shared);
        let breaks = &mut summary.breaks;
        let kind = if lost > Tokens::ZERO {
            let shrunk = step.prompt_tokens.0 * 10 < previous.prompt_tokens.0 * 9;
            match (shrunk, lost.0 <= TAIL) {
                (true, _) => &mut breaks.shrunk,
                (false, true) => &mut breaks.tail,
                (false, false) => &mut breaks.rewritten,
            }
        } else if kept < previous.prompt_tokens + previous.output_tokens {
            &mut breaks.answer_dropped
        } else {
            return;
        };
        kind.count += 1;
        kind.lost += lost;
        kind.cost += step.prompt_tokens - Tokens(kept.0.min(step.prompt_tokens.0));
        breaks.estimated += u64::from(step.break_estimated);
    }

    fn waits(&mut self, step: &Step) {
        let gap = &step.gap;
        let unknown = match gap.after {
            Ending::ToolCall => &mut self.unknown_tool,
            Ending::EndOfTurn | Ending::Unknown => &mut self.unknown,
        };
        for (span, list) in [
            (gap.unknown, unknown),
            (gap.tool, &mut self.tool),
            (gap.client, &mut self.client),
            (gap.human, &mut self.human),
            (step.recorded.model().unwrap_or_default(), &mut self.model),
        ] {
            if span > Span::ZERO {
                list.push(span);
            }
        }
    }

    fn finish(self) -> Summary {
        Summary {
            first_prompt: distribution(self.first_prompts),
            head: distribution(self.heads),
            growth: distribution(self.growths),
            fan_out: distribution(self.launches),
            waits: Waits {
                tool: wait(self.tool),
                client: wait(self.client),
                human: wait(self.human),
                unknown_tool: wait(self.unknown_tool),
                unknown: wait(self.unknown),
                model: wait(self.model),
            },
            ..self.summary
        }
    }
}

/// Returns how long before a request the one before it was sent, where that is known.
fn between(previous: &Step, step: &Step) -> Option<Span> {
    let sent = previous.recorded.sent().zip(step.recorded.sent());
    if let Some((before, now)) = sent.filter(|(before, now)| before <= now) {
        return Some(now - before);
    }
    let gap = &previous.gap;
    let waited = gap.tool + gap.client + gap.human + gap.unknown;
    // What sub-agents took is in no wait.
    let model = previous.recorded.model().filter(|_| gap.joins.is_empty());
    model.map(|model| Span(model.0.saturating_add(waited.0)))
}

/// Returns a number of tokens for differences; a prompt has fewer than 2^32.
fn signed(tokens: Tokens) -> i64 {
    tokens.0.cast_signed()
}

/// Returns the smallest value that `permille` of all are not above.
fn quantile<T: Copy>(sorted: &[T], permille: usize) -> Option<T> {
    let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

fn distribution(mut values: Vec<i64>) -> Distribution {
    values.sort_unstable();
    let at = |permille| quantile(&values, permille).unwrap_or_default();
    Distribution {
        count: values.len() as u64,
        p10: at(100),
        p50: at(500),
        p90: at(900),
        max: at(1_000),
    }
}

fn wait(mut spans: Vec<Span>) -> Wait {
    spans.sort_unstable();
    let at = |permille| quantile(&spans, permille).unwrap_or_default();
    // Recorded model times are not bounded by what a session may wait.
    let sum = spans
        .iter()
        .fold(0u64, |sum, span| sum.saturating_add(span.0));
    Wait {
        count: spans.len() as u64,
        sum: Span(sum),
        p50: at(500),
        p90: at(900),
    }
}
