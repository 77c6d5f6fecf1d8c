//! Agents and fleets against a backend that answers from a table: who calls when, and after what.

use laptime::agent::{Conduct, OnRefusal, Pace, Retries};
use laptime::call::{Call, CallParts, Outcome, Reply, TokenClasses};
use laptime::event::{Event, GapParts, RunOutcome};
use laptime::fleet::{Fleet, Plan, Share};
use laptime::ids::NodeId;
use laptime::rig::Backend;
use laptime::sim;
use laptime::trace::content::{ContentBuilder, ROOT};
use laptime::trace::{Ending, Gap, Join, Recorded, Session, Spawn, Step, Thread, Trace};
use laptime::units::{Span, Time, Tokens};
use std::collections::VecDeque;

const MS: u64 = 1_000_000;

fn ms(millis: u64) -> Span {
    Span(millis * MS)
}

/// Answers every call a second later, with these outcomes and then well; remembers the calls.
struct Table {
    outcomes: VecDeque<Outcome>,
    /// What each successful answer has fewer tokens than asked for.
    short_by: u64,
    flying: Vec<Reply>,
    calls: Vec<(Time, Call)>,
}

impl Backend for Table {
    fn submit(&mut self, now: Time, call: Call) {
        let outcome = self.outcomes.pop_front().unwrap_or(Outcome::Ok);
        let span = if outcome.failed() {
            Span::ZERO
        } else {
            ms(1000)
        };
        let (output, new) = if outcome.failed() {
            (Tokens::ZERO, Tokens::ZERO)
        } else {
            (
                Tokens(call.output_tokens.0 - self.short_by),
                call.prompt_tokens,
            )
        };
        let part = |on: bool| if on { span } else { Span::ZERO };
        self.flying.push(Reply {
            bound: None,
            call: call.id,
            retry_after: None,
            prompt: call.prompt_tokens,
            outcome,
            submitted: now,
            admitted: None,
            first_token: None,
            finished: now + span,
            cached: Tokens::ZERO,
            output,
            classes: TokenClasses {
                new,
                ..TokenClasses::default()
            },
            parts: CallParts {
                client: part(outcome.failed()),
                decode: part(!outcome.failed()),
                ..CallParts::default()
            },
        });
        self.calls.push((now, call));
    }

    fn next_event(&mut self) -> Option<Time> {
        self.flying.iter().map(|reply| reply.finished).min()
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        replies.extend(self.flying.extract_if(.., |reply| reply.finished <= now));
    }
}

fn step(number: u32, gap: Gap) -> Step {
    Step {
        prompt: NodeId(1 + number),
        prompt_tokens: Tokens(100 * (1 + u64::from(number))),
        output: NodeId(1 + number),
        output_tokens: Tokens(10),
        reasoning: None,
        seen: Tokens(if number == 0 {
            0
        } else {
            100 * u64::from(number) + 10
        }),
        seen_computed: Tokens(if number == 0 {
            0
        } else {
            100 * u64::from(number) + 9
        }),
        again: Tokens::ZERO,
        break_estimated: false,
        gap,
        recorded: Recorded::default(),
    }
}

fn thread(join: Join, gaps: Vec<Gap>) -> Thread {
    let steps = gaps.into_iter().enumerate();
    Thread {
        id: "a".into(),
        join,
        steps: steps
            .map(|(number, gap)| step(number as u32, gap))
            .collect(),
    }
}

fn session(threads: Vec<Thread>) -> Session {
    Session {
        id: "s".into(),
        arrival: None,
        resumed: false,
        model: None,
        threads,
    }
}

fn trace(sessions: Vec<Session>) -> Trace {
    let mut content = ContentBuilder::default();
    let mut at = ROOT;
    for _ in 0..20 {
        at = content.opaque(at, Tokens(100)).unwrap();
    }
    Trace {
        sources: Vec::new(),
        skipped: Vec::new(),
        sessions,
        content: content.finish().into(),
    }
}

fn plan(conduct: Conduct) -> Plan {
    Plan {
        agents: 1,
        runs: None,
        share: Share::Head,
        conduct,
    }
}

struct Ran {
    events: Vec<Event>,
    calls: Vec<(Time, Call)>,
}

impl Ran {
    /// Returns when each call was made, in milliseconds, and by which conversation.
    fn called(&self) -> Vec<(u64, u32)> {
        let calls = self.calls.iter();
        calls.map(|(at, call)| (at.0 / MS, call.thread.0)).collect()
    }

