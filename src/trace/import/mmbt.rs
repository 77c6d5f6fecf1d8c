//! Transcripts of the MMBT harness: exact token counts and times of local models, without the text.
//!
//! An entry's stamp is its end. The harness runs tools one after the other and appends to one conversation, but does not
//! send reasoning again, so a prompt that grows by less than the answer tells that reasoning was dropped.

use super::super::compile::file_stem;
use super::super::error::TraceError;
use super::super::input::Input;
use super::super::record::{
    EventRecord, GapRecord, OutputRecord, Piece, PromptEdit, Record, SessionRecord, StepRecord,
    TimingRecord, ToolRecord, UsageRecord,
};
use super::lenient::{List, Num, Text};
use super::stamp::stamp_us;
use super::{Feed, micros, parse_error};
use serde::Deserialize;
use std::path::Path;

/// Characters per token of what the model wrote for others to read.
const CHARS_PER_TOKEN: f64 = 3.5;
/// How far stamps may contradict durations that are rounded to hundredths of a second, for each entry.
const ROUNDING_US: i64 = 10_000;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    t: Text,
    iter: Num,
    #[serde(rename = "type")]
    kind: Text,
    wall_s: Num,
    prompt_tokens: Num,
    completion_tokens: Num,
    content_len: Num,
    tool_calls: List<ToolCall>,
    finish_reason: Text,
    name: Text,
    result_len: Num,
    error: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ToolCall {
    args_len: Num,
}

/// No sum of tool times is longer: ten thousand years.
const MAX_TOOLS_US: u64 = 300_000_000_000_000_000;

/// What the receipt beside a transcript tells.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Receipt {
    run_name: Text,
    vllm: Engine,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Engine {
    served_model_name: Text,
}

/// Reads a transcript.
pub(in crate::trace) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let receipt = receipt(&input.path);
    let mut importer = Importer {
        run: receipt.run_name.0.unwrap_or_else(|| run_name(&input.path)),
        model: receipt.vllm.served_model_name.0,
        ..Importer::default()
    };
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let entry = match line {
            Ok(line) => serde_json::from_slice::<Entry>(line).map_err(|error| parse_error(&error)),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let place = format!("line {}", lines.number);
        match entry.and_then(|entry| importer.entry(feed, lines.number, &entry)) {
            Ok(()) => {}
            Err(why) => feed.problem(&place, &why),
        }
    }
    importer.finish(feed);
    Ok(())
}

/// Returns the run's name: the folder's where the file has the name that all transcripts have.
fn run_name(path: &Path) -> String {
    let stem = file_stem(path);
    if stem != "transcript" {
        return stem;
    }
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = whole.parent().and_then(Path::file_name);
    folder.map_or(stem, |name| name.to_string_lossy().into_owned())
}

