//! From records to a [`Trace`]: decides once which content is the same.
//!
//! Records arrive in file order; a step refers to earlier ones only. What cannot be used becomes a problem with its
//! place, never an abort: the rest of the session still replays, because the recorded prompt length always wins.

mod names;
mod prompt;

use super::content::{ContentBuilder, ContentError};
use super::input::file_stem;
use super::record::{AgentRecord, GapRecord, Record, Segment, SessionRecord, StepRecord};
use super::seen::{drop_empty_threads, note_what_was_seen};
use super::{Ending, Gap, Join, Recorded, Session, Source, Spawn, Step, Thread, Trace};
use crate::ids::NodeId;
use crate::units::{Span, Tokens};
use names::Names;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use thin_vec::ThinVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Segment kinds that form the head of a conversation.
const HEAD_KINDS: [&str; 2] = ["tools", "system"];

/// The longest that all waits of a session may be together: ten years.
const MAX_WAITS: Span = Span(10 * 365 * 86_400 * 1_000_000_000);

/// Builds a [`Trace`] out of the records of any number of files.
#[derive(Debug, Default)]
pub struct Compiler {
    content: ContentBuilder,
    sources: Vec<Source>,
    skipped: Vec<String>,
    sessions: Vec<Growing>,
    by_id: Names<usize>,
    segments: FxHashMap<String, Known>,
    /// The first session of the file being read.
    file_from: usize,
}

/// What the dictionary says of a segment.
#[derive(Debug, Clone, Default)]
struct Known {
    key: u64,
    tokens: u64,
    head: bool,
    token_ids: Option<Arc<[u64]>>,
}

/// A session while its records arrive.
#[derive(Debug)]
struct Growing {
    session: Session,
    source: usize,
    /// What makes its block ids differ from equal ones of other files and scopes.
    salt: u64,
    agents: Names<usize>,
    /// Where each step stands (thread and place), by id.
    places: Names<(u32, u32)>,
    /// For each thread but the first the one that started it.
    parents: Vec<usize>,
    /// The waits so far.
    waited: Span,
    /// Tokens whose content is known to have stood elsewhere in the thread, for each thread and segment key.
    // Boxed: most sessions have none, and there may be very many sessions.
    had: Option<Box<FxHashSet<(usize, u64)>>>,
}

impl Compiler {
    /// Begins a new file; segments and session names of earlier files are out of reach from here on.
    pub fn begin(&mut self, source: Source) {
        self.sources.push(source);
        self.segments.clear();
        self.by_id = Names::default();
        self.file_from = self.sessions.len();
    }

    /// Leaves out the file being read; nothing of it was usable.
    pub fn forget(&mut self) {
        self.sources.pop();
        self.sessions.truncate(self.file_from);
        self.by_id = Names::default();
    }

    /// Returns the file being read, to note its losses and problems.
    ///
    /// # Panics
    /// When no file was begun.
    pub fn source(&mut self) -> &mut Source {
        self.sources
            .last_mut()
            .expect("a file is begun before its records")
    }

    /// Notes a file of a folder that was passed over.
    pub fn skip(&mut self, note: String) {
        self.skipped.push(note);
    }

    /// Returns how many of the steps read so far belong to the file being read.
    pub fn steps_in_file(&self) -> usize {
        self.sessions[self.file_from..]
            .iter()
            .flat_map(|growing| &growing.session.threads)
            .map(|thread| thread.steps.len())
            .sum()
    }

