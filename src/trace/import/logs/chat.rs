//! What all logs of conversations are read into: sizes and identities of what was said, calls of the model, tools.
//!
//! An importer walks its log in order, adding parts to a [`Thread`] and closing calls. Where the conversation stands is
//! a place in a tree, so that rewinds and compactions only move the place. Texts are not kept. How parts get their
//! tokens is decided in [`super::size`], how it all becomes records in [`super::write`].

use rustc_hash::FxHashMap;
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Characters that a picture counts for: about 1,500 tokens.
const PICTURE_CHARS: u64 = 5_250;
/// Content within content beyond this depth is not looked into.
const MAX_DEPTH: usize = 24;

/// A piece of a prompt: what it is, which content, and how long its text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::trace::import) struct Part {
    /// The kind that segments have in the native format.
    pub(super) kind: &'static str,
    /// Equal for equal content; 0 where the content is not recorded.
    pub(super) hash: u64,
    /// The length of its text in characters.
    pub(super) chars: u64,
}

impl Part {
    /// Returns text.
    pub(super) fn text(kind: &'static str, text: &str) -> Part {
        Part {
            kind,
            hash: xxh3_64(text.as_bytes()).max(1),
            chars: text.chars().count() as u64,
        }
    }

    /// Returns the content of a message in any of the usual shapes: text, a list of blocks, an object.
    pub(super) fn body(kind: &'static str, value: &Value) -> Part {
        if let Some(text) = value.as_str() {
            return Part::text(kind, text);
        }
        let (mut hash, mut chars) = (Xxh3::new(), 0);
        weigh(value, &mut hash, &mut chars, 0);
        Part {
            kind,
            hash: hash.digest().max(1),
            chars,
        }
    }

    /// Returns whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.chars == 0
    }
}

/// Adds up the text in a value; what surrounds it (block types, ids, cache marks) is not text of the prompt.
fn weigh(value: &Value, hash: &mut Xxh3, chars: &mut u64, depth: usize) {
    match value {
        _ if depth > MAX_DEPTH => {}
        Value::String(text) => {
            hash.update(text.as_bytes());
            hash.update(&[0]);
            *chars += text.chars().count() as u64;
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| weigh(item, hash, chars, depth + 1)),
        Value::Object(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
            if kind.contains("image") {
                hash.update(value.to_string().as_bytes());
                *chars += PICTURE_CHARS;
                return;
            }
            for key in ["text", "content", "thinking", "output", "result"] {
                if let Some(inner) = fields.get(key).filter(|inner| !inner.is_null()) {
                    return weigh(inner, hash, chars, depth + 1);
                }
            }
            for (key, inner) in fields {
                if !matches!(key.as_str(), "type" | "id" | "cache_control" | "signature") {
                    *chars += key.chars().count() as u64 + 4;
                    weigh(inner, hash, chars, depth + 1);
                }
            }
        }
        Value::Null => {}
        other => {
            let text = other.to_string();
            hash.update(text.as_bytes());
            *chars += text.len() as u64;
        }
    }
}

/// A place in a conversation: everything up to a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::trace::import) struct Place(pub(super) usize);

/// The place just after what precedes all that is logged: system prompt, tools.
pub(super) const HEAD: Place = Place(0);

/// What follows a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Unlogged content before the first part.
    Head,
    /// Something said by others than the model.
    Input(Part),
    /// The answer of a call.
    Answer(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) parent: usize,
    pub(super) body: Body,
    /// The first call whose prompt or answer holds it.
    pub(super) call: Option<usize>,
    /// Where it ends in that prompt, in tokens.
    pub(super) end: u64,
}

/// Token counts of a call, as reported; the prompt includes what was cached, the output includes reasoning.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::trace::import) struct Usage {
    pub(super) prompt: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) cache_write: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) reasoning: Option<u64>,
}

impl Usage {
    /// Returns the counts, unless there are none: a call whose prompt is empty was not counted.
    pub(super) fn told(self) -> Option<Usage> {
        self.prompt.is_some_and(|prompt| prompt > 0).then_some(self)
    }
}

/// How a moment or a span is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::trace::import) enum How {
    /// The log says it.
    Measured,
    /// It is the difference of two stamps that mean something else.
    #[default]
    Derived,
}

impl How {
    /// Returns the word of the native format.
    pub(super) fn name(self) -> &'static str {
        match self {
            How::Measured => "measured",
            How::Derived => "derived",
        }
    }
}

