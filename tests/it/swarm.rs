//! Laws that hold in every world: random traces on random rigs, checked call by call.
//!
//! `SEED=7 cargo test swarm` repeats one world, `LAPTIME_SWARM_RUNS=20000` tries that many.

use crate::world::{Settings, World, for_seeds, longest};
use laptime::agent::{Conduct, OnRefusal, Pace};
use laptime::call::{Call, Outcome, Reply};
use laptime::event::{Event, GapParts, LapKey, RunOutcome};
use laptime::fleet::{Plan, Share};
use laptime::ids::{CallId, RunId};
use laptime::rig::engine::mlx_lm;
use laptime::trace::{Ending, Gap, Join, Session, Step, Trace};
use laptime::units::{Span, Time, Tokens};
use std::collections::BTreeMap;

/// What happened, sorted out.
#[derive(Default)]
struct Seen {
    calls: Vec<(Call, Time, LapKey, Option<CallId>)>,
    replies: BTreeMap<CallId, Reply>,
    laps: BTreeMap<(RunId, u32, u32), Lap>,
    runs: BTreeMap<RunId, Run>,
}

#[derive(Default)]
struct Lap {
    calls: Vec<CallId>,
    end: Option<(Time, GapParts)>,
}

struct Run {
    start: Time,
    session: usize,
    lane: u32,
    end: Option<(Time, RunOutcome)>,
}

impl Seen {
    fn of(events: &[Event]) -> Seen {
        let mut seen = Seen::default();
        let mut last = Time::ZERO;
        let mut reach = |at: Time| {
            assert!(at >= last, "time went back from {last} to {at}");
            last = at;
        };
        for event in events {
            match *event {
                Event::RunStarted {
                    at,
                    run,
                    session,
                    lane,
                } => {
                    reach(at);
                    let session = session as usize;
                    let run_seen = Run {
                        start: at,
                        session,
                        lane: lane.0,
                        end: None,
                    };
                    assert!(
                        seen.runs.insert(run, run_seen).is_none(),
                        "a run starts once"
                    );
                }
                Event::Called {
                    at,
                    call,
                    lap,
                    parent,
                } => {
                    reach(at);
                    assert_eq!(
                        call.id.index(),
                        seen.calls.len(),
                        "calls are numbered in order"
                    );
                    seen.calls.push((call, at, lap, parent));
                    let lap = seen.laps.entry((lap.run, lap.thread, lap.lap)).or_default();
                    lap.calls.push(call.id);
                }
                Event::Answered { reply } => {
                    reach(reply.finished);
                    reply.check(&seen.calls[reply.call.index()].0);
                    assert!(
                        seen.replies.insert(reply.call, reply).is_none(),
                        "answered twice"
                    );
                }
                Event::LapEnded { at, lap, gap, .. } => {
                    reach(at);
                    let lap = seen.laps.get_mut(&(lap.run, lap.thread, lap.lap));
                    let lap = lap.expect("a lap that ends has a call");
                    assert!(lap.end.replace((at, gap)).is_none(), "a lap ends once");
                }
                Event::RunEnded { at, run, outcome } => {
                    reach(at);
                    let run = seen
                        .runs
                        .get_mut(&run)
                        .expect("a run that ends has started");
                    assert!(run.end.replace((at, outcome)).is_none(), "a run ends once");
                }
            }
        }
        seen
    }

    fn called(&self, lap: &Lap) -> Time {
        self.calls[lap.calls[0].index()].1
    }

    fn answered(&self, lap: &Lap) -> Time {
        self.replies[lap.calls.last().expect("a lap has a call")].finished
    }

    fn thread(&self, run: RunId, thread: u32) -> impl Iterator<Item = &Lap> {
        self.laps
            .range((run, thread, 0)..=(run, thread, u32::MAX))
            .map(|(_, lap)| lap)
    }
}

fn every_call_is_answered_and_adds_up(seen: &Seen) {
    assert_eq!(seen.calls.len(), seen.replies.len());
    for (call, at, ..) in &seen.calls {
        let reply = &seen.replies[&call.id];
        assert_eq!(reply.submitted, *at);
        assert!(reply.finished >= *at);
        let first = reply.first_token;
        assert!(first.is_none_or(|first| first > *at && first <= reply.finished));
        if reply.outcome.failed() {
            assert_eq!((first, reply.parts.client), (None, reply.parts.total()));
            continue;
        }
        assert!(reply.admitted.is_some_and(|admitted| admitted >= *at));
        assert_eq!(first.is_some(), reply.output > Tokens::ZERO);
        let whole = reply.output == call.output_tokens;
        assert_eq!(whole, reply.outcome == Outcome::Ok, "{reply:?}");
        assert!(
            reply.classes.total() > Tokens::ZERO,
            "at least one token is computed"
        );
    }
}

