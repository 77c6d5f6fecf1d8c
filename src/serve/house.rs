//! A rig open to calls from outside: told the time and the calls, and telling what was written by when.
//!
//! No clock and no thread; `clock.rs` brings both.

use super::library::{Library, START};
use crate::call::{Call, Realms, Reply};
use crate::ids::{CallId, RunId, ThreadId};
use crate::rig::{Backend, Load, Open, Rig, Written};
use crate::trace::content::ContentError;
use crate::units::{Time, Tokens};

/// Tokens that are remembered at least, so that a prompt can be told from one like it.
const REMEMBERED: u64 = 1 << 26;

/// What has happened.
#[derive(Clone, PartialEq, Debug)]
pub enum News {
    /// An answer has grown.
    Written(Written),
    /// A call has ended, well or badly.
    Ended(Box<Reply>),
}

/// One request as the rig sees it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The prompt, at least one token.
    pub prompt: &'a [u32],
    /// What will be answered, at least one token.
    pub answer: &'a [u32],
    /// Whether a person has the last word in the prompt, as far as one can tell.
    pub by_person: bool,
}

/// A rig that takes calls.
pub struct House {
    backend: Box<dyn Backend + Send>,
    library: Library,
    calls: u32,
    now: Time,
    replies: Vec<Reply>,
    written: Vec<Written>,
}

impl House {
    /// Opens a rig; nothing if it only answers what was recorded.
    pub fn open(rig: Rig) -> Option<House> {
        let mut backend = rig.backend;
        backend.open()?.watch();
        let capacity = rig.cache.and_then(|cache| cache.capacity);
        let twice = capacity.map_or(0, |tokens| tokens.0.saturating_mul(2));
        Some(House {
            backend,
            library: Library::new(twice.max(REMEMBERED)),
            calls: 0,
            now: Time::ZERO,
            replies: Vec::new(),
            written: Vec::new(),
        })
    }

    fn opened(&mut self) -> &mut dyn Open {
        self.backend.open().expect("it was open from the start")
    }

    /// Takes in a request made at `now`, or when the rig last moved if that was later.
    pub fn submit(&mut self, now: Time, order: Order<'_>) -> Result<CallId, ContentError> {
        self.now = self.now.max(now);
        self.library.tidy();
        let content = self
            .backend
            .open()
            .expect("it was open from the start")
            .content();
        let (asked, known) = self.library.follow(START, order.prompt, content)?;
        let (answered, _) = self.library.follow(asked, order.answer, content)?;
        let prompt = self.library.node(asked, content)?;
        let output = self.library.node(answered, content)?;
        let id = CallId(self.calls);
        self.calls = self.calls.wrapping_add(1);
        // Nobody says which conversation a call belongs to; what another had computed counts as seen.
        let seen = if order.by_person { 0 } else { known };
        let call = Call {
            id,
            run: RunId(0),
            thread: ThreadId(id.0),
            prompt,
            prompt_tokens: Tokens(order.prompt.len() as u64),
            output,
            output_tokens: Tokens(order.answer.len() as u64),
            output_shared: true,
            realms: Realms::default(),
            seen: Tokens(seen),
            seen_computed: Tokens::ZERO,
            again: Tokens::ZERO,
            warm: Tokens::ZERO,
        };
        self.backend.submit(self.now, call);
        Ok(id)
    }

    /// Ends a call whose caller has gone.
    pub fn give_up(&mut self, now: Time, call: CallId) {
        self.now = self.now.max(now);
        let now = self.now;
        self.opened().give_up(now, call);
    }

    /// Returns when something will happen next if nobody calls before.
    pub fn next_event(&mut self) -> Option<Time> {
        self.backend.next_event()
    }

    /// Moves on to `now` and appends what has happened by then: of each call, what was written before its end.
    pub fn advance(&mut self, now: Time, news: &mut Vec<News>) {
        self.now = self.now.max(now);
        self.backend.advance(self.now, &mut self.replies);
        let mut written = std::mem::take(&mut self.written);
        self.opened().take_written(&mut written);
        news.extend(written.drain(..).map(News::Written));
        news.extend(
            self.replies
                .drain(..)
                .map(|reply| News::Ended(Box::new(reply))),
        );
        self.written = written;
    }

    /// Returns how busy the rig is.
    pub fn load(&mut self) -> Load {
        self.opened().load()
    }
}