/// A tool that a call asked for.
#[derive(Clone, Default, Debug)]
pub(in crate::trace::import) struct Tool {
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// When it was asked for, or began.
    pub(super) start_us: Option<i64>,
    /// When its result was there.
    pub(super) end_us: Option<i64>,
    /// How long the log says it ran.
    pub(super) measured_us: Option<u64>,
    /// What the time between the stamps means, where it is taken: `wall` or `wall-with-approval`.
    pub(super) meaning: Option<&'static str>,
    pub(super) result_chars: Option<u64>,
    pub(super) exit_status: Option<i64>,
    pub(super) failed: bool,
    /// The thread that it started.
    pub(super) child: Option<usize>,
}

impl Tool {
    /// Returns how long it took, and how that is known.
    pub(super) fn took_us(&self) -> Option<(u64, How)> {
        let between = || {
            let span = self.end_us?.checked_sub(self.start_us?)?;
            u64::try_from(span).ok()
        };
        let measured = self.measured_us.map(|span| (span, How::Measured));
        measured.or_else(|| between().map(|span| (span, How::Derived)))
    }
}

/// A call of the model.
#[derive(Clone, Default, Debug)]
pub(in crate::trace::import) struct Call {
    /// Where in the file it is, for messages.
    pub(super) line: u64,
    pub(super) model: Option<String>,
    /// What was reported.
    pub(super) usage: Option<Usage>,
    /// Sizes that stand for what was not reported, such as shares of a run's totals.
    pub(super) shares: Option<(u64, u64)>,
    /// Characters of what was said aloud, tool calls included.
    pub(super) said: u64,
    /// Characters of reasoning, where its text is logged.
    pub(super) thought: u64,
    /// Whether the client sends reasoning again; nothing where only sizes can tell.
    pub(super) resends_thoughts: Option<bool>,
    pub(super) sent_us: Option<i64>,
    pub(super) first_token_us: Option<u64>,
    pub(super) end_us: Option<i64>,
    pub(super) how: How,
    /// `tool-call`, `end-of-turn`, `length`, `error`.
    pub(super) finish: Option<&'static str>,
    pub(super) tools: Vec<Tool>,
    /// What made this prompt something else than the last one with more, where the log says so.
    pub(super) broken: Option<&'static str>,
    /// Whether a person spoke after the call before this one.
    pub(super) person: bool,
    pub(super) prompt: usize,
    pub(super) answer: usize,
}

/// One conversation while it is read.
#[derive(Debug)]
pub(in crate::trace::import) struct Thread {
    pub(super) name: String,
    pub(super) kind: Option<String>,
    /// The thread, call and moment that started it; nothing for the main thread.
    pub(super) parent: Option<(usize, usize)>,
    /// Whether its parent goes on meanwhile.
    pub(super) background: bool,
    /// Whether the log holds all of every prompt, head included.
    pub(super) complete: bool,
    pub(super) calls: Vec<Call>,
    pub(super) nodes: Vec<Node>,
    tip: usize,
    /// The last moment at which something was said to the model.
    heard_us: Option<i64>,
    person: bool,
    broken: Option<&'static str>,
    tools: FxHashMap<u64, (usize, usize)>,
}

impl Thread {
    pub(super) fn new(name: &str) -> Thread {
        let head = Node {
            parent: 0,
            body: Body::Head,
            call: None,
            end: 0,
        };
        Thread {
            name: name.to_string(),
            kind: None,
            parent: None,
            background: false,
            complete: false,
            calls: Vec::new(),
            nodes: vec![head],
            tip: 0,
            heard_us: None,
            person: false,
            broken: None,
            tools: FxHashMap::default(),
        }
    }

    fn push(&mut self, body: Body) {
        self.nodes.push(Node {
            parent: self.tip,
            body,
            call: None,
            end: 0,
        });
        self.tip = self.nodes.len() - 1;
    }

    /// Adds something that the model is told.
    pub(super) fn hear(&mut self, part: Part, at_us: Option<i64>) {
        self.heard(at_us);
        self.person |= part.kind == "user";
        if !part.is_empty() {
            self.push(Body::Input(part));
        }
    }

    /// Notes that something was said to the model at a moment.
    pub(super) fn heard(&mut self, at_us: Option<i64>) {
        self.heard_us = self.heard_us.max(at_us);
    }

    /// Returns where the conversation stands.
    pub(super) fn place(&self) -> Place {
        Place(self.tip)
    }

    /// Goes back to a place; what is said next follows it. `why` names the break.
    pub(super) fn go_back(&mut self, place: Place, why: &'static str) {
        if place.0 != self.tip {
            self.tip = place.0.min(self.nodes.len() - 1);
            self.broken = Some(why);
        }
    }

