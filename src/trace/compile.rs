//! From records to a [`Trace`]: decides once which content is the same.
//!
//! Records arrive in file order; a step refers to earlier ones only. What cannot be used becomes a problem with its
//! place, never an abort: the rest of the session still replays, because the recorded prompt length always wins.

use super::content::{ContentBuilder, ContentError, ROOT};
use super::record::{AgentRecord, Piece, PromptEdit, Record, Segment, SessionRecord, StepRecord};
use super::{Ending, Gap, Join, Recorded, Session, Source, Spawn, Step, Thread, Trace};
use crate::ids::NodeId;
use crate::units::{Span, Tokens};
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Segment kinds that form the head of a conversation.
const HEAD_KINDS: [&str; 2] = ["tools", "system"];

/// Builds a [`Trace`] out of the records of any number of files.
#[derive(Debug, Default)]
pub struct Compiler {
    content: ContentBuilder,
    sources: Vec<Source>,
    sessions: Vec<Growing>,
    by_id: FxHashMap<String, usize>,
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
    token_ids: Option<Vec<u64>>,
}

/// A session while its records arrive.
#[derive(Debug)]
struct Growing {
    session: Session,
    source: usize,
    agents: FxHashMap<String, usize>,
    /// Steps by id: where their prompt and answer end.
    steps: FxHashMap<String, (NodeId, NodeId)>,
    /// Where each step stands, so that children find the step they start after.
    places: FxHashMap<String, (usize, usize)>,
    /// Tokens whose content is known to have stood elsewhere in the thread, for each thread and segment key.
    had: FxHashSet<(usize, u64)>,
}

impl Compiler {
    /// Begins a new file; segments and session names of earlier files are out of reach from here on.
    pub fn begin(&mut self, source: Source) {
        self.sources.push(source);
        self.segments.clear();
        self.by_id.clear();
        self.file_from = self.sessions.len();
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
            .map(|ids| ids.iter().map(|&id| u64::from(id)).collect::<Vec<_>>());
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
        if self.by_id.contains_key(&record.id) {
            return Err(format!(
                "session `{}` was already defined in this file; give each session its own id",
                record.id
            ));
        }
        self.by_id.insert(record.id.clone(), self.sessions.len());
        self.sessions.push(Growing {
            session: Session {
                id: record.id.clone(),
                arrival: record.arrival_us.map(Span::from_micros),
                resumed: record.resumed,
                model: record.model.clone(),
                threads: Vec::new(),
            },
            source: self.sources.len() - 1,
            agents: FxHashMap::default(),
            steps: FxHashMap::default(),
            places: FxHashMap::default(),
            had: FxHashSet::default(),
        });
        Ok(())
    }

