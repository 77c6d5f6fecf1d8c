//! Traces that are safe to share: what will be replayed, and nothing that anybody could read.
//!
//! The output is made of the compiled trace alone: sizes, waits, and which content is the same. No text, path, argument,
//! label, tool or model of the input is ever looked at, so none can slip through. Content that sessions share becomes a
//! segment named by a keyed hash (`hashed`) or is not told at all (`sizes`); everything else is a length.

mod key;

pub use self::key::Key;

use super::content::{Content, ROOT};
use super::format;
use super::record::{
    AgentRecord, GapRecord, Header, OutputRecord, Piece, PromptEdit, Record, Segment,
    SessionRecord, StepRecord, TimingRecord, UsageRecord,
};
use super::{Ending, Join, Session, Step, Trace};
use crate::ids::NodeId;
use crate::units::Span;
use rustc_hash::{FxHashMap, FxHashSet};
use std::io::{self, Write};

/// How much is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Keyed hashes: which content is the same can still be seen, within what was hashed with one key.
    Hashed,
    /// Sizes: nothing that two sessions have in common can be seen.
    Sizes,
}

impl Level {
    /// Returns the level's name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Level::Hashed => "hashed",
            Level::Sizes => "sizes",
        }
    }
}

/// Writes a trace as a native one that replays the same and tells nothing else.
///
/// `prints` says what each node of the content tree holds, as [`super::read::load_printed`] returns it.
pub fn write(
    trace: &Trace,
    prints: &[Option<u64>],
    level: Level,
    key: &Key,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut writer = Writer {
        trace,
        prints,
        level,
        key,
        shared: Shared::of(trace),
        places: FxHashMap::default(),
        paths: FxHashMap::default(),
        written: FxHashSet::default(),
        out,
    };
    writer.header()?;
    for (number, session) in trace.sessions.iter().enumerate() {
        writer.session(number, session)?;
    }
    writer.out.flush()
}

/// Which content several conversations have in common.
#[derive(Default)]
struct Shared {
    /// Nodes on the paths of at least two sessions.
    sessions: FxHashSet<NodeId>,
    /// Nodes on the paths of at least two threads of one session.
    threads: FxHashSet<NodeId>,
}

impl Shared {
    fn of(trace: &Trace) -> Shared {
        let mut shared = Shared::default();
        let mut last: FxHashMap<NodeId, (usize, usize)> = FxHashMap::default();
        for (number, session) in trace.sessions.iter().enumerate() {
            for (at, thread) in session.threads.iter().enumerate() {
                for step in &thread.steps {
                    for node in trace.content.upwards(step.output) {
                        match last.insert(node, (number, at)) {
                            // Whatever stands above was passed when this was.
                            Some(here) if here == (number, at) => break,
                            Some((session, _)) if session == number => {
                                shared.threads.insert(node);
                            }
                            Some(_) => {
                                shared.sessions.insert(node);
                            }
                            None => {}
                        }
                    }
                }
            }
        }
        shared
    }
}

struct Writer<'a> {
    trace: &'a Trace,
    prints: &'a [Option<u64>],
    level: Level,
    key: &'a Key,
    shared: Shared,
    /// The present session's segments by number, where they have no hashes.
    places: FxHashMap<NodeId, usize>,
    /// What stands for each path from the root, by the node it ends in.
    paths: FxHashMap<NodeId, u64>,
    /// Segments that are in the dictionary.
    written: FxHashSet<String>,
    out: &'a mut dyn Write,
}

/// A session while it is written.
struct Place {
    name: String,
    number: usize,
    /// For each thread the step that first passed through a node.
    through: Vec<FxHashMap<NodeId, usize>>,
    /// The names of threads.
    threads: Vec<String>,
    /// How many steps of each thread are written.
    done: Vec<usize>,
}

