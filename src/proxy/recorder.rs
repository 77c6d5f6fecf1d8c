//! From what passed between agents and their engine to the records of a trace, in the order in which it passed.
//!
//! Told of every request when it arrives and of every answer when it is complete; asks no clock and writes nothing. A
//! step is recorded when its answer is complete, together with the wait before it, so the file is whole after any line.

mod prompt;

use super::answered::{Answered, Counts};
use super::asked::{Asked, Item, Kind};
use super::threads::{Origin, Place, ThreadNo, Threads};
use crate::trace::record::{
    AgentRecord, EventRecord, Extra, GapRecord, OutputRecord, Record, SessionRecord, StepRecord,
    TimingRecord, ToolRecord, UsageRecord,
};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

/// Bytes that count as a token where nothing better is known: code and prose through `o200k_base`.
const BYTES_PER_TOKEN: f64 = 3.9;

/// A request under way.
pub type Ticket = u64;

/// What becomes of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Privacy {
    /// It is kept.
    Full,
    /// Hashes under this key are all that is kept of it.
    Hashed([u8; 32]),
}

/// When what was seen of an answer, in microseconds since the recording began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Times {
    /// The first piece of content.
    pub first: Option<u64>,
    /// The end.
    pub ended: u64,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With an answer, be it cut short.
    Answered {
        /// What was said.
        answer: Box<Answered>,
        /// Why it is not whole, where it is not.
        cut: Option<&'static str>,
        /// What another count said, where the answer brought none.
        counted: Option<Counted>,
    },
    /// Without one.
    Failed {
        /// The status, where the engine sent one.
        status: Option<u16>,
        /// What went wrong.
        what: &'static str,
    },
}

/// Tokens as the engine's tokenizer counts them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counted {
    /// Of the prompt.
    pub prompt: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
}

struct UnderWay {
    asked: Asked,
    place: Place,
    sent: u64,
}

/// What has been recorded of a conversation.
#[derive(Default)]
struct Recorded {
    /// Its name, once it has one; nothing for a session's main thread.
    agent: Option<String>,
    announced: bool,
    last_step: Option<String>,
    prompt: u64,
    output: u64,
    reasoning: u64,
    /// Where each item of the latest prompt ends, in tokens.
    ends: Vec<u64>,
    /// Everything it ever held.
    had: FxHashSet<u64>,
    /// Conversations it started and has not yet waited for.
    children: Vec<ThreadNo>,
    model: Option<String>,
}

/// Puts a trace together.
pub struct Recorder {
    privacy: Privacy,
    threads: Threads,
    recorded: FxHashMap<ThreadNo, Recorded>,
    /// When each session began, and whether its line is written.
    sessions: FxHashMap<usize, (u64, bool)>,
    under_way: FxHashMap<Ticket, UnderWay>,
    /// Tokens of each segment that is defined.
    segments: FxHashMap<String, u64>,
    steps: u64,
    agents: u64,
    begun: Option<u64>,
}

impl Recorder {
    /// Returns a recorder that has seen nothing.
    pub fn new(privacy: Privacy) -> Recorder {
        Recorder {
            privacy,
            threads: Threads::default(),
            recorded: FxHashMap::default(),
            sessions: FxHashMap::default(),
            under_way: FxHashMap::default(),
            segments: FxHashMap::default(),
            steps: 0,
            agents: 0,
            begun: None,
        }
    }

    /// Takes in a request that arrived at `at`.
    pub fn arrived(&mut self, ticket: Ticket, mut asked: Asked, at: u64) {
        let begun = *self.begun.get_or_insert(at);
        self.join_previous(&mut asked);
        let place = self.threads.place(&asked);
        let session = self.threads.get(place.thread()).session;
        self.sessions
            .entry(session)
            .or_insert((at - begun.min(at), false));
        if let (Place::First(thread), Origin::SubAgent(parent) | Origin::Side(parent)) =
            (place, self.threads.get(place.thread()).origin)
        {
            self.recorded
                .entry(parent)
                .or_default()
                .children
                .push(thread);
        }
        let sent = at.saturating_sub(begun);
        self.under_way
            .insert(ticket, UnderWay { asked, place, sent });
    }

