//! Claude Code sessions: one record a line, one answer over several lines, sub-agents inline or in files beside it.
//!
//! Lines of one answer repeat its usage, so answers are told apart by message id. Stamps are the ends of blocks: a
//! request counts as sent when the last thing it tells the model was logged. Records form a tree by `parentUuid`; only a
//! person's message can go back in it, because the results of parallel tools branch as well.

use super::super::super::error::TraceError;
use super::super::super::input::{Input, file_stem};
use super::super::Feed;
use super::chat::{Call, HEAD, Part, Place, Talk, Tool, Usage};
use super::json::{at, count, each_line, flag, list, name, real, stamp, text};
use super::notes::Notes;
use super::write;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Records that tell nothing of what the model was asked.
const ASIDE: [&str; 22] = [
    "summary",
    "progress",
    "queue-operation",
    "file-history-snapshot",
    "mode",
    "permission-mode",
    "last-prompt",
    "ai-title",
    "custom-title",
    "agent-name",
    "agent-setting",
    "agent-color",
    "worktree-state",
    "bridge-session",
    "atis-latch",
    "tag",
    "pr-link",
    "speculation-accept",
    "content-replacement",
    "attribution-snapshot",
    "result",
    "frame-link",
];
/// Tools that start sub-agents.
const AGENT_TOOLS: [&str; 2] = ["Task", "Agent"];

/// Reads a session with the sub-agents in files of their own.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "the log is not the request: system prompt, tool definitions, side calls (titles, summaries) and context edits are \
         not in it",
    );
    notes.always.push(
        "requests count as sent when the last message before them was logged, and as answered with their last block; \
         first-token times are not recorded",
    );
    let mut reader = Reader::new(&file_stem(&input.path));
    each_line(input, feed, |_, line, value| {
        reader.line(notes, line, value);
        Ok(())
    })?;
    let mut children = Vec::new();
    for path in agent_files(&input.path) {
        let Ok(file) = Input::new(&path, false) else {
            continue;
        };
        let mut child = Reader::new(&file_stem(&path));
        child.of_agent = true;
        let label = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        each_line(&file, feed, |_, line, value| {
            child.line(notes, line, value);
            Ok(())
        })
        .inspect_err(|_| {
            notes.count(&format!(
                "sub-agent file unreadable ({})",
                label.unwrap_or_default()
            ));
        })
        .ok();
        children.push(child);
    }
    children.sort_by_key(|child| child.talk.threads[0].first_us());
    for child in children {
        reader.adopt(child);
    }
    let mut talk = reader.finish();
    write::talk(feed, notes, "claude-code", &mut talk);
    Ok(())
}

/// Returns the files of a session's sub-agents, in the order of their paths.
pub(super) fn agent_files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(path.with_extension("").join("subagents"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_log = path.extension().is_some_and(|suffix| suffix == "jsonl");
            if path.is_dir() && depth < 4 {
                folders.push((path, depth + 1));
            } else if is_log && entry.file_name().as_encoded_bytes().starts_with(b"agent-") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns the session that a sub-agent's file belongs to, where that is there.
pub(super) fn parent_of(path: &Path) -> Option<PathBuf> {
    let folder = path
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "subagents"))?;
    let session = folder.parent()?.with_extension("jsonl");
    session.is_file().then_some(session)
}

/// Where a record left the conversation, and how many calls there were by then.
#[derive(Clone, Copy)]
struct Left {
    thread: usize,
    place: Place,
    calls: usize,
}

struct Reader {
    talk: Talk,
    /// Whether the file is a sub-agent's: its sidechain is the main thread.
    of_agent: bool,
    agent: Option<String>,
    named: bool,
    threads: FxHashMap<String, usize>,
    left: FxHashMap<u64, Left>,
    /// Calls by message id.
    open: FxHashMap<u64, (usize, usize)>,
    /// The request of the last line, where nothing was said since.
    running: Option<(usize, u64)>,
    /// Which call of which thread started an agent, and whether it went on meanwhile.
    started: FxHashMap<String, (String, bool)>,
}

impl Reader {
    fn new(stem: &str) -> Reader {
        Reader {
            talk: Talk::new(stem),
            of_agent: false,
            agent: None,
            named: false,
            threads: FxHashMap::default(),
            left: FxHashMap::default(),
            open: FxHashMap::default(),
            running: None,
            started: FxHashMap::default(),
        }
    }

