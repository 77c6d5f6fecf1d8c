//! Captured traffic between agents and models: HAR files, claude-trace logs, and JSONL logs of requests and answers.
//!
//! The only recordings that hold the whole prompt: tools, system prompt and messages in their order. A request belongs
//! to the conversation whose last prompt it has most in common with, within the session that the client names, if any.

pub(super) mod api;
mod log;

use self::api::{Answered, Asked};
use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{SessionRecord, StepRecord};
use super::pieces::{Heard, Said, Sizes};
use super::timeline::{self, Rest, Strand, Timeline, Turn};
use super::{Feed, parse_error, read_document};
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::collections::BTreeMap;

/// A request with its answer and times, as far as they are known.
pub(super) struct Exchange {
    start_us: Option<u64>,
    end_us: Option<u64>,
    first_token_us: Option<u64>,
    /// The session that the client named.
    session: Option<String>,
    asked: Asked,
    answered: Answered,
    place: String,
}

pub(super) use self::log::{is_har, is_line};

/// Reads a HAR document.
pub(super) fn read_har(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut reader = input.open().map_err(io)?;
    let (bytes, broken) = read_document(reader.as_mut());
    if let Some(error) = broken {
        feed.problem("the end", &format!("cannot be read: {error}"));
    }
    let mut exchanges = Vec::new();
    let mut other = 0;
    match serde_json::from_slice::<log::Har>(&bytes) {
        Ok(har) => har.each(|exchange| match exchange {
            Some(exchange) => exchanges.push(exchange),
            None => other += 1,
        }),
        Err(error) => feed.problem(&format!("line {}", error.line()), &parse_error(&error)),
    }
    if other > 0 {
        feed.losses.push(format!(
            "{other} entries are no requests to a model with an answer and were left out"
        ));
    }
    write(&file_stem(&input.path), exchanges, feed);
    Ok(())
}

/// Reads a log with a request and its answer in each line.
pub(super) fn read_log(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut lines = input.lines().map_err(io)?;
    let mut exchanges = Vec::new();
    let mut unanswered = 0u64;
    while let Some(line) = lines.next() {
        let value = match line {
            Ok(line) => serde_json::from_slice::<Value>(line),
            Err(broken) if feed.broken(&broken) => continue,
            Err(_) => break,
        };
        let place = format!("line {}", lines.number);
        match value {
            Ok(Value::Object(object)) => match log::exchange(&object, &place) {
                Some(Ok(exchange)) => exchanges.push(exchange),
                Some(Err(())) => unanswered += 1,
                None => feed.problem(&place, "neither a request to a model nor its answer"),
            },
            Ok(_) => feed.problem(&place, "expected a JSON object"),
            Err(error) => feed.problem(&place, &parse_error(&error)),
        }
    }
    if unanswered > 0 {
        feed.losses.push(format!(
            "{unanswered} requests have no answer and were left out"
        ));
    }
    write(&file_stem(&input.path), exchanges, feed);
    Ok(())
}

/// A conversation while its requests arrive.
struct Conversation {
    session: usize,
    strand: Strand,
    heard: Heard,
    /// The keys of the last prompt and its answer.
    last: Vec<u64>,
    end_us: Option<u64>,
    prompt_tokens: u64,
}

/// Everything that a file holds, put in order.
struct Gathering {
    stem: String,
    sizes: Sizes,
    conversations: Vec<Conversation>,
    /// Conversations by session and by the first piece that somebody said.
    by_first: FxHashMap<(Option<String>, u64), Vec<usize>>,
    /// The sessions' names, and whether the client gave them.
    sessions: Vec<(String, bool)>,
    by_name: BTreeMap<String, usize>,
    /// What a stored answer continues: the prompt and answer, by the answer's id.
    stored: FxHashMap<String, (Vec<Said>, usize)>,
    lost: u64,
}

fn write(stem: &str, mut exchanges: Vec<Exchange>, feed: &mut Feed<'_>) {
    let untimed = exchanges
        .iter()
        .filter(|one| one.start_us.is_none())
        .count();
    if untimed == 0 {
        exchanges.sort_by_key(|one| one.start_us);
    }
    let mut gathering = Gathering {
        stem: stem.to_string(),
        sizes: Sizes::default(),
        conversations: Vec::new(),
        by_first: FxHashMap::default(),
        sessions: Vec::new(),
        by_name: BTreeMap::new(),
        stored: FxHashMap::default(),
        lost: 0,
    };
    let origin_us = exchanges.iter().filter_map(|one| one.start_us).min();
    for exchange in exchanges {
        gathering.take(exchange, feed);
    }
    gathering.sizes.report(feed);
    if gathering.lost > 0 {
        feed.losses.push(format!(
            "{} requests continue an answer that is not in the file; what came before is missing from their prompts",
            gathering.lost
        ));
    }
    if untimed > 0 {
        feed.losses.push(format!(
            "{untimed} requests have no time; the waits around them are unknown, and the file's order is taken for theirs"
        ));
    }
    feed.losses.push(
        "tools are not recorded: a wait after a tool call holds tools, approvals and the client alike".to_string(),
    );
    gathering.finish(origin_us.unwrap_or(0), feed);
}

