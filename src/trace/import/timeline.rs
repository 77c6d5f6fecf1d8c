//! From requests with their times to sessions: which waits lay between them, and who started and awaited whom.
//!
//! For recordings that say when each request began and ended. A sub-agent starts after the last answer of its parent
//! that ended before it, and is awaited by the first request of its parent that began after its end; so no wait is
//! counted twice. Tools that ran at the same time count once.

use super::super::record::{
    AgentRecord, GapRecord, Record, SessionRecord, StepRecord, TimingRecord, ToolRecord,
};
use super::Feed;

/// Clocks of different processes, and stamps in whole milliseconds, may disagree by so much.
const SLACK_US: u64 = 1_000;
/// Children of children beyond this depth are sessions of their own.
const MAX_DEPTH: usize = 32;

/// A request and its answer, with absolute times in microseconds.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    /// From request to first token.
    pub(super) first_token_us: Option<u64>,
    /// How the times are known: `measured` or `derived`; nothing where they are not known at all.
    pub(super) how: Option<&'static str>,
    /// Where it was read, such as `line 12`.
    pub(super) place: String,
    /// The step but for its name, times and waits.
    pub(super) step: StepRecord,
}

/// A tool that ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    /// The record but for its step and session.
    pub(super) record: ToolRecord,
}

/// One conversation.
#[derive(Debug, Default)]
pub(super) struct Strand {
    pub(super) id: String,
    /// The place of the conversation that started it; nothing for the main one.
    pub(super) parent: Option<usize>,
    pub(super) kind: Option<String>,
    pub(super) model: Option<String>,
    pub(super) turns: Vec<Turn>,
    pub(super) tools: Vec<Ran>,
}

impl Strand {
    /// Brings its requests into the order of their times.
    pub(super) fn sort(&mut self) {
        self.turns.sort_by_key(|turn| turn.start_us);
        self.tools.sort_by_key(|tool| tool.start_us);
    }

    /// Returns the last request that was answered by then.
    fn answered_by(&self, moment_us: u64) -> Option<usize> {
        let by = |turn: &Turn| turn.end_us <= moment_us.saturating_add(SLACK_US);
        self.turns.iter().rposition(by)
    }

    fn end_us(&self) -> u64 {
        self.turns.iter().map(|turn| turn.end_us).max().unwrap_or(0)
    }
}

/// What the rest of a wait is, once tools and people are taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Tools were recorded: what is left is the client's.
    Client,
    /// Tools were not recorded.
    Unknown,
}

/// A session with its conversations; the first is the main one.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) session: SessionRecord,
    pub(super) strands: Vec<Strand>,
    pub(super) rest: Rest,
}

/// What had to be interpreted, for the loss report.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Notes {
    /// Requests that began before the one before them had ended.
    pub(super) overlapping: u64,
    /// Conversations that began before any answer of the one that started them.
    pub(super) parted: u64,
}

impl Notes {
    /// Puts what there is to say into the loss report.
    pub(super) fn report(self, feed: &mut Feed<'_>) {
        if self.overlapping > 0 {
            feed.losses.push(format!(
                "{} requests begin before the one before them in their conversation has ended; that wait is 0",
                self.overlapping
            ));
        }
        if self.parted > 0 {
            feed.losses.push(format!(
                "{} conversations begin before any answer of the one that started them, and were made sessions of their own",
                self.parted
            ));
        }
    }
}

/// Passes a session on; `origin_us` is the start of the file's first session.
pub(super) fn write(feed: &mut Feed<'_>, line: Timeline, origin_us: u64, notes: &mut Notes) {
    let Timeline {
        session,
        strands,
        rest,
    } = line;
    let parents: Vec<Option<(usize, usize)>> = strands
        .iter()
        .enumerate()
        .map(|(at, strand)| spawned(&strands, at, strand))
        .collect();
    let main_id = session.id.clone();
    let mut writer = Writer {
        feed,
        notes,
        rest,
        strands,
        parents,
        session: main_id.clone(),
        start_us: 0,
    };
    for at in 0..writer.strands.len() {
        if writer.parents[at].is_some() || writer.strands[at].turns.is_empty() {
            continue;
        }
        let mut record = session.clone();
        if at > 0 {
            writer.notes.parted += 1;
            record.id = format!("{main_id}/{}", writer.strands[at].id);
            record.parent = Some(main_id.clone());
            record.model = writer.strands[at].model.clone().or(record.model);
        }
        let first = &writer.strands[at].turns[0];
        let place = first.place.clone();
        if first.how.is_some() {
            record.arrival_us = Some(first.start_us.saturating_sub(origin_us));
        }
        writer.start_us = first.start_us;
        writer.session.clone_from(&record.id);
        writer.feed.put(|| place, Record::Session(Box::new(record)));
        writer.strand(at, None);
    }
}

/// Returns which answer of which conversation a conversation follows; nothing for one that stands alone.
fn spawned(strands: &[Strand], at: usize, strand: &Strand) -> Option<(usize, usize)> {
    let parent = strand.parent.filter(|&parent| parent != at)?;
    let first = strand.turns.first().filter(|turn| turn.how.is_some())?;
    // Who has started whom must lead to a conversation that nobody started.
    let mut up = Some(parent);
    for _ in 0..MAX_DEPTH {
        match up {
            Some(one) => up = strands.get(one)?.parent,
            None => break,
        }
    }
    if up.is_some() {
        return None;
    }
    let after = strands[parent].answered_by(first.start_us)?;
    Some((parent, after))
}