    fn line(&mut self, notes: &mut Notes, line: u64, value: &Value) {
        let message = at(value, &["message"]);
        let kind = text(value, "type").or_else(|| text(message, "role"));
        let thread = self.thread_of(value);
        if thread == 0
            && !self.named
            && let Some(id) = name(value, "sessionId")
        {
            self.named = true;
            self.talk.id = id;
        }
        match kind {
            Some("user") => self.user(notes, thread, value),
            Some("assistant") => self.assistant(thread, line, value),
            Some("attachment") => self.attachment(thread, value),
            Some("system") => self.system(thread, value),
            Some("progress") => self.progress(value),
            Some(other) if ASIDE.contains(&other) => {}
            Some(other) => {
                let short: String = other.chars().take(40).collect();
                notes.count(&format!(
                    "records of the unknown type `{short}`, passed over"
                ));
            }
            None => notes.count("records without a type, passed over"),
        }
        if let Some(uuid) = text(value, "uuid") {
            let here = &self.talk.threads[thread];
            let left = Left {
                thread,
                place: here.place(),
                calls: here.calls.len(),
            };
            self.left.insert(xxh3_64(uuid.as_bytes()), left);
        }
    }

    /// Returns the thread that a record belongs to: sub-agents by their id, or by the record they follow.
    fn thread_of(&mut self, value: &Value) -> usize {
        if !flag(value, "isSidechain") {
            return 0;
        }
        let agent = name(value, "agentId");
        if self.of_agent || self.agent.is_some() && self.agent == agent {
            self.agent = self.agent.take().or(agent);
            return 0;
        }
        let follows = text(value, "parentUuid").map(|uuid| xxh3_64(uuid.as_bytes()));
        let known = follows.and_then(|uuid| self.left.get(&uuid));
        let told = matches!(text(value, "type"), Some("user" | "assistant"));
        match (agent, known) {
            (Some(agent), _) => {
                if let Some(&thread) = self.threads.get(&agent) {
                    return thread;
                }
                if !told {
                    return 0;
                }
                // A sub-agent's own file, read by itself.
                let main = &self.talk.threads[0];
                if main.calls.is_empty() && main.place() == HEAD {
                    self.agent = Some(agent);
                    return 0;
                }
                let thread = self.begin_agent(&agent);
                self.threads.insert(agent, thread);
                thread
            }
            (None, Some(left)) if left.thread != 0 => left.thread,
            (None, _) if told => self.begin_agent("agent"),
            (None, _) => 0,
        }
    }

    fn begin_agent(&mut self, agent: &str) -> usize {
        let thread = self.talk.spawn(agent, 0);
        let call = self.talk.threads[0].calls.len().saturating_sub(1);
        self.attach(thread, 0, call);
        thread
    }

    /// Lets a call's first free sub-agent tool stand for a thread.
    fn attach(&mut self, child: usize, parent: usize, call: usize) {
        self.talk.threads[child].parent = Some((parent, call));
        let Some(call) = self.talk.threads[parent].calls.get_mut(call) else {
            return;
        };
        let free =
            |tool: &&mut Tool| tool.child.is_none() && AGENT_TOOLS.contains(&tool.name.as_str());
        if let Some(tool) = call.tools.iter_mut().find(free) {
            tool.child = Some(child);
        }
    }

    fn user(&mut self, notes: &mut Notes, thread: usize, value: &Value) {
        let at_us = stamp(value, "timestamp");
        let content = at(value, &["message", "content"]);
        let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
        let is_result = |block: &Value| text(block, "type") == Some("tool_result");
        let meta = flag(value, "isMeta");
        let compact = flag(value, "isCompactSummary");
        let kind = match (compact, meta) {
            (true, _) => "summary",
            (_, true) => "reminder",
            _ => "user",
        };
        if !blocks.iter().any(is_result) && !compact {
            self.rewind(thread, value);
        }
        let here = &mut self.talk.threads[thread];
        if compact && here.calls.is_empty() && thread == 0 {
            self.talk.resumed = true;
        } else if compact && here.place() != HEAD {
            here.go_back(HEAD, "compaction");
        }
        self.running = None;
        if content.is_string() {
            self.talk.threads[thread].hear(Part::body(kind, content), at_us);
        }
        for block in blocks {
            if !is_result(block) {
                self.talk.threads[thread].hear(Part::body(kind, block), at_us);
                continue;
            }
            let id = text(block, "tool_use_id");
            let part = Part::body("tool-output", at(block, &["content"]));
            let here = &mut self.talk.threads[thread];
            if !here.result(id, part, at_us) {
                notes.unpaired += 1;
            }
            self.outcome(thread, id, block, at(value, &["toolUseResult"]));
        }
    }