    /// A request that names an earlier answer holds only what is new; what came before goes before it.
    fn join_previous(&mut self, asked: &mut Asked) {
        let before = asked
            .previous
            .as_ref()
            .and_then(|id| self.threads.by_answer(id));
        let Some(thread) = before.map(|thread| self.threads.get(thread)) else {
            return;
        };
        let known = thread.keys.iter().copied().chain(thread.answer);
        let known = known.map(|key| Item {
            kind: Kind::Assistant,
            text: String::new(),
            key,
        });
        let fresh = asked.items.split_off(asked.head);
        asked.items = known.chain(fresh).collect();
    }

    /// Takes in the end of a request and appends what is to be written.
    pub fn ended(&mut self, ticket: Ticket, times: Times, end: End, records: &mut Vec<Record>) {
        let Some(under_way) = self.under_way.remove(&ticket) else {
            return;
        };
        let begun = self.begun.unwrap_or(0);
        let times = Times {
            first: times.first.map(|first| first.saturating_sub(begun)),
            ended: times.ended.saturating_sub(begun),
        };
        let thread = under_way.place.thread();
        self.threads.get_mut(thread).in_flight -= 1;
        match end {
            End::Answered {
                answer,
                cut,
                counted,
            } if answer.has_content() || cut.is_none() => {
                self.step(
                    &under_way,
                    times,
                    &answer,
                    cut,
                    counted.unwrap_or_default(),
                    records,
                );
                if let Some(what) = cut {
                    records.push(self.event(thread, what, None, times.ended));
                }
            }
            End::Answered { cut, .. } => {
                records.push(self.event(thread, cut.unwrap_or("error"), None, times.ended));
            }
            End::Failed { status, what } => {
                records.push(self.event(thread, what, status, times.ended));
            }
        }
    }

    fn event(&self, thread: ThreadNo, what: &str, status: Option<u16>, at: u64) -> Record {
        let session = self.threads.get(thread).session;
        let (arrival, written) = self.sessions[&session];
        let mut extra = Extra::new();
        if let Some(status) = status {
            extra.insert("status".to_string(), status.into());
        }
        let agent = self.recorded.get(&thread).and_then(|one| one.agent.clone());
        Record::Event(Box::new(EventRecord {
            session: written.then(|| session_name(session)),
            agent: agent.filter(|_| written),
            what: what.to_string(),
            // Times are the session's own; a session without any answer so far has the recording's.
            at_us: Some(if written { at - arrival.min(at) } else { at }),
            extra,
        }))
    }

    fn step(
        &mut self,
        under_way: &UnderWay,
        times: Times,
        answer: &Answered,
        cut: Option<&'static str>,
        counted: Counted,
        records: &mut Vec<Record>,
    ) {
        let asked = &under_way.asked;
        let thread = under_way.place.thread();
        self.announce(thread, asked, under_way.sent, records);
        let (prompt, output, how) = totals(asked, answer, counted);
        let reasoning = reasoning_of(answer, output);
        let joins = self.joined(thread, under_way.sent);
        let session = self.threads.get(thread).session;
        let (arrival, _) = self.sessions[&session];
        self.tools(thread, asked, under_way.sent, records);
        let before = self.gap(thread, under_way.sent, &joins);
        let edit = self.edit(thread, asked, prompt, records);
        self.steps += 1;
        let id = self.steps.to_string();
        let reported = answer.counts;
        let usage = UsageRecord {
            prompt: reported.prompt,
            cached: reported.cached,
            cache_write: reported.cache_write,
            output: reported.output,
        };
        let since = |at: u64| at.saturating_sub(under_way.sent);
        let names = joins
            .iter()
            .filter_map(|child| self.recorded[child].agent.clone());
        let names = names.collect();
        let recorded = self.recorded.entry(thread).or_default();
        let model = asked
            .model
            .clone()
            .filter(|model| recorded.model.as_ref() != Some(model));
        let record = StepRecord {
            id: id.clone(),
            session: Some(session_name(session)),
            agent: recorded.agent.clone(),
            prompt: edit,
            output: OutputRecord {
                tokens: output,
                reasoning: (reasoning > 0).then_some(reasoning),
                segs: Vec::new(),
            },
            gap: None,
            before,
            timing: Some(TimingRecord {
                sent_us: Some(under_way.sent.saturating_sub(arrival)),
                first_token_us: times.first.map(since),
                model_us: Some(since(times.ended)),
                how: Some("measured".to_string()),
            }),
            usage: (usage != UsageRecord::default()).then_some(usage),
            finish: Some(finish(answer, cut).to_string()),
            joins: names,
            model,
            extra: Extra::from([("tokens_how".to_string(), how.into())]),
        };
        records.push(Record::Step(Box::new(record)));
        (recorded.prompt, recorded.output, recorded.reasoning) = (prompt, output, reasoning);
        recorded.last_step = Some(id);
        let keys: Vec<u64> = asked.items.iter().map(|item| item.key).collect();
        recorded.had.extend(keys.iter().copied());
        let key = answer.item().key;
        recorded.had.insert(key);
        self.threads.note_prompt(thread, keys);
        if let Some(id) = &answer.id {
            self.threads.note_answer(id.clone(), thread);
        }
        let thread = self.threads.get_mut(thread);
        thread.answer = Some(key);
        thread.steps += 1;
        thread.ended_us = times.ended;
        thread.pending.clone_from(&answer.calls);
    }

