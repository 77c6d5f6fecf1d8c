//! Session hashes of the kv-cache-tester: one Claude Code session per document, as chained ids of 64-token blocks.
//!
//! Ids mean something inside their session only, and an id stands for everything before it; so the longest run of
//! leading ids that an earlier request also had says what the two have in common. The clock has traps: see [`Clock`].

mod document;

use self::document::{Document, Entry};
use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{
    AgentRecord, GapRecord, OutputRecord, Piece, PromptEdit, Record, Segment, SessionRecord,
    StepRecord, TimingRecord,
};
use super::growth::plain;
use super::{Feed, micros, read_document};
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::xxh3_64;

/// Sub-agents within sub-agents beyond this depth are left out.
const MAX_DEPTH: usize = 8;
/// Block size where the file does not say.
const USUAL_BLOCK: u64 = 64;
/// A first prompt that exceeds its head by more was not typed: of 387 fresh sessions the largest had 24.7 k tokens.
const FRESH_TOKENS: u64 = 30_000;
/// Moments are rounded to whole seconds.
const ROUNDING_S: f64 = 1.0;

/// Reads the sessions of a file.
pub(in crate::trace) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut reader = input.open().map_err(io)?;
    let (bytes, broken) = read_document(reader.as_mut());
    if let Some(error) = broken {
        feed.problem("the end", &format!("cannot be read: {error}"));
    }
    let stem = file_stem(&input.path);
    let mut notes = Notes::default();
    let mut names = FxHashSet::default();
    document::each(&bytes, |number, place, document, problem| {
        if let Some(why) = problem {
            feed.problem(&place, &why);
        }
        let mut id = document.id.0.clone().unwrap_or_else(|| {
            if number == 1 {
                stem.clone()
            } else {
                format!("{stem}-{number}")
            }
        });
        // A file may hold copies of a session under one name.
        if !names.insert(id.clone()) {
            id = format!("{id}#{number}");
            names.insert(id.clone());
        }
        session(feed, &mut notes, id, &document);
    });
    notes.report(feed);
    Ok(())
}

/// What is counted over a file for its loss report.
#[derive(Default)]
struct Notes {
    requests: u64,
    without_model_time: u64,
    dropped: u64,
    backwards: u64,
    unused: u64,
    late_children: u64,
}

impl Notes {
    fn report(&self, feed: &mut Feed<'_>) {
        let losses = &mut feed.losses;
        losses.push(
            "waits are the differences of recorded moments: tools, approvals and client overhead (3-5 s a turn) are not \
             told apart; tool times, reasoning sizes and texts are not recorded"
                .to_string(),
        );
        losses.push(
            "an answer counts as kept when the next prompt grew by at least its size, else as dropped".to_string(),
        );
        let mut count = |number: u64, what: &str| {
            if number > 0 {
                losses.push(format!("{number} of {} requests {what}", self.requests));
            }
        };
        count(
            self.without_model_time,
            "have no `api_time`: the wait after them is start to start and holds their model time too",
        );
        count(
            self.dropped,
            "grew by less than the answer before them; the place of the break is estimated",
        );
        count(
            self.backwards,
            "begin before the one before them has ended; that wait is 0",
        );
        count(
            self.late_children,
            "are sub-agents without requests of their own and were left out",
        );
        count(self.unused, "could not be used");
    }
}

fn session(feed: &mut Feed<'_>, notes: &mut Notes, id: String, document: &Document) {
    let entries = &document.requests;
    let block = document.block_size.count().filter(|&size| size > 0);
    let main = Agent {
        id: "main".to_string(),
        head: [document.tool_tokens.count(), document.system_tokens.count()],
        model: document.models.0.first().and_then(|name| name.0.clone()),
        clock: Clock::default(),
    };
    let first = entries.iter().find(|entry| !entry.is_agent());
    let resumed = first.is_some_and(|first| is_resumed(first, main.head_tokens()));
    let record = SessionRecord {
        id: id.clone(),
        resumed,
        model: main.model.clone(),
        ..SessionRecord::default()
    };
    feed.put(
        || format!("session {id}"),
        Record::Session(Box::new(record)),
    );
    let mut writer = Writer {
        feed,
        notes,
        session: id,
        block: block.unwrap_or(USUAL_BLOCK),
        first_with: FxHashMap::default(),
        known: Vec::new(),
    };
    writer.thread(&main, entries, 0);
}