struct Writer<'a, 'f> {
    feed: &'a mut Feed<'f>,
    notes: &'a mut Notes,
    rest: Rest,
    strands: Vec<Strand>,
    /// The conversation and answer that each conversation follows.
    parents: Vec<Option<(usize, usize)>>,
    session: String,
    start_us: u64,
}

/// A conversation that another one started.
struct Child {
    at: usize,
    /// The answer it follows.
    after: usize,
    awaited: bool,
}

impl Writer<'_, '_> {
    /// Writes a conversation, each that it started right after the answer it follows.
    fn strand(&mut self, at: usize, agent: Option<&str>) {
        let mut turns = std::mem::take(&mut self.strands[at].turns);
        let tools = std::mem::take(&mut self.strands[at].tools);
        let (children, from) = self.children(at, &mut turns);
        self.waits(&mut turns, &tools, &from);
        let mut tools = tools.into_iter().peekable();
        let ends: Vec<u64> = turns.iter().map(|turn| turn.end_us).collect();
        for (index, mut turn) in turns.into_iter().enumerate() {
            let number = index + 1;
            let id = agent.map_or_else(|| number.to_string(), |agent| format!("{agent}.{number}"));
            turn.step.id.clone_from(&id);
            turn.step.session = Some(self.session.clone());
            turn.step.agent = agent.map(str::to_string);
            if turn.how.is_some() {
                turn.step.timing = Some(TimingRecord {
                    sent_us: Some(turn.start_us.saturating_sub(self.start_us)),
                    first_token_us: turn.first_token_us,
                    model_us: Some(turn.end_us.saturating_sub(turn.start_us)),
                    how: turn.how.map(str::to_string),
                });
            }
            let place = turn.place;
            self.feed
                .put(|| place.clone(), Record::Step(Box::new(turn.step)));
            let next_us = ends.get(number).copied().unwrap_or(u64::MAX);
            while let Some(mut tool) = tools.next_if(|tool| tool.start_us < next_us) {
                tool.record.step.clone_from(&id);
                tool.record.session = Some(self.session.clone());
                tool.record.start_us = Some(tool.start_us.saturating_sub(self.start_us));
                tool.record.duration_us = Some(tool.end_us.saturating_sub(tool.start_us));
                self.feed
                    .put(|| place.clone(), Record::Tool(Box::new(tool.record)));
            }
            for child in children.iter().filter(|child| child.after == index) {
                self.child(child, agent, &id, ends[index]);
            }
        }
    }

    /// Returns who was started, and from when on each request's wait counts: the end of the last it waited for.
    fn children(&self, at: usize, turns: &mut [Turn]) -> (Vec<Child>, Vec<u64>) {
        let mut from = vec![0; turns.len()];
        let mut children = Vec::new();
        for (child, parent) in self.parents.iter().enumerate() {
            let Some((_, after)) = parent.filter(|&(parent, _)| parent == at) else {
                continue;
            };
            let strand = &self.strands[child];
            let end_us = strand.end_us();
            let joins = (after + 1..turns.len())
                .find(|&index| turns[index].start_us.saturating_add(SLACK_US) >= end_us);
            if let Some(index) = joins {
                turns[index].step.joins.push(strand.id.clone());
                from[index] = from[index].max(end_us);
            }
            children.push(Child {
                at: child,
                after,
                awaited: joins.is_some(),
            });
        }
        (children, from)
    }

    /// Takes each wait apart.
    fn waits(&mut self, turns: &mut [Turn], tools: &[Ran], from: &[u64]) {
        for index in 1..turns.len() {
            let (next_us, known) = (turns[index].start_us, turns[index].how.is_some());
            let last = &mut turns[index - 1];
            if last.how.is_none() || !known {
                continue;
            }
            self.notes.overlapping += u64::from(next_us.saturating_add(SLACK_US) < last.end_us);
            let from_us = last.end_us.max(from[index]);
            let tool_us = covered(tools, from_us, next_us);
            let rest_us = next_us.saturating_sub(from_us) - tool_us;
            let human = last.step.finish.as_deref() == Some("end-of-turn");
            let client = self.rest == Rest::Client && !human;
            let unknown = self.rest == Rest::Unknown && !human;
            last.step.gap = Some(GapRecord {
                tool_us: (tool_us > 0).then_some(tool_us),
                tool_how: None,
                client_us: client.then_some(rest_us),
                human_us: human.then_some(rest_us),
                unknown_us: unknown.then_some(rest_us),
            });
        }
    }

    fn child(&mut self, child: &Child, parent: Option<&str>, step: &str, answered_us: u64) {
        let strand = &self.strands[child.at];
        let Some(first) = strand.turns.first() else {
            return;
        };
        let place = first.place.clone();
        let id = strand.id.clone();
        let record = AgentRecord {
            id: id.clone(),
            session: self.session.clone(),
            parent: parent.map(str::to_string),
            spawn_step: Some(step.to_string()),
            spawn_offset_us: Some(first.start_us.saturating_sub(answered_us)),
            join: (!child.awaited).then(|| "async".to_string()),
            kind: strand.kind.clone(),
            model: strand.model.clone(),
            ..AgentRecord::default()
        };
        self.feed.put(|| place, Record::Agent(Box::new(record)));
        self.strand(child.at, Some(&id));
    }
}

/// Returns for how long at least one of the tools ran between two moments; they are in the order of their starts.
fn covered(tools: &[Ran], from_us: u64, to_us: u64) -> u64 {
    let (mut sum, mut at) = (0, from_us);
    for tool in tools {
        let (start, end) = (tool.start_us.max(at), tool.end_us.min(to_us));
        if end > start {
            sum += end - start;
            at = end;
        }
    }
    sum
}