    fn gaps(&self) -> Vec<(GapParts, Span)> {
        let gap = |event: &Event| match *event {
            Event::LapEnded { gap, cut, .. } => Some((gap, cut)),
            _ => None,
        };
        self.events.iter().filter_map(gap).collect()
    }

    fn ended(&self) -> Vec<(u64, RunOutcome)> {
        let end = |event: &Event| match *event {
            Event::RunEnded { at, outcome, .. } => Some((at.0 / MS, outcome)),
            _ => None,
        };
        self.events.iter().filter_map(end).collect()
    }
}

fn run(trace: &Trace, plan: Plan, outcomes: &[Outcome], short_by: u64) -> Ran {
    let mut table = Table {
        outcomes: outcomes.iter().copied().collect(),
        short_by,
        flying: Vec::new(),
        calls: Vec::new(),
    };
    let mut events = Vec::new();
    sim::run(&mut Fleet::new(trace, plan), &mut table, &mut events);
    Ran {
        events,
        calls: table.calls,
    }
}

/// A gap of 10 ms of tools, 2 of the client, 100,000 of a person and 70,000 nobody knows.
fn gap(after: Ending) -> Gap {
    Gap {
        after,
        tool: ms(10),
        client: ms(2),
        human: ms(100_000),
        unknown: ms(70_000),
        ..Gap::default()
    }
}

#[test]
fn waits_are_replayed_as_the_pace_says() {
    let check = |pace, after, scale, expected: (u64, u64, u64, u64)| {
        let gaps = vec![gap(after), Gap::default()];
        let trace = trace(vec![session(vec![thread(Join::Blocking, gaps)])]);
        let conduct = Conduct {
            pace,
            pace_scale: scale,
            ..Conduct::default()
        };
        let ran = run(&trace, plan(conduct), &[], 0);
        let (client, tool, wait, cut) = expected;
        let parts = GapParts {
            client: ms(client),
            tool: ms(tool),
            wait: ms(wait),
            subagent: Span::ZERO,
        };
        assert_eq!(ran.gaps()[0], (parts, ms(cut)), "{pace:?} {after:?}");
        assert_eq!(ran.calls[1].0, Time::ZERO + ms(1000) + parts.total());
    };
    // The cap of a minute bounds people and what nobody knows, never tools.
    check(Pace::Tools, Ending::ToolCall, 1.0, (2, 60_010, 0, 10_000));
    check(Pace::Tools, Ending::Unknown, 1.0, (2, 60_010, 0, 10_000));
    check(Pace::Tools, Ending::EndOfTurn, 1.0, (2, 10, 0, 0));
    check(
        Pace::Recorded,
        Ending::ToolCall,
        1.0,
        (2, 60_010, 60_000, 50_000),
    );
    check(
        Pace::Recorded,
        Ending::EndOfTurn,
        1.0,
        (2, 10, 120_000, 50_000),
    );
    check(
        Pace::Recorded,
        Ending::EndOfTurn,
        2.0,
        (1, 5, 60_000, 50_000),
    );
    check(Pace::None, Ending::ToolCall, 1.0, (0, 0, 0, 0));
}

#[test]
fn long_tools_are_never_cut() {
    let tool = Gap {
        tool: ms(900_000),
        ..Gap::default()
    };
    let trace = trace(vec![session(vec![thread(
        Join::Blocking,
        vec![tool, Gap::default()],
    )])]);
    let ran = run(&trace, plan(Conduct::default()), &[], 0);
    assert_eq!(ran.called(), [(0, 0), (901_000, 0)]);
}

/// A parent of two steps that starts children after the first answer.
fn family(children: &[(Join, u64, usize)], joins: &[u32]) -> Trace {
    let spawns = children.iter().zip(1..);
    let spawns = spawns.map(|(&(_, offset, _), thread)| Spawn {
        thread,
        offset: ms(offset),
    });
    let first = Gap {
        tool: ms(50),
        spawns: spawns.collect(),
        joins: joins.into(),
        ..Gap::default()
    };
    let mut threads = vec![thread(Join::Blocking, vec![first, Gap::default()])];
    for &(join, _, steps) in children {
        threads.push(thread(join, vec![Gap::default(); steps]));
    }
    trace(vec![session(threads)])
}

