//! From a session that was read to the records of the native format.

use super::super::super::record::{
    AgentRecord, EventRecord, GapRecord, OutputRecord, Piece, PromptEdit, Record, Segment,
    SessionRecord, StepRecord, TimingRecord, ToolRecord, UsageRecord,
};
use super::super::Feed;
use super::chat::{Call, How, Talk, Thread, Tool};
use super::notes::Notes;
use super::size::{self, Sizer, Sizing, Stretch};
use xxhash_rust::xxh3::xxh3_64;

/// Sub-agents within sub-agents beyond this depth are left out.
const MAX_DEPTH: usize = 32;
/// A sub-agent that ends later than this after its parent's next request was not waited for.
const LATE_US: i64 = 1_000_000;

/// Passes a session on.
pub(super) fn talk(feed: &mut Feed<'_>, notes: &mut Notes, format: &str, talk: &mut Talk) {
    if talk.threads.iter().all(|thread| thread.calls.is_empty()) {
        return;
    }
    let starts = talk.threads.iter().filter_map(Thread::first_us);
    let start_us = starts.min();
    notes.start_us = notes.start_us.or(start_us);
    notes.sessions += 1;
    let since = start_us.zip(notes.start_us);
    let record = SessionRecord {
        id: talk.id.clone(),
        arrival_us: since.map(|(own, first)| u64::try_from(own - first).unwrap_or(0)),
        resumed: talk.resumed,
        parent: talk.parent.clone(),
        model: talk.model.clone(),
        ..SessionRecord::default()
    };
    let id = talk.id.clone();
    feed.put(
        || format!("session {id}"),
        Record::Session(Box::new(record)),
    );
    let (mut chars, mut tokens) = (0, 0);
    for thread in &talk.threads {
        let (more_chars, more_tokens) = size::growth(thread);
        chars += more_chars;
        tokens += more_tokens;
    }
    let told = size::ratio(chars, tokens);
    let least = talk
        .threads
        .iter()
        .filter_map(size::least)
        .fold(0.0, f64::max);
    let ratio = told.unwrap_or(size::USUAL_RATIO).max(least);
    notes.usual_ratio |= told.is_none();
    let (low, high) = notes.ratio.unwrap_or((ratio, ratio));
    notes.ratio = Some((low.min(ratio), high.max(ratio)));
    let mut writer = Writer {
        feed,
        notes,
        session: id,
        format,
        model: talk.model.clone(),
        start_us,
        ratio,
    };
    writer.thread(talk, 0, 0);
    for (what, at_us) in &talk.events {
        let event = EventRecord {
            session: Some(writer.session.clone()),
            what: (*what).to_string(),
            at_us: writer.since(*at_us),
            ..EventRecord::default()
        };
        writer
            .feed
            .put(|| "an event".to_string(), Record::Event(Box::new(event)));
    }
}

struct Writer<'a, 'f> {
    feed: &'a mut Feed<'f>,
    notes: &'a mut Notes,
    session: String,
    format: &'a str,
    model: Option<String>,
    start_us: Option<i64>,
    ratio: f64,
}

impl Writer<'_, '_> {
    fn since(&self, at_us: Option<i64>) -> Option<u64> {
        let since = at_us?.checked_sub(self.start_us?)?;
        u64::try_from(since).ok()
    }