    /// Adds a call; a moment it lacks is taken from what the model was told last.
    pub(super) fn call(&mut self, mut call: Call) -> usize {
        let at = self.calls.len();
        call.sent_us = call.sent_us.or(self.heard_us);
        // A request cannot be sent after its answer has come.
        if let (Some(sent), Some(end)) = (call.sent_us, call.end_us) {
            call.sent_us = Some(sent.min(end));
        }
        call.person |= std::mem::take(&mut self.person);
        call.broken = call.broken.or(self.broken.take());
        self.heard_us = None;
        call.prompt = self.tip;
        self.push(Body::Answer(at));
        call.answer = self.tip;
        let tools = std::mem::take(&mut call.tools);
        self.calls.push(call);
        for tool in tools {
            self.ask(at, tool);
        }
        at
    }

    /// Adds a tool to a call that asked for it.
    pub(super) fn ask(&mut self, call: usize, tool: Tool) {
        let Some(asking) = self.calls.get_mut(call) else {
            return;
        };
        if let Some(id) = &tool.id {
            let key = xxh3_64(id.as_bytes());
            self.tools.insert(key, (call, asking.tools.len()));
        }
        asking.tools.push(tool);
    }

    /// Returns the tool of a call's id.
    pub(super) fn tool(&mut self, id: &str) -> Option<&mut Tool> {
        let &(call, tool) = self.tools.get(&xxh3_64(id.as_bytes()))?;
        self.calls.get_mut(call)?.tools.get_mut(tool)
    }

    /// Returns the call that asked for the tool of an id.
    pub(super) fn call_of(&self, id: &str) -> Option<usize> {
        self.tools
            .get(&xxh3_64(id.as_bytes()))
            .map(|&(call, _)| call)
    }

    /// Returns the tool of a call's id, or else the first of the last call that has no result.
    pub(super) fn answered(&mut self, id: Option<&str>) -> Option<&mut Tool> {
        let known = id.and_then(|id| self.tools.get(&xxh3_64(id.as_bytes())));
        if let Some((call, tool)) = known.copied() {
            self.calls.get_mut(call)?.tools.get_mut(tool)
        } else {
            let tools = &mut self.calls.last_mut()?.tools;
            let open = |tool: &&mut Tool| {
                tool.end_us.is_none()
                    && tool.result_chars.is_none()
                    && (id.is_none() || tool.id.is_none())
            };
            tools.iter_mut().find(open)
        }
    }

    /// Takes in a tool's result: the part itself, and the stamp at which it was there.
    pub(super) fn result(&mut self, id: Option<&str>, part: Part, at_us: Option<i64>) -> bool {
        let paired = self.answered(id).map(|tool| {
            tool.end_us = tool.end_us.or(at_us);
            tool.result_chars = Some(tool.result_chars.unwrap_or(0) + part.chars);
        });
        self.hear(part, at_us);
        paired.is_some()
    }

    /// Returns when the last thing of the thread happened.
    pub(super) fn last_us(&self) -> Option<i64> {
        let ends = |call: &Call| {
            let tools = call.tools.iter().filter_map(|tool| tool.end_us).max();
            call.end_us.max(tools)
        };
        self.calls.iter().filter_map(ends).max()
    }

    /// Returns the moment at which the first request was sent.
    pub(super) fn first_us(&self) -> Option<i64> {
        self.calls
            .first()
            .and_then(|call| call.sent_us.or(call.end_us))
    }
}

/// One session while it is read; its first thread is the main one.
#[derive(Debug)]
pub(in crate::trace::import) struct Talk {
    pub(super) id: String,
    pub(super) model: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) resumed: bool,
    pub(super) threads: Vec<Thread>,
    /// What else happened: the word for it, and when.
    pub(super) events: Vec<(&'static str, Option<i64>)>,
}

impl Talk {
    pub(super) fn new(id: &str) -> Talk {
        Talk {
            id: id.to_string(),
            model: None,
            parent: None,
            resumed: false,
            threads: vec![Thread::new("main")],
            events: Vec::new(),
        }
    }

    /// Returns the main thread.
    pub(super) fn main(&mut self) -> &mut Thread {
        &mut self.threads[0]
    }

    /// Adds a sub-agent that a call of another thread started; returns its place.
    pub(super) fn spawn(&mut self, name: &str, parent: usize) -> usize {
        let call = self.threads[parent].calls.len().saturating_sub(1);
        let taken = |name: &str| self.threads.iter().any(|thread| thread.name == name);
        let mut unique = name.to_string();
        if unique.is_empty() || taken(&unique) {
            unique = format!("{name}#{}", self.threads.len());
        }
        let mut thread = Thread::new(&unique);
        thread.parent = Some((parent, call));
        self.threads.push(thread);
        self.threads.len() - 1
    }
}