    /// Writes the lines that must stand above a conversation's first step.
    fn announce(&mut self, thread: ThreadNo, asked: &Asked, sent: u64, records: &mut Vec<Record>) {
        if self.recorded.entry(thread).or_default().announced {
            return;
        }
        let (session, origin) = {
            let thread = self.threads.get(thread);
            (thread.session, thread.origin)
        };
        let (arrival, written) = self.sessions[&session];
        if !written {
            self.sessions.insert(session, (arrival, true));
            records.push(Record::Session(Box::new(SessionRecord {
                id: session_name(session),
                arrival_us: Some(arrival),
                model: asked.model.clone(),
                ..SessionRecord::default()
            })));
        }
        if let Origin::SubAgent(parent) | Origin::Side(parent) = origin {
            self.agents += 1;
            let name = format!("agent-{}", self.agents);
            let ended = self.threads.get(parent).ended_us;
            let parent = &self.recorded[&parent];
            records.push(Record::Agent(Box::new(AgentRecord {
                id: name.clone(),
                session: session_name(session),
                parent: parent.agent.clone(),
                spawn_step: parent.last_step.clone(),
                spawn_offset_us: Some(sent.saturating_sub(ended)),
                join: matches!(origin, Origin::Side(_)).then(|| "detached".to_string()),
                model: asked.model.clone(),
                ..AgentRecord::default()
            })));
            self.recorded.entry(thread).or_default().agent = Some(name);
        }
        let recorded = self.recorded.entry(thread).or_default();
        recorded.announced = true;
        recorded.model.clone_from(&asked.model);
    }

    /// Returns the sub-agents that have ended since a conversation's last answer: it has waited for them.
    fn joined(&mut self, thread: ThreadNo, sent: u64) -> Vec<ThreadNo> {
        let children = std::mem::take(&mut self.recorded.entry(thread).or_default().children);
        let ended = |child: &ThreadNo| {
            let child = self.threads.get(*child);
            let waits = matches!(child.origin, Origin::SubAgent(_));
            waits && child.in_flight == 0 && child.steps > 0 && child.ended_us <= sent
        };
        let (joins, rest): (Vec<_>, Vec<_>) = children.into_iter().partition(ended);
        self.recorded.entry(thread).or_default().children = rest;
        joins
    }

    /// Returns the wait before a request: since the last answer, or since the last sub-agent waited for had ended.
    fn gap(&self, thread: ThreadNo, sent: u64, joins: &[ThreadNo]) -> Option<GapRecord> {
        let before = self.threads.get(thread);
        let children = joins.iter().map(|&child| self.threads.get(child).ended_us);
        let from = children.fold(before.ended_us, u64::max);
        (before.steps > 0).then(|| GapRecord {
            unknown_us: Some(sent.saturating_sub(from)),
            ..GapRecord::default()
        })
    }