    /// Writes a thread, each sub-agent right after the call that started it.
    fn thread(&mut self, talk: &mut Talk, at: usize, depth: usize) {
        let mut thread = std::mem::replace(&mut talk.threads[at], Thread::new(""));
        let children: Vec<(usize, usize)> = talk
            .threads
            .iter()
            .enumerate()
            .skip(at + 1)
            .filter(|(_, child)| !child.calls.is_empty() && depth < MAX_DEPTH)
            .filter_map(|(index, child)| {
                let (parent, call) = child.parent?;
                let last = thread.calls.len().checked_sub(1)?;
                (parent == at).then_some((index, call.min(last)))
            })
            .collect();
        let mut sizer = Sizer::new(self.notes, self.ratio);
        let sizings: Vec<Sizing> = (0..thread.calls.len())
            .map(|_| sizer.next(&mut thread))
            .collect();
        for (index, sizing) in sizings.iter().enumerate() {
            let started = |wanted: usize| {
                children
                    .iter()
                    .filter(move |(_, call)| *call == wanted)
                    .map(|(child, _)| *child)
            };
            let joins: Vec<usize> = match index.checked_sub(1) {
                Some(before) => started(before)
                    .filter(|&child| awaited(&talk.threads[child], &thread.calls[index]))
                    .collect(),
                None => Vec::new(),
            };
            let ours: Vec<usize> = match thread.calls.get(index + 1) {
                Some(next) => started(index)
                    .filter(|&child| awaited(&talk.threads[child], next))
                    .collect(),
                None => Vec::new(),
            };
            let ended_us = ours
                .iter()
                .filter_map(|&child| talk.threads[child].last_us())
                .max();
            let joins = joins.iter().map(|&child| talk.threads[child].name.clone());
            let joins: Vec<String> = joins.collect();
            let gap = self.gap(&thread, index, ended_us, !ours.is_empty());
            self.step(&thread, index, sizing, gap, joins);
            let now: Vec<usize> = started(index).collect();
            for child in now {
                let next = thread.calls.get(index + 1);
                let waits = next.is_none_or(|next| awaited(&talk.threads[child], next));
                self.agent(&thread, index, &talk.threads[child], waits);
                self.thread(talk, child, depth + 1);
            }
        }
        talk.threads[at] = thread;
    }

    fn agent(&mut self, parent: &Thread, call: usize, child: &Thread, waits: bool) {
        let from = parent.calls[call].end_us.or(parent.calls[call].sent_us);
        let offset = child.first_us().zip(from).map(|(child, from)| child - from);
        let model = child.calls.first().and_then(|call| call.model.clone());
        let record = AgentRecord {
            id: child.name.clone(),
            session: self.session.clone(),
            parent: Some(parent.name.clone()),
            spawn_step: Some(step_name(parent, call)),
            spawn_offset_us: offset.map(|offset| u64::try_from(offset).unwrap_or(0)),
            join: (!waits).then(|| "async".to_string()),
            kind: child.kind.clone(),
            model: model.filter(|model| Some(model) != self.model.as_ref()),
            ..AgentRecord::default()
        };
        let place = || format!("sub-agent {}", child.name);
        self.feed.put(place, Record::Agent(Box::new(record)));
    }

    fn step(
        &mut self,
        thread: &Thread,
        at: usize,
        sizing: &Sizing,
        gap: GapRecord,
        joins: Vec<String>,
    ) {
        let call = &thread.calls[at];
        let line = call.line;
        self.notes.calls += 1;
        let append = sizing
            .stretches
            .iter()
            .map(|stretch| self.piece(thread, line, stretch))
            .collect();
        let broken = sizing.broken;
        let step = StepRecord {
            id: step_name(thread, at),
            session: Some(self.session.clone()),
            agent: (thread.name != "main").then(|| thread.name.clone()),
            prompt: PromptEdit {
                tokens: sizing.prompt,
                base: sizing
                    .base
                    .filter(|&base| base + 1 != at)
                    .map(|base| step_name(thread, base)),
                keep: sizing.keep,
                append,
                break_at: broken.map(|(_, estimated)| {
                    if estimated { "estimated" } else { "recorded" }.to_string()
                }),
                break_class: broken.map(|(class, _)| class.to_string()),
            },
            output: OutputRecord {
                tokens: sizing.output,
                reasoning: call
                    .usage
                    .and_then(|usage| usage.reasoning)
                    .map(|tokens| tokens.min(sizing.output)),
                ..OutputRecord::default()
            },
            gap: Some(gap),
            timing: self.timing(call),
            usage: call.usage.map(|usage| UsageRecord {
                prompt: usage.prompt,
                cached: usage.cached,
                cache_write: usage.cache_write,
                output: usage.output,
            }),
            finish: finish(thread, at).map(str::to_string),
            joins,
            model: call
                .model
                .clone()
                .filter(|model| Some(model) != self.model.as_ref()),
            ..StepRecord::default()
        };
        let name = step.id.clone();
        let place = || format!("line {line}");
        self.feed.put(place, Record::Step(Box::new(step)));
        for tool in &call.tools {
            self.tool(&name, line, tool);
        }
    }