impl Writer<'_> {
    fn put(&mut self, record: &Record) -> io::Result<()> {
        format::write(self.out, record)
    }

    fn header(&mut self) -> io::Result<()> {
        let kept = match self.level {
            Level::Hashed => {
                "reduced to hashes with a secret key: no texts, names, tools, models or events; content is told only where \
                 sessions share it"
            }
            Level::Sizes => {
                "reduced to sizes: no texts, names, tools, models or events, and nothing that two sessions have in common"
            }
        };
        let header = Header {
            format: format::FORMAT.to_string(),
            version: format::VERSION,
            producer: Some(format!("laptime {}", env!("CARGO_PKG_VERSION"))),
            privacy: Some(self.level.name().to_string()),
            losses: vec![kept.to_string()],
            ..Header::default()
        };
        self.put(&Record::Header(Box::new(header)))
    }

    fn session(&mut self, number: usize, session: &Session) -> io::Result<()> {
        let name = match self.level {
            Level::Hashed => format!("s-{:016x}", self.key.text(&session.id)),
            Level::Sizes => format!("s-{}", number + 1),
        };
        let record = SessionRecord {
            id: name.clone(),
            arrival_us: session.arrival.map(micros),
            resumed: session.resumed,
            block_scope: Some("session".to_string()),
            ..SessionRecord::default()
        };
        self.put(&Record::Session(Box::new(record)))?;
        self.places.clear();
        let mut place = Place {
            name,
            number,
            through: vec![FxHashMap::default(); session.threads.len()],
            threads: (0..session.threads.len())
                .map(|thread| format!("agent-{thread}"))
                .collect(),
            done: vec![0; session.threads.len()],
        };
        let mut spawned = vec![None; session.threads.len()];
        for (parent, thread) in session.threads.iter().enumerate() {
            for (at, step) in thread.steps.iter().enumerate() {
                for spawn in &step.gap.spawns {
                    spawned[spawn.thread as usize] = Some((parent, at, spawn.offset));
                }
            }
        }
        // Sub-agents keep their order; each is told after the step it starts after.
        for (thread, spawn) in spawned.into_iter().enumerate().skip(1) {
            let Some((parent, at, offset)) = spawn else {
                continue;
            };
            self.steps(&mut place, session, parent, at + 1)?;
            let record = AgentRecord {
                id: place.threads[thread].clone(),
                session: place.name.clone(),
                spawn_step: Some(step_name(parent, at)),
                spawn_offset_us: Some(micros(offset)),
                join: match session.threads[thread].join {
                    Join::Blocking => None,
                    Join::Async => Some("async".to_string()),
                    Join::Detached => Some("detached".to_string()),
                },
                ..AgentRecord::default()
            };
            self.put(&Record::Agent(Box::new(record)))?;
        }
        for thread in 0..session.threads.len() {
            self.steps(&mut place, session, thread, usize::MAX)?;
        }
        Ok(())
    }

    /// Writes the steps of a thread up to, but without, the one at `until`.
    fn steps(
        &mut self,
        place: &mut Place,
        session: &Session,
        thread: usize,
        until: usize,
    ) -> io::Result<()> {
        let steps = &session.threads[thread].steps;
        while place.done[thread] < until.min(steps.len()) {
            let at = place.done[thread];
            let step = &steps[at];
            let previous = at.checked_sub(1).map(|last| &steps[last]);
            let prompt = self.prompt(place, thread, step, previous)?;
            let output = self.output(place, step)?;
            let joins = previous.map_or(&[][..], |last| &last.gap.joins);
            let record = StepRecord {
                id: step_name(thread, at),
                session: Some(place.name.clone()),
                agent: (thread > 0).then(|| place.threads[thread].clone()),
                prompt,
                output,
                gap: gap(step),
                timing: timing(step),
                usage: step.recorded.cached().map(|cached| UsageRecord {
                    cached: Some(cached.0),
                    ..UsageRecord::default()
                }),
                finish: match step.gap.after {
                    Ending::ToolCall => Some("tool-call".to_string()),
                    Ending::EndOfTurn => Some("end-of-turn".to_string()),
                    Ending::Unknown => None,
                },
                joins: joins
                    .iter()
                    .map(|&child| place.threads[child as usize].clone())
                    .collect(),
                ..StepRecord::default()
            };
            self.put(&Record::Step(Box::new(record)))?;
            place.wrote(&self.trace.content, thread, at, step);
        }
        Ok(())
    }

    /// Returns a prompt as an edit of the step of its thread that it has most in common with.
    fn prompt(
        &mut self,
        place: &Place,
        thread: usize,
        step: &Step,
        previous: Option<&Step>,
    ) -> io::Result<PromptEdit> {
        let content = &self.trace.content;
        let through = &place.through[thread];
        let known = |node: &NodeId| through.contains_key(node);
        let mut from = content.upwards(step.prompt).find(known).unwrap_or(ROOT);
        let mut path = Vec::new();
        content.path(step.prompt, &mut path);
        // A head that goes on beyond what is known has to be told from its beginning.
        if path
            .iter()
            .any(|&node| content.is_head(node) && content.end(node) > content.end(from))
        {
            from = ROOT;
        }
        let keep = content.end(from);
        let own = previous.is_some_and(|last| content.meeting(last.output, from) == from);
        let base = through.get(&from).filter(|_| !own).copied();
        let added: Vec<NodeId> = path
            .into_iter()
            .filter(|&node| content.end(node) > keep)
            .collect();
        let append = self.pieces(place, &added, step.again.0)?;
        Ok(PromptEdit {
            tokens: step.prompt_tokens.0,
            base: base.map(|at| step_name(thread, at)),
            keep: keep.0,
            append,
            break_at: step.break_estimated.then(|| "estimated".to_string()),
            break_class: None,
        })
    }

    /// Returns an answer: as far as other sessions have the same, it is told by its hash.
    fn output(&mut self, place: &Place, step: &Step) -> io::Result<OutputRecord> {
        let content = &self.trace.content;
        let mut path = Vec::new();
        content.path(step.output, &mut path);
        let added: Vec<NodeId> = path
            .into_iter()
            .filter(|&node| {
                content.end(node) > step.prompt_tokens && content.start(node) >= step.prompt_tokens
            })
            .take_while(|&node| self.told(node))
            .collect();
        let mut segs = Vec::new();
        for node in added {
            segs.push(self.segment(place, node)?);
        }
        Ok(OutputRecord {
            tokens: step.output_tokens.0,
            segs,
            ..OutputRecord::default()
        })
    }

    /// Returns whether a node is told by name: other conversations have it, or it is a head.
    fn told(&self, node: NodeId) -> bool {
        let elsewhere = self.level == Level::Hashed && self.shared.sessions.contains(&node);
        elsewhere || self.shared.threads.contains(&node) || self.trace.content.is_head(node)
    }

    /// Returns nodes as pieces, of which as many tokens as `again` says stood elsewhere before.
    fn pieces(&mut self, place: &Place, nodes: &[NodeId], again: u64) -> io::Result<Vec<Piece>> {
        let content = &self.trace.content;
        let tokens = |node: NodeId| (content.end(node) - content.start(node)).0;
        let told: Vec<u64> = nodes
            .iter()
            .filter(|&&node| self.told(node))
            .map(|&node| tokens(node))
            .collect();
        let plain: u64 =
            nodes.iter().map(|&node| tokens(node)).sum::<u64>() - told.iter().sum::<u64>();
        let marked = choose(&told, again, plain);
        let mut marks = marked.iter();
        let marked_tokens = told.iter().zip(&marked).filter(|(_, mark)| **mark);
        let mut again = again - marked_tokens.map(|(tokens, _)| tokens).sum::<u64>();
        let mut pieces: Vec<Piece> = Vec::new();
        for &node in nodes {
            let tokens = tokens(node);
            if self.told(node) {
                pieces.push(Piece {
                    seg: Some(self.segment(place, node)?),
                    again: marks.next().copied().unwrap_or(false),
                    ..Piece::default()
                });
                continue;
            }
            let repeated = again.min(tokens);
            again -= repeated;
            for (tokens, again) in [(repeated, true), (tokens - repeated, false)] {
                match pieces.last_mut() {
                    _ if tokens == 0 => {}
                    Some(last) if last.seg.is_none() && last.again == again => {
                        last.tokens = last.tokens.map(|before| before + tokens);
                    }
                    _ => pieces.push(Piece {
                        tokens: Some(tokens),
                        again,
                        ..Piece::default()
                    }),
                }
            }
        }
        Ok(pieces)
    }

    /// Returns the name of a node's segment, which is in the dictionary from now on.
    fn segment(&mut self, place: &Place, node: NodeId) -> io::Result<String> {
        let content = &self.trace.content;
        let id = match self.level {
            Level::Hashed => format!("{:016x}", self.key.number(self.path(node))),
            // What stands at the same place in other sessions has another name there.
            Level::Sizes => {
                let next = self.places.len() + 1;
                let own = self.places.entry(node).or_insert(next);
                format!("p-{}-{own}", place.number + 1)
            }
        };
        if self.written.insert(id.clone()) {
            let segment = Segment {
                kind: if content.is_head(node) {
                    "system"
                } else {
                    "other"
                }
                .to_string(),
                tokens: (content.end(node) - content.start(node)).0,
                hash: (self.level == Level::Hashed).then(|| id.clone()),
                id: id.clone(),
                ..Segment::default()
            };
            self.put(&Record::Segment(Box::new(segment)))?;
        }
        Ok(id)
    }

    /// Returns a number that stands for all content up to a node's end.
    fn path(&mut self, node: NodeId) -> u64 {
        let content = &self.trace.content;
        let known = |node: &NodeId| *node == ROOT || self.paths.contains_key(node);
        let mut new: Vec<NodeId> = content
            .upwards(node)
            .take_while(|node| !known(node))
            .collect();
        new.reverse();
        for node in new {
            let before = self.paths.get(&content.parent(node)).copied().unwrap_or(0);
            let own = self.prints.get(node.index()).copied().flatten();
            let path = key::chain(before, own, node.index() as u64);
            self.paths.insert(node, path);
        }
        self.paths.get(&node).copied().unwrap_or(0)
    }
}

