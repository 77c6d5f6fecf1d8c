//! N agents in N lanes: who runs when, what copies share, and every timer.
//!
//! The fleet is what a driver turns: [`Fleet::advance`] is the only source of calls, [`Fleet::deliver`] takes their
//! ends back. It carries no clock; the driver tells it the time.

use crate::agent::{Agent, Conduct, History, Input, Need, Pace};
use crate::call::{Call, Realms, Reply};
use crate::event::{Event, LapKey, Sink};
use crate::ids::{CallId, LaneId, RunId, ThreadId};
use crate::trace::{Session, Trace};
use crate::units::{Span, Time, Tokens};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What runs have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// What the recording shares, and the head between copies of a session.
    Head,
    /// Nothing.
    None,
    /// Copies of a session are identical.
    All,
}

impl Share {
    /// Every one, in the order of their words.
    pub const ALL: [Share; 3] = [Share::Head, Share::None, Share::All];

    /// Returns the word for it, as on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            Share::Head => "head",
            Share::None => "none",
            Share::All => "all",
        }
    }
}

/// How many runs of what, at once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    /// Lanes: how many runs are under way at the same time.
    pub agents: u32,
    /// How many runs in all; when absent every session once, and at least one for each lane.
    pub runs: Option<u32>,
    /// What runs have in common.
    pub share: Share,
    /// How each agent behaves.
    pub conduct: Conduct,
}

impl Plan {
    /// Returns how many runs there will be.
    pub fn runs_of(&self, trace: &Trace) -> u32 {
        self.runs
            .unwrap_or_else(|| self.agents.max(trace.sessions.len() as u32))
    }
}

/// A run that is under way.
#[derive(Debug)]
struct Running {
    agent: Agent,
    session: u32,
    realms: Realms,
    /// Where each conversation's own content lives, and when it was last used.
    lives: Vec<Option<Life>>,
    /// The id of the run's first conversation; the others follow it.
    first_thread: ThreadId,
    lane: LaneId,
    /// The latest call of each step of each conversation, for the parent of a child's first call.
    calls: Vec<Vec<CallId>>,
    ended: bool,
}

/// Content whose lifetime begins anew whenever it is used.
#[derive(Clone, Copy, Debug)]
struct Life {
    realm: u32,
    used: Time,
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    Start(RunId),
    Wake(RunId, u32),
}

/// N agents on one rig.
#[derive(Debug)]
pub struct Fleet<'t> {
    trace: &'t Trace,
    plan: Plan,
    runs: u32,
    next_run: u32,
    next_thread: u32,
    next_call: u32,
    running: FxHashMap<RunId, Running>,
    timers: BinaryHeap<Reverse<(Time, u64, Timer, LaneId)>>,
    timers_set: u64,
    in_flight: FxHashMap<CallId, (RunId, u32)>,
    /// The arrival of each session, relative to the earliest.
    arrivals: Vec<Span>,
    needs: Vec<Need>,
    /// Where heads live, by their first realm, and when they were last used.
    heads: FxHashMap<u32, Life>,
    /// The realm for what has outlived another; realms of runs count from the other end.
    next_realm: u32,
}