    /// Returns a stretch of a prompt; the content it stands for is named where it is known.
    fn piece(&mut self, thread: &Thread, line: u64, stretch: &Stretch) -> Piece {
        let Stretch {
            part,
            tokens,
            again,
        } = *stretch;
        let kind = part.kind.to_string();
        let (id, hash) = if part.hash != 0 {
            (format!("{:016x}-{tokens}", part.hash), part.hash)
        } else if kind == "system" {
            // Equal heads are those of equal harness, model, kind of agent, and size.
            let model = thread.calls[0].model.as_deref().or(self.model.as_deref());
            let agent = thread.kind.as_deref().unwrap_or("");
            let id = format!(
                "head {} {} {agent} {tokens}",
                self.format,
                model.unwrap_or("")
            );
            let hash = xxh3_64(id.as_bytes());
            (id, hash)
        } else {
            return Piece {
                tokens: Some(tokens),
                kind: Some(kind),
                again,
                ..Piece::default()
            };
        };
        let segment = Segment {
            id: id.clone(),
            kind,
            tokens,
            hash: Some(format!("{hash:016x}")),
            ..Segment::default()
        };
        let place = || format!("line {line}");
        self.feed.put(place, Record::Segment(Box::new(segment)));
        Piece {
            seg: Some(id),
            again,
            ..Piece::default()
        }
    }

    fn timing(&self, call: &Call) -> Option<TimingRecord> {
        let span = call.sent_us.zip(call.end_us);
        let model_us = span.and_then(|(sent, end)| u64::try_from(end - sent).ok());
        let sent_us = self.since(call.sent_us);
        (sent_us.is_some() || model_us.is_some()).then(|| TimingRecord {
            sent_us,
            first_token_us: call.first_token_us,
            model_us,
            how: Some(call.how.name().to_string()),
        })
    }

    fn tool(&mut self, step: &str, line: u64, tool: &Tool) {
        let took = tool.took_us();
        match took {
            Some((_, How::Measured)) => self.notes.measured_tools += 1,
            Some((_, How::Derived)) => self.notes.derived_tools += 1,
            None => self.notes.timeless_tools += 1,
        }
        let mut record = ToolRecord {
            step: step.to_string(),
            session: Some(self.session.clone()),
            name: tool.name.clone(),
            id: tool.id.clone(),
            duration_us: took.map(|(span, _)| span),
            meaning: took.map(|(_, how)| {
                match how {
                    How::Measured => "internal",
                    How::Derived => tool.meaning.unwrap_or("wall-with-approval"),
                }
                .to_string()
            }),
            start_us: self.since(tool.start_us),
            exit_status: tool.exit_status,
            error: tool.failed.then(|| "failed".to_string()),
            result_chars: tool.result_chars,
            ..ToolRecord::default()
        };
        if let Some((_, how)) = took {
            let how = serde_json::Value::String(how.name().to_string());
            record.extra.insert("how".to_string(), how);
        }
        let place = || format!("line {line}");
        self.feed.put(place, Record::Tool(Box::new(record)));
    }

