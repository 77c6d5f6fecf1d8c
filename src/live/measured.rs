//! What was seen of one call, before anything is made of it.

use super::prompt::Said;
use crate::call::{Call, CallParts, Outcome, Reply, TokenClasses};
use crate::units::{Span, Time, Tokens};

/// What was seen of one call.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// When it should have been made.
    pub due: Time,
    /// When the fleet made it.
    pub made: Time,
    /// When its body was built and it was given to the connection.
    pub started: Time,
    /// How long a new connection took; nothing where one was at hand.
    pub connect: Option<Span>,
    /// When its last byte was given to the connection.
    pub sent: Option<Time>,
    /// When the answer's head came.
    pub first_byte: Option<Time>,
    /// When each piece of the answer that holds tokens came, and how many it holds where that is known.
    pub pieces: Vec<(Time, Option<u32>)>,
    /// When it ended.
    pub finished: Time,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// Why the answer ended, in the engine's words.
    pub finish_reason: Option<String>,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// How long the engine asked to be left alone.
    pub retry_after: Option<Span>,
    /// The prompt's length as the engine counted it.
    pub prompt: Option<u64>,
    /// The answer's length as the engine counted it.
    pub output: Option<u64>,
    /// Prompt tokens from a cache, where the engine tells.
    pub cached: Option<u64>,
    /// How long the engine read the prompt, where it tells.
    pub reading: Option<Span>,
    /// What was said.
    pub said: Said,
}

impl Measured {
    /// Returns a call of which nothing has been seen yet.
    pub fn begun(due: Time, made: Time) -> Measured {
        Measured {
            due,
            made,
            started: made,
            connect: None,
            sent: None,
            first_byte: None,
            pieces: Vec::new(),
            finished: made,
            outcome: Outcome::Ok,
            status: None,
            finish_reason: None,
            error: None,
            retry_after: None,
            prompt: None,
            output: None,
            cached: None,
            reading: None,
            said: Said::default(),
        }
    }

    /// Returns how late it was given to the connection.
    pub fn lag(&self) -> Span {
        self.started - self.due
    }

    /// Returns the tokens of the answer: as counted by the engine, else one for each piece.
    pub fn output_tokens(&self) -> Tokens {
        let pieces = || {
            let held = self
                .pieces
                .iter()
                .map(|(_, held)| u64::from(held.unwrap_or(1)));
            held.sum()
        };
        Tokens(self.output.unwrap_or_else(pieces))
    }

    /// Returns the end of `call` as the fleet is told it.
    ///
    /// What an engine does not tell is not guessed: waiting inside it counts as reading the prompt where it does not say
    /// how long it read, and what neighbours added is in every part. `caches` says whether the engine has been seen to take
    /// anything from a cache.
    pub fn reply(&self, call: &Call, caches: bool) -> Reply {
        let lasted = self.finished - self.made;
        let mut reply = Reply {
            call: call.id,
            outcome: self.outcome,
            submitted: self.made,
            admitted: None,
            first_token: None,
            finished: self.finished,
            retry_after: self.retry_after,
            prompt: call.prompt_tokens,
            cached: Tokens::ZERO,
            output: Tokens::ZERO,
            classes: TokenClasses::default(),
            parts: CallParts {
                client: lasted,
                ..CallParts::default()
            },
            bound: None,
        };
        if self.outcome.failed() {
            return reply;
        }
        let prompt = self.prompt.unwrap_or(call.prompt_tokens.0);
        let cached = self.cached.unwrap_or(0).min(prompt);
        reply.prompt = Tokens(prompt);
        reply.cached = Tokens(cached);
        reply.output = self.output_tokens();
        reply.classes = classes(call, prompt, self.cached.map(|_| caches), cached);
        let first = self.pieces.first().map_or(self.finished, |(at, _)| *at);
        let sent = self.sent.unwrap_or(self.started).clamp(self.made, first);
        reply.first_token = self.pieces.first().map(|(at, _)| *at);
        let waited = first - sent;
        let read = self.reading.unwrap_or(waited).min(waited);
        reply.admitted = self.reading.map(|_| sent + (waited - read));
        reply.parts = parts(&reply.classes, read);
        reply.parts.client = sent - self.made;
        reply.parts.queue = waited - read;
        reply.parts.decode = self.finished - first;
        reply
    }
}