    /// Takes in what the structured result of a tool says beyond its text.
    fn outcome(&mut self, thread: usize, id: Option<&str>, block: &Value, result: &Value) {
        let millis = ["durationMs", "totalDurationMs"];
        let measured = millis.iter().find_map(|key| real(result, key));
        let measured = measured.or_else(|| Some(real(result, "durationSeconds")? * 1e3));
        let background =
            text(result, "status") == Some("async_launched") || flag(result, "isAsync");
        if let (Some(agent), Some(id)) = (name(result, "agentId"), id) {
            self.started.insert(agent, (id.to_string(), background));
        }
        let Some(tool) = id.and_then(|id| self.talk.threads[thread].tool(id)) else {
            return;
        };
        tool.failed = flag(block, "is_error") || flag(result, "interrupted");
        if !background {
            tool.measured_us = measured.and_then(|millis| super::super::micros(millis / 1e3));
        }
    }

    /// Goes back where a person's message follows a record that is not the last.
    fn rewind(&mut self, thread: usize, value: &Value) {
        let here = &mut self.talk.threads[thread];
        let Some(parent) = value.get("parentUuid").filter(|_| !here.calls.is_empty()) else {
            return;
        };
        match parent.as_str() {
            Some(uuid) => {
                let left = self.left.get(&xxh3_64(uuid.as_bytes()));
                let left =
                    left.filter(|left| left.thread == thread && left.calls < here.calls.len());
                if let Some(left) = left {
                    here.go_back(left.place, "rewind");
                }
            }
            None => here.go_back(HEAD, "clear"),
        }
    }

    fn assistant(&mut self, thread: usize, line: u64, value: &Value) {
        let message = at(value, &["message"]);
        let at_us = stamp(value, "timestamp");
        if text(message, "model") == Some("<synthetic>") || flag(value, "isApiErrorMessage") {
            self.talk.events.push(("error", at_us));
            return;
        }
        let request = text(value, "requestId").unwrap_or("");
        let key = text(message, "id").map(|id| xxh3_64(format!("{id} {request}").as_bytes()));
        let own = xxh3_64(request.as_bytes());
        let known = match key {
            Some(key) => self.open.get(&key).copied(),
            None => self
                .running
                .filter(|&(running, last)| running == thread && last == own && !request.is_empty())
                .map(|_| (thread, self.talk.threads[thread].calls.len() - 1)),
        };
        let (thread, call) = known.unwrap_or_else(|| {
            let call = Call {
                line,
                model: name(message, "model"),
                end_us: at_us,
                ..Call::default()
            };
            (thread, self.talk.threads[thread].call(call))
        });
        if let Some(key) = key {
            self.open.insert(key, (thread, call));
        }
        self.running = Some((thread, own));
        self.talk.model = self.talk.model.take().or_else(|| name(message, "model"));
        self.block(thread, call, message, at_us);
    }

    /// Takes in one line of an answer.
    fn block(&mut self, thread: usize, call: usize, message: &Value, at_us: Option<i64>) {
        let here = &mut self.talk.threads[thread];
        let content = at(message, &["content"]);
        let mut tools = Vec::new();
        let (mut said, mut thought) = (0, 0);
        if content.is_string() {
            said += Part::body("assistant-text", content).chars;
        }
        for block in list(message, "content") {
            match text(block, "type") {
                Some("thinking" | "redacted_thinking") => {
                    thought += Part::body("reasoning", block).chars;
                }
                Some("tool_use") => {
                    said += Part::body("tool-call", at(block, &["input"])).chars + 20;
                    tools.push(Tool {
                        id: name(block, "id"),
                        name: name(block, "name").unwrap_or_else(|| "unknown".to_string()),
                        start_us: at_us,
                        ..Tool::default()
                    });
                }
                _ => said += Part::body("assistant-text", block).chars,
            }
        }
        let open = &mut here.calls[call];
        open.said += said;
        open.thought += thought;
        open.end_us = open.end_us.max(at_us);
        open.usage = usage(at(message, &["usage"])).told().or(open.usage);
        open.finish = match text(message, "stop_reason") {
            Some("tool_use") => Some("tool-call"),
            Some("end_turn" | "stop_sequence") => Some("end-of-turn"),
            Some("max_tokens") => Some("length"),
            _ => open.finish,
        };
        for tool in tools {
            here.ask(call, tool);
        }
    }

