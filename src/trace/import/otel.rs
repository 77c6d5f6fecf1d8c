//! OpenTelemetry spans of generative AI: OTLP JSON, one document or one batch a line, in any order.
//!
//! A span that counts input tokens is a request; `execute_tool` spans are its tools; an `invoke_agent` span within
//! another one is a sub-agent. Content is used where it was recorded, else prompts are judged by how they grew.

mod span;

use self::span::{Forest, Span, gather};
use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{OutputRecord, SessionRecord, StepRecord, ToolRecord, UsageRecord};
use super::capture::api;
use super::growth::{self, Before};
use super::pieces::{Heard, Said, Sizes, cut};
use super::timeline::{self, Ran, Rest, Strand, Timeline, Turn};
use super::{Feed, parse_error, read_document};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

/// How far up a span's ancestors are followed.
const MAX_DEPTH: usize = 64;

/// Returns whether a JSON object is a batch of spans.
pub(super) fn is_batch(object: &Map<String, Value>) -> bool {
    object.contains_key("resourceSpans") || object.contains_key("resource_spans")
}

/// Reads spans.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut spans = Vec::new();
    let mut lines = input.lines().map_err(io)?;
    let mut broken_lines = 0;
    while let Some(line) = lines.next() {
        match line {
            Ok(line) => match serde_json::from_slice::<Value>(line) {
                Ok(batch) => gather(&batch, &format!("line {}", lines.number), &mut spans),
                Err(_) if spans.is_empty() => {
                    // A document on several lines.
                    broken_lines += 1;
                    if broken_lines == 1 {
                        break;
                    }
                }
                Err(error) => feed.problem(&format!("line {}", lines.number), &parse_error(&error)),
            },
            Err(broken) if feed.broken(&broken) => {}
            Err(_) => break,
        }
    }
    if broken_lines > 0 {
        let mut reader = input.open().map_err(io)?;
        let (bytes, _) = read_document(reader.as_mut());
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(document) => gather(&document, "the document", &mut spans),
            Err(error) => feed.problem(&format!("line {}", error.line()), &parse_error(&error)),
        }
    }
    let requests = spans.iter().filter(|span| span.is_request()).count();
    if requests == 0 {
        let tools = spans
            .iter()
            .filter(|span| span.operation() == "execute_tool")
            .count();
        let agents = spans.iter().filter(|span| span.is_agent()).count();
        feed.problem(
            "the spans",
            &format!(
                "none of {} spans ({agents} agents, {tools} tools) is a request to a model with \
                 `gen_ai.usage.input_tokens`; have the producer export its `chat` spans with usage",
                spans.len()
            ),
        );
        return Ok(());
    }
    write(&file_stem(&input.path), spans, feed);
    Ok(())
}

fn write(stem: &str, spans: Vec<Span>, feed: &mut Feed<'_>) {
    let (forest, twice) = Forest::new(spans);
    let mut gathered = Gathered::default();
    let mut order: Vec<usize> = (0..forest.spans.len()).collect();
    order.sort_by_key(|&at| forest.spans[at].start_us);
    for &at in &order {
        if forest.spans[at].is_request() {
            gathered.request(&forest, at);
        } else if forest.spans[at].operation() == "execute_tool" {
            gathered.tools.push(at);
        }
    }
    let tools = std::mem::take(&mut gathered.tools);
    for at in tools {
        gathered.tool(&forest, at);
    }
    let mut told = Told::default();
    let mut notes = timeline::Notes::default();
    let origin_us = order
        .iter()
        .map(|&at| forest.spans[at].start_us)
        .min()
        .unwrap_or(0);
    for (number, session) in gathered.sessions.into_iter().enumerate() {
        let rest = if session.tools {
            Rest::Client
        } else {
            Rest::Unknown
        };
        let mut strands = session.strands;
        for strand in &mut strands {
            strand.0.sort();
            told.prompts(feed, &mut strand.0, &strand.1);
        }
        let strands: Vec<Strand> = strands.into_iter().map(|(strand, _)| strand).collect();
        let id = if session.id.is_empty() {
            format!("{stem}-{}", number + 1)
        } else {
            session.id
        };
        let line = Timeline {
            session: SessionRecord {
                id,
                model: strands.first().and_then(|strand| strand.model.clone()),
                ..SessionRecord::default()
            },
            strands,
            rest,
        };
        timeline::write(feed, line, origin_us, &mut notes);
    }
    notes.report(feed);
    told.report(feed, twice, gathered.stray);
}

/// A session's conversations, each with what its requests say.
#[derive(Default)]
struct Session {
    id: String,
    strands: Vec<(Strand, Vec<Spoken>)>,
    /// The agent span of each conversation.
    agents: FxHashMap<Option<usize>, usize>,
    tools: bool,
}

/// The content of a request, where it was recorded.
#[derive(Clone, Default)]
struct Spoken {
    start_us: u64,
    prompt: Option<Vec<Said>>,
    answer: Option<Vec<Said>>,
}

