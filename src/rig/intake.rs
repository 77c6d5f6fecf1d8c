//! What lies between a call and the engine: parsing, checking and hashing a prompt, for every token of it, cached or not.
//!
//! Servers do this beside the engine's passes, in threads or processes of their own, so it delays a call and nobody
//! else. The time counts as waiting, and as overhead of the host.

use super::meter::{Busy, Heat, Limits};
use super::{Backend, Load, Open, Written};
use crate::call::{Call, Reply};
use crate::ids::CallId;
use crate::trace::content::Content;
use crate::units::{Span, Time};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A backend that knows of a call some time after it was made.
pub struct Intake {
    inner: Box<dyn Backend + Send>,
    /// How long one token of a prompt takes, in seconds.
    token_s: f64,
    /// Calls on their way, by when they will be there, and when they were made.
    coming: BTreeMap<(Time, CallId), (Time, Call)>,
    /// When calls that are there were made.
    made: FxHashMap<CallId, Time>,
}

impl Intake {
    /// Returns `inner` behind a server that takes so many seconds for each token of a prompt.
    pub fn new(inner: Box<dyn Backend + Send>, token_s: f64) -> Intake {
        Intake {
            inner,
            token_s,
            coming: BTreeMap::new(),
            made: FxHashMap::default(),
        }
    }

    fn hand_over(&mut self, now: Time, made: Time, call: Call) {
        self.made.insert(call.id, made);
        self.inner.submit(now, call);
    }

    /// Adds to replies the time before the engine knew of their calls.
    fn complete(&mut self, replies: &mut [Reply]) {
        for reply in replies {
            let made = self.made.remove(&reply.call).unwrap_or(reply.submitted);
            let delay = reply.submitted - made;
            reply.submitted = made;
            // Who is not served has only been at the server's door.
            if reply.outcome.failed() {
                reply.parts.client += delay;
            } else {
                reply.parts.queue += delay;
            }
            if let Some(bound) = &mut reply.bound {
                bound.overhead += delay;
            }
        }
    }
}

impl Backend for Intake {
    fn submit(&mut self, now: Time, call: Call) {
        let delay = Span::from_secs(self.token_s * call.prompt_tokens.as_f64());
        if delay == Span::ZERO {
            self.hand_over(now, now, call);
        } else {
            self.coming.insert((now + delay, call.id), (now, call));
        }
    }

    fn next_event(&mut self) -> Option<Time> {
        let there = self.coming.keys().next().map(|(at, _)| *at);
        // What has come may begin; what comes later cuts it short.
        let inner = self.inner.next_event();
        there.into_iter().chain(inner).min()
    }

    fn equip(&mut self, limits: Limits, heat: Option<Heat>) {
        self.inner.equip(limits, heat);
    }

    fn busy(&self) -> Option<Busy> {
        self.inner.busy()
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        let from = replies.len();
        while let Some(&(moment, _)) = self.coming.keys().next().filter(|(at, _)| *at <= now) {
            self.inner.advance(moment, replies);
            while let Some(first) = self
                .coming
                .first_entry()
                .filter(|one| one.key().0 == moment)
            {
                let (made, call) = first.remove();
                self.hand_over(moment, made, call);
            }
            if moment < now {
                // Nothing else can come at that moment: those that were refused are told, and the others begin.
                self.inner.advance(moment, replies);
                self.inner.next_event();
            }
        }
        self.inner.advance(now, replies);
        self.complete(&mut replies[from..]);
        replies[from..].sort_by_key(|reply| (reply.finished, reply.call));
    }

    fn open(&mut self) -> Option<&mut dyn Open> {
        if self.inner.open().is_some() {
            Some(self)
        } else {
            None
        }
    }
}

impl Intake {
    fn opened(&mut self) -> &mut dyn Open {
        self.inner
            .open()
            .expect("only what is open is asked what a server asks")
    }
}

impl Open for Intake {
    fn content(&mut self) -> &mut Content {
        self.opened().content()
    }

    fn watch(&mut self) {
        self.opened().watch();
    }

    fn take_written(&mut self, written: &mut Vec<Written>) {
        self.opened().take_written(written);
    }

    fn give_up(&mut self, now: Time, call: CallId) {
        let coming = self.coming.keys().find(|(_, own)| *own == call).copied();
        if let Some((made, call)) = coming.and_then(|place| self.coming.remove(&place)) {
            self.hand_over(now, made, call);
        }
        self.opened().give_up(now, call);
    }

    fn load(&mut self) -> Load {
        let load = self.opened().load();
        Load {
            waiting: load.waiting + self.coming.len(),
            ..load
        }
    }
}
