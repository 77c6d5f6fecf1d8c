//! AIPerf's own inputs: conversations as texts or messages, with delays, branches and planned answer lengths.
//!
//! `inputs.json`, multi-turn and single-turn JSONL, Mooncake rows with `messages` or `text_input`, raw payloads, and
//! branching conversations (a fork goes on with its parent's history, a spawn begins anew). These are plans, not
//! recordings: an answer's length is what was asked for, or that of the answer in the next payload.

mod plan;

use self::plan::{Branch, Conversation, Join, Planned};
use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{
    AgentRecord, GapRecord, OutputRecord, PromptEdit, Record, SessionRecord, StepRecord,
};
use super::pieces::{Heard, Sizes};
use super::{Feed, parse_error, read_document};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Branches of branches beyond this depth are left out.
const MAX_DEPTH: usize = 16;

/// Returns whether a JSON object is such an input.
pub(super) fn is_input(object: &Map<String, Value>) -> bool {
    let list = |key: &str| object.get(key).is_some_and(Value::is_array);
    let payloads = object
        .get("data")
        .and_then(|data| data[0]["payloads"].as_array());
    let written = list("messages") || object.contains_key("text_input") || list("payloads");
    let text = object.contains_key("text") && object.len() <= 6 && !object.contains_key("type");
    payloads.is_some()
        || (list("turns") && !object.contains_key("resourceSpans"))
        || (object.contains_key("orchestrator") && object.contains_key("spawns"))
        || (written && !object.contains_key("response"))
        || text
}

/// Reads an input.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut conversations: Vec<Conversation> = Vec::new();
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    let stem = file_stem(&input.path);
    let mut take = |object: &Value, line: u64, feed: &mut Feed<'_>| {
        let place = format!("line {line}");
        match plan::conversations(object, &stem, line) {
            Ok(found) => {
                for mut one in found {
                    one.place.clone_from(&place);
                    if let Some(&at) = by_id.get(&one.id) {
                        // Rows of one session are its turns.
                        conversations[at].turns.append(&mut one.turns);
                    } else {
                        by_id.insert(one.id.clone(), conversations.len());
                        conversations.push(one);
                    }
                }
            }
            Err(why) => feed.problem(&place, &why),
        }
    };
    let mut reader = input.open().map_err(io)?;
    let (bytes, _) = read_document(reader.as_mut());
    drop(reader);
    if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
        take(&document, 1, feed);
    } else {
        drop(bytes);
        let mut lines = input.lines().map_err(io)?;
        while let Some(line) = lines.next() {
            let value = match line {
                Ok(line) => serde_json::from_slice::<Value>(line),
                Err(broken) if feed.broken(&broken) => continue,
                Err(_) => break,
            };
            match value {
                Ok(value) => take(&value, lines.number, feed),
                Err(error) => feed.problem(&format!("line {}", lines.number), &parse_error(&error)),
            }
        }
    }
    Importer::new(conversations, by_id).write(feed);
    Ok(())
}

struct Importer {
    conversations: Vec<Conversation>,
    by_id: BTreeMap<String, usize>,
    sizes: Sizes,
    /// Conversations that were written or are being written.
    used: FxHashSet<usize>,
    /// Answers of which only the planned length is known.
    planned: u64,
    left_out: u64,
}

impl Importer {
    fn new(mut conversations: Vec<Conversation>, by_id: BTreeMap<String, usize>) -> Importer {
        for one in &mut conversations {
            plan::link(&mut one.turns);
        }
        Importer {
            conversations,
            by_id,
            sizes: Sizes::default(),
            used: FxHashSet::default(),
            planned: 0,
            left_out: 0,
        }
    }

    fn write(mut self, feed: &mut Feed<'_>) {
        let children: FxHashSet<usize> = self
            .conversations
            .iter()
            .flat_map(|one| one.turns.iter().flat_map(|turn| &turn.branches))
            .filter_map(|branch| self.by_id.get(&branch.child).copied())
            .collect();
        let origin_ms = self
            .conversations
            .iter()
            .filter_map(|one| one.turns.first()?.at_ms)
            .fold(f64::INFINITY, f64::min);
        // Conversations that start each other in a circle begin with the first of them.
        let all = 0..self.conversations.len();
        let roots = all.clone().filter(|at| !children.contains(at));
        let order: Vec<usize> = roots.chain(all).collect();
        for at in order {
            if !self.used.insert(at) {
                continue;
            }
            let one = &self.conversations[at];
            let first_ms = one.turns.first().and_then(|turn| turn.at_ms);
            let session = SessionRecord {
                id: one.id.clone(),
                arrival_us: first_ms.and_then(|ms| super::micros((ms - origin_ms) / 1e3)),
                model: one.turns.iter().find_map(|turn| turn.model.clone()),
                ..SessionRecord::default()
            };
            let place = one.place.clone();
            let id = one.id.clone();
            feed.put(|| place, Record::Session(Box::new(session)));
            self.thread(feed, at, &id, None, None, 0);
        }
        self.sizes.report(feed);
        feed.losses.push(
            "this is a plan, not a recording: delays count as tool time, and nothing was measured"
                .to_string(),
        );
        if self.planned > 0 {
            feed.losses.push(format!(
                "{} answers are as long as the most that was asked for: an engine may stop before",
                self.planned
            ));
        }
        if self.left_out > 0 {
            feed.losses.push(format!(
                "{} branches lead nowhere, back to themselves, or too deep, and were left out",
                self.left_out
            ));
        }
    }