#[derive(Default)]
struct Gathered {
    sessions: Vec<Session>,
    by_id: FxHashMap<String, usize>,
    tools: Vec<usize>,
    stray: u64,
}

impl Gathered {
    /// Returns the session and conversation that the agents around a span stand for.
    fn strand(&mut self, forest: &Forest, at: usize, agents: &[usize]) -> (usize, usize) {
        let id = forest.session(at);
        let session = *self.by_id.entry(id.clone()).or_insert_with(|| {
            self.sessions.push(Session {
                id,
                ..Session::default()
            });
            self.sessions.len() - 1
        });
        // The outermost agent is the main conversation; each turn of it is a span of its own.
        let nested = agents.len().saturating_sub(1);
        let mut parent = self.conversation(session, forest, None, None);
        for &agent in agents[..nested].iter().rev() {
            parent = self.conversation(session, forest, Some(agent), Some(parent));
        }
        (session, parent)
    }

    fn conversation(
        &mut self,
        session: usize,
        forest: &Forest,
        agent: Option<usize>,
        parent: Option<usize>,
    ) -> usize {
        let session = &mut self.sessions[session];
        if let Some(&found) = session.agents.get(&agent) {
            return found;
        }
        let at = session.strands.len();
        let name = agent
            .and_then(|agent| forest.spans[agent].text(&["gen_ai.agent.name", "gen_ai.agent.id"]));
        let strand = Strand {
            id: agent.map_or_else(|| "main".to_string(), |_| format!("agent-{at}")),
            parent,
            kind: name.map(str::to_string),
            ..Strand::default()
        };
        session.strands.push((strand, Vec::new()));
        session.agents.insert(agent, at);
        at
    }

    fn request(&mut self, forest: &Forest, at: usize) {
        let agents = forest.agents(at);
        let (session, strand) = self.strand(forest, at, &agents);
        let span = &forest.spans[at];
        let (turn, spoken) = turn(span);
        let (strand, said) = &mut self.sessions[session].strands[strand];
        let model = turn.step.model.clone();
        strand.model = strand.model.take().or(model);
        strand.turns.push(turn);
        said.push(spoken);
    }

    /// Puts a tool to the conversation of the agent around it, where that has requests.
    fn tool(&mut self, forest: &Forest, at: usize) {
        let session = forest.session(at);
        let agents = forest.agents(at);
        let span = &forest.spans[at];
        let Some(&session) = self.by_id.get(&session) else {
            self.stray += 1;
            return;
        };
        let session = &mut self.sessions[session];
        let agent = agents.first().copied().filter(|_| agents.len() > 1);
        let strand = session.agents.get(&agent).copied().unwrap_or(0);
        session.tools = true;
        let name = span.text(&["gen_ai.tool.name"]).unwrap_or("unknown");
        session.strands[strand].0.tools.push(Ran {
            start_us: span.start_us,
            end_us: span.end_us,
            record: ToolRecord {
                name: name.to_string(),
                id: span.text(&["gen_ai.tool.call.id"]).map(str::to_string),
                meaning: Some("wall".to_string()),
                error: span.failed.then(|| "error".to_string()),
                result_chars: span
                    .text(&["gen_ai.tool.call.result"])
                    .map(|text| text.chars().count() as u64),
                ..ToolRecord::default()
            },
        });
    }
}

/// Returns a request without its prompt, and what it says.
fn turn(span: &Span) -> (Turn, Spoken) {
    let reasons = span.fields.get("gen_ai.response.finish_reasons");
    let reason = match reasons {
        Some(Value::Array(reasons)) => reasons.first().and_then(Value::as_str),
        Some(Value::String(reason)) => {
            Some(reason.trim_matches(|c: char| !c.is_ascii_alphabetic()))
        }
        _ => None,
    };
    let output = span.count(&[
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
    ]);
    let cached = span.count(&[
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
    ]);
    let written = span.count(&[
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
    ]);
    let input = span.input().unwrap_or(1);
    // The convention counts cached tokens as input; producers that pass on Anthropic's figures do not.
    let beside = cached.unwrap_or(0).saturating_add(written.unwrap_or(0));
    let prompt = if cached.unwrap_or(0) > input || beside > input {
        input.saturating_add(beside)
    } else {
        input
    };
    let first_s = span
        .fields
        .get("gen_ai.response.time_to_first_chunk")
        .and_then(Value::as_f64);
    let first_s = first_s.or_else(|| {
        span.fields
            .get("gen_ai.latency.time_to_first_token")?
            .as_f64()
    });
    let finish = if span.failed {
        Some("error".to_string())
    } else {
        api::ending(reason)
    };
    let model = span.text(&["gen_ai.response.model", "gen_ai.request.model"]);
    let step = StepRecord {
        prompt: super::super::record::PromptEdit {
            tokens: prompt,
            ..Default::default()
        },
        output: OutputRecord {
            tokens: output.unwrap_or(0),
            reasoning: span
                .count(&[
                    "gen_ai.usage.reasoning.output_tokens",
                    "gen_ai.usage.reasoning_tokens",
                ])
                .filter(|&tokens| tokens <= output.unwrap_or(0)),
            ..OutputRecord::default()
        },
        usage: Some(UsageRecord {
            prompt: Some(prompt),
            cached,
            cache_write: written,
            output,
        }),
        finish,
        model: model.map(str::to_string),
        ..StepRecord::default()
    };
    let turn = Turn {
        start_us: span.start_us,
        end_us: span.end_us,
        first_token_us: first_s.and_then(super::micros),
        how: (span.start_us > 0).then_some("measured"),
        place: span.place.clone(),
        step,
    };
    let spoken = Spoken {
        start_us: span.start_us,
        prompt: prompt_of(span),
        answer: messages(span, &["gen_ai.output.messages"]),
    };
    (turn, spoken)
}