#[test]
fn a_joined_parent_resumes_after_the_last_child_and_the_rest_of_its_gap() {
    let trace = family(&[(Join::Blocking, 0, 1), (Join::Blocking, 100, 2)], &[1, 2]);
    let ran = run(&trace, plan(Conduct::default()), &[], 0);
    assert_eq!(
        ran.called(),
        [(0, 0), (1000, 1), (1100, 2), (2100, 2), (3150, 0)]
    );
    let gaps = ran.gaps();
    let parent = gaps
        .iter()
        .find(|(gap, _)| gap.subagent > Span::ZERO)
        .unwrap();
    assert_eq!((parent.0.subagent, parent.0.tool), (ms(2100), ms(50)));
    // The offset is a wait of the recording too.
    let hasty = Conduct {
        pace: Pace::None,
        ..Conduct::default()
    };
    let ran = run(&trace, plan(hasty), &[], 0);
    assert_eq!(
        ran.called(),
        [(0, 0), (1000, 1), (1000, 2), (2000, 2), (3000, 0)]
    );
}

#[test]
fn a_blocking_child_holds_its_parent_even_if_no_step_names_it() {
    let ran = run(
        &family(&[(Join::Blocking, 0, 3)], &[]),
        plan(Conduct::default()),
        &[],
        0,
    );
    assert_eq!(ran.called()[4], (4050, 0));
}

#[test]
fn a_run_waits_for_async_children_and_not_for_detached_ones() {
    let ran = run(
        &family(&[(Join::Async, 0, 5)], &[]),
        plan(Conduct::default()),
        &[],
        0,
    );
    assert!(ran.called().contains(&(1050, 0)), "the parent goes on");
    assert_eq!(ran.ended(), [(6000, RunOutcome::Completed)]);
    let two = Plan {
        runs: Some(2),
        ..plan(Conduct::default())
    };
    let ran = run(&family(&[(Join::Detached, 0, 5)], &[]), two, &[], 0);
    assert_eq!(ran.ended()[0], (2050, RunOutcome::Completed));
    // The next run starts while the detached child is still at it, under names of its own.
    assert!(ran.called().contains(&(2050, 2)));
    assert!(ran.called().contains(&(5000, 1)));
    assert_eq!(ran.calls.len(), 14);
}

#[test]
fn refused_calls_are_passed_over_or_end_the_run() {
    let gaps = vec![
        Gap {
            tool: ms(10),
            ..Gap::default()
        };
        3
    ];
    let trace = trace(vec![session(vec![thread(Join::Blocking, gaps)])]);
    let refusals = [Outcome::Ok, Outcome::RefusedContext];
    let ran = run(&trace, plan(Conduct::default()), &refusals, 0);
    assert_eq!(ran.called(), [(0, 0), (1010, 0), (1020, 0)]);
    assert_eq!(ran.ended(), [(2030, RunOutcome::Completed)]);
    // Of the third prompt the engine knows what the first call left: 100 tokens and an answer of 10 but for its last.
    let third = ran.calls[2].1;
    assert_eq!(
        (third.seen, third.seen_computed),
        (Tokens(110), Tokens(109))
    );
    let stop = Conduct {
        on_refusal: OnRefusal::Stop,
        ..Conduct::default()
    };
    let ran = run(&trace, plan(stop), &refusals, 0);
    assert_eq!(ran.called(), [(0, 0), (1010, 0)]);
    assert_eq!(ran.ended(), [(1010, RunOutcome::Stopped)]);
}

#[test]
fn a_run_that_stops_takes_its_children_along() {
    let stop = Conduct {
        on_refusal: OnRefusal::Stop,
        ..Conduct::default()
    };
    let trace = family(&[(Join::Async, 0, 5), (Join::Async, 60_000, 5)], &[]);
    // The parent's second call is refused while one child calls and the other has not begun.
    let outcomes = [Outcome::Ok, Outcome::Ok, Outcome::RefusedMemory];
    let ran = run(&trace, plan(stop), &outcomes, 0);
    assert_eq!(ran.called(), [(0, 0), (1000, 1), (1050, 0)]);
    assert_eq!(ran.ended(), [(2000, RunOutcome::Stopped)]);
}