/// Tells whether a session begins in mid-conversation: its first prompt holds the model's own turns, or far more than
/// somebody types.
fn is_resumed(first: &Entry, head: u64) -> bool {
    let own = |kind: &str| matches!(kind, "thinking" | "tool_use" | "tool_result");
    let mut kinds = first
        .input_types
        .0
        .iter()
        .filter_map(|kind| kind.0.as_deref());
    let tokens = first.tokens.count().unwrap_or(0);
    kinds.any(own) || tokens > head.saturating_add(FRESH_TOKENS)
}

/// Where an agent's moments lie: most sub-agents count from their own start, some from the session's.
#[derive(Clone, Copy, Default)]
struct Clock {
    origin_s: f64,
}

struct Agent {
    id: String,
    /// Declared tool and system tokens.
    head: [Option<u64>; 2],
    model: Option<String>,
    clock: Clock,
}

impl Agent {
    fn head_tokens(&self) -> u64 {
        let [tools, system] = self.head.map(|tokens| tokens.unwrap_or(0));
        tools.saturating_add(system)
    }
}

/// A request that was passed on, by what later ones need to know of it.
struct Known<'a> {
    name: String,
    ids: &'a [u64],
    prompt: u64,
    output: u64,
}

/// A request of a thread, with its times on the session's clock.
struct Turn<'a> {
    entry: &'a Entry,
    prompt: u64,
    output: u64,
    start_s: f64,
    end_s: f64,
    gap_s: f64,
    joins: Vec<String>,
}

/// A sub-agent with what the parent must know of it.
struct Child<'a> {
    entry: &'a Entry,
    agent: Agent,
    /// The parent's turn it starts after, and how long after.
    after: usize,
    offset_s: f64,
    end_s: f64,
    awaited: bool,
}

struct Writer<'a, 'f, 's> {
    feed: &'a mut Feed<'f>,
    notes: &'a mut Notes,
    session: String,
    block: u64,
    /// The first request that had an id.
    first_with: FxHashMap<u64, usize>,
    known: Vec<Known<'s>>,
}

impl<'s> Writer<'_, '_, 's> {
    /// Writes a thread: its requests in order, each sub-agent right after the request it starts after.
    fn thread(&mut self, agent: &Agent, entries: &'s [Entry], depth: usize) {
        let mut turns = self.turns(agent, entries);
        if turns.is_empty() {
            return;
        }
        let children = self.children(agent, entries, &turns, depth);
        join(&mut turns, &children);
        let mut previous = None;
        for (index, turn) in turns.iter().enumerate() {
            let step = self.step(agent, turn, index, previous);
            previous = Some(self.known.len() - 1);
            let name = step.id.clone();
            let place = || format!("request {name}");
            self.feed.put(place, Record::Step(Box::new(step)));
            for child in children.iter().filter(|child| child.after == index) {
                let record = AgentRecord {
                    id: child.agent.id.clone(),
                    session: self.session.clone(),
                    parent: Some(agent.id.clone()),
                    spawn_step: Some(name.clone()),
                    spawn_offset_us: micros(child.offset_s),
                    join: (!child.awaited).then(|| "async".to_string()),
                    kind: child.entry.subagent_type.0.clone(),
                    model: child.agent.model.clone(),
                    ..AgentRecord::default()
                };
                let place = || format!("sub-agent {}", child.agent.id);
                self.feed.put(place, Record::Agent(Box::new(record)));
                self.thread(&child.agent, &child.entry.requests, depth + 1);
            }
        }
    }

    /// Returns a thread's requests with their times; the waits between them as if there were no sub-agents.
    fn turns(&mut self, agent: &Agent, entries: &'s [Entry]) -> Vec<Turn<'s>> {
        let mut turns: Vec<Turn<'s>> = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_agent()) {
            self.notes.requests += 1;
            let prompt = entry.tokens.count().filter(|&tokens| tokens > 0);
            let (Some(prompt), Some(output)) = (prompt, entry.output.count()) else {
                self.notes.unused += 1;
                let place = format!("request {} of {}", self.notes.requests, agent.id);
                let why = "`in` or `out` is missing; expected whole numbers, `in` positive";
                self.feed.problem(&place, why);
                continue;
            };
            let last = turns.last_mut();
            let floor_s = last.as_ref().map_or(0.0, |last| last.start_s);
            let start_s = entry.t.real().map_or(floor_s, |t| agent.clock.origin_s + t);
            let model_s = entry.model_s();
            if let Some(last) = last {
                last.gap_s = gap_s(last, entry, start_s);
                self.notes.backwards += u64::from(start_s < last.end_s - ROUNDING_S);
            }
            self.notes.without_model_time += u64::from(model_s.is_none());
            turns.push(Turn {
                entry,
                prompt,
                output,
                start_s,
                end_s: start_s + model_s.unwrap_or(0.0),
                gap_s: 0.0,
                joins: Vec::new(),
            });
        }
        turns
    }

