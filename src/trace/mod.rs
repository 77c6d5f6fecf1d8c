//! The recording as values: sessions, their threads, and the steps each thread took.
//!
//! A [`Trace`] is what all readers produce and all replays start from. It says what was asked of the model, what came
//! back, and what happened between; it says nothing of the engine that will answer. Files are read by [`format`] (the
//! native format) and [`import`] (everybody else's); both pass through [`compile`], so identity is decided once.

pub mod anonymize;
pub mod blocks;
pub mod compile;
pub mod content;
mod error;
pub mod export;
pub mod format;
pub mod import;
mod input;
pub mod inspect;
pub mod read;
pub mod record;
mod seen;
pub mod synth;

use crate::ids::NodeId;
use crate::units::{Span, Tokens};
use content::Content;
pub use error::TraceError;
pub(crate) use seen::note_what_was_seen;
use std::borrow::Cow;
use std::sync::Arc;
use thin_vec::ThinVec;

/// Everything that was read, ready to be replayed.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The files it came from, in the order given.
    pub sources: Vec<Source>,
    /// Files in the given folders that are no trace, each with the reason.
    pub skipped: Vec<String>,
    /// The sessions, in input order.
    pub sessions: Vec<Session>,
    /// The identity of every prompt and output; engines keep it at hand, hence shared.
    pub content: Arc<Content>,
}

/// One file that was read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Source {
    /// The file's name as given.
    pub name: String,
    /// The name of its format.
    pub format: String,
    /// A digest of its bytes as they stand on disk.
    pub digest: String,
    /// What the format does not say, or says in a way that had to be interpreted.
    pub losses: Vec<String>,
    /// Lines that could not be used: where, and why.
    pub problems: Vec<String>,
}

/// One recorded session: a main conversation and the sub-agents it started.
#[derive(Clone, PartialEq, Debug)]
pub struct Session {
    /// The source's own name for it.
    pub id: Arc<str>,
    /// When it began, relative to the first session of its source; nothing where that is unknown.
    pub arrival: Option<Span>,
    /// Whether it begins in mid-conversation: its first prompt was not new when it was recorded.
    pub resumed: bool,
    /// The model that was recorded, where known.
    pub model: Option<String>,
    /// The conversations; the first is the main thread.
    pub threads: Vec<Thread>,
}

/// How a parent waits for a sub-agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// The parent stands still until the child has ended.
    Blocking,
    /// The parent goes on; the run waits for the child.
    Async,
    /// Neither the parent nor the run waits.
    Detached,
}

/// One conversation: steps that follow each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Thread {
    /// The source's own name for it.
    pub id: Cow<'static, str>,
    /// How its parent waits for it; meaningless for the main thread.
    pub join: Join,
    /// What was asked, in order. Never empty.
    pub steps: Vec<Step>,
}

/// A child that starts some time after a step's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spawn {
    /// The child's place in [`Session::threads`].
    pub thread: u32,
    /// How long after the answer it starts.
    pub offset: Span,
}

/// One request to the model, its answer, and what happened until the next request.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Where the prompt ends in the tree.
    pub prompt: NodeId,
    /// The prompt's length.
    pub prompt_tokens: Tokens,
    /// Where the answer ends in the tree; a later prompt that kept the answer passes through here.
    pub output: NodeId,
    /// The answer's length.
    pub output_tokens: Tokens,
    /// How much of the answer was reasoning, which comes first; nothing where the source does not say.
    pub reasoning: Option<Tokens>,
    /// How much of the prompt also begins an earlier prompt (and kept answer) of this thread.
    pub seen: Tokens,
    /// How much of [`Step::seen`] an engine has computed by then: an answer's last token has not been.
    pub seen_computed: Tokens,
    /// How much of what lies beyond [`Step::seen`] this thread had computed before at another place.
    pub again: Tokens,
    /// Whether the place of a break was estimated rather than recorded.
    pub break_estimated: bool,
    /// What happens between this answer and the next request.
    pub gap: Gap,
    /// What was measured when this was recorded.
    pub recorded: Recorded,
}

/// How a model's turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Ending {
    /// It called tools: what follows is the loop's own doing.
    ToolCall,
    /// It handed back to the user: what follows is a person.
    EndOfTurn,
    /// The source does not say.
    #[default]
    Unknown,
}

/// What happened between an answer and the next request of the same thread, by cause.
///
/// With joined children the spans are what remained after the last of them had ended.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Gap {
    /// How the answer ended.
    pub after: Ending,
    /// Measured tool time, parallel calls counted once.
    pub tool: Span,
    /// Measured overhead of the client.
    pub client: Span,
    /// Time a person took.
    pub human: Span,
    /// Time of unknown cause.
    pub unknown: Span,
    /// Children started after the answer.
    pub spawns: ThinVec<Spawn>,
    /// Children that must have ended before the next request, by place in [`Session::threads`].
    pub joins: ThinVec<u32>,
}

/// What was measured when a step was recorded, as far as it was. Kept tight: a trace may hold very many steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    sent: u64,
    first_token: u64,
    model: u64,
    cached: u64,
}

const NOT_MEASURED: u64 = u64::MAX;

impl Default for Recorded {
    fn default() -> Recorded {
        Recorded::new(None, None, None, None)
    }
}

impl Recorded {
    /// Returns what was measured; the accessors say what each is.
    pub fn new(
        sent: Option<Span>,
        first_token: Option<Span>,
        model: Option<Span>,
        cached: Option<Tokens>,
    ) -> Recorded {
        let kept = |span: Option<Span>| span.map_or(NOT_MEASURED, |span| span.0);
        Recorded {
            sent: kept(sent),
            first_token: kept(first_token),
            model: kept(model),
            cached: cached.map_or(NOT_MEASURED, |tokens| tokens.0),
        }
    }

    /// Returns when the request was sent, relative to the session's start.
    pub fn sent(&self) -> Option<Span> {
        measured(self.sent).map(Span)
    }

    /// Returns how long it was from request to first token.
    pub fn first_token(&self) -> Option<Span> {
        measured(self.first_token).map(Span)
    }

    /// Returns how long it was from request to the end of the answer.
    pub fn model(&self) -> Option<Span> {
        measured(self.model).map(Span)
    }

    /// Returns the prompt tokens that the recorded engine took from its cache.
    pub fn cached(&self) -> Option<Tokens> {
        measured(self.cached).map(Tokens)
    }
}

fn measured(value: u64) -> Option<u64> {
    (value != NOT_MEASURED).then_some(value)
}

impl Trace {
    /// Returns the number of requests in the trace.
    pub fn calls(&self) -> usize {
        self.sessions
            .iter()
            .flat_map(|session| &session.threads)
            .map(|thread| thread.steps.len())
            .sum()
    }
}