    /// Writes a conversation; a fork goes on from `base`, a step's name with its prompt and answer.
    fn thread(
        &mut self,
        feed: &mut Feed<'_>,
        at: usize,
        session: &str,
        agent: Option<&str>,
        base: Option<(String, u64)>,
        depth: usize,
    ) {
        let turns = std::mem::take(&mut self.conversations[at].turns);
        let place = self.conversations[at].place.clone();
        let mut heard = Heard::default();
        let mut had = base.as_ref().map_or(0, |(_, had)| *had);
        let mut base = base.map(|(name, _)| name);
        let mut joins: FxHashMap<usize, Vec<String>> = FxHashMap::default();
        let last = turns.len();
        for (index, turn) in turns.iter().enumerate() {
            let number = index + 1;
            let id = agent.map_or_else(|| number.to_string(), |agent| format!("{agent}.{number}"));
            let Some((prompt, output)) = self.ask(feed, turn, &mut heard, had) else {
                feed.problem(
                    &place,
                    &format!(
                        "turn {number} says neither `output_length` nor `max_tokens`, and no later payload holds its answer; how \
                         long it was is unknown"
                    ),
                );
                continue;
            };
            had = prompt.tokens.saturating_add(output.tokens);
            let step = StepRecord {
                id: id.clone(),
                session: Some(session.to_string()),
                agent: agent.map(str::to_string),
                prompt: PromptEdit {
                    base: base.take(),
                    ..prompt
                },
                output,
                gap: turns
                    .get(number)
                    .and_then(|next| next.delay_us)
                    .map(|delay| GapRecord {
                        tool_us: Some(delay),
                        ..GapRecord::default()
                    }),
                finish: (number < last).then(|| "tool-call".to_string()),
                joins: joins.remove(&index).unwrap_or_default(),
                model: turn.model.clone(),
                ..StepRecord::default()
            };
            let line = place.clone();
            feed.put(|| line, Record::Step(Box::new(step)));
            for branch in &turn.branches {
                let join = match branch.join {
                    Join::Never => None,
                    Join::Next => Some(number),
                    Join::Turn(turn) => Some(turn),
                };
                let join = join.filter(|&join| number <= join && join < last);
                if let Some(name) = self.branch(
                    feed,
                    branch,
                    session,
                    (agent, &id, had),
                    join.is_some(),
                    depth,
                ) && let Some(join) = join
                {
                    joins.entry(join).or_default().push(name);
                }
            }
        }
    }

    /// Returns a turn's prompt and answer; nothing where nobody says how long the answer is.
    fn ask(
        &mut self,
        feed: &mut Feed<'_>,
        turn: &Planned,
        heard: &mut Heard,
        had: u64,
    ) -> Option<(PromptEdit, OutputRecord)> {
        let told = turn.output.or(turn.most.filter(|_| turn.answer.is_empty()));
        self.planned +=
            u64::from(turn.output.is_none() && turn.answer.is_empty() && told.is_some());
        if told.is_none() && turn.answer.is_empty() {
            return None;
        }
        let prompt = if turn.whole {
            heard.prompt(&mut self.sizes, feed, &turn.said, turn.input)
        } else {
            // What is new follows all that was said, the answer included.
            let new = Heard::default().prompt(&mut self.sizes, feed, &turn.said, None);
            PromptEdit {
                tokens: had.saturating_add(new.tokens),
                keep: had,
                append: new.append,
                ..PromptEdit::default()
            }
        };
        let output = heard.answer(&mut self.sizes, feed, &turn.answer, told, None);
        Some((prompt, output))
    }

    /// Writes a branch; returns its name where it was written.
    fn branch(
        &mut self,
        feed: &mut Feed<'_>,
        branch: &Branch,
        session: &str,
        (parent, step, had): (Option<&str>, &str, u64),
        joined: bool,
        depth: usize,
    ) -> Option<String> {
        let child = self.by_id.get(&branch.child).copied();
        let Some(child) = child.filter(|&child| depth < MAX_DEPTH && self.used.insert(child))
        else {
            self.left_out += 1;
            return None;
        };
        let delay_us = self.conversations[child]
            .turns
            .first()
            .and_then(|turn| turn.delay_us);
        let record = AgentRecord {
            id: branch.child.clone(),
            session: session.to_string(),
            parent: parent.map(str::to_string),
            spawn_step: Some(step.to_string()),
            spawn_offset_us: delay_us,
            join: (!joined).then(|| "async".to_string()),
            kind: Some(if branch.inherits { "fork" } else { "spawn" }.to_string()),
            ..AgentRecord::default()
        };
        let place = self.conversations[child].place.clone();
        feed.put(|| place, Record::Agent(Box::new(record)));
        let base = branch.inherits.then(|| (step.to_string(), had));
        self.thread(feed, child, session, Some(&branch.child), base, depth + 1);
        Some(branch.child.clone())
    }
}