    /// Returns a thread's sub-agents, each with the turn it starts after.
    fn children(
        &mut self,
        parent: &Agent,
        entries: &'s [Entry],
        turns: &[Turn<'s>],
        depth: usize,
    ) -> Vec<Child<'s>> {
        let mut children = Vec::new();
        let mut names = FxHashSet::default();
        for (index, entry) in entries.iter().filter(|entry| entry.is_agent()).enumerate() {
            let usable = |entry: &Entry| entry.tokens.count().is_some_and(|tokens| tokens > 0);
            if depth >= MAX_DEPTH || !entry.requests.iter().any(usable) {
                self.notes.late_children += 1;
                continue;
            }
            let (clock, start_s) = entry.begins(parent.clock);
            // The launching answer ends at a whole second, give or take one.
            let after = turns
                .iter()
                .rposition(|turn| turn.end_s <= start_s + ROUNDING_S)
                .or_else(|| turns.iter().rposition(|turn| turn.start_s <= start_s))
                .unwrap_or(0);
            let own = entry.agent_id.0.clone();
            let mut name = own.unwrap_or_else(|| format!("agent-{}", index + 1));
            if depth > 0 {
                name = format!("{}.{name}", parent.id);
            }
            if name == "main" || !names.insert(name.clone()) {
                name = format!("{name}#{}", index + 1);
                names.insert(name.clone());
            }
            children.push(Child {
                entry,
                after,
                offset_s: (start_s - turns[after].end_s).max(0.0),
                end_s: entry.last_end_s(clock.origin_s),
                awaited: entry.status.0.as_deref() != Some("async_launched"),
                agent: Agent {
                    id: name,
                    head: [entry.tool_tokens.count(), entry.system_tokens.count()],
                    model: entry.models.0.first().and_then(|name| name.0.clone()),
                    clock,
                },
            });
        }
        children
    }

    fn step(
        &mut self,
        agent: &Agent,
        turn: &Turn<'s>,
        index: usize,
        previous: Option<usize>,
    ) -> StepRecord {
        let name = match agent.id.as_str() {
            "main" => format!("{}", index + 1),
            id => format!("{id}.{}", index + 1),
        };
        let whole = usize::try_from(turn.prompt / self.block).unwrap_or(usize::MAX);
        let ids = &turn.entry.hash_ids.ids;
        let ids = &ids[..ids.len().min(whole)];
        let prompt = self.edit(agent, turn, ids, previous);
        let at = self.known.len();
        for &id in ids {
            self.first_with.entry(id).or_insert(at);
        }
        self.known.push(Known {
            name: name.clone(),
            ids,
            prompt: turn.prompt,
            output: turn.output,
        });
        let (finish, human) = match turn.entry.stop.0.as_deref() {
            Some("tool_use") => (Some("tool-call"), false),
            Some("end_turn") => (Some("end-of-turn"), true),
            Some("max_tokens") => (Some("length"), false),
            _ => (None, false),
        };
        let gap_us = micros(turn.gap_s);
        StepRecord {
            id: name,
            session: Some(self.session.clone()),
            agent: (agent.id != "main").then(|| agent.id.clone()),
            prompt,
            output: OutputRecord {
                tokens: turn.output,
                ..OutputRecord::default()
            },
            gap: Some(GapRecord {
                human_us: gap_us.filter(|_| human),
                unknown_us: gap_us.filter(|_| !human),
                ..GapRecord::default()
            }),
            timing: Some(TimingRecord {
                sent_us: micros(turn.start_s),
                first_token_us: turn.entry.ttft.real().and_then(micros),
                model_us: turn.entry.model_s().and_then(micros),
                how: Some("measured".to_string()),
            }),
            finish: finish.map(str::to_string),
            joins: turn.joins.clone(),
            model: turn
                .entry
                .model
                .0
                .clone()
                .filter(|model| Some(model) != agent.model.as_ref()),
            ..StepRecord::default()
        }
    }