    fn attachment(&mut self, thread: usize, value: &Value) {
        let attachment = at(value, &["attachment"]);
        let content = match at(attachment, &["content"]) {
            Value::Null => at(attachment, &["prompt"]),
            content => content,
        };
        let part = Part::body("reminder", content);
        if !part.is_empty() {
            self.talk.threads[thread].hear(part, stamp(value, "timestamp"));
        }
    }

    fn system(&mut self, thread: usize, value: &Value) {
        let at_us = stamp(value, "timestamp");
        match text(value, "subtype") {
            Some("compact_boundary") => {
                self.talk.events.push(("compaction", at_us));
                self.talk.threads[thread].go_back(HEAD, "compaction");
            }
            Some("api_error") => self.talk.events.push(("retry", at_us)),
            _ => {}
        }
    }

    fn progress(&mut self, value: &Value) {
        let agent = name(at(value, &["data"]), "agentId");
        if let (Some(agent), Some(tool)) = (agent, name(value, "parentToolUseID")) {
            self.started.entry(agent).or_insert((tool, false));
        }
    }

    /// Takes in a sub-agent's file.
    fn adopt(&mut self, mut child: Reader) {
        let agent = child.agent.take().unwrap_or_else(|| child.talk.id.clone());
        let mut thread = std::mem::replace(child.talk.main(), super::chat::Thread::new(""));
        if thread.calls.is_empty() {
            return;
        }
        let place = self.talk.spawn(&agent, 0);
        thread.name.clone_from(&self.talk.threads[place].name);
        let begins_us = thread.first_us();
        self.talk.threads[place] = thread;
        let started = self.started.get(&agent).cloned();
        let by_id = started.as_ref().and_then(|(tool, _)| {
            let mut parents = self.talk.threads.iter_mut().enumerate().take(place);
            parents.find_map(|(parent, thread)| {
                let call = thread.call_of(tool)?;
                if let Some(tool) = thread.tool(tool) {
                    tool.child = Some(place);
                }
                Some((parent, call))
            })
        });
        self.talk.threads[place].background = started.is_some_and(|(_, background)| background);
        self.started.extend(child.started);
        if by_id.is_some() {
            self.talk.threads[place].parent = by_id;
            return;
        }
        let calls = &self.talk.threads[0].calls;
        let call = calls
            .iter()
            .rposition(|call| call.end_us <= begins_us)
            .unwrap_or(0);
        self.attach(place, 0, call);
    }

    /// Ends the reading. A file of nothing but sub-agents begins with the first of them.
    fn finish(mut self) -> Talk {
        let threads = &mut self.talk.threads;
        if threads[0].calls.is_empty() && threads.len() > 1 {
            threads.remove(0);
            threads[0].name = "main".to_string();
            threads[0].parent = None;
            for thread in threads.iter_mut().skip(1) {
                let parent = thread
                    .parent
                    .map(|(parent, call)| (parent.saturating_sub(1), call));
                thread.parent = parent;
            }
        }
        self.talk
    }
}

/// Returns the counts of an answer; the prompt is what was new, written to and read from the cache.
fn usage(usage: &Value) -> Usage {
    let (new, written) = (
        count(usage, "input_tokens"),
        count(usage, "cache_creation_input_tokens"),
    );
    let cached = count(usage, "cache_read_input_tokens");
    Usage {
        prompt: new.map(|new| new + written.unwrap_or(0) + cached.unwrap_or(0)),
        cached,
        cache_write: written,
        output: count(usage, "output_tokens"),
        reasoning: count(at(usage, &["output_tokens_details"]), "thinking_tokens"),
    }
}