    /// Writes down the tools whose results a request brings; how long they took follows from when it came.
    fn tools(&self, thread: ThreadNo, asked: &Asked, sent: u64, records: &mut Vec<Record>) {
        let one = self.threads.get(thread);
        let recorded = &self.recorded[&thread];
        let Some(step) = &recorded.last_step else {
            return;
        };
        let (arrival, _) = self.sessions[&one.session];
        for call in &one.pending {
            let Some((_, chars)) = asked.results.iter().find(|(id, _)| *id == call.id) else {
                continue;
            };
            let full = self.privacy == Privacy::Full;
            records.push(Record::Tool(Box::new(ToolRecord {
                step: step.clone(),
                session: Some(session_name(one.session)),
                name: if full {
                    call.name.clone()
                } else {
                    self.hash("tool", &call.name)
                },
                id: full.then(|| call.id.clone()),
                duration_us: Some(sent.saturating_sub(one.ended_us)),
                meaning: Some("wall-with-approval".to_string()),
                start_us: Some(one.ended_us.saturating_sub(arrival)),
                args: full.then(|| call.arguments.clone()),
                result_chars: Some(*chars),
                extra: Extra::from([("how".to_string(), Value::from("derived"))]),
                ..ToolRecord::default()
            })));
        }
    }

    /// Returns a name that equal content has again, with 16 hexadecimal digits for its last part.
    fn hash(&self, kind: &str, text: &str) -> String {
        let whole = format!("{kind}\0{text}");
        let hash = match &self.privacy {
            Privacy::Full => xxhash_rust::xxh3::xxh3_64(whole.as_bytes()),
            Privacy::Hashed(key) => {
                let hash = blake3::keyed_hash(key, whole.as_bytes());
                let first: [u8; 8] = hash.as_bytes()[..8]
                    .try_into()
                    .expect("a hash has 32 bytes");
                u64::from_le_bytes(first)
            }
        };
        format!("{kind}-{hash:016x}")
    }
}

fn session_name(session: usize) -> String {
    format!("session-{}", session + 1)
}

/// Returns tokens of prompt and answer, and how they are known.
fn totals(asked: &Asked, answer: &Answered, counted: Counted) -> (u64, u64, &'static str) {
    let Counts {
        prompt,
        output,
        from_timings,
        ..
    } = answer.counts;
    let estimate = |bytes: usize| (bytes as f64 / BYTES_PER_TOKEN).ceil() as u64;
    let said = answer.item().text.len() + answer.reasoning_bytes as usize;
    let sent = asked
        .items
        .iter()
        .map(|item| item.text.len() + 16)
        .sum::<usize>();
    let how = match (prompt, output) {
        (Some(_), Some(_)) if from_timings => "timings",
        (Some(_), Some(_)) => "usage",
        _ => match (prompt.or(counted.prompt), output.or(counted.output)) {
            (Some(_), Some(_)) => "tokenize",
            _ => "estimated",
        },
    };
    let prompt = prompt.or(counted.prompt).unwrap_or_else(|| estimate(sent));
    let output = output.or(counted.output).unwrap_or_else(|| estimate(said));
    (prompt.max(1), output, how)
}

fn reasoning_of(answer: &Answered, output: u64) -> u64 {
    if let Some(reasoning) = answer.counts.reasoning {
        return reasoning.min(output);
    }
    let said = answer.item().text.len() as u64;
    let all = said + answer.reasoning_bytes;
    let share = (output * answer.reasoning_bytes).checked_div(all);
    share.unwrap_or(0)
}

fn finish(answer: &Answered, cut: Option<&str>) -> &'static str {
    match (cut, answer.finish.as_deref()) {
        (Some(_), _) => "error",
        (None, Some("length" | "max_tokens" | "max_output_tokens")) => "length",
        _ if !answer.calls.is_empty() => "tool-call",
        _ => "end-of-turn",
    }
}