    /// Returns the prompt as an edit of the earlier request that it has most in common with.
    fn edit(
        &mut self,
        agent: &Agent,
        turn: &Turn<'s>,
        ids: &[u64],
        previous: Option<usize>,
    ) -> PromptEdit {
        let own = previous.map(|at| (at, common(self.known[at].ids, ids)));
        let deepest = ids
            .iter()
            .take_while(|id| self.first_with.contains_key(id))
            .count();
        let other = deepest.checked_sub(1).map(|last| {
            let at = self.first_with[&ids[last]];
            (at, common(self.known[at].ids, ids))
        });
        // The thread's own previous request, unless another one matches deeper.
        let best = match (own, other) {
            (Some(own), Some(other)) if other.1 > own.1 => Some(other),
            (Some(own), _) => Some(own),
            (None, other) => other,
        };
        let Some((at, blocks)) = best.filter(|_| !ids.is_empty() || previous.is_some()) else {
            return self.fresh(agent, turn);
        };
        let base = &self.known[at];
        let mut edit = PromptEdit {
            tokens: turn.prompt,
            base: (Some(at) != previous).then(|| base.name.clone()),
            ..PromptEdit::default()
        };
        let growth = turn.prompt.checked_sub(base.prompt);
        let mut again = 0;
        match growth {
            // Every full block of the base is there: the conversation went on.
            Some(growth) if blocks == base.ids.len() => {
                let kept = growth >= base.output;
                edit.keep = base.prompt + if kept { base.output } else { 0 };
                if !kept {
                    self.notes.dropped += 1;
                    edit.break_at = Some("estimated".to_string());
                    edit.break_class = Some("reasoning-dropped".to_string());
                }
            }
            _ => {
                edit.keep = (blocks as u64 * self.block)
                    .min(base.prompt)
                    .min(turn.prompt);
                edit.break_at = Some("recorded".to_string());
                let had = previous.map_or(0, |at| {
                    self.known[at].prompt.saturating_add(self.known[at].output)
                });
                again = had.saturating_sub(edit.keep).min(turn.prompt - edit.keep);
            }
        }
        let rest = turn.prompt - edit.keep - again;
        edit.append = [plain(again, true), plain(rest, false)]
            .into_iter()
            .flatten()
            .collect();
        edit
    }

    /// Returns a prompt that has nothing in common with an earlier one, but begins with its agent's head.
    fn fresh(&mut self, agent: &Agent, turn: &Turn<'s>) -> PromptEdit {
        let declared = agent.head_tokens();
        let head = declared - declared % self.block;
        let mut append = Vec::new();
        if head > 0 && head <= turn.prompt {
            let segment = head_segment(agent, head);
            append.push(Piece {
                seg: Some(segment.id.clone()),
                ..Piece::default()
            });
            let place = || "a head".to_string();
            self.feed.put(place, Record::Segment(Box::new(segment)));
            append.extend(plain(turn.prompt - head, false));
        } else {
            append.extend(plain(turn.prompt, false));
        }
        PromptEdit {
            tokens: turn.prompt,
            append,
            ..PromptEdit::default()
        }
    }
}

/// Returns the head as content that sessions of equal model and head sizes have in common.
fn head_segment(agent: &Agent, tokens: u64) -> Segment {
    let model = agent.model.as_deref().unwrap_or("unknown");
    let [tools, system] = agent.head.map(|tokens| tokens.unwrap_or(0));
    let id = format!("head {model} {tools}+{system}");
    Segment {
        hash: Some(format!(
            "{:016x}",
            xxh3_64(format!("{id} {tokens}").as_bytes())
        )),
        id,
        kind: "system".to_string(),
        tokens,
        ..Segment::default()
    }
}

/// Returns how many leading ids two lists have in common.
fn common(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Returns the wait between a request and the next.
fn gap_s(last: &Turn<'_>, next: &Entry, next_start_s: f64) -> f64 {
    let between = (next_start_s - last.end_s).max(0.0);
    // `think_time` is finer than the moments, but counts from the last request whose model time is known.
    let exact = next
        .think_time
        .real()
        .filter(|_| last.entry.model_s().is_some());
    exact
        .filter(|think| *think >= 0.0 && (think - between).abs() <= ROUNDING_S + 0.01)
        .unwrap_or(between)
}

/// Lets the parent wait for its sub-agents; its wait then holds only what came after the last of them.
fn join(turns: &mut [Turn<'_>], children: &[Child<'_>]) {
    let mut ends: Vec<f64> = vec![f64::NEG_INFINITY; turns.len()];
    for child in children.iter().filter(|child| child.awaited) {
        let later = turns.iter().enumerate().skip(child.after + 1);
        let waits = later
            .filter(|(_, turn)| turn.start_s >= child.end_s - ROUNDING_S)
            .map(|(index, _)| index)
            .next();
        if let Some(index) = waits {
            turns[index].joins.push(child.agent.id.clone());
            ends[index] = ends[index].max(child.end_s);
        }
    }
    for index in 1..turns.len() {
        if !turns[index].joins.is_empty() {
            let from = ends[index].max(turns[index - 1].end_s);
            turns[index - 1].gap_s = (turns[index].start_s - from).max(0.0);
        }
    }
}
