//! TraceLab: one round of a coding agent per JSON line, and the CSV workloads that are made of such rounds.
//!
//! A round's prefix is what the provider had cached, so a miss looks like a break: how the prompts grow decides, and
//! what was cached is only the least that two prompts share. A CSV says what shall be reused, and is taken at its word.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{
    OutputRecord, PromptEdit, Record, SessionRecord, StepRecord, ToolRecord, UsageRecord,
};
use super::growth::{self, Before};
use super::lenient::{List, Num, Text};
use super::table::Table;
use super::timeline::{self, Ran, Rest, Strand, Timeline, Turn};
use super::{Feed, parse_error, stamp};
use crate::trace::record::GapRecord;
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// A prefix may end so much before the prompt does: the template's last tokens are not cached.
const TEMPLATE_TOKENS: u64 = 64;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Round {
    session_id: Text,
    model: Text,
    input_tokens_total: Num,
    prefix_tokens: Num,
    output_tokens: Num,
    reasoning_output_tokens: Num,
    claude_cache_creation_input_tokens: Num,
    timing_events: List<Event>,
    tools: List<Tool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event {
    event_type: Text,
    timestamp: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "named as the format names them")]
struct Tool {
    tool_name: Text,
    tool_call_id: Text,
    emitted_at: Text,
    result_at: Text,
    tool_wall_latency_ms: Num,
    tool_internal_latency_ms: Num,
    result_chars: Num,
}

/// Returns whether a JSON object is a round.
pub(super) fn is_round(object: &serde_json::Map<String, serde_json::Value>) -> bool {
    object.contains_key("input_tokens_total") && object.contains_key("newly_append_tokens")
}

/// Reads rounds.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut sessions: Vec<Session> = Vec::new();
    let mut by_id: FxHashMap<String, usize> = FxHashMap::default();
    let mut lines = input.lines().map_err(io)?;
    let stem = file_stem(&input.path);
    while let Some(line) = lines.next() {
        let round = match line {
            Ok(line) => serde_json::from_slice::<Round>(line).map_err(|error| parse_error(&error)),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let place = format!("line {}", lines.number);
        let done = round.and_then(|round| {
            let id = round.session_id.0.clone().unwrap_or_else(|| stem.clone());
            let at = *by_id.entry(id.clone()).or_insert_with(|| {
                sessions.push(Session {
                    id,
                    ..Session::default()
                });
                sessions.len() - 1
            });
            sessions[at].round(&round, &place)
        });
        if let Err(why) = done {
            feed.problem(&place, &why);
        }
    }
    let starts = sessions.iter().flat_map(|session| &session.strand.turns);
    let origin_us = starts
        .filter(|turn| turn.how.is_some())
        .map(|turn| turn.start_us)
        .min();
    let mut notes = timeline::Notes::default();
    let (mut rounds, mut misses) = (0, 0);
    for session in sessions {
        rounds += session.strand.turns.len();
        misses += session.misses;
        session.write(feed, origin_us.unwrap_or(0), &mut notes);
    }
    feed.losses.push(
        "prompts are known by their sizes: one that grew by at least the answer keeps it, and the place of every break is \
         estimated"
            .to_string(),
    );
    feed.losses.push(
        "moments are the ends of blocks: a request is taken to begin with its last input; tools count from call to result, \
         as far as an internal time does not tell approval and client apart"
            .to_string(),
    );
    if misses > 0 {
        feed.losses.push(format!(
            "{misses} of {rounds} rounds had less in the provider's cache than they share with the round before; the cache is \
             not taken for the prompt"
        ));
    }
    notes.report(feed);
    Ok(())
}

#[derive(Default)]
struct Session {
    id: String,
    strand: Strand,
    before: Option<Before>,
    misses: usize,
}

