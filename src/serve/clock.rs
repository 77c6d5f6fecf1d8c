//! The rig in real time: one thread that hands calls in as they come and tells what was written when it is due.
//!
//! A moment of the rig is a moment of the wall clock, times the scale. Deadlines are counted from the start, so a late
//! wake-up delays what it was late for and nothing after it; all that is due by then is told at once.

use super::house::{House, News, Order};
use crate::call::Reply;
use crate::ids::CallId;
use crate::rig::Load;
use crate::units::Time;
use rustc_hash::FxHashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

#[expect(
    clippy::disallowed_types,
    reason = "this is the edge at which real time comes in"
)]
pub(super) type Instant = std::time::Instant;

/// What a caller hears of its call.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Told {
    /// It was taken in; nothing if it cannot be put into words at all.
    Taken(Option<CallId>),
    /// The answer has so many tokens.
    Written(u64),
    /// It has ended.
    Ended(Box<Reply>),
}

/// What the thread is asked.
enum Ask {
    Call {
        at: Instant,
        prompt: Vec<u32>,
        answer: Vec<u32>,
        by_person: bool,
        tell: mpsc::UnboundedSender<Told>,
    },
    GiveUp(CallId),
    Load(oneshot::Sender<Load>),
}

/// A way to the thread; the thread ends when the last of them is gone.
#[derive(Clone)]
pub(super) struct Desk {
    asks: Sender<Ask>,
}

impl Desk {
    /// Starts the thread for a rig that passes `scale` seconds of its own in a second.
    pub(super) fn start(house: House, scale: f64) -> std::io::Result<Desk> {
        let (asks, asked) = channel();
        let run = move || serve(house, scale, &asked);
        let thread = std::thread::Builder::new().name("rig".to_string());
        thread.spawn(run)?;
        Ok(Desk { asks })
    }

    /// Makes a call as of `at`; what becomes of it arrives on the channel.
    pub(super) fn call(
        &self,
        at: Instant,
        prompt: Vec<u32>,
        answer: Vec<u32>,
        by_person: bool,
    ) -> mpsc::UnboundedReceiver<Told> {
        let (tell, told) = mpsc::unbounded_channel();
        let ask = Ask::Call {
            at,
            prompt,
            answer,
            by_person,
            tell,
        };
        // Where the thread has gone, the channel is closed, and that is the answer.
        let _ = self.asks.send(ask);
        told
    }

    /// Ends a call whose caller has gone.
    pub(super) fn give_up(&self, call: CallId) {
        let _ = self.asks.send(Ask::GiveUp(call));
    }

    /// Returns how busy the rig is.
    pub(super) async fn load(&self) -> Load {
        let (tell, told) = oneshot::channel();
        let _ = self.asks.send(Ask::Load(tell));
        told.await.unwrap_or_default()
    }
}

/// The wall clock as the rig sees it.
struct Clock {
    start: Instant,
    scale: f64,
}

impl Clock {
    fn at(&self, instant: Instant) -> Time {
        let passed = instant.saturating_duration_since(self.start).as_secs_f64();
        Time((passed * self.scale * 1e9) as u64)
    }

    fn until(&self, time: Time) -> Duration {
        let due = Duration::from_secs_f64(time.secs() / self.scale);
        due.saturating_sub(self.start.elapsed())
    }
}

fn serve(mut house: House, scale: f64, asked: &Receiver<Ask>) {
    let start = Instant::now();
    let clock = Clock { start, scale };
    let mut callers: FxHashMap<CallId, mpsc::UnboundedSender<Told>> = FxHashMap::default();
    let mut news = Vec::new();
    loop {
        let next = house.next_event();
        // Without anything to wait for, a long wait is as good as one without end.
        let wait = next.map_or(Duration::from_secs(3600), |next| clock.until(next));
        let first = match asked.recv_timeout(wait) {
            Ok(ask) => Some(ask),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Every call of a moment is made before the rig is asked what comes next.
        let more = std::iter::from_fn(|| asked.try_recv().ok());
        let mut asks: Vec<Ask> = first.into_iter().chain(more).collect();
        asks.sort_by_key(|ask| match ask {
            Ask::Call { at, .. } => Some(*at),
            _ => None,
        });
        for ask in asks {
            answer(ask, &clock, &mut house, &mut callers, &mut news);
        }
        // Asking begins what can begin; without it a step would start late.
        house.next_event();
        house.advance(clock.at(Instant::now()), &mut news);
        tell(&mut news, &mut callers);
    }
}

fn answer(
    ask: Ask,
    clock: &Clock,
    house: &mut House,
    callers: &mut FxHashMap<CallId, mpsc::UnboundedSender<Told>>,
    news: &mut Vec<News>,
) {
    match ask {
        Ask::Call {
            at,
            prompt,
            answer,
            by_person,
            tell: caller,
        } => {
            let now = clock.at(at);
            // What ended before the call was made is told first.
            house.advance(now, news);
            tell(news, callers);
            let order = Order {
                prompt: &prompt,
                answer: &answer,
                by_person,
            };
            let taken = house.submit(now, order).ok();
            let _ = caller.send(Told::Taken(taken));
            if let Some(id) = taken {
                callers.insert(id, caller);
            }
        }
        Ask::GiveUp(call) => {
            if callers.remove(&call).is_some() {
                house.give_up(clock.at(Instant::now()), call);
            }
        }
        Ask::Load(caller) => {
            let _ = caller.send(house.load());
        }
    }
}

fn tell(news: &mut Vec<News>, callers: &mut FxHashMap<CallId, mpsc::UnboundedSender<Told>>) {
    for news in news.drain(..) {
        // A caller that has gone is dealt with when it says so.
        match news {
            News::Written(written) => {
                if let Some(caller) = callers.get(&written.call) {
                    let _ = caller.send(Told::Written(written.tokens));
                }
            }
            News::Ended(reply) => {
                if let Some(caller) = callers.remove(&reply.call) {
                    let _ = caller.send(Told::Ended(reply));
                }
            }
        }
    }
}