    /// Returns the session that a record belongs to; a file of one session need not name it.
    fn session_of(&mut self, name: Option<&str>) -> Result<usize, String> {
        match name {
            Some(name) => self.by_id.get(name).copied().ok_or_else(|| {
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
        if growing.agents.contains_key(&record.id) {
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
        if let Some(step) = &record.spawn_step {
            let &(parent, index) = growing.places.get(step).ok_or_else(|| {
                format!(
                    "agent `{}` starts after step `{step}`, which is not above this line",
                    record.id
                )
            })?;
            let offset = Span::from_micros(record.spawn_offset_us.unwrap_or(0));
            growing.session.threads[parent].steps[index]
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
        growing.agents.insert(record.id.clone(), thread);
        growing.session.threads.push(Thread {
            id: record.id.clone(),
            join,
            steps: Vec::new(),
        });
        Ok(())
    }

    fn step(&mut self, record: &StepRecord) -> Result<(), String> {
        let at = self.session_of(record.session.as_deref())?;
        let thread = self.thread_of(at, record.agent.as_deref())?;
        if self.sessions[at].steps.contains_key(&record.id) {
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
        let joins = self.joins_of(at, &record.joins)?;
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
            self.sessions[at].had.insert((thread, known.key));
        }
        output = self.content.opaque(output, Tokens(left)).map_err(too_big)?;
        let growing = &mut self.sessions[at];
        let steps = &mut growing.session.threads[thread].steps;
        if let Some(previous) = steps.last_mut() {
            previous.gap.joins = joins;
        }
        growing
            .places
            .insert(record.id.clone(), (thread, steps.len()));
        growing.steps.insert(record.id.clone(), (prompt, output));
        let timing = record.timing.clone().unwrap_or_default();
        steps.push(Step {
            prompt,
            prompt_tokens: Tokens(record.prompt.tokens),
            output,
            output_tokens: Tokens(record.output.tokens),
            seen: Tokens::ZERO,
            seen_computed: Tokens::ZERO,
            again: Tokens(again),
            break_estimated: record.prompt.break_at.as_deref() == Some("estimated"),
            gap: gap_of(record),
            recorded: Recorded {
                sent: timing.sent_us.map(Span::from_micros),
                first_token: timing.first_token_us.map(Span::from_micros),
                model: timing.model_us.map(Span::from_micros),
                cached: record
                    .usage
                    .as_ref()
                    .and_then(|usage| usage.cached)
                    .map(Tokens),
            },
        });
        complaint.map_or(Ok(()), Err)
    }

    fn thread_of(&mut self, at: usize, agent: Option<&str>) -> Result<usize, String> {
        let growing = &mut self.sessions[at];
        match agent {
            Some(name) => growing.agents.get(name).copied().ok_or_else(|| {
                format!("agent `{name}` is not defined above this line; add an `agent` line first")
            }),
            None => {
                if growing.session.threads.is_empty() {
                    growing.agents.insert("main".to_string(), 0);
                    growing.session.threads.push(Thread {
                        id: "main".to_string(),
                        join: Join::Blocking,
                        steps: Vec::new(),
                    });
                }
                Ok(0)
            }
        }
    }

    fn joins_of(&self, at: usize, names: &[String]) -> Result<Vec<u32>, String> {
        let growing = &self.sessions[at];
        names
            .iter()
            .map(|name| match growing.agents.get(name) {
                Some(&thread) => Ok(thread as u32),
                None => Err(format!(
                    "joins agent `{name}`, which is not defined above this line"
                )),
            })
            .collect()
    }

    /// Places the prompt in the tree. Also returns how much of it is content the thread had before, and a complaint
    /// when the edit does not fit its base; the prompt then has its recorded length all the same.
    fn prompt(
        &mut self,
        at: usize,
        thread: usize,
        record: &StepRecord,
    ) -> Result<(NodeId, u64, Option<String>), String> {
        let edit = &record.prompt;
        let too_big = |error: ContentError| format!("step `{}` has {error}", record.id);
        let base = self.base_of(at, thread, edit)?;
        let kept = edit.keep.min(self.content.end(base).0).min(edit.tokens);
        let mut complaint = (kept < edit.keep).then(|| {
            format!("step `{}` keeps {} tokens, but there are only {kept} to keep; the rest was taken as new", record.id, edit.keep)
        });
        let mut tip = self.content.cut(base, Tokens(kept)).map_err(too_big)?;
        let mut again = 0;
        let mut in_head = kept == 0;
        for piece in &edit.append {
            let left = edit.tokens - self.content.end(tip).0;
            match self.append(tip, piece, left, at, thread) {
                Ok((next, repeated, head)) => {
                    again += repeated;
                    in_head &= head;
                    tip = next;
                    if in_head {
                        self.content.mark_head(tip);
                    }
                }
                Err(why) => {
                    complaint.get_or_insert(format!(
                        "step `{}`: {why}; the rest of the prompt was taken as new",
                        record.id
                    ));
                    break;
                }
            }
        }
        let left = edit.tokens - self.content.end(tip).0;
        if left > 0 && complaint.is_none() {
            let listed = edit.tokens - left;
            complaint = Some(format!(
                "step `{}` says {} prompt tokens, but keeps and appends only {listed}; the rest was taken as new",
                record.id, edit.tokens
            ));
        }
        let tip = self.content.opaque(tip, Tokens(left)).map_err(too_big)?;
        Ok((tip, again, complaint))
    }

    fn base_of(&self, at: usize, thread: usize, edit: &PromptEdit) -> Result<NodeId, String> {
        let growing = &self.sessions[at];
        match &edit.base {
            Some(name) => growing
                .steps
                .get(name)
                .map(|&(_, output)| output)
                .ok_or_else(|| {
                    format!("the prompt edits step `{name}`, which is not above this line")
                }),
            None => Ok(growing.session.threads[thread]
                .steps
                .last()
                .map_or(ROOT, |step| step.output)),
        }
    }

    /// Appends one piece; returns the new end, how much of it the thread had before, and whether it is head content.
    fn append(
        &mut self,
        tip: NodeId,
        piece: &Piece,
        left: u64,
        at: usize,
        thread: usize,
    ) -> Result<(NodeId, u64, bool), String> {
        let fits = |tokens: u64| {
            if tokens <= left {
                Ok(())
            } else {
                Err(format!("appends {tokens} tokens where {left} are left"))
            }
        };
        let told = |tokens: u64| if piece.again { tokens } else { 0 };
        if let Some(name) = &piece.seg {
            let known = self
                .segments
                .get(name)
                .cloned()
                .ok_or_else(|| format!("segment `{name}` is not defined above this line"))?;
            fits(known.tokens)?;
            let before = !self.sessions[at].had.insert((thread, known.key));
            let next = self.known(tip, &known).map_err(|error| error.to_string())?;
            return Ok((
                next,
                if before || piece.again {
                    known.tokens
                } else {
                    0
                },
                known.head,
            ));
        }
        if let Some(blocks) = &piece.blocks {
            let size = piece
                .block_size
                .filter(|&size| size > 0)
                .ok_or("`blocks` needs a positive `block_size`")?;
            let keys = parse_blocks(blocks, left / u64::from(size))?;
            let next = self
                .content
                .units(tip, size, &keys)
                .map_err(|error| error.to_string())?;
            return Ok((next, told(keys.len() as u64 * u64::from(size)), false));
        }
        let tokens = piece
            .tokens
            .ok_or("a piece needs one of `seg`, `blocks` or `tokens`")?;
        fits(tokens)?;
        let next = self
            .content
            .opaque(tip, Tokens(tokens))
            .map_err(|error| error.to_string())?;
        Ok((next, told(tokens), false))
    }

    fn known(&mut self, tip: NodeId, known: &Known) -> Result<NodeId, ContentError> {
        match &known.token_ids {
            Some(ids) => self.content.units(tip, 1, ids),
            None => self.content.piece(tip, known.key, Tokens(known.tokens)),
        }
    }

    /// Ends the reading. Sessions that hold no step are left out.
    pub fn finish(mut self) -> Trace {
        self.mark_common_heads();
        let content = self.content.finish();
        let mut sessions: Vec<Session> = Vec::with_capacity(self.sessions.len());
        for growing in self.sessions {
            let mut session = growing.session;
            if session
                .threads
                .first()
                .is_none_or(|main| main.steps.is_empty())
            {
                continue;
            }
            drop_empty_threads(&mut session);
            for thread in &mut session.threads {
                note_what_was_seen(&content, &mut thread.steps);
            }
            sessions.push(session);
        }
        Trace {
            sources: self.sources,
            sessions,
            content: content.into(),
        }
    }

    /// Where a file of several sessions declares no head, what the first prompts of two sessions share is one.
    fn mark_common_heads(&mut self) {
        let mut firsts: FxHashMap<usize, Vec<NodeId>> = FxHashMap::default();
        for growing in &self.sessions {
            if let Some(step) = growing
                .session
                .threads
                .first()
                .and_then(|main| main.steps.first())
            {
                firsts.entry(growing.source).or_default().push(step.prompt);
            }
        }
        for tips in firsts.values() {
            self.content.mark_common(tips);
        }
    }
}

fn gap_of(record: &StepRecord) -> Gap {
    let gap = record.gap.clone().unwrap_or_default();
    let span = |micros: Option<u64>| Span::from_micros(micros.unwrap_or(0));
    Gap {
        after: match record.finish.as_deref() {
            Some("tool-call") => Ending::ToolCall,
            Some("end-of-turn") => Ending::EndOfTurn,
            _ => Ending::Unknown,
        },
        tool: span(gap.tool_us),
        client: span(gap.client_us),
        human: span(gap.human_us),
        unknown: span(gap.unknown_us),
        spawns: Vec::new(),
        joins: Vec::new(),
    }
}

/// Sub-agents of which nothing was recorded are forgotten, and nobody waits for them.
fn drop_empty_threads(session: &mut Session) {
    let kept: Vec<Option<u32>> = session
        .threads
        .iter()
        .scan(0, |next, thread| {
            let place = (!thread.steps.is_empty()).then_some(*next);
            *next += u32::from(place.is_some());
            Some(place)
        })
        .collect();
    session.threads.retain(|thread| !thread.steps.is_empty());
    for gap in session
        .threads
        .iter_mut()
        .flat_map(|thread| &mut thread.steps)
        .map(|step| &mut step.gap)
    {
        gap.joins = gap
            .joins
            .iter()
            .filter_map(|&thread| kept[thread as usize])
            .collect();
        gap.spawns = gap
            .spawns
            .iter()
            .filter_map(|spawn| {
                Some(Spawn {
                    thread: kept[spawn.thread as usize]?,
                    ..*spawn
                })
            })
            .collect();
    }
}

/// Notes for each step how far its prompt follows what the thread sent or received before.
fn note_what_was_seen(content: &super::content::Content, steps: &mut [Step]) {
    let mut visited: FxHashSet<NodeId> = FxHashSet::default();
    // Nodes that end an answer, until a later prompt has gone through them: their last token was never computed.
    let mut answers: FxHashSet<NodeId> = FxHashSet::default();
    visited.insert(ROOT);
    for step in steps {
        let mut at = step.prompt;
        while !visited.contains(&at) {
            at = content.parent(at);
        }
        step.seen = content.end(at);
        step.seen_computed = if answers.contains(&at) {
            Tokens(step.seen.0 - 1)
        } else {
            step.seen
        };
        step.again = step.again.min(step.prompt_tokens - step.seen);
        if at != ROOT {
            answers.remove(&at);
        }
        let mark = |visited: &mut FxHashSet<NodeId>, tip: NodeId| {
            for node in content.upwards(tip) {
                if !visited.insert(node) {
                    break;
                }
            }
        };
        mark(&mut visited, step.prompt);
        if step.output != step.prompt && !visited.contains(&step.output) {
            mark(&mut visited, step.output);
            answers.insert(step.output);
        }
    }
}

/// Reads "3e8 3ea-3ef 410": hexadecimal ids, runs of successive ids with a dash.
///
/// At most `limit` ids are read: a file cannot ask for more than its prompt holds.
fn parse_blocks(text: &str, limit: u64) -> Result<Vec<u64>, String> {
    let id = |word: &str| {
        u64::from_str_radix(word, 16)
            .map_err(|_| format!("block id `{word}` is not hexadecimal (at most 16 digits)"))
    };
    let mut keys = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (first, last) = match word.split_once('-') {
            Some((first, last)) => (id(first)?, id(last)?),
            None => (id(word)?, id(word)?),
        };
        if last < first {
            return Err(format!("the run of blocks `{word}` ends before it begins"));
        }
        if (last - first) >= limit.saturating_sub(keys.len() as u64) {
            return Err(format!(
                "the blocks hold more tokens than the {limit} blocks that are left of the prompt"
            ));
        }
        keys.extend(first..=last);
    }
    Ok(keys)
}

/// Writes block ids in the form that [`Piece::blocks`] has.
pub fn write_blocks(keys: &[u64]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut rest = keys;
    while let Some(&first) = rest.first() {
        let run = rest
            .iter()
            .zip(first..=u64::MAX)
            .take_while(|(key, expected)| *key == expected)
            .count();
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = if run > 1 {
            write!(text, "{first:x}-{:x}", rest[run - 1])
        } else {
            write!(text, "{first:x}")
        };
        rest = &rest[run..];
    }
    text
}