impl Session {
    fn round(&mut self, round: &Round, place: &str) -> Result<(), String> {
        let prompt = round
            .input_tokens_total
            .count()
            .filter(|&tokens| tokens > 0);
        let prompt =
            prompt.ok_or("`input_tokens_total` is missing; expected a positive whole number")?;
        let output = round.output_tokens.count();
        let output = output.ok_or("`output_tokens` is missing; expected a whole number")?;
        let cached = round
            .prefix_tokens
            .count()
            .filter(|&tokens| tokens <= prompt);
        let reasoning = round
            .reasoning_output_tokens
            .count()
            .filter(|&tokens| tokens <= output);
        let edit = growth::edit(self.before, prompt, cached.unwrap_or(0));
        let whole = self.before.is_some_and(|before| {
            before.prompt.saturating_sub(TEMPLATE_TOKENS) > cached.unwrap_or(0)
        });
        self.misses += usize::from(whole && edit.keep > cached.unwrap_or(0));
        self.before = Some(Before {
            prompt,
            output,
            visible: reasoning.map_or(0, |reasoning| output - reasoning),
        });
        let (start, end) = round.times();
        let called = !round.tools.0.is_empty();
        self.strand.turns.push(Turn {
            start_us: start.unwrap_or(0),
            end_us: end.or(start).unwrap_or(0),
            first_token_us: None,
            how: start.zip(end).map(|_| "derived"),
            place: place.to_string(),
            step: StepRecord {
                prompt: edit,
                output: OutputRecord {
                    tokens: output,
                    reasoning,
                    ..OutputRecord::default()
                },
                usage: Some(UsageRecord {
                    prompt: Some(prompt),
                    cached,
                    cache_write: round.claude_cache_creation_input_tokens.count(),
                    output: Some(output),
                }),
                finish: Some(if called { "tool-call" } else { "end-of-turn" }.to_string()),
                ..StepRecord::default()
            },
        });
        self.strand.model = self.strand.model.take().or_else(|| round.model.0.clone());
        self.strand
            .tools
            .extend(round.tools.0.iter().filter_map(Tool::ran));
        Ok(())
    }

    fn write(mut self, feed: &mut Feed<'_>, origin_us: u64, notes: &mut timeline::Notes) {
        self.strand.tools.sort_by_key(|tool| tool.start_us);
        self.strand.id = "main".to_string();
        let line = Timeline {
            session: SessionRecord {
                id: self.id,
                model: self.strand.model.clone(),
                ..SessionRecord::default()
            },
            strands: vec![self.strand],
            rest: Rest::Unknown,
        };
        timeline::write(feed, line, origin_us, notes);
    }
}

impl Round {
    /// Returns when the last input came and when the last block of the answer ended.
    fn times(&self) -> (Option<u64>, Option<u64>) {
        let (mut start, mut end) = (None, None);
        for event in &self.timing_events.0 {
            let at = event.timestamp.0.as_deref().and_then(stamp::text_us);
            let input = matches!(
                event.event_type.0.as_deref(),
                Some("user_message" | "tool_result")
            );
            let slot = if input { &mut start } else { &mut end };
            *slot = (*slot).max(at);
        }
        // An answer does not end before it was asked for.
        (start, end.map(|end| end.max(start.unwrap_or(end))))
    }
}

impl Tool {
    fn ran(&self) -> Option<Ran> {
        let start_us = self.emitted_at.0.as_deref().and_then(stamp::text_us)?;
        let end_us = self
            .result_at
            .0
            .as_deref()
            .and_then(stamp::text_us)?
            .max(start_us);
        let micros = |ms: Num| ms.real().and_then(|ms| super::micros(ms / 1e3));
        // What the tool itself took ends with its result; approval and the client come before.
        let internal =
            micros(self.tool_internal_latency_ms).filter(|&took| took <= end_us - start_us);
        let meaning = if internal.is_some() {
            "internal"
        } else {
            "wall-with-approval"
        };
        Some(Ran {
            start_us: internal.map_or(start_us, |took| end_us - took),
            end_us,
            record: ToolRecord {
                name: self
                    .tool_name
                    .0
                    .clone()
                    .unwrap_or_else(|| "unknown".to_string()),
                id: self.tool_call_id.0.clone(),
                meaning: Some(meaning.to_string()),
                result_chars: self.result_chars.count(),
                ..ToolRecord::default()
            },
        })
    }
}