#[test]
fn calls_that_fail_for_now_are_made_again_after_longer_and_longer_pauses() {
    let gaps = vec![
        Gap {
            tool: ms(10),
            ..Gap::default()
        };
        2
    ];
    let trace = trace(vec![session(vec![thread(Join::Blocking, gaps)])]);
    let retries = Retries {
        limit: 3,
        pause: ms(100),
        ..Conduct::default().retries
    };
    let conduct = Conduct {
        retries,
        ..Conduct::default()
    };
    let ran = run(&trace, plan(conduct), &[Outcome::Unavailable; 2], 0);
    assert_eq!(ran.called(), [(0, 0), (100, 0), (300, 0), (1310, 0)]);
    // The pauses are the client's, within the lap.
    assert_eq!(
        ran.gaps()[0].0,
        GapParts {
            client: ms(300),
            tool: ms(10),
            ..GapParts::default()
        }
    );
    let ran = run(&trace, plan(conduct), &[Outcome::Unavailable; 4], 0);
    assert_eq!(
        ran.called(),
        [(0, 0), (100, 0), (300, 0), (700, 0), (710, 0)]
    );
}

#[test]
fn an_answer_cut_short_is_not_seen_beyond_its_end() {
    let gaps = vec![Gap::default(); 2];
    let trace = trace(vec![session(vec![thread(Join::Blocking, gaps)])]);
    let ran = run(&trace, plan(Conduct::default()), &[Outcome::Truncated], 4);
    let second = ran.calls[1].1;
    assert_eq!(
        (second.seen, second.seen_computed),
        (Tokens(106), Tokens(105))
    );
}

#[test]
fn a_warm_start_holds_all_of_a_resumed_prompt_but_its_newest_part() {
    let gaps = vec![Gap::default(); 3];
    let mut resumed = session(vec![thread(Join::Blocking, gaps)]);
    resumed.resumed = true;
    resumed.threads[0].steps[0].prompt_tokens = Tokens(160);
    let trace = trace(vec![resumed]);
    let warm = |warm_start| {
        let conduct = Conduct {
            warm_start,
            ..Conduct::default()
        };
        let ran = run(&trace, plan(conduct), &[], 0);
        ran.calls
            .iter()
            .map(|(_, call)| call.warm.0)
            .collect::<Vec<_>>()
    };
    // Growth is 40 and 100 tokens; of two the larger is the median.
    assert_eq!(warm(true), [60, 0, 0]);
    assert_eq!(warm(false), [0, 0, 0]);
}

#[test]
fn sessions_arrive_when_they_did_lanes_permitting() {
    let arriving = |arrival: Option<u64>| Session {
        arrival: arrival.map(ms),
        ..session(vec![thread(Join::Blocking, vec![Gap::default()])])
    };
    let trace = trace(vec![
        arriving(Some(5_000)),
        arriving(Some(8_000)),
        arriving(None),
    ]);
    let starts = |pace, agents, scale| {
        let conduct = Conduct {
            pace,
            pace_scale: scale,
            ..Conduct::default()
        };
        let ran = run(
            &trace,
            Plan {
                agents,
                ..plan(conduct)
            },
            &[],
            0,
        );
        let mut starts: Vec<(u64, u32)> = ran.called();
        starts.sort_unstable();
        starts.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(starts(Pace::Recorded, 3, 1.0), [0, 0, 3_000]);
    assert_eq!(starts(Pace::Recorded, 3, 2.0), [0, 0, 1_500]);
    // One lane takes them in input order.
    assert_eq!(starts(Pace::Recorded, 1, 1.0), [0, 3_000, 4_000]);
    assert_eq!(starts(Pace::Tools, 2, 1.0), [0, 0, 1_000]);
}

#[test]
fn copies_share_what_the_plan_says() {
    let one = || session(vec![thread(Join::Blocking, vec![Gap::default()])]);
    let trace = trace(vec![one(), one()]);
    let realms = |share| {
        let four = Plan {
            runs: Some(4),
            share,
            ..plan(Conduct::default())
        };
        let ran = run(&trace, four, &[], 0);
        let realms = ran
            .calls
            .iter()
            .map(|(_, call)| (call.realms.head, call.realms.private));
        realms.collect::<Vec<_>>()
    };
    assert_eq!(realms(Share::Head), [(0, 0), (0, 0), (0, 3), (0, 4)]);
    assert_eq!(realms(Share::None), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(realms(Share::All), [(0, 0); 4]);
}
