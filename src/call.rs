//! What passes between an agent and whatever answers it: a call, and its reply.
//!
//! Plain values. The agent does not know what answers; what answers does not know the agent.

use crate::ids::{CallId, NodeId, RunId, ThreadId};
use crate::units::{Span, Time, Tokens};
use std::ops::AddAssign;

/// Which copies of recorded content are the same content.
///
/// Two nodes hold equal tokens when node and realm are equal. Head nodes and private nodes have separate realms,
/// because copies of a session may share the one and not the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Realms {
    /// The realm of nodes that are part of a head.
    pub head: u32,
    /// The realm of all other nodes.
    pub private: u32,
}

/// One request to the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name, unique within a replay; calls are numbered in the order in which they are made.
    pub id: CallId,
    /// The run that makes it.
    pub run: RunId,
    /// The conversation that makes it.
    pub thread: ThreadId,
    /// Where the prompt ends in the content tree.
    pub prompt: NodeId,
    /// The prompt's length.
    pub prompt_tokens: Tokens,
    /// Where the answer will end in the content tree.
    pub output: NodeId,
    /// The answer's length.
    pub output_tokens: Tokens,
    /// Whether the answer will be the recorded one, so that a later prompt continues it.
    pub output_shared: bool,
    /// Which copies of the content are equal to this call's.
    pub realms: Realms,
    /// How much of the prompt also begins an earlier prompt (and kept answer) of this conversation.
    pub seen: Tokens,
    /// How much of that an engine had to compute for this conversation.
    pub seen_computed: Tokens,
    /// How much beyond `seen` this conversation had computed before at another place.
    pub again: Tokens,
    /// How much of the prompt an engine is to hold before it arrives, as if it had just served the start of it.
    pub warm: Tokens,
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered in full.
    Ok,
    /// Answered, but cut short because the engine's context was full.
    Truncated,
    /// Not served: the prompt is longer than the engine's context.
    RefusedContext,
    /// Not served: the engine can never hold it in memory.
    RefusedMemory,
    /// Not served for now: the engine was busy or broken, and the same call may succeed later.
    Unavailable,
    /// Turned away for now: too many requests.
    Busy,
    /// The server failed.
    ServerError,
    /// No connection could be made.
    Unreachable,
    /// The connection broke before the answer began.
    Reset,
    /// The answer stopped before it was whole.
    Cut,
    /// Nothing came for longer than was allowed.
    Stalled,
    /// What came could not be understood.
    Malformed,
    /// Turned away for good: the engine did not understand the request, or does not allow it.
    Rejected,
}

impl Outcome {
    /// Returns the word used in result documents.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Truncated => "truncated",
            Outcome::RefusedContext => "refused:context",
            Outcome::RefusedMemory => "refused:memory",
            Outcome::Unavailable => "unavailable",
            Outcome::Busy => "failed:busy",
            Outcome::ServerError => "failed:server_error",
            Outcome::Unreachable => "failed:unreachable",
            Outcome::Reset => "failed:reset",
            Outcome::Cut => "failed:cut",
            Outcome::Stalled => "failed:stalled",
            Outcome::Malformed => "failed:malformed",
            Outcome::Rejected => "failed:rejected",
        }
    }

    /// Returns what the word for it in result documents means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Outcome::Ok => "answered in full",
            Outcome::Truncated => "cut short, as the engine's context was full",
            Outcome::RefusedContext => "longer than the engine's context",
            Outcome::RefusedMemory => "no room in the engine's memory",
            Outcome::Unavailable => "the engine was busy or broken",
            Outcome::Busy => "the engine had too many requests",
            Outcome::ServerError => "the server failed",
            Outcome::Unreachable => "no connection could be made",
            Outcome::Reset => "the connection broke before the answer began",
            Outcome::Cut => "the answer stopped before it was whole",
            Outcome::Stalled => "nothing came for longer than was allowed",
            Outcome::Malformed => "what came could not be understood",
            Outcome::Rejected => "the engine does not take such a request",
        }
    }

    /// Returns the outcome whose word in result documents this is.
    pub fn from_word(word: &str) -> Option<Outcome> {
        let all = [Outcome::Ok, Outcome::Truncated].into_iter();
        all.chain(FAILURES).find(|one| one.word() == word)
    }

    /// Returns whether the same call may succeed when it is made again.
    pub fn passing(self) -> bool {
        self.failed()
            && !matches!(
                self,
                Outcome::RefusedContext | Outcome::RefusedMemory | Outcome::Rejected
            )
    }

    /// Returns whether the call was not answered.
    pub fn failed(self) -> bool {
        !matches!(self, Outcome::Ok | Outcome::Truncated)
    }
}

/// The ways in which a call is not answered.
pub const FAILURES: [Outcome; 11] = [
    Outcome::RefusedContext,
    Outcome::RefusedMemory,
    Outcome::Unavailable,
    Outcome::Busy,
    Outcome::ServerError,
    Outcome::Unreachable,
    Outcome::Reset,
    Outcome::Cut,
    Outcome::Stalled,
    Outcome::Malformed,
    Outcome::Rejected,
];

/// Computed prompt tokens by why they had to be computed. Each token is in exactly one class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TokenClasses {
    /// Never computed before by this conversation.
    pub new: Tokens,
    /// The engine had stored it for this conversation and lost it.
    pub evicted: Tokens,
    /// Unchanged since an earlier prompt, but the engine keeps no state there.
    pub uncached: Tokens,
    /// Computed before, at a place the prompt no longer reaches unchanged.
    pub broken: Tokens,
}