/// The columns by which a workload is recognised.
pub(super) const COLUMNS: [&str; 4] = ["session_id", "prefix_len", "input_len", "output_len"];

/// Reads a workload: what each round reuses and adds, and how long its tools take.
pub(super) fn read_workload(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let stem = file_stem(&input.path);
    let mut table = Table::open(input).map_err(io)?;
    let mut rounds: FxHashMap<String, (u64, Before)> = FxHashMap::default();
    let mut origin_us = None;
    while let Some(row) = table.next(feed) {
        let place = || format!("line {}", row.line);
        let (Some(keep), Some(new), Some(output)) = (
            row.count("prefix_len"),
            row.count("input_len"),
            row.count("output_len"),
        ) else {
            feed.problem(
                &place(),
                "`prefix_len`, `input_len` and `output_len` must be whole numbers",
            );
            continue;
        };
        let id = format!("{stem}-{}", row.text("session_id").unwrap_or("0"));
        let tokens = keep.saturating_add(new);
        if tokens == 0 {
            feed.problem(&place(), "the prompt is empty; expected at least one token");
            continue;
        }
        let last = rounds.get(&id).map(|(_, last)| *last);
        let number = rounds.get(&id).map_or(0, |(number, _)| *number) + 1;
        if last.is_none() {
            let arrival_us = row
                .real("arrival_time")
                .and_then(|ms| super::micros(ms / 1e3));
            let origin_us = *origin_us.get_or_insert(arrival_us.unwrap_or(0));
            let session = SessionRecord {
                id: id.clone(),
                arrival_us: arrival_us.map(|at| at.saturating_sub(origin_us)),
                ..SessionRecord::default()
            };
            feed.put(place, Record::Session(Box::new(session)));
        }
        let tool_us = row
            .real("tool_wait_after_ms")
            .and_then(|ms| super::micros(ms / 1e3));
        let step = StepRecord {
            id: number.to_string(),
            session: Some(id.clone()),
            prompt: reuse(last, keep, tokens),
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            gap: Some(GapRecord {
                tool_us,
                ..GapRecord::default()
            }),
            finish: Some("tool-call".to_string()),
            ..StepRecord::default()
        };
        feed.put(place, Record::Step(Box::new(step)));
        let before = Before {
            prompt: tokens,
            output,
            visible: output,
        };
        rounds.insert(id, (number, before));
    }
    feed.losses.push(
        "prompts are known by their sizes; what a round reuses is taken as the workload says, and a prefix that ends within \
         64 tokens of the prompt before goes on with its answer"
            .to_string(),
    );
    Ok(())
}

/// Returns a prompt of which `keep` tokens are said to be reused.
fn reuse(last: Option<Before>, keep: u64, tokens: u64) -> PromptEdit {
    let Some(before) = last else {
        return growth::edit(None, tokens, 0);
    };
    let had = before.prompt.saturating_add(before.output);
    let continues = keep.saturating_add(TEMPLATE_TOKENS) >= before.prompt && tokens >= had;
    if continues || keep >= had {
        return PromptEdit {
            tokens,
            keep: had.min(tokens),
            append: growth::plain(tokens - had.min(tokens), false)
                .into_iter()
                .collect(),
            ..PromptEdit::default()
        };
    }
    let again = (had - keep).min(tokens - keep);
    PromptEdit {
        tokens,
        keep,
        append: [
            growth::plain(again, true),
            growth::plain(tokens - keep - again, false),
        ]
        .into_iter()
        .flatten()
        .collect(),
        break_at: Some("recorded".to_string()),
        ..PromptEdit::default()
    }
}