/// Returns why the tokens that came from no cache had to be computed.
///
/// `caches` is nothing where the engine does not tell what came from a cache.
fn classes(call: &Call, prompt: u64, caches: Option<bool>, cached: u64) -> TokenClasses {
    let Some(caches) = caches else {
        return TokenClasses {
            new: Tokens(prompt - cached),
            ..TokenClasses::default()
        };
    };
    // A length that differs from the plan differs in its newest part.
    let seen = call.seen.0.clamp(cached, prompt);
    // Engines keep whole blocks: less than one of them is missing because none is kept there, not because it was lost.
    let stored = call.seen_computed.0.clamp(cached, prompt);
    let lost = if caches && stored - cached >= LARGEST_BLOCK {
        stored
    } else {
        cached
    };
    let uncached = seen.max(lost);
    let broken = (uncached + call.again.0).min(prompt);
    TokenClasses {
        evicted: Tokens(lost - cached),
        uncached: Tokens(uncached - lost),
        broken: Tokens(broken - uncached),
        new: Tokens(prompt - broken),
    }
}

/// Engines for attention alone keep blocks of at most this many tokens.
const LARGEST_BLOCK: u64 = 256;

/// Splits the time of reading by the number of tokens in each class; what is left over by rounding goes to the largest.
fn parts(classes: &TokenClasses, read: Span) -> CallParts {
    let all = u128::from(classes.total().0.max(1));
    let share = |tokens: Tokens| Span((u128::from(read.0) * u128::from(tokens.0) / all) as u64);
    let mut parts = CallParts {
        prefill_new: share(classes.new),
        reread_evicted: share(classes.evicted),
        reread_uncached: share(classes.uncached),
        reread_broken: share(classes.broken),
        ..CallParts::default()
    };
    let left = read - parts.total();
    let largest = [
        (classes.new, &mut parts.prefill_new),
        (classes.evicted, &mut parts.reread_evicted),
        (classes.uncached, &mut parts.reread_uncached),
        (classes.broken, &mut parts.reread_broken),
    ];
    let largest = largest.into_iter().max_by_key(|(tokens, _)| *tokens);
    if let Some((_, part)) = largest {
        *part += left;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Realms;
    use crate::ids::{CallId, NodeId, RunId, ThreadId};

    fn call() -> Call {
        Call {
            id: CallId(3),
            run: RunId(0),
            thread: ThreadId(0),
            prompt: NodeId(1),
            prompt_tokens: Tokens(1000),
            output: NodeId(2),
            output_tokens: Tokens(3),
            output_shared: true,
            realms: Realms::default(),
            seen: Tokens(900),
            seen_computed: Tokens(899),
            again: Tokens(0),
            warm: Tokens(0),
        }
    }

    fn measured() -> Measured {
        Measured {
            started: Time(1_100),
            sent: Some(Time(1_500)),
            pieces: vec![
                (Time(9_001), None),
                (Time(9_500), None),
                (Time(9_999), None),
            ],
            finished: Time(10_000),
            prompt: Some(1003),
            output: Some(3),
            cached: Some(880),
            ..Measured::begun(Time(900), Time(1_000))
        }
    }

    #[test]
    fn every_nanosecond_and_every_token_of_a_call_is_in_one_place() {
        let (call, mut seen) = (call(), measured());
        let reply = seen.reply(&call, true);
        reply.check(&call);
        assert_eq!((reply.prompt, reply.cached), (Tokens(1003), Tokens(880)));
        assert_eq!(
            reply.classes.uncached,
            Tokens(20),
            "less than a block is not kept"
        );
        assert_eq!(
            (reply.parts.client, reply.parts.decode),
            (Span(500), Span(999))
        );
        assert_eq!(
            reply.parts.queue,
            Span::ZERO,
            "an engine that says nothing has no queue"
        );

        seen.reading = Some(Span(7_000));
        let reply = seen.reply(&call, true);
        reply.check(&call);
        assert_eq!(reply.parts.queue, Span(501));

        seen.cached = None;
        let reply = seen.reply(&call, true);
        reply.check(&call);
        assert_eq!(
            reply.classes.new,
            Tokens(1003),
            "what is not known is not blamed on the cache"
        );
        assert_eq!(seen.lag(), Span(200));
    }

    #[test]
    fn what_was_lost_is_told_from_what_is_never_kept() {
        let (call, mut seen) = (call(), measured());
        seen.cached = Some(100);
        assert_eq!(seen.reply(&call, true).classes.evicted, Tokens(799));
        seen.cached = Some(0);
        let classes = seen.reply(&call, false).classes;
        assert_eq!(
            (classes.evicted, classes.uncached),
            (Tokens(0), Tokens(900))
        );
    }

    #[test]
    fn a_call_that_failed_is_the_clients_time() {
        let mut seen = measured();
        seen.outcome = Outcome::Cut;
        let reply = seen.reply(&call(), true);
        reply.check(&call());
        assert_eq!(reply.parts.client, Span(9_000));
    }
}