    /// Returns what came between a call and the next of its thread; with sub-agents that were waited for, what was left
    /// once the last of them had ended.
    fn gap(&mut self, thread: &Thread, at: usize, ended_us: Option<i64>, waits: bool) -> GapRecord {
        let call = &thread.calls[at];
        let next = thread.calls.get(at + 1);
        let from_us = if waits {
            call.end_us.max(ended_us)
        } else {
            call.end_us
        };
        let to_us = next.and_then(|next| next.sent_us);
        let tools = call.tools.iter().filter(|tool| tool.child.is_none());
        let (tool_us, how) = together(tools, from_us, to_us);
        let between = from_us.zip(to_us).map(|(from, to)| to - from);
        self.notes.backwards += u64::from(between.is_some_and(|between| between < 0));
        let between = between.map(|between| between.max(0).cast_unsigned());
        let tool_us = tool_us.map(|tool| between.map_or(tool, |between| tool.min(between)));
        let rest = between.map(|between| between - tool_us.unwrap_or(0).min(between));
        let rest = rest.filter(|&rest| rest > 0);
        let human = call.tools.is_empty() && finish(thread, at) == Some("end-of-turn");
        // Between measured moments nothing is left but the client.
        let client = !human && call.how == How::Measured && tool_us.is_some();
        GapRecord {
            tool_us,
            tool_how: tool_us.map(|_| how.name().to_string()),
            client_us: rest.filter(|_| client),
            human_us: rest.filter(|_| human),
            unknown_us: rest.filter(|_| !human && !client),
        }
    }
}

/// Returns whether a thread's next call waited for a child.
fn awaited(child: &Thread, next: &Call) -> bool {
    let late = child
        .last_us()
        .zip(next.sent_us)
        .is_some_and(|(end, sent)| end > sent + LATE_US);
    !child.background && !late
}

/// Returns how long tools ran within a wait, parallel ones counted once, and how that is known.
fn together<'t>(
    tools: impl Iterator<Item = &'t Tool>,
    from_us: Option<i64>,
    to_us: Option<i64>,
) -> (Option<u64>, How) {
    let mut how = How::Measured;
    let mut loose: Option<u64> = None;
    let mut spans: Vec<(i64, i64)> = Vec::new();
    for tool in tools {
        let Some((took, known)) = tool.took_us() else {
            continue;
        };
        if known == How::Derived {
            how = How::Derived;
        }
        let length = took.cast_signed();
        let span = match (tool.start_us, tool.end_us) {
            (_, Some(end)) => (end.saturating_sub(length), end),
            (Some(start), None) => (start, start.saturating_add(length)),
            (None, None) => {
                loose = Some(loose.unwrap_or(0).saturating_add(took));
                continue;
            }
        };
        let start = from_us.map_or(span.0, |from| span.0.max(from));
        let end = to_us.map_or(span.1, |to| span.1.min(to));
        spans.push((start, end.max(start)));
    }
    spans.sort_unstable();
    let mut upto = i64::MIN;
    let mut covered = 0_u64;
    for &(start, end) in &spans {
        let start = start.max(upto);
        if end > start {
            covered = covered.saturating_add((end - start).cast_unsigned());
        }
        upto = upto.max(end);
    }
    let some = loose.is_some() || !spans.is_empty();
    (
        some.then(|| covered.saturating_add(loose.unwrap_or(0))),
        how,
    )
}

/// Returns how a call ended, as far as the log or what follows tells.
fn finish(thread: &Thread, at: usize) -> Option<&'static str> {
    let call = &thread.calls[at];
    let next = thread.calls.get(at + 1);
    call.finish.or_else(|| {
        if !call.tools.is_empty() {
            Some("tool-call")
        } else if next.is_none_or(|next| next.person) {
            Some("end-of-turn")
        } else {
            None
        }
    })
}

fn step_name(thread: &Thread, at: usize) -> String {
    if thread.name == "main" {
        (at + 1).to_string()
    } else {
        format!("{}.{}", thread.name, at + 1)
    }
}
