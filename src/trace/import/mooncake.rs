//! Mooncake request traces: JSONL of lengths and block ids, with the sessions and delays that later tools added.
//!
//! Ids are global to the file: equal ids at equal places are equal content. Only full blocks are identity; a partial last
//! block is private to its call, and answers are never found again, because no block says where they went.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::read::ReadOptions;
use super::super::record::{
    GapRecord, OutputRecord, Piece, PromptEdit, Record, SessionRecord, StepRecord, TimingRecord,
};
use super::lenient::{Ids, Num, Text};
use super::{Feed, parse_error};
use crate::trace::blocks::write_blocks;
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// The block size of the traces that gave the format its name.
const USUAL_BLOCK: u32 = 512;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Row {
    timestamp: Num,
    input_length: Num,
    output_length: Num,
    hash_ids: Ids,
    session_id: Text,
    delay: Num,
    tool_wait_ms: Num,
}

impl Row {
    /// Returns a row and its two lengths, or what is wrong with it.
    fn parse(line: &[u8]) -> Result<(Row, u64, u64), String> {
        let row: Row = serde_json::from_slice(line).map_err(|error| parse_error(&error))?;
        let input = row.input_length.count().filter(|&tokens| tokens > 0);
        let input = input.ok_or("`input_length` is missing; expected a positive whole number")?;
        let output = row.output_length.count();
        let output = output.ok_or("`output_length` is missing; expected a whole number")?;
        if row.hash_ids.broken {
            return Err("`hash_ids` holds something that is no 64-bit whole number".to_string());
        }
        Ok((row, input, output))
    }

    /// Returns what passes before the request: Dynamo's agentic rows tell tools and the rest apart.
    fn waits(&self) -> Option<f64> {
        let (delay, tools) = (Row::millis(self.delay), Row::millis(self.tool_wait_ms));
        (delay.is_some() || tools.is_some()).then(|| delay.unwrap_or(0.0) + tools.unwrap_or(0.0))
    }

    fn millis(value: Num) -> Option<f64> {
        value.real().filter(|&millis| millis >= 0.0)
    }
}

/// What the first reading of a file finds out.
struct Survey {
    block: u32,
    origin_ms: f64,
}

/// Reads a Mooncake trace.
pub(in crate::trace) fn read(
    input: &Input,
    options: &ReadOptions,
    feed: &mut Feed<'_>,
) -> Result<(), TraceError> {
    let survey = survey(input, options, feed)?;
    let mut importer = Importer {
        stem: file_stem(&input.path),
        survey,
        open: FxHashMap::default(),
        order: Vec::new(),
        untimed: 0,
    };
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let row = match line {
            Ok(line) => Row::parse(line),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        match row {
            Ok((row, input, output)) => importer.row(feed, lines.number, row, input, output),
            Err(why) => feed.problem(&format!("line {}", lines.number), &why),
        }
    }
    importer.finish(feed);
    Ok(())
}

/// Infers the block size and finds the earliest arrival.
fn survey(input: &Input, options: &ReadOptions, feed: &mut Feed<'_>) -> Result<Survey, TraceError> {
    // Bit n stands for blocks of 2^n tokens.
    let mut sizes = u32::MAX;
    let mut origin_ms = f64::INFINITY;
    let mut hashed = false;
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let row = match line {
            Ok(line) => Row::parse(line),
            Err(broken) if broken.last => break,
            Err(_) => continue,
        };
        // What is wrong with a line is said when it is read for good.
        let Ok((row, tokens, _)) = row else { continue };
        origin_ms = origin_ms.min(Row::millis(row.timestamp).unwrap_or(f64::INFINITY));
        let blocks = row.hash_ids.ids.len();
        if blocks == 0 {
            continue;
        }
        hashed = true;
        let fits = |exponent: &u32| tokens.div_ceil(1 << exponent) == blocks as u64;
        let fitting: u32 = (0..32).filter(fits).map(|exponent| 1 << exponent).sum();
        if sizes & fitting == 0 && options.block_size.is_none() {
            return Err(TraceError::BlockSize {
                path: input.path.clone(),
                line: lines.number,
                tokens,
                blocks,
            });
        }
        sizes &= fitting;
    }
    let block = match options.block_size {
        Some(size) => size.max(1),
        None if sizes & USUAL_BLOCK != 0 => USUAL_BLOCK,
        None => 1 << sizes.trailing_zeros(),
    };
    if hashed && options.block_size.is_none() && sizes.count_ones() > 1 {
        feed.losses.push(format!(
            "several block sizes fit every row; took {block} tokens (--block-size overrides)"
        ));
    }
    let origin_ms = if origin_ms.is_finite() {
        origin_ms
    } else {
        0.0
    };
    Ok(Survey { block, origin_ms })
}

/// A session whose next row may still come.
struct Open {
    /// The step that waits for the delay that the next row tells.
    pending: Box<StepRecord>,
    line: u64,
    /// The full blocks of its prompt.
    blocks: Vec<u64>,
    steps: u64,
    start_ms: Option<f64>,
}