impl Gathering {
    fn take(&mut self, exchange: Exchange, feed: &mut Feed<'_>) {
        let Exchange {
            start_us,
            end_us,
            first_token_us,
            session,
            mut asked,
            answered,
            place,
        } = exchange;
        self.complete(&mut asked);
        let session = session.or(asked.session.take());
        let keys: Vec<u64> = asked.said.iter().map(|piece| piece.key).collect();
        let at = self.conversation(session, &asked, &keys, start_us);
        let conversation = &mut self.conversations[at];
        let prompt =
            conversation
                .heard
                .prompt(&mut self.sizes, feed, &asked.said, answered.usage.prompt);
        let output = conversation.heard.answer(
            &mut self.sizes,
            feed,
            &answered.said,
            answered.usage.output,
            answered.hidden(),
        );
        conversation.prompt_tokens += prompt.tokens;
        conversation.last = keys;
        conversation
            .last
            .extend(answered.said.iter().map(|piece| piece.key));
        conversation.end_us = end_us.or(start_us);
        let model = answered.model.or(asked.model);
        let strand = &mut conversation.strand;
        strand.model = strand.model.take().or(model.clone());
        strand.turns.push(Turn {
            start_us: start_us.unwrap_or(0),
            end_us: end_us.or(start_us).unwrap_or(0),
            first_token_us,
            how: start_us.zip(end_us).map(|_| "measured"),
            place,
            step: StepRecord {
                prompt,
                output,
                usage: Some(answered.usage),
                finish: answered.finish.map(str::to_string),
                model: model.filter(|model| strand.model.as_ref() != Some(model)),
                ..StepRecord::default()
            },
        });
        if let Some(id) = answered.id {
            let head = asked.head;
            let mut said = asked.said;
            said.extend(answered.said);
            self.stored.insert(id, (said, head));
        }
    }

    /// Puts what the provider stored in front of a request that continues it.
    fn complete(&mut self, asked: &mut Asked) {
        let Some(before) = asked.continues.take() else {
            return;
        };
        match self.stored.get(&before) {
            Some((said, head)) => {
                let new = asked.said.split_off(asked.head.min(asked.said.len()));
                // Tools and instructions are sent again each time; the conversation is not.
                asked.said.extend_from_slice(&said[*head..]);
                asked.said.extend(new);
            }
            None => self.lost += 1,
        }
    }

    /// Returns the conversation that a request continues, or a new one.
    fn conversation(
        &mut self,
        session: Option<String>,
        asked: &Asked,
        keys: &[u64],
        start_us: Option<u64>,
    ) -> usize {
        let first = keys.get(asked.head).or(keys.last()).copied().unwrap_or(0);
        let known = self.by_first.entry((session.clone(), first)).or_default();
        let common = |at: usize| {
            let last = &self.conversations[at].last;
            last.iter().zip(keys).take_while(|(a, b)| a == b).count()
        };
        let free = |at: usize| {
            let end = self.conversations[at].end_us;
            // Two requests at the same time are two conversations.
            end.zip(start_us)
                .is_none_or(|(end, start)| start + 1_000 >= end)
        };
        let best = known
            .iter()
            .copied()
            .filter(|&at| free(at))
            .map(|at| (common(at), at))
            .filter(|&(common, _)| common > asked.head || keys.len() <= asked.head)
            .max();
        if let Some((_, at)) = best {
            return at;
        }
        let at = self.conversations.len();
        known.push(at);
        let session = if let Some(name) = session {
            *self.by_name.entry(name.clone()).or_insert_with(|| {
                self.sessions.push((name, true));
                self.sessions.len() - 1
            })
        } else {
            let number = self.sessions.len() + 1;
            self.sessions
                .push((format!("{}-{number}", self.stem), false));
            number - 1
        };
        self.conversations.push(Conversation {
            session,
            strand: Strand::default(),
            heard: Heard::default(),
            last: Vec::new(),
            end_us: None,
            prompt_tokens: 0,
        });
        at
    }

    /// Passes the sessions on, in the order in which they began.
    fn finish(self, origin_us: u64, feed: &mut Feed<'_>) {
        let mut sessions: Vec<Vec<Conversation>> =
            self.sessions.iter().map(|_| Vec::new()).collect();
        for conversation in self.conversations {
            sessions[conversation.session].push(conversation);
        }
        let one = sessions.len() == 1;
        let mut notes = timeline::Notes::default();
        for ((name, named), mut conversations) in self.sessions.into_iter().zip(sessions) {
            // Titles and summaries are asked beside the conversation that everything turns on.
            let main = conversations
                .iter()
                .enumerate()
                .max_by_key(|(at, one)| (one.prompt_tokens, std::cmp::Reverse(*at)))
                .map_or(0, |(at, _)| at);
            conversations[..=main].rotate_right(1);
            let mut strands: Vec<Strand> = Vec::new();
            for (at, conversation) in conversations.into_iter().enumerate() {
                let mut strand = conversation.strand;
                strand.id = if at == 0 {
                    "main".to_string()
                } else {
                    format!("agent-{at}")
                };
                strand.parent = (at > 0).then_some(0);
                strands.push(strand);
            }
            let session = SessionRecord {
                id: if one && !named {
                    self.stem.clone()
                } else {
                    name
                },
                model: strands[0].model.clone(),
                ..SessionRecord::default()
            };
            let line = Timeline {
                session,
                strands,
                rest: Rest::Unknown,
            };
            timeline::write(feed, line, origin_us, &mut notes);
        }
        notes.report(feed);
    }
}