    /// Takes in the next record; says what is wrong with one that cannot be used.
    pub fn add(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Header(header) => {
                let losses = header.losses.clone();
                let format = header.source_format.clone();
                let source = self.source();
                source.losses.extend(losses);
                if let Some(format) = format {
                    source.format = format!("laptime, from {format}");
                }
                Ok(())
            }
            Record::Segment(segment) => self.segment(segment),
            Record::Session(session) => self.session(session),
            Record::Agent(agent) => self.agent(agent),
            Record::Step(step) => self.step(step),
            // What these say has gone into the steps' gaps; they explain, and are not replayed.
            Record::Tool(_) | Record::Event(_) => Ok(()),
        }
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), String> {
        let key = match &segment.hash {
            Some(hash) => u64::from_str_radix(hash, 16).map_err(|_| {
                format!(
                    "segment `{}` has hash `{hash}`; expected 16 hexadecimal digits",
                    segment.id
                )
            })?,
            None => match &segment.text {
                Some(text) => xxh3_64_with_seed(text.as_bytes(), 0),
                // Without content an id means something in this file alone.
                None => xxh3_64_with_seed(segment.id.as_bytes(), self.sources.len() as u64),
            },
        };
        let token_ids = segment
            .token_ids
            .as_ref()
            .map(|ids| ids.iter().map(|&id| u64::from(id)).collect::<Arc<[u64]>>());
        if let Some(ids) = &token_ids
            && ids.len() as u64 != segment.tokens
        {
            return Err(format!(
                "segment `{}` has {} token ids but says {} tokens",
                segment.id,
                ids.len(),
                segment.tokens
            ));
        }
        let head = HEAD_KINDS.contains(&segment.kind.as_str());
        self.segments.insert(
            segment.id.clone(),
            Known {
                key,
                tokens: segment.tokens,
                head,
                token_ids,
            },
        );
        Ok(())
    }

    fn session(&mut self, record: &SessionRecord) -> Result<(), String> {
        if self.by_id.get(&record.id).is_some() {
            return Err(format!(
                "session `{}` was already defined in this file; give each session its own id",
                record.id
            ));
        }
        self.by_id.insert(&record.id, self.sessions.len());
        self.sessions.push(Growing {
            session: Session {
                id: record.id.as_str().into(),
                arrival: record
                    .arrival_us
                    .map(Span::from_micros)
                    .filter(|arrival| *arrival <= MAX_WAITS),
                resumed: record.resumed,
                model: record.model.clone(),
                threads: Vec::new(),
            },
            source: self.sources.len() - 1,
            salt: {
                let scope = record.block_scope.as_deref().unwrap_or("");
                let scope = if scope == "session" {
                    &record.id
                } else {
                    scope
                };
                xxh3_64_with_seed(scope.as_bytes(), self.sources.len() as u64)
            },
            agents: Names::default(),
            places: Names::default(),
            parents: Vec::new(),
            waited: Span::ZERO,
            had: None,
        });
        Ok(())
    }

    /// Returns the session that a record belongs to; a file of one session need not name it.
    fn session_of(&mut self, name: Option<&str>) -> Result<usize, String> {
        match name {
            Some(name) => self.by_id.get(name).ok_or_else(|| {
                format!(
                    "session `{name}` is not defined above this line; add a `session` line first"
                )
            }),
            None if self.sessions.len() == self.file_from + 1 => Ok(self.file_from),
            None => Err(
                "`session` is missing and the file does not have exactly one session so far"
                    .to_string(),
            ),
        }
    }

    fn agent(&mut self, record: &AgentRecord) -> Result<(), String> {
        let at = self.session_of(Some(&record.session))?;
        let growing = &mut self.sessions[at];
        if growing.agents.get(&record.id).is_some() {
            return Err(format!(
                "agent `{}` was already defined in session `{}`",
                record.id, record.session
            ));
        }
        let join = match record.join.as_deref() {
            None | Some("blocking") => Join::Blocking,
            Some("async") => Join::Async,
            Some("detached") => Join::Detached,
            Some(other) => {
                return Err(format!(
                    "join `{other}` is unknown; expected blocking, async or detached"
                ));
            }
        };
        let thread = growing.session.threads.len();
        let mut parent_of = None;
        if let Some(step) = &record.spawn_step {
            let (parent, index) = growing.places.get(step).ok_or_else(|| {
                format!(
                    "agent `{}` starts after step `{step}`, which is not above this line",
                    record.id
                )
            })?;
            let offset = growing.believable(record.spawn_offset_us)?;
            parent_of = Some(parent as usize);
            growing.session.threads[parent as usize].steps[index as usize]
                .gap
                .spawns
                .push(Spawn {
                    thread: thread as u32,
                    offset,
                });
        } else if thread > 0 {
            return Err(format!(
                "agent `{}` is not the session's first and names no `spawn_step`",
                record.id
            ));
        }
        growing.agents.insert(&record.id, thread);
        growing.put(
            Thread {
                id: record.id.clone().into(),
                join,
                steps: Vec::new(),
            },
            parent_of,
        );
        Ok(())
    }

    fn step(&mut self, record: &StepRecord) -> Result<(), String> {
        let at = self.session_of(record.session.as_deref())?;
        let thread = self.thread_of(at, record.agent.as_deref())?;
        if self.sessions[at].places.get(&record.id).is_some() {
            return Err(format!(
                "step `{}` was already defined in its session; give each step its own id",
                record.id
            ));
        }
        if record.prompt.tokens == 0 {
            return Err(format!(
                "step `{}` has an empty prompt; expected at least one token",
                record.id
            ));
        }
        // A wait that cannot be used is left out; the step still replays.
        let mut doubts = None;
        let joins = self.joins_of(at, thread, &record.joins);
        let joins = joins.unwrap_or_else(|why| {
            doubts = Some(format!("step `{}` {why}; it waits for nobody", record.id));
            ThinVec::new()
        });
        let (gap, why) = self.gap_of(at, record);
        doubts = doubts.or(why);
        let too_big = |error: ContentError| format!("step `{}` has {error}", record.id);
        let (prompt, again, complaint) = self.prompt(at, thread, record)?;
        let mut output = prompt;
        let mut left = record.output.tokens;
        for name in &record.output.segs {
            let Some(known) = self.segments.get(name).cloned() else {
                continue;
            };
            if known.tokens > left {
                break;
            }
            left -= known.tokens;
            output = self.known(output, &known).map_err(too_big)?;
            self.sessions[at].had(thread, known.key);
        }
        output = self.content.opaque(output, Tokens(left)).map_err(too_big)?;
        let growing = &mut self.sessions[at];
        doubts = doubts.or(growing.end_gap(thread, joins, record));
        let steps = &mut growing.session.threads[thread].steps;
        let place = (thread as u32, steps.len() as u32);
        growing.places.insert(&record.id, place);
        let timing = record.timing.clone().unwrap_or_default();
        if steps.is_empty() {
            // Traces of single requests have very many sessions of one step.
            steps.reserve_exact(1);
        }
        steps.push(Step {
            prompt,
            prompt_tokens: Tokens(record.prompt.tokens),
            output,
            output_tokens: Tokens(record.output.tokens),
            reasoning: record.output.reasoning.map(Tokens),
            seen: Tokens::ZERO,
            seen_computed: Tokens::ZERO,
            again: Tokens(again),
            break_estimated: record.prompt.break_at.as_deref() == Some("estimated"),
            gap,
            recorded: Recorded::new(
                timing.sent_us.map(Span::from_micros),
                timing.first_token_us.map(Span::from_micros),
                timing.model_us.map(Span::from_micros),
                record
                    .usage
                    .as_ref()
                    .and_then(|usage| usage.cached)
                    .filter(|&cached| cached <= record.prompt.tokens)
                    .map(Tokens),
            ),
        });
        complaint.or(doubts).map_or(Ok(()), Err)
    }

    fn thread_of(&mut self, at: usize, agent: Option<&str>) -> Result<usize, String> {
        let growing = &mut self.sessions[at];
        if let Some(name) = agent {
            return growing.agents.get(name).ok_or_else(|| {
                format!("agent `{name}` is not defined above this line; add an `agent` line first")
            });
        }
        if growing.session.threads.is_empty() {
            growing.agents.insert("main", 0);
            growing.put(
                Thread {
                    id: "main".into(),
                    join: Join::Blocking,
                    steps: Vec::new(),
                },
                None,
            );
        }
        Ok(0)
    }

    /// Returns the threads to wait for: only a thread's own children, or the two could wait for each other.
    fn joins_of(&self, at: usize, thread: usize, names: &[String]) -> Result<ThinVec<u32>, String> {
        let growing = &self.sessions[at];
        let joins: Result<BTreeSet<u32>, String> = names
            .iter()
            .map(|name| match growing.agents.get(name) {
                Some(child) if growing.parent(child) == Some(thread) => Ok(child as u32),
                Some(_) => Err(format!("joins agent `{name}`, which another agent started")),
                None => Err(format!(
                    "joins agent `{name}`, which is not defined above this line"
                )),
            })
            .collect();
        Ok(joins?.into_iter().collect())
    }

    /// Returns what follows the answer, and a complaint when a wait in it had to be left out.
    fn gap_of(&mut self, at: usize, record: &StepRecord) -> (Gap, Option<String>) {
        let growing = &mut self.sessions[at];
        let mut complaint = None;
        let mut span = |of: fn(&GapRecord) -> Option<u64>| {
            let micros = record.gap.as_ref().and_then(of);
            growing.believable(micros).unwrap_or_else(|why| {
                complaint = Some(format!("step `{}`: {why}; it was left out", record.id));
                Span::ZERO
            })
        };
        let gap = Gap {
            after: match record.finish.as_deref() {
                Some("tool-call") => Ending::ToolCall,
                Some("end-of-turn") => Ending::EndOfTurn,
                _ => Ending::Unknown,
            },
            tool: span(|gap| gap.tool_us),
            client: span(|gap| gap.client_us),
            human: span(|gap| gap.human_us),
            unknown: span(|gap| gap.unknown_us),
            spawns: ThinVec::new(),
            joins: ThinVec::new(),
        };
        (gap, complaint)
    }

    /// Returns the names that sessions get because another file has a session of the same name, by source and own name.
    pub fn renamed(&self) -> BTreeMap<(usize, String), String> {
        let mut sources: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        if self.sources.len() < 2 {
            return BTreeMap::new();
        }
        for growing in self.sessions.iter().filter(|growing| growing.holds_steps()) {
            let id = &*growing.session.id;
            sources.entry(id).or_default().insert(growing.source);
        }
        let mut taken: FxHashSet<String> = FxHashSet::default();
        let mut renamed = BTreeMap::new();
        for growing in self.sessions.iter().filter(|growing| growing.holds_steps()) {
            let id = &growing.session.id;
            if sources[&**id].len() < 2 {
                continue;
            }
            let stem = file_stem(Path::new(&self.sources[growing.source].name));
            let plain = format!("{stem}/{id}");
            let mut name = plain.clone();
            let mut count = 1;
            while taken.contains(&name) || sources.contains_key(name.as_str()) {
                count += 1;
                name = format!("{plain}#{count}");
            }
            taken.insert(name.clone());
            renamed.insert((growing.source, id.to_string()), name);
        }
        renamed
    }

    /// Ends the reading. Sessions that hold no step are left out.
    pub fn finish(self) -> Trace {
        self.end(false).0
    }

    /// Ends the reading as [`Compiler::finish`] does; also returns what each node of the tree holds, see
    /// [`ContentBuilder::prints`].
    pub fn finish_printed(self) -> (Trace, Vec<Option<u64>>) {
        self.end(true)
    }

    fn end(mut self, printed: bool) -> (Trace, Vec<Option<u64>>) {
        let renamed = self.renamed();
        if !renamed.is_empty() {
            for growing in &mut self.sessions {
                let own = (growing.source, growing.session.id.to_string());
                if let Some(name) = renamed.get(&own) {
                    growing.session.id = name.as_str().into();
                }
            }
        }
        self.mark_common_heads();
        let prints = if printed {
            self.content.prints()
        } else {
            Vec::new()
        };
        let content = self.content.finish();
        let sessions = self.sessions.into_iter().filter(Growing::holds_steps);
        let sessions = sessions.map(|growing| {
            let mut session = growing.session;
            drop_empty_threads(&mut session);
            for thread in &mut session.threads {
                note_what_was_seen(&content, &mut thread.steps);
            }
            session
        });
        // Collected in place and cut to size: a second list of very many sessions would weigh as much as they do.
        let mut sessions: Vec<Session> = sessions.collect();
        sessions.shrink_to_fit();
        let trace = Trace {
            sources: self.sources,
            skipped: self.skipped,
            sessions,
            content: content.into(),
        };
        (trace, prints)
    }

    /// Where a file of several sessions declares no head, what the first prompts of two sessions share is one.
    fn mark_common_heads(&mut self) {
        let mut firsts: BTreeMap<(usize, u64), Vec<NodeId>> = BTreeMap::new();
        for growing in &self.sessions {
            if let Some(step) = growing
                .session
                .threads
                .first()
                .and_then(|main| main.steps.first())
            {
                firsts
                    .entry((growing.source, growing.salt))
                    .or_default()
                    .push(step.prompt);
            }
        }
        for tips in firsts.values() {
            self.content.mark_common(tips);
        }
    }
}

