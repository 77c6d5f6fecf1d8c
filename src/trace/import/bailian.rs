//! Bailian's traces (Alibaba): chats by the salted hashes of their blocks of 16 tokens, each naming the chat before it.
//!
//! Ids mean the same in the whole file. A chat goes on where its parent stopped; its moments are starts, so a wait holds
//! the model's time too. The last block of a prompt may be padded, so only whole blocks are compared.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{
    GapRecord, OutputRecord, Record, SessionRecord, StepRecord, TimingRecord,
};
use super::lenient::{Ids, Num, Text};
use super::mooncake;
use super::{Feed, micros, parse_error};
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// Tokens in a block, as the publishers say.
const BLOCK: u32 = 16;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Row {
    chat_id: Text,
    parent_chat_id: Text,
    timestamp: Num,
    input_length: Num,
    output_length: Num,
    #[serde(rename = "type")]
    kind: Text,
    hash_ids: Ids,
}

/// Returns whether a JSON object is a row of such a trace.
pub(super) fn is_row(object: &serde_json::Map<String, serde_json::Value>) -> bool {
    object.contains_key("parent_chat_id") && object.contains_key("input_length")
}

/// A conversation whose next chat may still come.
struct Open {
    id: String,
    pending: Option<Box<StepRecord>>,
    line: u64,
    blocks: Vec<u64>,
    steps: u64,
    start_us: Option<u64>,
    sent_us: Option<u64>,
}

/// Reads a trace; `block_size` replaces the usual size of blocks.
pub(super) fn read(
    input: &Input,
    block_size: Option<u32>,
    feed: &mut Feed<'_>,
) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut importer = Importer {
        stem: file_stem(&input.path),
        block: block_size.unwrap_or(BLOCK).max(1),
        open: Vec::new(),
        by_chat: FxHashMap::default(),
        origin_us: None,
        lost_parents: 0,
    };
    let mut lines = input.lines().map_err(io)?;
    while let Some(line) = lines.next() {
        let row = match line {
            Ok(line) => serde_json::from_slice::<Row>(line).map_err(|error| parse_error(&error)),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let number = lines.number;
        if let Err(why) = row.and_then(|row| importer.row(feed, number, row)) {
            feed.problem(&format!("line {number}"), &why);
        }
    }
    importer.finish(feed);
    Ok(())
}

struct Importer {
    stem: String,
    block: u32,
    open: Vec<Open>,
    by_chat: FxHashMap<String, usize>,
    origin_us: Option<u64>,
    lost_parents: u64,
}

impl Importer {
    fn row(&mut self, feed: &mut Feed<'_>, line: u64, row: Row) -> Result<(), String> {
        let input = row.input_length.count().filter(|&tokens| tokens > 0);
        let input = input.ok_or("`input_length` is missing; expected a positive whole number")?;
        let output = row.output_length.count();
        let output = output.ok_or("`output_length` is missing; expected a whole number")?;
        if row.hash_ids.broken {
            return Err("`hash_ids` holds something that is no 64-bit whole number".to_string());
        }
        let at_us = row.timestamp.real().and_then(micros);
        let size = u64::from(self.block);
        let at = self.chat(feed, line, &row, at_us);
        let mut blocks = row.hash_ids.ids;
        blocks.truncate(usize::try_from(input / size).unwrap_or(usize::MAX));
        let open = &mut self.open[at];
        let common = open
            .blocks
            .iter()
            .zip(&blocks)
            .take_while(|(a, b)| a == b)
            .count();
        let step = Box::new(StepRecord {
            id: (open.steps + 1).to_string(),
            session: Some(open.id.clone()),
            prompt: mooncake::edit(
                self.block,
                input,
                &blocks,
                common,
                open.blocks.len() - common,
            ),
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            timing: at_us.zip(open.start_us).map(|(at, start)| TimingRecord {
                sent_us: Some(at.saturating_sub(start)),
                how: Some("measured".to_string()),
                ..TimingRecord::default()
            }),
            finish: Some("end-of-turn".to_string()),
            ..StepRecord::default()
        });
        if let Some(mut done) = open.pending.replace(step) {
            let waited = at_us
                .zip(open.sent_us)
                .map(|(at, sent)| at.saturating_sub(sent));
            done.gap = Some(GapRecord {
                human_us: waited,
                ..GapRecord::default()
            });
            let place = open.line;
            feed.put(|| format!("line {place}"), Record::Step(done));
        }
        open.blocks = blocks;
        open.line = line;
        open.steps += 1;
        open.sent_us = at_us;
        if let Some(id) = row.chat_id.0 {
            self.by_chat.insert(id, at);
        }
        Ok(())
    }

    /// Returns the conversation that a chat belongs to, which begins with it if its parent is not known.
    fn chat(&mut self, feed: &mut Feed<'_>, line: u64, row: &Row, at_us: Option<u64>) -> usize {
        let origin_us = *self.origin_us.get_or_insert(at_us.unwrap_or(0));
        let parent = row.parent_chat_id.0.as_ref().filter(|id| *id != "-1");
        let known = parent.and_then(|id| self.by_chat.get(id).copied());
        self.lost_parents += u64::from(parent.is_some() && known.is_none());
        let at = known.unwrap_or(self.open.len());
        if known.is_none() {
            self.open.push(Open {
                id: format!(
                    "{}-{}",
                    self.stem,
                    row.chat_id.0.as_deref().unwrap_or(&line.to_string())
                ),
                pending: None,
                line,
                blocks: Vec::new(),
                steps: 0,
                start_us: at_us,
                sent_us: None,
            });
            let session = SessionRecord {
                id: self.open[at].id.clone(),
                arrival_us: at_us.map(|at| at.saturating_sub(origin_us)),
                resumed: parent.is_some(),
                labels: row
                    .kind
                    .0
                    .clone()
                    .map(|kind| ("type".to_string(), kind))
                    .into_iter()
                    .collect(),
                ..SessionRecord::default()
            };
            feed.put(
                || format!("line {line}"),
                Record::Session(Box::new(session)),
            );
        }
        at
    }

    fn finish(self, feed: &mut Feed<'_>) {
        for open in self.open {
            if let Some(step) = open.pending {
                let line = open.line;
                feed.put(|| format!("line {line}"), Record::Step(step));
            }
        }
        feed.losses.push(format!(
            "content is known in whole blocks of {} tokens; answers are found again only as far as later prompts name their \
             blocks",
            self.block
        ));
        feed.losses.push(
            "moments are starts: the wait between two chats is a person's and holds the model's time too".to_string(),
        );
        if self.lost_parents > 0 {
            feed.losses.push(format!(
                "{} chats continue one that is not in the file; they begin in mid-conversation",
                self.lost_parents
            ));
        }
    }
}
