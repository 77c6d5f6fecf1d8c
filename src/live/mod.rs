//! The driver in real time: turns the very fleet that a simulation turns, against a real engine behind a URL.
//!
//! It holds no policy: who calls when, what is made again and what a run waits for is the fleet's. Here are only time and
//! bytes. Times are told to the fleet as they were stamped, never as late as they were noticed.

pub mod client;
pub mod clock;
mod connect;
pub mod engine;
pub mod measured;
pub mod mock;
pub mod prepare;
pub mod prompt;
mod read;
mod sse;
pub mod watch;
mod wire;
pub mod words;

use crate::call::{Call, Outcome};
use crate::event::{Event, Sink};
use crate::fleet::Fleet;
use crate::ids::{CallId, RunId};
use crate::units::{Span, Time, Tokens};
use client::Client;
use clock::Clock;
use measured::Measured;
use prompt::{Form, Prompter};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How a replay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Every run did.
    Completed,
    /// Somebody stopped it; what was under way was waited for.
    Drained,
    /// Somebody stopped it at once.
    Aborted,
    /// The engine is gone.
    Lost,
}

/// Takes what was seen of a call as soon as it has ended.
pub trait Log: Sink {
    /// Takes it.
    fn measured(&mut self, call: &Call, seen: &Measured);
}

/// Calls under way to one server.
#[derive(Debug)]
pub struct Line {
    client: Arc<Client>,
    clock: Clock,
    form: Form,
    prompter: Prompter,
    under_way: BTreeMap<CallId, (Call, AbortHandle)>,
    ended: mpsc::UnboundedSender<(CallId, Measured)>,
    ends: mpsc::UnboundedReceiver<(CallId, Measured)>,
    /// Whether the engine has been seen to take anything from a cache.
    caches: bool,
    /// Calls that failed since one was answered.
    failed_in_a_row: u32,
}

/// How long the end of an answer's connection may hold up the news of its end.
const CLOSELY: Duration = Duration::from_millis(1);
/// How long what is left of an answer's connection is waited for, so that it can be used again.
const LEFT_OVER: Duration = Duration::from_secs(2);

impl Line {
    /// Returns a line to the server that `client` knows.
    pub fn new(client: Arc<Client>, clock: Clock, form: Form, prompter: Prompter) -> Line {
        let (ended, ends) = mpsc::unbounded_channel();
        Line {
            client,
            clock,
            form,
            prompter,
            under_way: BTreeMap::new(),
            ended,
            ends,
            caches: false,
            failed_in_a_row: 0,
        }
    }

    fn submit(&mut self, due: Time, made: Time, call: Call) {
        let prompt = self.prompter.prompt(&call);
        let (client, clock, ended) = (Arc::clone(&self.client), self.clock, self.ended.clone());
        let count = self.form == Form::Messages;
        let task = tokio::spawn(async move {
            let seen = Measured::begun(due, made);
            let asked = client.ask(clock, seen, prompt, call.output_tokens.0).await;
            let (mut seen, connection) = asked;
            let text = &seen.said.text;
            if count && !text.is_empty() {
                // The next prompt holds this text, and its length has to be right.
                let counted = client.tokenize(text).await.map(|ids| ids.len() as u64);
                seen.said.tokens = counted.or(seen.output);
            }
            let Some(mut connection) = connection else {
                // Nobody listens any more once the replay has ended.
                let _ = ended.send((call.id, seen));
                return;
            };
            // The body's end follows its last event closely. Only then can the next call have the connection, and what is
            // stamped is not moved by waiting for it.
            let rest = async { while let Ok(Some(_)) = connection.chunk().await {} };
            let mut rest = Box::pin(rest);
            let over = tokio::time::timeout(CLOSELY, &mut rest).await.is_ok();
            let _ = ended.send((call.id, seen));
            if !over {
                let _ = tokio::time::timeout(LEFT_OVER, rest).await;
            }
        });
        self.under_way.insert(call.id, (call, task.abort_handle()));
    }

    fn note(&mut self, call: &Call, seen: &Measured) {
        self.caches |= seen.cached.is_some_and(|cached| cached > 0);
        if seen.outcome.failed() {
            self.failed_in_a_row += 1;
        } else {
            self.failed_in_a_row = 0;
            self.prompter
                .heard(call, &seen.said, seen.prompt.map(Tokens));
        }
    }
}