impl Growing {
    fn holds_steps(&self) -> bool {
        let main = self.session.threads.first();
        main.is_some_and(|main| !main.steps.is_empty())
    }

    /// Adds a conversation, with the one that started it. Very many sessions have but one: no room is made for more.
    fn put(&mut self, thread: Thread, parent: Option<usize>) {
        if self.session.threads.is_empty() {
            self.session.threads.reserve_exact(1);
        } else {
            self.parents
                .push(parent.expect("only the first conversation was started by nobody"));
        }
        self.session.threads.push(thread);
    }

    fn parent(&self, thread: usize) -> Option<usize> {
        thread.checked_sub(1).map(|place| self.parents[place])
    }

    /// Notes that the thread has content of this key; returns whether it had none of it before.
    fn had(&mut self, thread: usize, key: u64) -> bool {
        self.had.get_or_insert_default().insert((thread, key))
    }

    /// Completes what follows the conversation's previous answer; returns a complaint when a wait had to be left out.
    fn end_gap(
        &mut self,
        thread: usize,
        joins: ThinVec<u32>,
        record: &StepRecord,
    ) -> Option<String> {
        let before = record.before.as_ref();
        let waits = before.map(|gap| [gap.tool_us, gap.client_us, gap.human_us, gap.unknown_us]);
        let waits = waits.unwrap_or_default().map(|wait| self.believable(wait));
        let previous = self.session.threads[thread].steps.last_mut()?;
        previous.gap.joins = joins;
        let gap = &mut previous.gap;
        let spans = [
            &mut gap.tool,
            &mut gap.client,
            &mut gap.human,
            &mut gap.unknown,
        ];
        let mut complaint = None;
        for (span, wait) in spans.into_iter().zip(waits) {
            match wait {
                Ok(wait) => *span += wait,
                Err(why) => {
                    complaint = Some(format!("step `{}`: {why}; it was left out", record.id));
                }
            }
        }
        complaint
    }

    /// Returns a wait as a span; the sums of a session's waits must stay far from the end of the clock.
    fn believable(&mut self, micros: Option<u64>) -> Result<Span, String> {
        let span = Span::from_micros(micros.unwrap_or(0));
        let waited = self.waited.0.checked_add(span.0).map(Span);
        self.waited = waited
            .filter(|waited| *waited <= MAX_WAITS)
            .ok_or_else(|| {
                format!("the waits of a session sum to more than ten years (here {span})")
            })?;
        Ok(span)
    }
}