fn laps_sum_and_follow_each_other(seen: &Seen) {
    for (key, lap) in &seen.laps {
        let (end, gap) = lap.end.expect("every lap ends");
        let calls: Span = lap
            .calls
            .iter()
            .map(|call| seen.replies[call].parts.total())
            .sum();
        assert_eq!(calls + gap.total(), end - seen.called(lap), "lap {key:?}");
    }
    for (&run, was) in &seen.runs {
        let mut at = was.start;
        for lap in seen.thread(run, 0) {
            assert_eq!(seen.called(lap), at, "main laps cover the run");
            at = lap.end.expect("every lap ends").0;
        }
        assert!(at <= was.end.expect("every run ends").0);
    }
}

/// Lanes take runs in input order, each when its run has ended and the session has arrived.
fn lanes_take_runs_in_order(seen: &Seen, plan: &Plan, trace: &Trace) {
    let sessions = &trace.sessions;
    assert_eq!(seen.runs.len(), plan.runs_of(trace) as usize);
    let earliest = sessions.iter().filter_map(|session| session.arrival).min();
    let mut free = vec![Some(Time::ZERO); plan.agents as usize];
    let mut last_taken = Time::ZERO;
    for (index, (&run, was)) in seen.runs.iter().enumerate() {
        assert_eq!((run.index(), was.session), (index, index % sessions.len()));
        let arrival = match (plan.conduct.pace, sessions[was.session].arrival, earliest) {
            (Pace::Recorded, Some(at), Some(first)) => {
                (at - first).scaled_down(plan.conduct.pace_scale)
            }
            _ => Span::ZERO,
        };
        let taken = free[was.lane as usize]
            .take()
            .expect("the lane's run has ended");
        assert!(taken >= last_taken, "runs are taken in input order");
        last_taken = taken;
        assert_eq!(was.start, taken.max(Time::ZERO + arrival));
        free[was.lane as usize] = was.end.map(|(end, _)| end);
    }
}

/// What the contract says of the waits of a gap, told again.
fn waits(gap: &Gap, conduct: &Conduct) -> Span {
    let capped = |wait: Span| wait.min(conduct.idle_cap);
    let scaled = |wait: Span| wait.scaled_down(conduct.pace_scale);
    let dropped = conduct.pace == Pace::Tools && gap.after == Ending::EndOfTurn;
    let unknown = if dropped {
        Span::ZERO
    } else {
        capped(gap.unknown)
    };
    let human = if conduct.pace == Pace::Recorded {
        capped(gap.human)
    } else {
        Span::ZERO
    };
    match (conduct.pace, gap.after) {
        (Pace::None, _) => Span::ZERO,
        (_, Ending::EndOfTurn) => scaled(gap.client) + scaled(gap.tool) + scaled(human + unknown),
        _ => scaled(gap.client) + scaled(gap.tool + unknown) + scaled(human),
    }
}