struct Importer {
    stem: String,
    survey: Survey,
    open: FxHashMap<String, Open>,
    order: Vec<String>,
    untimed: u64,
}

impl Importer {
    fn row(&mut self, feed: &mut Feed<'_>, line: u64, row: Row, input: u64, output: u64) {
        let waited_ms = row.waits();
        let named = row.session_id.0.clone();
        let id = named
            .clone()
            .unwrap_or_else(|| format!("{}-{line}", self.stem));
        let at_ms = Row::millis(row.timestamp);
        let size = u64::from(self.survey.block);
        let mut blocks = row.hash_ids.ids;
        blocks.truncate(usize::try_from(input / size).unwrap_or(usize::MAX));
        let previous = self.open.get_mut(&id).filter(|_| named.is_some());
        let (number, start_ms, common, lost) = match &previous {
            Some(open) => {
                let common = open.blocks.iter().zip(&blocks).take_while(|(a, b)| a == b);
                let common = common.count();
                (
                    open.steps,
                    open.start_ms,
                    common,
                    open.blocks.len() - common,
                )
            }
            None => (0, at_ms, 0, 0),
        };
        let edit = edit(self.survey.block, input, &blocks, common, lost);
        let sent_ms = at_ms.zip(start_ms).map(|(at, start)| at - start);
        let step = Box::new(StepRecord {
            id: number.to_string(),
            session: Some(id.clone()),
            prompt: edit,
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            timing: sent_ms
                .and_then(|ms| super::micros(ms / 1e3))
                .map(|sent| TimingRecord {
                    sent_us: Some(sent),
                    ..TimingRecord::default()
                }),
            ..StepRecord::default()
        });
        if let Some(open) = previous {
            self.untimed += u64::from(waited_ms.is_none());
            let mut done = std::mem::replace(&mut open.pending, step);
            wait(&mut done, waited_ms);
            let done_line = std::mem::replace(&mut open.line, line);
            open.blocks = blocks;
            open.steps += 1;
            feed.put(|| format!("line {done_line}"), Record::Step(done));
            return;
        }
        let arrival = at_ms.and_then(|ms| super::micros((ms - self.survey.origin_ms) / 1e3));
        let session = SessionRecord {
            id: id.clone(),
            arrival_us: arrival,
            ..SessionRecord::default()
        };
        feed.put(
            || format!("line {line}"),
            Record::Session(Box::new(session)),
        );
        if named.is_none() {
            feed.put(|| format!("line {line}"), Record::Step(step));
            return;
        }
        self.order.push(id.clone());
        let open = Open {
            pending: step,
            line,
            blocks,
            steps: 1,
            start_ms,
        };
        self.open.insert(id, open);
    }

    fn finish(mut self, feed: &mut Feed<'_>) {
        for id in &self.order {
            if let Some(open) = self.open.remove(id) {
                let line = open.line;
                feed.put(|| format!("line {line}"), Record::Step(open.pending));
            }
        }
        let block = self.survey.block;
        feed.losses.push(format!(
            "content is known in whole blocks of {block} tokens; the rest of a prompt and every answer equal nothing else"
        ));
        feed.losses.push(
            "model times, tool times and how a turn ended are not recorded; a delay counts as tool time".to_string(),
        );
        if self.untimed > 0 {
            feed.losses.push(format!(
                "{} requests follow another of their session without a delay; no wait is replayed before them",
                self.untimed
            ));
        }
    }
}

/// Returns the prompt as an edit of the session's previous one, of which `common` full blocks stay.
pub(super) fn edit(
    block: u32,
    input: u64,
    blocks: &[u64],
    common: usize,
    lost: usize,
) -> PromptEdit {
    let size = u64::from(block);
    let keep = common as u64 * size;
    let fresh = &blocks[common..];
    // The conversation had computed as many blocks behind the break before.
    let (again, new) = fresh.split_at(lost.min(fresh.len()));
    let mut append = Vec::new();
    for (ids, again) in [(again, true), (new, false)] {
        if !ids.is_empty() {
            append.push(Piece {
                blocks: Some(write_blocks(ids)),
                block_size: Some(block),
                again,
                ..Piece::default()
            });
        }
    }
    let tail = input - blocks.len() as u64 * size;
    if tail > 0 {
        append.push(Piece {
            tokens: Some(tail),
            ..Piece::default()
        });
    }
    PromptEdit {
        tokens: input,
        keep,
        append,
        break_at: (lost > 0).then(|| "recorded".to_string()),
        ..PromptEdit::default()
    }
}

/// Notes the wait after a step's answer: a delay was asked for by whoever made the trace, so it counts as tool time
/// and no idle cap shortens it.
fn wait(step: &mut StepRecord, waited_ms: Option<f64>) {
    step.finish = Some("tool-call".to_string());
    if let Some(delay_us) = waited_ms.and_then(|ms| super::micros(ms / 1e3)) {
        step.gap = Some(GapRecord {
            tool_us: Some(delay_us),
            ..GapRecord::default()
        });
    }
}