impl Place {
    fn wrote(&mut self, content: &Content, thread: usize, at: usize, step: &Step) {
        self.done[thread] = at + 1;
        let through = &mut self.through[thread];
        for tip in [step.output, step.prompt] {
            for node in content.upwards(tip) {
                if through.contains_key(&node) {
                    break;
                }
                through.insert(node, at);
            }
        }
    }
}

/// The most segments of a prompt among which a choice is searched for.
const MOST_CHOICES: usize = 16;

/// Returns which segments to mark as repeated, so that with at most `plain` tokens beside them they make up `again`.
///
/// Only the sum is known; the largest segments that fit nearly always give it.
fn choose(told: &[u64], again: u64, plain: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..told.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(told[at]));
    let mut marked = vec![false; told.len()];
    let mut left = again;
    for at in order {
        if told[at] <= left {
            marked[at] = true;
            left -= told[at];
        }
    }
    if left > plain && told.len() <= MOST_CHOICES {
        for choice in 0..1_u32 << told.len() {
            let chosen = |at: usize| choice >> at & 1 == 1;
            let sum: u64 = (0..told.len())
                .filter(|&at| chosen(at))
                .map(|at| told[at])
                .sum();
            if sum <= again && again - sum <= plain {
                return (0..told.len()).map(chosen).collect();
            }
        }
    }
    marked
}

fn micros(span: Span) -> u64 {
    span.0 / 1_000
}

fn step_name(thread: usize, at: usize) -> String {
    if thread == 0 {
        format!("{}", at + 1)
    } else {
        format!("{thread}.{}", at + 1)
    }
}

fn gap(step: &Step) -> Option<GapRecord> {
    let some = |span: Span| (span > Span::ZERO).then(|| micros(span));
    let gap = GapRecord {
        tool_us: some(step.gap.tool),
        tool_how: None,
        client_us: some(step.gap.client),
        human_us: some(step.gap.human),
        unknown_us: some(step.gap.unknown),
    };
    (gap != GapRecord::default()).then_some(gap)
}

fn timing(step: &Step) -> Option<TimingRecord> {
    let recorded = &step.recorded;
    let timing = TimingRecord {
        sent_us: recorded.sent().map(micros),
        first_token_us: recorded.first_token().map(micros),
        model_us: recorded.model().map(micros),
        how: None,
    };
    (timing != TimingRecord::default()).then_some(timing)
}