/// Every conversation does what was recorded, and waits for whom it waited then.
fn conversations_follow_the_recording(seen: &Seen, plan: &Plan, trace: &Trace) {
    for (&run, was) in &seen.runs {
        let session = &trace.sessions[was.session];
        let mut failed = seen.calls.iter().filter(|(call, ..)| call.run == run);
        // A detached child may stop after its run has ended.
        let stopped = plan.conduct.on_refusal == OnRefusal::Stop
            && failed.any(|(call, ..)| seen.replies[&call.id].outcome.failed());
        let how = was.end.map(|(_, how)| how);
        assert!(stopped || how == Some(RunOutcome::Completed));
        let mut ends = vec![was.start];
        for (thread, recorded) in session.threads.iter().enumerate() {
            let laps: Vec<&Lap> = seen.thread(run, thread as u32).collect();
            ends.extend(laps.last().and_then(|lap| lap.end).map(|(end, _)| end));
            if stopped {
                continue;
            }
            assert_eq!(laps.len(), recorded.steps.len(), "every step is replayed");
            for (lap, step) in laps.iter().zip(&recorded.steps) {
                let answered = seen.answered(lap);
                let mut resumes = answered;
                for &child in &waited_for(session, thread, &step.gap) {
                    let spawns = |lap: &&(&Lap, &Step)| {
                        let mut spawns = lap.1.gap.spawns.iter();
                        spawns.any(|spawn| spawn.thread == child)
                    };
                    let mut parents = laps.iter().copied().zip(&recorded.steps);
                    let spawn = parents.find(|lap| spawns(&lap));
                    if spawn.is_some_and(|(lap, _)| seen.answered(lap) <= answered) {
                        let last = seen.thread(run, child).last().expect("it ran");
                        resumes = resumes.max(last.end.expect("every lap ends").0);
                    }
                }
                let (end, gap) = lap.end.expect("every lap ends");
                assert_eq!(
                    end,
                    resumes + waits(&step.gap, &plan.conduct),
                    "{run:?} {thread}"
                );
                assert_eq!(gap.subagent, resumes - answered);
                for spawn in &step.gap.spawns {
                    let first = seen.thread(run, spawn.thread).next().expect("it ran");
                    let offset = match plan.conduct.pace {
                        Pace::None => Span::ZERO,
                        _ => spawn
                            .offset
                            .min(plan.conduct.idle_cap)
                            .scaled_down(plan.conduct.pace_scale),
                    };
                    assert_eq!(
                        seen.called(first),
                        answered + offset,
                        "a child starts on time"
                    );
                    let parent = seen.calls[first.calls[0].index()].3;
                    assert_eq!(parent.as_ref(), lap.calls.last());
                }
            }
        }
        if session
            .threads
            .iter()
            .all(|thread| thread.join != Join::Detached)
        {
            assert_eq!(was.end.map(|(end, _)| end), ends.into_iter().max());
        }
    }
}

/// Returns the children that the parent's next request waits for.
fn waited_for(session: &Session, thread: usize, gap: &Gap) -> Vec<u32> {
    let named = |child: u32| {
        let mut steps = session.threads[thread].steps.iter();
        steps.any(|step| step.gap.joins.contains(&child))
    };
    let spawned = gap.spawns.iter().map(|spawn| spawn.thread);
    let blocking = spawned
        .filter(|&child| session.threads[child as usize].join == Join::Blocking && !named(child));
    gap.joins.iter().copied().chain(blocking).collect()
}

/// A call that is alone on the rig from beginning to end waits for nobody.
fn alone_nothing_queues(seen: &Seen) {
    for (call, at, ..) in &seen.calls {
        let reply = &seen.replies[&call.id];
        let meets = |other: &&Reply| {
            other.call != call.id && other.submitted < reply.finished && other.finished > *at
                || other.call != call.id && other.submitted == *at
        };
        if !seen.replies.values().any(|other| meets(&other)) {
            let waiting = (reply.parts.queue, reply.parts.contention);
            assert_eq!(waiting, (Span::ZERO, Span::ZERO), "{reply:?}");
        }
    }
}

fn without_caching_everything_is_read_again(seen: &Seen, settings: &Settings) {
    let caching = match settings {
        Settings::Vllm(settings) => settings.enable_prefix_caching,
        Settings::Llama(settings) | Settings::Ollama(settings, _) => settings.cache_prompt,
        Settings::Sglang(settings) => settings.radix_cache,
        Settings::Mlx(settings) => settings.cache != mlx_lm::Cache::Off,
        Settings::TrtLlm(settings) => settings.enable_block_reuse,
    };
    for (call, _, lap, _) in &seen.calls {
        let reply = &seen.replies[&call.id];
        if caching || reply.outcome.failed() {
            continue;
        }
        assert_eq!(reply.cached, Tokens::ZERO);
        assert_eq!(reply.classes.evicted, Tokens::ZERO);
        assert_eq!(reply.classes.uncached, call.seen, "{lap:?}");
        let read_again = reply.parts.reread_uncached > Span::ZERO;
        // Ten thousandths of a chunk may round to nothing.
        assert!(read_again || call.seen < Tokens(10), "{reply:?}");
    }
}

