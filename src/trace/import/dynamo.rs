//! Request and agent traces of NVIDIA Dynamo: when each request ended, the hashes of its prompt's blocks, and tool spans.
//!
//! A trajectory is a conversation and names the one that started it; newer files call the two sessions. Hashes stand for
//! everything before them and mean the same in the whole file. A line may wrap its record as `event`.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{OutputRecord, SessionRecord, StepRecord, ToolRecord, UsageRecord};
use super::capture::api;
use super::growth::{self, Before};
use super::lenient::{Ids, Num, Text};
use super::timeline::{self, Ran, Rest, Strand, Timeline, Turn};
use super::{Feed, micros, mooncake, parse_error};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Line {
    event: Option<Entry>,
    #[serde(flatten)]
    bare: Entry,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    event_type: Text,
    event_time_unix_ms: Num,
    agent_context: Context,
    request: Request,
    tool: Tool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "named as the format names them")]
struct Context {
    session_id: Text,
    parent_session_id: Text,
    #[serde(alias = "program_id")]
    trajectory_id: Text,
    #[serde(alias = "parent_program_id")]
    parent_trajectory_id: Text,
    workflow_id: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "named as the format names them")]
struct Request {
    model: Text,
    input_tokens: Num,
    output_tokens: Num,
    cached_tokens: Num,
    request_received_ms: Num,
    ttft_ms: Num,
    total_time_ms: Num,
    finish_reason_metadata: Finish,
    replay: Replay,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Finish {
    finish_reason: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Replay {
    trace_block_size: Num,
    input_length: Num,
    input_sequence_hashes: Ids,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "named as the format names them")]
struct Tool {
    tool_call_id: Text,
    tool_class: Text,
    started_at_unix_ms: Num,
    ended_at_unix_ms: Num,
    duration_ms: Num,
    error_type: Text,
    output_bytes: Num,
}

/// Returns whether a JSON object is a record of such a trace.
pub(super) fn is_event(object: &Map<String, Value>) -> bool {
    let schema = |object: &Map<String, Value>| {
        let schema = object.get("schema").and_then(Value::as_str);
        schema.is_some_and(|schema| schema.starts_with("dynamo.") && schema.contains("trace"))
    };
    schema(object)
        || object
            .get("event")
            .and_then(Value::as_object)
            .is_some_and(schema)
}

/// Reads a trace.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut gathered = Gathered {
        stem: file_stem(&input.path),
        ..Gathered::default()
    };
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let parsed = match line {
            Ok(line) => serde_json::from_slice::<Line>(line).map_err(|error| parse_error(&error)),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let place = format!("line {}", lines.number);
        let done = parsed.and_then(|line| {
            let entry = line.event.unwrap_or(line.bare);
            match entry.event_type.0.as_deref() {
                Some("request_end") => gathered.request(entry, &place),
                Some("tool_end" | "tool_error") => gathered.tool(&entry),
                // Whatever starts also ends, and payloads are not replayed.
                Some(_) => Ok(()),
                None => Err("`event_type` is missing".to_string()),
            }
        });
        if let Err(why) = done {
            feed.problem(&place, &why);
        }
    }
    gathered.write(feed);
    Ok(())
}

/// A conversation, with what its prompts are made of.
#[derive(Default)]
struct Talk {
    strand: Strand,
    session: Option<String>,
    parent: Option<String>,
    prompts: Vec<Hashed>,
    tools: Vec<Ran>,
}

/// A prompt by its hashes.
#[derive(Clone, Default)]
struct Hashed {
    start_us: u64,
    block: u32,
    blocks: Vec<u64>,
}

#[derive(Default)]
struct Gathered {
    stem: String,
    talks: Vec<Talk>,
    by_name: FxHashMap<(Option<String>, String), usize>,
    untimed: u64,
    unhashed: u64,
    tools: u64,
}

impl Gathered {
    /// Returns the conversation that a record belongs to; requests without identity are conversations of their own.
    fn talk(&mut self, context: Context, place: &str) -> usize {
        let Context {
            session_id,
            parent_session_id,
            trajectory_id,
            parent_trajectory_id,
            workflow_id,
        } = context;
        let session = session_id.0.or(workflow_id.0);
        let (name, session, parent) = match (trajectory_id.0, session) {
            (Some(trajectory), session) => (trajectory, session, parent_trajectory_id.0),
            (None, Some(session)) => (session, None, parent_session_id.0),
            (None, None) => (
                format!("{}-{place}", self.stem)
                    .replace(" line ", "-")
                    .replace("line ", ""),
                None,
                None,
            ),
        };
        let talks = &mut self.talks;
        let key = (session.clone(), name.clone());
        let at = *self.by_name.entry(key).or_insert_with(|| {
            talks.push(Talk::default());
            talks.len() - 1
        });
        let talk = &mut talks[at];
        talk.strand.id = name;
        talk.session = session;
        talk.parent = talk.parent.take().or(parent);
        at
    }