/// Reads the receipt next to a transcript, where there is one.
fn receipt(path: &Path) -> Receipt {
    if file_stem(path) != "transcript" {
        return Receipt::default();
    }
    std::fs::read(path.with_file_name("receipt.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// A model's turn whose tools are still being read.
struct Turn {
    line: u64,
    step: Box<StepRecord>,
    end_us: Option<i64>,
    tool_us: u64,
    tools: i64,
}

#[derive(Default)]
struct Importer {
    run: String,
    model: Option<String>,
    session: Option<String>,
    sessions: u32,
    /// The start of the file's first session and of the present one.
    file_start_us: Option<i64>,
    start_us: Option<i64>,
    turn: Option<Turn>,
    steps: u64,
    previous: Option<Sizes>,
    contradictions: u64,
}

/// The sizes of a turn that decide what the next prompt has in common with it.
#[derive(Clone, Copy)]
struct Sizes {
    prompt: u64,
    output: u64,
    /// How much of the answer others can read, by estimate.
    visible: u64,
}

impl Importer {
    fn entry(&mut self, feed: &mut Feed<'_>, line: u64, entry: &Entry) -> Result<(), String> {
        match entry.kind.0.as_deref() {
            Some("model") => self.model(feed, line, entry),
            Some("tool") => self.tool(feed, line, entry),
            Some(kind @ ("error" | "abort")) => {
                self.event(feed, line, kind, entry);
                Ok(())
            }
            Some(other) => Err(format!(
                "entry of type `{other}`; expected model, tool, error or abort"
            )),
            None => Err("`type` is missing; expected model, tool, error or abort".to_string()),
        }
    }

    fn model(&mut self, feed: &mut Feed<'_>, line: u64, entry: &Entry) -> Result<(), String> {
        let prompt = entry.prompt_tokens.count().filter(|&tokens| tokens > 0);
        let prompt =
            prompt.ok_or("`prompt_tokens` is missing; expected a positive whole number")?;
        let output = entry.completion_tokens.count();
        let output = output.ok_or("`completion_tokens` is missing; expected a whole number")?;
        let model_us = entry.wall_s.real().and_then(micros);
        let end_us = entry.t.0.as_deref().and_then(stamp_us);
        let sent_us = end_us
            .zip(model_us)
            .map(|(end, wall)| end - wall.cast_signed());
        // The file is appended to: a run that begins again is another session.
        if self.session.is_none() || (entry.iter.count() == Some(1) && self.steps > 0) {
            self.flush(feed, None);
            self.begin(feed, line, sent_us);
        } else {
            self.flush(feed, sent_us);
        }
        let sent = sent_us.zip(self.start_us).map(|(sent, start)| sent - start);
        self.steps += 1;
        let edit = self.edit(prompt);
        let chars = entry
            .tool_calls
            .0
            .iter()
            .filter_map(|call| call.args_len.real());
        let chars = chars.sum::<f64>() + entry.content_len.real().unwrap_or(0.0);
        self.previous = Some(Sizes {
            prompt,
            output,
            visible: (chars.clamp(0.0, 1e12) / CHARS_PER_TOKEN).ceil() as u64,
        });
        let step = StepRecord {
            id: self.steps.to_string(),
            session: self.session.clone(),
            prompt: edit,
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            timing: Some(TimingRecord {
                sent_us: sent.and_then(|sent| u64::try_from(sent).ok()),
                model_us,
                how: Some("measured".to_string()),
                ..TimingRecord::default()
            }),
            usage: Some(UsageRecord {
                prompt: Some(prompt),
                output: Some(output),
                ..UsageRecord::default()
            }),
            finish: entry.finish_reason.0.as_deref().map(|reason| {
                match reason {
                    "tool_calls" => "tool-call",
                    "stop" => "end-of-turn",
                    other => other,
                }
                .to_string()
            }),
            ..StepRecord::default()
        };
        self.turn = Some(Turn {
            line,
            step: Box::new(step),
            end_us,
            tool_us: 0,
            tools: 0,
        });
        Ok(())
    }

    fn begin(&mut self, feed: &mut Feed<'_>, line: u64, sent_us: Option<i64>) {
        self.sessions += 1;
        let id = if self.sessions == 1 {
            self.run.clone()
        } else {
            format!("{}#{}", self.run, self.sessions)
        };
        self.start_us = sent_us;
        self.file_start_us = self.file_start_us.or(sent_us);
        self.steps = 0;
        self.previous = None;
        self.session = Some(id.clone());
        let since = sent_us.zip(self.file_start_us);
        let session = SessionRecord {
            id,
            arrival_us: since.and_then(|(sent, first)| u64::try_from(sent - first).ok()),
            model: self.model.clone(),
            ..SessionRecord::default()
        };
        feed.put(
            || format!("line {line}"),
            Record::Session(Box::new(session)),
        );
    }

    /// Returns the prompt as an edit of the previous one.
    fn edit(&self, prompt: u64) -> PromptEdit {
        let plain = |tokens: u64, again: bool| {
            (tokens > 0).then(|| Piece {
                tokens: Some(tokens),
                again,
                ..Piece::default()
            })
        };
        let edit = |keep: u64, again: u64, class: Option<&str>| PromptEdit {
            tokens: prompt,
            keep,
            append: [plain(again, true), plain(prompt - keep - again, false)]
                .into_iter()
                .flatten()
                .collect(),
            break_at: class.map(|_| "estimated".to_string()),
            break_class: class.map(str::to_string),
            ..PromptEdit::default()
        };
        match self.previous {
            None => edit(0, 0, None),
            // The head is unknown, so the break falls at the beginning; all of the prompt had been computed before.
            Some(last) if prompt < last.prompt => edit(0, prompt, Some("shrunk")),
            Some(last) if prompt - last.prompt >= last.output => {
                edit(last.prompt + last.output, 0, None)
            }
            Some(last) => {
                let again = last.visible.min(prompt - last.prompt).min(last.output);
                edit(last.prompt, again, Some("reasoning-dropped"))
            }
        }
    }

    fn tool(&mut self, feed: &mut Feed<'_>, line: u64, entry: &Entry) -> Result<(), String> {
        let turn = self
            .turn
            .as_mut()
            .ok_or("a tool runs before the first answer of the model")?;
        let wall_us = entry.wall_s.real().and_then(micros);
        turn.tool_us = (turn.tool_us + wall_us.unwrap_or(0)).min(MAX_TOOLS_US);
        turn.tools += 1;
        let tool = ToolRecord {
            step: turn.step.id.clone(),
            session: self.session.clone(),
            name: entry
                .name
                .0
                .clone()
                .unwrap_or_else(|| "unknown".to_string()),
            duration_us: wall_us,
            meaning: Some("wall".to_string()),
            result_chars: entry.result_len.count(),
            ..ToolRecord::default()
        };
        feed.put(|| format!("line {line}"), Record::Tool(Box::new(tool)));
        match wall_us {
            Some(_) => Ok(()),
            None => Err("`wall_s` of a tool is missing or no duration; took 0".to_string()),
        }
    }

    fn event(&mut self, feed: &mut Feed<'_>, line: u64, kind: &str, entry: &Entry) {
        let at = entry.t.0.as_deref().and_then(stamp_us).zip(self.start_us);
        let mut event = EventRecord {
            session: self.session.clone(),
            what: kind.to_string(),
            at_us: at.and_then(|(at, start)| u64::try_from(at - start).ok()),
            ..EventRecord::default()
        };
        if let Some(error) = &entry.error.0 {
            let error = serde_json::Value::String(error.chars().take(500).collect());
            event.extra.insert("error".to_string(), error);
        }
        feed.put(|| format!("line {line}"), Record::Event(Box::new(event)));
    }

    /// Passes on the present turn, now that it is known when the next request was sent.
    fn flush(&mut self, feed: &mut Feed<'_>, next_us: Option<i64>) {
        let Some(mut turn) = self.turn.take() else {
            return;
        };
        let between = next_us.zip(turn.end_us).map(|(next, end)| next - end);
        let client = between.map(|between| between - turn.tool_us.cast_signed());
        if client.is_some_and(|client| client < -ROUNDING_US * (2 + turn.tools)) {
            self.contradictions += 1;
        }
        turn.step.gap = Some(GapRecord {
            tool_us: Some(turn.tool_us),
            client_us: client.map(|client| client.max(0).cast_unsigned()),
            ..GapRecord::default()
        });
        let line = turn.line;
        feed.put(|| format!("line {line}"), Record::Step(turn.step));
    }

    fn finish(mut self, feed: &mut Feed<'_>) {
        self.flush(feed, None);
        feed.losses.push(
            "texts are not recorded, only sizes: a prompt that grew by less than the answer dropped reasoning, and what \
             is repeated of such an answer is estimated at 3.5 characters a token"
                .to_string(),
        );
        feed.losses.push(
            "answers were not streamed: no first-token times; waits between entries are the client's".to_string(),
        );
        if self.contradictions > 0 {
            feed.losses.push(format!(
                "{} times an answer and its tools end after the next request begins; their client time is taken as 0",
                self.contradictions
            ));
        }
    }
}