/// Returns what a prompt says; nothing where its messages were not recorded.
fn prompt_of(span: &Span) -> Option<Vec<Said>> {
    let mut said = Vec::new();
    for tool in parsed(span, "gen_ai.tool.definitions")?
        .as_array()
        .into_iter()
        .flatten()
    {
        cut("tool", &api::plainly(tool), "tools", &mut said);
    }
    let system = parsed(span, "gen_ai.system_instructions")?;
    if !system.is_null() {
        let system = Value::Object(Map::from_iter([
            ("role".to_string(), Value::from("system")),
            ("content".to_string(), system),
        ]));
        api::message(&system, &mut said);
    }
    said.extend(messages(span, &["gen_ai.input.messages", "gen_ai.prompt"])?);
    Some(said)
}

fn messages(span: &Span, keys: &[&str]) -> Option<Vec<Said>> {
    let list = keys
        .iter()
        .find_map(|key| parsed(span, key).filter(Value::is_array))?;
    let mut said = Vec::new();
    list.as_array()?
        .iter()
        .for_each(|one| api::message(one, &mut said));
    (!said.is_empty()).then_some(said)
}

/// Returns an attribute that is JSON as text or as a structure; `null` where there is none, nothing where it is cut off.
fn parsed(span: &Span, key: &str) -> Option<Value> {
    match span.fields.get(key) {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(value) => Some(value.clone()),
        None => Some(Value::Null),
    }
}

/// How prompts became known, over a file.
#[derive(Default)]
struct Told {
    sizes: Sizes,
    spoken: u64,
    judged: u64,
    uncounted: u64,
}

impl Told {
    /// Fills in the prompts of a conversation, whose requests are in order.
    fn prompts(&mut self, feed: &mut Feed<'_>, strand: &mut Strand, spoken: &[Spoken]) {
        let mut spoken = spoken.to_vec();
        spoken.sort_by_key(|one| one.start_us);
        let mut heard = Heard::default();
        let whole = spoken.iter().all(|one| one.prompt.is_some());
        let mut before: Option<Before> = None;
        let models: FxHashSet<Option<String>> = strand
            .turns
            .iter()
            .map(|turn| turn.step.model.clone())
            .collect();
        for (turn, said) in strand.turns.iter_mut().zip(spoken) {
            let step = &mut turn.step;
            let total = step.prompt.tokens;
            let output = step.output.tokens;
            self.uncounted += u64::from(
                step.usage
                    .as_ref()
                    .is_some_and(|usage| usage.output.is_none()),
            );
            if let Some(prompt) = said.prompt.filter(|_| whole) {
                self.spoken += 1;
                step.prompt = heard.prompt(&mut self.sizes, feed, &prompt, Some(total));
                let answer = said.answer.unwrap_or_default();
                let shown = answer.iter().any(|piece| piece.kind == "reasoning");
                let reasoning = step
                    .output
                    .reasoning
                    .map(|tokens| if shown { 0 } else { tokens });
                let told = heard.answer(&mut self.sizes, feed, &answer, Some(output), reasoning);
                step.output.segs = told.segs;
            } else {
                self.judged += 1;
                let shared = step.usage.as_ref().and_then(|usage| usage.cached);
                step.prompt = growth::edit(before, total, shared.unwrap_or(0));
                let hidden = step.output.reasoning;
                before = Some(Before {
                    prompt: total,
                    output,
                    visible: hidden.map_or(0, |hidden| output.saturating_sub(hidden)),
                });
            }
            if models.len() == 1 {
                step.model = None;
            }
        }
    }

    fn report(&self, feed: &mut Feed<'_>, twice: u64, stray: u64) {
        if self.spoken > 0 {
            self.sizes.report(feed);
        }
        let mut count = |number: u64, what: &str| {
            if number > 0 {
                feed.losses.push(format!("{number} {what}"));
            }
        };
        count(
            self.judged,
            "requests were recorded without their messages: a prompt that grew by at least the answer keeps it, and the \
             place of every break is estimated",
        );
        count(
            self.uncounted,
            "requests do not count their answer; it is taken as empty",
        );
        count(twice, "spans came twice and were used once");
        count(
            stray,
            "tools belong to no conversation with requests and were left out",
        );
    }
}