/// Passes everything on, and keeps in mind which runs have ended.
struct Overheard<'l, L> {
    log: &'l mut L,
    ended: Vec<RunId>,
}

impl<L: Log> Sink for Overheard<'_, L> {
    fn event(&mut self, event: Event) {
        if let Event::RunEnded { run, .. } = event {
            self.ended.push(run);
        }
        self.log.event(event);
    }
}

/// What tells a replay to stop: the first time after what is under way, the second time at once.
#[derive(Debug)]
pub struct Interrupts {
    stops: mpsc::UnboundedReceiver<()>,
    sender: mpsc::UnboundedSender<()>,
}

impl Interrupts {
    /// Returns the interrupts of this process: Ctrl-C, and where there are such a request to terminate.
    pub fn of_process() -> Interrupts {
        let (sender, receiver) = mpsc::unbounded_channel();
        let from_keyboard = sender.clone();
        #[cfg(unix)]
        let others = sender.clone();
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                let _ = from_keyboard.send(());
            }
        });
        #[cfg(unix)]
        tokio::spawn(async move {
            use tokio::signal::unix::{SignalKind, signal};
            if let Ok(mut terminate) = signal(SignalKind::terminate()) {
                while terminate.recv().await.is_some() {
                    let _ = others.send(());
                }
            }
        });
        Interrupts {
            stops: receiver,
            sender,
        }
    }

    /// Lets what runs `after` that much time end as the first interrupt would; aborting the task calls it off.
    pub fn after(&self, span: Span) -> AbortHandle {
        let sender = self.sender.clone();
        let waiting = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_nanos(span.0)).await;
            let _ = sender.send(());
        });
        waiting.abort_handle()
    }

    async fn next(&mut self) {
        if self.stops.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// So many calls in a row that find nobody mean that the engine is gone; each lane may have several calls out.
fn lost_after(agents: u32) -> u32 {
    agents.saturating_mul(2).max(8)
}

/// Replays the fleet against the line's engine.
pub async fn run(
    fleet: &mut Fleet<'_>,
    line: &mut Line,
    agents: u32,
    log: &mut impl Log,
    interrupts: &mut Interrupts,
) -> Ending {
    let (mut calls, mut latest) = (Vec::new(), Time::ZERO);
    let mut ending = Ending::Completed;
    let mut log = Overheard {
        log,
        ended: Vec::new(),
    };
    loop {
        let going = ending == Ending::Completed;
        loop {
            let now = line.clock.now().max(latest);
            let woken = going.then(|| fleet.wake_next(now, &mut calls, &mut log));
            let Some(due) = woken.flatten() else {
                break;
            };
            latest = now;
            for call in calls.drain(..) {
                line.submit(due, now, call);
            }
        }
        for run in log.ended.drain(..) {
            line.prompter.run_ended(run);
        }
        let wake = fleet.next_wake().filter(|_| ending == Ending::Completed);
        if wake.is_none() && line.under_way.is_empty() {
            return ending;
        }
        let at = line.clock.instant(wake.unwrap_or_default());
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if ending != Ending::Completed {
                    line.under_way.values().for_each(|(_, task)| task.abort());
                    return Ending::Aborted;
                }
                ending = Ending::Drained;
            }
            Some((id, seen)) = line.ends.recv() => {
                let (call, _) = line.under_way.remove(&id).expect("a call ends once");
                line.note(&call, &seen);
                log.log.measured(&call, &seen);
                let mut reply = seen.reply(&call, line.caches);
                // Another moment may have been told already; the fleet's time does not go back.
                let at = seen.finished.max(latest);
                reply.parts.client += at - seen.finished;
                reply.finished = at;
                latest = at;
                reply.check(&call);
                fleet.deliver(at, reply, &mut log);
                let gone = matches!(seen.outcome, Outcome::Unreachable | Outcome::Reset);
                if gone && line.failed_in_a_row >= lost_after(agents) && ending == Ending::Completed {
                    ending = Ending::Lost;
                }
            }
            () = tokio::time::sleep_until(at), if wake.is_some() => {}
        }
    }
}