    fn request(&mut self, entry: Entry, place: &str) -> Result<(), String> {
        let request = entry.request;
        let input = request
            .replay
            .input_length
            .count()
            .or(request.input_tokens.count());
        let input = input.filter(|&tokens| tokens > 0);
        let input =
            input.ok_or("the request has neither `replay.input_length` nor `input_tokens`")?;
        let output = request.output_tokens.count();
        let output = output.ok_or("`output_tokens` is missing; expected a whole number")?;
        if request.replay.input_sequence_hashes.broken {
            return Err(
                "`input_sequence_hashes` holds something that is no 64-bit whole number"
                    .to_string(),
            );
        }
        let at = self.talk(entry.agent_context, place);
        let ms = |num: Num| num.real().and_then(|ms| micros(ms / 1e3));
        let took = ms(request.total_time_ms);
        let received = ms(request.request_received_ms);
        let ended = ms(entry.event_time_unix_ms);
        let start =
            received.or_else(|| ended.zip(took).map(|(end, took)| end.saturating_sub(took)));
        let end = start
            .zip(took)
            .map(|(start, took)| start.saturating_add(took));
        let end = end.or(ended).map(|end| end.max(start.unwrap_or(0)));
        let how = start.zip(end).map(|_| "measured");
        self.untimed += u64::from(how.is_none());
        let size = request.replay.trace_block_size.count();
        let size = size
            .and_then(|size| u32::try_from(size).ok())
            .filter(|&size| size > 0);
        let mut blocks = request.replay.input_sequence_hashes.ids;
        match size {
            Some(size) => {
                blocks.truncate(usize::try_from(input / u64::from(size)).unwrap_or(usize::MAX));
            }
            None => blocks.clear(),
        }
        self.unhashed += u64::from(size.is_none());
        let talk = &mut self.talks[at];
        // A request of which only the end is known keeps its place by that.
        let start_us = start.or(ended).unwrap_or(0);
        talk.prompts.push(Hashed {
            start_us,
            block: size.unwrap_or(0),
            blocks,
        });
        let model = request.model.0;
        talk.strand.model = talk.strand.model.take().or(model);
        talk.strand.turns.push(Turn {
            start_us,
            end_us: end.unwrap_or(start_us),
            first_token_us: ms(request.ttft_ms),
            how,
            place: place.to_string(),
            step: StepRecord {
                prompt: growth::edit(None, input, 0),
                output: OutputRecord {
                    tokens: output,
                    ..OutputRecord::default()
                },
                usage: Some(UsageRecord {
                    prompt: Some(input),
                    cached: request.cached_tokens.count(),
                    output: Some(output),
                    ..UsageRecord::default()
                }),
                finish: api::ending(request.finish_reason_metadata.finish_reason.0.as_deref()),
                ..StepRecord::default()
            },
        });
        Ok(())
    }

    fn tool(&mut self, entry: &Entry) -> Result<(), String> {
        let tool = &entry.tool;
        let ms = |num: Num| num.real().and_then(|ms| micros(ms / 1e3));
        let took = ms(tool.duration_ms);
        let end = ms(tool.ended_at_unix_ms).or(ms(entry.event_time_unix_ms));
        let start = ms(tool.started_at_unix_ms)
            .or_else(|| end.zip(took).map(|(end, took)| end.saturating_sub(took)));
        let (Some(start_us), Some(end_us)) = (start, end) else {
            return Err(
                "a tool without `started_at_unix_ms` or `duration_ms`; it was left out".to_string(),
            );
        };
        let context = Context {
            session_id: entry.agent_context.session_id.clone(),
            parent_session_id: entry.agent_context.parent_session_id.clone(),
            trajectory_id: entry.agent_context.trajectory_id.clone(),
            parent_trajectory_id: entry.agent_context.parent_trajectory_id.clone(),
            workflow_id: entry.agent_context.workflow_id.clone(),
        };
        let at = self.talk(context, "tools");
        self.tools += 1;
        self.talks[at].tools.push(Ran {
            start_us,
            end_us: end_us.max(start_us),
            record: ToolRecord {
                name: tool
                    .tool_class
                    .0
                    .clone()
                    .unwrap_or_else(|| "unknown".to_string()),
                id: tool.tool_call_id.0.clone(),
                meaning: Some("wall".to_string()),
                error: tool.error_type.0.clone(),
                result_chars: tool.output_bytes.count(),
                ..ToolRecord::default()
            },
        });
        Ok(())
    }