impl TokenClasses {
    /// Returns the number of computed tokens.
    pub fn total(&self) -> Tokens {
        self.new + self.evicted + self.uncached + self.broken
    }
}

impl AddAssign for TokenClasses {
    fn add_assign(&mut self, other: TokenClasses) {
        self.new += other.new;
        self.evicted += other.evicted;
        self.uncached += other.uncached;
        self.broken += other.broken;
    }
}

/// Where each nanosecond of a call went. The parts sum to its duration exactly.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CallParts {
    /// Overhead on the client's side, and refused calls.
    pub client: Span,
    /// Before admission, and while preempted.
    pub queue: Span,
    /// Moving state between memory tiers.
    pub kv_transfer: Span,
    /// Reading content that is new.
    pub prefill_new: Span,
    /// Reading again what the engine had stored and lost.
    pub reread_evicted: Span,
    /// Reading again what the engine does not store.
    pub reread_uncached: Span,
    /// Reading again what the prompt no longer reaches unchanged.
    pub reread_broken: Span,
    /// Writing the answer.
    pub decode: Span,
    /// What neighbours added.
    pub contention: Span,
}

impl CallParts {
    /// Returns the sum of all parts: the call's duration.
    pub fn total(&self) -> Span {
        self.named().into_iter().map(|(_, span)| span).sum()
    }

    /// Returns the parts with the names they have in result documents, in their order there.
    pub fn named(&self) -> [(&'static str, Span); 9] {
        [
            ("client", self.client),
            ("queue", self.queue),
            ("kv_transfer", self.kv_transfer),
            ("prefill_new", self.prefill_new),
            ("reread_evicted", self.reread_evicted),
            ("reread_uncached", self.reread_uncached),
            ("reread_broken", self.reread_broken),
            ("decode", self.decode),
            ("contention", self.contention),
        ]
    }
}

impl AddAssign for CallParts {
    fn add_assign(&mut self, other: CallParts) {
        self.client += other.client;
        self.queue += other.queue;
        self.kv_transfer += other.kv_transfer;
        self.prefill_new += other.prefill_new;
        self.reread_evicted += other.reread_evicted;
        self.reread_uncached += other.reread_uncached;
        self.reread_broken += other.reread_broken;
        self.decode += other.decode;
        self.contention += other.contention;
    }
}

/// What bound the time of a call, by the rig's own accounts. The bounds sum to its duration exactly.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BoundBy {
    /// Reading weights from memory.
    pub weights: Span,
    /// Reading keys and values from memory.
    pub kv: Span,
    /// Arithmetic, most of it that of prompts.
    pub compute: Span,
    /// Launching passes, sampling, taking requests in, and the client.
    pub overhead: Span,
    /// Moving state between memory tiers.
    pub transfer: Span,
    /// Waiting for a slot.
    pub slots: Span,
    /// Waiting for room for keys and values, and reading again what was lost for want of it.
    pub kv_memory: Span,
    /// Waiting for the step under way, or for prompts that stand before in the batch.
    pub turn: Span,
}

impl BoundBy {
    /// Returns the sum of all bounds: the call's duration.
    pub fn total(&self) -> Span {
        self.named().into_iter().map(|(_, span)| span).sum()
    }

    /// Returns the bounds with the names they have in result documents, in their order there.
    pub fn named(&self) -> [(&'static str, Span); 8] {
        [
            ("weights_bandwidth", self.weights),
            ("kv_bandwidth", self.kv),
            ("compute", self.compute),
            ("host_overhead", self.overhead),
            ("kv_transfer", self.transfer),
            ("slots", self.slots),
            ("kv_memory", self.kv_memory),
            ("turn", self.turn),
        ]
    }
}

impl AddAssign for BoundBy {
    fn add_assign(&mut self, other: BoundBy) {
        self.weights += other.weights;
        self.kv += other.kv;
        self.compute += other.compute;
        self.overhead += other.overhead;
        self.transfer += other.transfer;
        self.slots += other.slots;
        self.kv_memory += other.kv_memory;
        self.turn += other.turn;
    }
}

/// The end of a call, well or badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Which call.
    pub call: CallId,
    /// How it ended.
    pub outcome: Outcome,
    /// When the call was made.
    pub submitted: Time,
    /// When the engine first worked on it; nothing when it never did.
    pub admitted: Option<Time>,
    /// When the first token of the answer appeared.
    pub first_token: Option<Time>,
    /// When the answer was complete.
    pub finished: Time,
    /// How long the engine asked to be left alone before the call is made again.
    pub retry_after: Option<Span>,
    /// The prompt's length as the engine counted it; the call's own where it did not say.
    pub prompt: Tokens,
    /// Prompt tokens that were taken from a cache.
    pub cached: Tokens,
    /// Tokens of the answer.
    pub output: Tokens,
    /// Prompt tokens that were computed, by why.
    pub classes: TokenClasses,
    /// Where the time went.
    pub parts: CallParts,
    /// What bound its time, where the rig keeps such accounts.
    pub bound: Option<BoundBy>,
}

impl Reply {
    /// Asserts what must hold of every reply to `call`.
    pub fn check(&self, call: &Call) {
        assert_eq!(self.call, call.id);
        assert_eq!(
            self.parts.total(),
            self.finished - self.submitted,
            "parts of {:?} do not sum to it",
            self.call
        );
        if self.outcome.failed() {
            assert_eq!((self.cached, self.output), (Tokens::ZERO, Tokens::ZERO));
        } else {
            assert_eq!(
                self.cached + self.classes.total(),
                self.prompt,
                "tokens of {:?} do not add up",
                self.call
            );
        }
    }
}