impl<'t> Fleet<'t> {
    /// Returns a fleet that has not begun; its first runs start when the driver first advances it.
    pub fn new(trace: &'t Trace, plan: Plan) -> Fleet<'t> {
        assert!(plan.agents > 0, "a fleet has at least one agent");
        assert!(
            !trace.sessions.is_empty(),
            "a fleet has at least one session to replay"
        );
        let earliest = trace
            .sessions
            .iter()
            .filter_map(|session| session.arrival)
            .min()
            .unwrap_or_default();
        let arrival = |session: &Session| match (plan.conduct.pace, session.arrival) {
            (Pace::Recorded, Some(at)) => (at - earliest).scaled_down(plan.conduct.pace_scale),
            _ => Span::ZERO,
        };
        let mut fleet = Fleet {
            trace,
            plan,
            runs: plan.runs_of(trace),
            next_run: 0,
            next_thread: 0,
            next_call: 0,
            running: FxHashMap::default(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            in_flight: FxHashMap::default(),
            arrivals: trace.sessions.iter().map(arrival).collect(),
            needs: Vec::new(),
            heads: FxHashMap::default(),
            next_realm: u32::MAX,
        };
        for lane in 0..plan.agents {
            fleet.take_next_run(Time::ZERO, LaneId(lane));
        }
        fleet
    }

    /// Returns the earliest moment at which an agent acts by itself.
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Wakes everyone due by `now` and appends the calls they make. The only source of calls.
    pub fn advance(&mut self, now: Time, calls: &mut Vec<Call>, sink: &mut impl Sink) {
        while self.wake_next(now, calls, sink).is_some() {}
    }

    /// Does what [`Fleet::advance`] does for the earliest timer alone; returns for when it was set, or nothing when
    /// none is due.
    pub fn wake_next(
        &mut self,
        now: Time,
        calls: &mut Vec<Call>,
        sink: &mut impl Sink,
    ) -> Option<Time> {
        let &Reverse((due, _, timer, lane)) = self.timers.peek()?;
        if due > now {
            return None;
        }
        self.timers.pop();
        match timer {
            Timer::Start(run) => self.start(now, run, lane, calls, sink),
            Timer::Wake(run, thread) => {
                // A run that stopped has left its timers behind.
                if self.running.contains_key(&run) {
                    self.tell(now, run, Input::Wake { thread }, calls, sink);
                }
            }
        }
        Some(due)
    }

    /// Takes back the end of a call.
    pub fn deliver(&mut self, now: Time, reply: Reply, sink: &mut impl Sink) {
        let (run, thread) = self
            .in_flight
            .remove(&reply.call)
            .expect("a reply belongs to a call in flight");
        sink.event(Event::Answered { reply });
        let mut calls = Vec::new();
        self.tell(
            now,
            run,
            Input::Answer {
                thread,
                outcome: reply.outcome,
                output: reply.output,
                retry_after: reply.retry_after,
            },
            &mut calls,
            sink,
        );
        assert!(
            calls.is_empty(),
            "an answer leads to a timer, never straight to a call"
        );
    }

    /// Returns the number of calls that have not ended.
    pub fn calls_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn take_next_run(&mut self, now: Time, lane: LaneId) {
        if self.next_run == self.runs {
            return;
        }
        let run = RunId(self.next_run);
        self.next_run += 1;
        let session = run.index() % self.trace.sessions.len();
        let at = now.max(Time::ZERO + self.arrivals[session]);
        self.set_timer(at, Timer::Start(run), lane);
    }

    fn set_timer(&mut self, at: Time, timer: Timer, lane: LaneId) {
        self.timers
            .push(Reverse((at, self.timers_set, timer, lane)));
        self.timers_set += 1;
    }

    fn start(
        &mut self,
        now: Time,
        run: RunId,
        lane: LaneId,
        calls: &mut Vec<Call>,
        sink: &mut impl Sink,
    ) {
        let session = run.0 % self.trace.sessions.len() as u32;
        let recorded = &self.trace.sessions[session as usize];
        let threads = recorded.threads.len();
        let running = Running {
            agent: Agent::new(recorded),
            session,
            realms: self.realms_of(run),
            lives: vec![None; threads],
            first_thread: ThreadId(self.next_thread),
            lane,
            calls: vec![Vec::new(); threads],
            ended: false,
        };
        self.next_thread += threads as u32;
        self.running.insert(run, running);
        sink.event(Event::RunStarted {
            at: now,
            run,
            session,
            lane,
        });
        self.tell(now, run, Input::Start, calls, sink);
    }

    fn realms_of(&self, run: RunId) -> Realms {
        let own = run.0 + 1;
        let first_copy = run.index() < self.trace.sessions.len();
        match self.plan.share {
            Share::All => Realms {
                head: 0,
                private: 0,
            },
            Share::None => Realms {
                head: own,
                private: own,
            },
            Share::Head => Realms {
                head: 0,
                private: if first_copy { 0 } else { own },
            },
        }
    }

    /// Tells an agent something and sees to what it needs.
    fn tell(
        &mut self,
        now: Time,
        run: RunId,
        input: Input,
        calls: &mut Vec<Call>,
        sink: &mut impl Sink,
    ) {
        let trace = self.trace;
        let running = self
            .running
            .get_mut(&run)
            .expect("a run that is told something is under way");
        let session = &trace.sessions[running.session as usize];
        let mut needs = std::mem::take(&mut self.needs);
        running
            .agent
            .step(session, &self.plan.conduct, now, input, &mut needs);
        let lane = running.lane;
        for need in needs.drain(..) {
            match need {
                Need::Wake { thread, at } => self.set_timer(at, Timer::Wake(run, thread), lane),
                Need::Call { .. } => calls.push(self.call(now, run, need, sink)),
                Need::LapEnded {
                    thread,
                    lap,
                    gap,
                    cut,
                } => {
                    sink.event(Event::LapEnded {
                        at: now,
                        lap: LapKey { run, thread, lap },
                        gap,
                        cut,
                    });
                }
                Need::RunEnded { outcome } => {
                    sink.event(Event::RunEnded {
                        at: now,
                        run,
                        outcome,
                    });
                    self.running.get_mut(&run).expect("it has just ended").ended = true;
                    self.take_next_run(now, lane);
                }
            }
        }
        self.needs = needs;
        if self
            .running
            .get(&run)
            .is_some_and(|running| running.ended && running.agent.idle())
        {
            self.running.remove(&run);
        }
    }

    /// Returns where a call's content lives: what was last used longer ago than a lifetime is found nowhere any more.
    fn living(&mut self, now: Time, run: RunId, thread: u32) -> Realms {
        let running = self.running.get_mut(&run).expect("it is under way");
        let first = running.realms;
        let Some(lifetime) = self.plan.conduct.cache_lifetime else {
            return first;
        };
        let next = &mut self.next_realm;
        let mut renew = |life: Life| {
            let ended = now - life.used > lifetime;
            let realm = if ended { *next } else { life.realm };
            *next -= u32::from(ended);
            Life { realm, used: now }
        };
        let begins = |realm| Life { realm, used: now };
        let head = self.heads.get(&first.head).copied();
        let head = renew(head.unwrap_or_else(|| begins(first.head)));
        self.heads.insert(first.head, head);
        let own = &mut running.lives[thread as usize];
        // What followed a head that has died died with it, for conversations that only begin now as well.
        let fresh = if head.realm == first.head {
            first.private
        } else {
            head.realm
        };
        let private = *own.insert(renew(own.unwrap_or_else(|| begins(fresh))));
        Realms {
            head: head.realm,
            private: private.realm,
        }
    }

    fn call(&mut self, now: Time, run: RunId, need: Need, sink: &mut impl Sink) -> Call {
        let Need::Call {
            thread,
            step,
            lap,
            seen_limit,
            computed_limit,
            parent,
        } = need
        else {
            unreachable!("only calls come here")
        };
        let realms = self.living(now, run, thread);
        let running = self
            .running
            .get_mut(&run)
            .expect("a run that calls is under way");
        let session = &self.trace.sessions[running.session as usize];
        let steps = &session.threads[thread as usize].steps;
        let recorded = &steps[step as usize];
        let id = CallId(self.next_call);
        self.next_call += 1;
        let warm = if self.plan.conduct.warm_start && session.resumed && thread == 0 && step == 0 {
            recorded.prompt_tokens - newest_part(session)
        } else {
            Tokens::ZERO
        };
        let seen = recorded.seen.min(seen_limit);
        let call = Call {
            id,
            run,
            thread: ThreadId(running.first_thread.0 + thread),
            prompt: recorded.prompt,
            prompt_tokens: recorded.prompt_tokens,
            output: recorded.output,
            output_tokens: recorded.output_tokens,
            output_shared: self.plan.conduct.history == History::Said,
            realms,
            seen,
            seen_computed: recorded.seen_computed.min(seen).min(computed_limit),
            again: recorded.again,
            warm,
        };
        let parent = parent.map(|(parent, step)| running.calls[parent as usize][step as usize]);
        let calls = &mut running.calls[thread as usize];
        // A call that is made again takes the place of the one that failed.
        calls.truncate(step as usize);
        calls.push(id);
        self.in_flight.insert(id, (run, thread));
        sink.event(Event::Called {
            at: now,
            call,
            lap: LapKey { run, thread, lap },
            parent,
        });
        call
    }
}

/// Returns how much of a resumed session's first prompt is taken as new: the median growth of its later prompts.
fn newest_part(session: &Session) -> Tokens {
    let steps = &session.threads[0].steps;
    let mut growths: Vec<u64> = steps
        .windows(2)
        .filter_map(|pair| pair[1].prompt_tokens.0.checked_sub(pair[0].prompt_tokens.0))
        .collect();
    growths.sort_unstable();
    let median = growths.get(growths.len() / 2).copied().unwrap_or(0);
    Tokens(median.clamp(1, steps[0].prompt_tokens.0))
}