    /// Returns the session a conversation belongs to: the one it names, or that of whoever started it.
    fn root(&self, at: usize) -> String {
        let talk = &self.talks[at];
        if let Some(session) = &talk.session {
            return session.clone();
        }
        let mut at = at;
        for _ in 0..self.talks.len().min(64) {
            let parent = self.talks[at].parent.clone().map(|name| (None, name));
            match parent.and_then(|key| self.by_name.get(&key)) {
                Some(&parent) if parent != at => at = parent,
                _ => break,
            }
        }
        self.talks[at].strand.id.clone()
    }

    fn write(mut self, feed: &mut Feed<'_>) {
        let roots: Vec<String> = (0..self.talks.len()).map(|at| self.root(at)).collect();
        let mut sessions: Vec<(String, Vec<usize>)> = Vec::new();
        let mut by_id: FxHashMap<&str, usize> = FxHashMap::default();
        for (at, root) in roots.iter().enumerate() {
            let place = *by_id.entry(root).or_insert_with(|| {
                sessions.push((root.clone(), Vec::new()));
                sessions.len() - 1
            });
            sessions[place].1.push(at);
        }
        let starts = self.talks.iter().flat_map(|talk| &talk.strand.turns);
        let origin_us = starts
            .filter(|turn| turn.how.is_some())
            .map(|turn| turn.start_us)
            .min();
        let mut notes = timeline::Notes::default();
        for (id, mut members) in sessions {
            members.retain(|&at| !self.talks[at].strand.turns.is_empty());
            // Whoever nobody started comes first, then in the order of their starts.
            members.sort_by_key(|&at| {
                let talk = &self.talks[at];
                (
                    talk.parent.is_some(),
                    talk.prompts.iter().map(|prompt| prompt.start_us).min(),
                )
            });
            let mut places: FxHashMap<String, usize> = FxHashMap::default();
            for (place, &at) in members.iter().enumerate() {
                places.insert(self.talks[at].strand.id.clone(), place);
            }
            let mut rest = Rest::Unknown;
            let mut strands = Vec::new();
            for (place, at) in members.into_iter().enumerate() {
                let talk = std::mem::take(&mut self.talks[at]);
                if !talk.tools.is_empty() {
                    rest = Rest::Client;
                }
                let named = talk
                    .parent
                    .as_ref()
                    .and_then(|name| places.get(name).copied());
                strands.push(
                    talk.finish(
                        named
                            .filter(|&parent| parent != place)
                            .or((place > 0).then_some(0)),
                    ),
                );
            }
            if strands.is_empty() {
                continue;
            }
            let line = Timeline {
                session: SessionRecord {
                    id,
                    model: strands[0].model.clone(),
                    ..SessionRecord::default()
                },
                strands,
                rest,
            };
            timeline::write(feed, line, origin_us.unwrap_or(0), &mut notes);
        }
        notes.report(feed);
        feed.losses.push(
            "content is known in whole blocks; the rest of a prompt and every answer equal nothing else".to_string(),
        );
        if self.tools == 0 {
            feed.losses
                .push("no tool spans: waits are of unknown cause".to_string());
        }
        if self.unhashed > 0 {
            feed.losses.push(format!(
                "{} requests have no hashes; they were judged by their sizes",
                self.unhashed
            ));
        }
        if self.untimed > 0 {
            feed.losses.push(format!(
                "{} requests tell only when they ended; the waits around them are unknown",
                self.untimed
            ));
        }
    }
}

impl Talk {
    /// Puts the requests into order and fills in their prompts.
    fn finish(mut self, parent: Option<usize>) -> Strand {
        self.prompts.sort_by_key(|prompt| prompt.start_us);
        self.strand.tools = self.tools;
        self.strand.sort();
        self.strand.parent = parent;
        let mut last: Option<(Hashed, Before)> = None;
        for (turn, prompt) in self.strand.turns.iter_mut().zip(self.prompts) {
            let step = &mut turn.step;
            let tokens = step.prompt.tokens;
            step.prompt = match &last {
                _ if prompt.block > 0 => {
                    let before: &[u64] = match &last {
                        Some((last, _)) if last.block == prompt.block => &last.blocks,
                        _ => &[],
                    };
                    let common = before
                        .iter()
                        .zip(&prompt.blocks)
                        .take_while(|(a, b)| a == b)
                        .count();
                    mooncake::edit(
                        prompt.block,
                        tokens,
                        &prompt.blocks,
                        common,
                        before.len() - common,
                    )
                }
                Some((_, before)) => growth::edit(Some(*before), tokens, 0),
                None => growth::edit(None, tokens, 0),
            };
            let before = Before {
                prompt: tokens,
                output: step.output.tokens,
                visible: 0,
            };
            last = Some((prompt, before));
        }
        self.strand
    }
}