/// Classes of computed tokens follow from what the conversation has seen.
fn classes_have_their_bounds(seen: &Seen) {
    for (call, ..) in &seen.calls {
        let reply = &seen.replies[&call.id];
        if reply.outcome.failed() {
            continue;
        }
        let classes = reply.classes;
        assert!(classes.evicted + reply.cached <= call.seen_computed.max(reply.cached));
        assert!(classes.evicted + classes.uncached + reply.cached <= call.seen.max(reply.cached));
        assert!(classes.broken <= call.again);
    }
}

fn only(plan: &Plan) -> Plan {
    Plan {
        agents: 1,
        runs: None,
        ..*plan
    }
}

fn linear(session: &Session) -> bool {
    session.threads.len() == 1
}

fn laws(world: &World, events: &[Event]) {
    let seen = Seen::of(events);
    every_call_is_answered_and_adds_up(&seen);
    laps_sum_and_follow_each_other(&seen);
    lanes_take_runs_in_order(&seen, &world.plan, &world.trace);
    conversations_follow_the_recording(&seen, &world.plan, &world.trace);
    alone_nothing_queues(&seen);
    without_caching_everything_is_read_again(&seen, &world.settings);
    classes_have_their_bounds(&seen);
}

#[test]
fn swarm() {
    for_seeds(400, |seed| {
        let world = World::new(seed);
        let events = world.replay(false);
        laws(&world, &events);
        assert_eq!(
            events,
            World::new(seed).replay(false),
            "same seed, same bytes"
        );
    });
}

#[test]
fn more_bandwidth_never_makes_a_lone_agent_slower() {
    for_seeds(150, |seed| {
        let mut world = World::new(seed);
        world.trace.sessions.retain(linear);
        if world.trace.sessions.is_empty() {
            return;
        }
        world.plan = only(&world.plan);
        let end = |world: &World| Seen::of(&world.replay(false)).runs.into_values().last();
        let slow = end(&world).and_then(|run| run.end);
        world.coefficients.weights_s *= 0.7;
        world.coefficients.kv_s *= 0.7;
        world.coefficients.kv_short_s = world.coefficients.kv_short_s.map(|kv| kv * 0.7);
        let fast = end(&world).and_then(|run| run.end);
        assert!(
            fast.map(|(at, _)| at) <= slow.map(|(at, _)| at),
            "{fast:?} after {slow:?}"
        );
    });
}

/// Returns the outcome and the cached tokens of each call, by run.
fn cached(events: &[Event]) -> Vec<Vec<(Outcome, Tokens)>> {
    let seen = Seen::of(events);
    let mut runs = vec![Vec::new(); seen.runs.len()];
    for (call, ..) in &seen.calls {
        let reply = &seen.replies[&call.id];
        runs[call.run.index()].push((reply.outcome, reply.cached));
    }
    runs
}

#[test]
fn a_larger_cache_never_reads_more_for_one_session() {
    for_seeds(150, |seed| {
        let mut world = World::new(seed);
        world.trace.sessions.retain(linear);
        world.trace.sessions.truncate(1);
        let Settings::Vllm(mut settings) = world.settings else {
            return;
        };
        if world.trace.sessions.is_empty() {
            return;
        }
        world.plan = Plan {
            runs: Some(1),
            ..only(&world.plan)
        };
        world.plan.conduct.on_refusal = OnRefusal::Continue;
        let small = cached(&world.replay(false));
        settings.num_gpu_blocks = 1 << 30;
        world.settings = Settings::Vllm(settings);
        let large = cached(&world.replay(false));
        for (small, large) in small[0].iter().zip(&large[0]) {
            assert!(small.1 <= large.1, "{small:?} {large:?}");
        }
    });
}

#[test]
fn runs_that_share_nothing_do_not_know_of_each_other() {
    for_seeds(150, |seed| {
        let mut world = World::new(seed);
        world.trace.sessions.retain(linear);
        let Settings::Vllm(mut settings) = world.settings else {
            return;
        };
        if world.trace.sessions.is_empty() {
            return;
        }
        settings.num_gpu_blocks += 20 * longest(&world.trace);
        world.settings = Settings::Vllm(settings);
        let sessions = world.trace.sessions.len();
        world.plan.agents = 1;
        world.plan.runs = Some(2 * sessions as u32);
        world.plan.share = Share::None;
        world.plan.conduct.warm_start = false;
        let runs = cached(&world.replay(false));
        for run in 0..sessions {
            assert_eq!(runs[run], runs[run + sessions]);
        }
    });
}
