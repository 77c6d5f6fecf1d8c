//! Metrics over whole replays: laws that hold of every result, and cases worked out by hand.

use laptime::agent::{Conduct, Pace};
use laptime::call::{Call, CallParts, Outcome, Reply, TokenClasses};
use laptime::event::{Event, Sink};
use laptime::fleet::{Fleet, Plan, Share};
use laptime::ids::CallId;
use laptime::metrics::lap::LapParts;
use laptime::metrics::{CallRow, Metrics, RunMetrics};
use laptime::rig::Backend;
use laptime::trace::compile::Compiler;
use laptime::trace::record::Record;
use laptime::trace::{Source, Trace};
use laptime::units::{Span, Time, Tokens};
use laptime::{rng, sim};
use rand::Rng;
use std::collections::BTreeMap;

/// Reads records of the native format, one a line.
fn trace(lines: &str) -> Trace {
    let mut compiler = Compiler::default();
    compiler.begin(Source {
        name: "test".to_string(),
        format: "laptime".to_string(),
        digest: String::new(),
        losses: Vec::new(),
        problems: Vec::new(),
    });
    for line in lines.lines() {
        let record: Record = serde_json::from_str(line).unwrap();
        compiler.add(&record).unwrap();
    }
    compiler.finish()
}

fn recorded() -> Trace {
    trace(&std::fs::read_to_string(crate::cli::TRACE).unwrap())
}

fn plan(agents: u32, runs: u32) -> Plan {
    Plan {
        agents,
        runs: Some(runs),
        share: Share::Head,
        conduct: Conduct::default(),
    }
}

/// Answers after a time, and in a way, that chance decides; parts and classes are split by chance too.
struct Chance {
    random: rng::Stream,
    failures: u64,
    out: BTreeMap<(Time, CallId), Reply>,
}

impl Chance {
    fn new(seed: u64, failures: u64) -> Chance {
        let random = rng::stream(seed, "chance", 0);
        let out = BTreeMap::new();
        Chance {
            random,
            failures,
            out,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit.max(1)
    }

    fn reply(&mut self, now: Time, call: &Call) -> Reply {
        let fails = self.below(100) < self.failures;
        if fails {
            let outcome = match self.below(3) {
                0 => Outcome::RefusedContext,
                1 => Outcome::RefusedMemory,
                _ => Outcome::Unavailable,
            };
            return failed(now, call, outcome);
        }
        let parts = CallParts {
            client: Span(self.below(1_000)),
            queue: Span(self.below(1_000_000_000)),
            kv_transfer: Span(self.below(3)),
            prefill_new: Span(self.below(1_000_000_000)),
            reread_evicted: Span(self.below(1_000_000)),
            reread_uncached: Span(self.below(1_000_000)),
            reread_broken: Span(self.below(1_000_000)),
            decode: Span(self.below(5_000_000_000)),
            contention: Span(self.below(1_000_000_000)),
        };
        let cached = Tokens(self.below(call.prompt_tokens.0 + 1));
        let evicted = Tokens(self.below((call.prompt_tokens - cached).0 + 1));
        let first = Span(self.below(parts.total().0 + 1));
        Reply {
            bound: None,
            call: call.id,
            retry_after: None,
            prompt: call.prompt_tokens,
            outcome: Outcome::Ok,
            submitted: now,
            admitted: Some(now + parts.client),
            first_token: Some(now + first),
            finished: now + parts.total(),
            cached,
            output: call.output_tokens,
            classes: TokenClasses {
                new: call.prompt_tokens - cached - evicted,
                evicted,
                ..TokenClasses::default()
            },
            parts,
        }
    }
}

fn failed(now: Time, call: &Call, outcome: Outcome) -> Reply {
    let client = Span(10_000_000);
    Reply {
        bound: None,
        call: call.id,
        retry_after: None,
        prompt: call.prompt_tokens,
        outcome,
        submitted: now,
        admitted: None,
        first_token: None,
        finished: now + client,
        cached: Tokens::ZERO,
        output: Tokens::ZERO,
        classes: TokenClasses::default(),
        parts: CallParts {
            client,
            ..CallParts::default()
        },
    }
}

impl Backend for Chance {
    fn submit(&mut self, now: Time, call: Call) {
        let reply = self.reply(now, &call);
        reply.check(&call);
        self.out.insert((reply.finished, call.id), reply);
    }

    fn next_event(&mut self) -> Option<Time> {
        self.out.keys().next().map(|(at, _)| *at)
    }

    fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
        while let Some(entry) = self.out.first_entry().filter(|entry| entry.key().0 <= now) {
            replies.push(entry.remove());
        }
    }
}

fn run(trace: &Trace, plan: Plan, backend: &mut impl Backend) -> RunMetrics {
    let mut metrics = Metrics::default();
    sim::run(&mut Fleet::new(trace, plan), backend, &mut metrics);
    metrics.finish()
}

/// Asserts everything that must hold of any replay without children that outlive their run.
fn check_laws(metrics: &RunMetrics) {
    let calls: Vec<CallRow> = metrics.calls().collect();
    let by_id: BTreeMap<CallId, &CallRow> = calls.iter().map(|row| (row.call, row)).collect();
    let key = |row: &CallRow| (row.submitted, row.lap.run, row.call);
    assert!(calls.is_sorted_by_key(key));
    let mut in_laps = 0;
    let mut main: BTreeMap<_, Span> = BTreeMap::new();
    let mut total = LapParts::default();
    for lap in metrics.laps() {
        let mut parts = CallParts::default();
        for call in std::iter::once(&lap.call).chain(lap.retries) {
            assert_eq!(by_id[call].lap, lap.lap);
            parts += by_id[call].parts;
            in_laps += 1;
        }
        assert_eq!(parts, lap.parts.calls);
        assert_eq!(lap.end() - lap.start, lap.parts.total());
        if lap.lap.thread == 0 {
            *main.entry(lap.lap.run).or_default() += lap.parts.total();
            total += lap.parts;
        }
    }
    assert_eq!(in_laps, calls.len(), "every call is in one lap");
    for row in &metrics.runs {
        let (end, _) = row.end.expect("every run ends");
        assert_eq!(
            main[&row.run],
            end - row.start,
            "the main thread covers {:?}",
            row.run
        );
        assert_eq!(row.main, main[&row.run]);
    }
    let summary = &metrics.summary;
    assert_eq!(summary.parts, total);
    assert_eq!(summary.calls as usize, calls.len());
    assert_eq!(summary.failed_calls, summary.failures.iter().sum::<u32>());
    assert_eq!(
        summary.model,
        calls.iter().map(|row| row.parts.total()).sum()
    );
    assert_eq!(
        summary.tool,
        metrics.laps().map(|lap| lap.parts.gap.tool).sum()
    );
    assert_eq!(
        summary.tokens.prompt,
        summary.tokens.cached + summary.tokens.computed
    );
    let longest = metrics.laps().map(|lap| lap.parts.total()).max();
    assert_eq!(summary.lap.map(|spread| spread.max), longest);
    let slowest = metrics.slowest_laps(3);
    assert_eq!(slowest.first().map(|lap| lap.parts.total()), longest);
}

#[test]
fn the_laws_hold_whatever_the_engine_does() {
    let trace = recorded();
    for seed in 0..60 {
        let mut backend = Chance::new(seed, seed % 3 * 20);
        let metrics = run(&trace, plan(1 + seed as u32 % 4, 7), &mut backend);
        check_laws(&metrics);
        assert!(metrics.summary.calls >= 28, "seed {seed}");
    }
}

#[test]
fn events_give_the_same_figures_however_often_they_are_folded() {
    let trace = recorded();
    let mut events: Vec<Event> = Vec::new();
    sim::run(
        &mut Fleet::new(&trace, plan(3, 9)),
        &mut Chance::new(1, 10),
        &mut events,
    );
    let fold = || {
        let mut metrics = Metrics::default();
        for event in &events {
            metrics.event(event.clone());
        }
        format!("{:?}", metrics.finish())
    };
    assert_eq!(fold(), fold());
}

#[test]
fn a_call_made_again_stays_in_its_lap_and_its_pause_is_the_clients() {
    /// Fails every call twice before it answers.
    struct Stubborn {
        made: u32,
        out: Option<Reply>,
    }
    impl Backend for Stubborn {
        fn submit(&mut self, now: Time, call: Call) {
            self.made += 1;
            let mut chance = Chance::new(3, 0);
            self.out = Some(match self.made % 3 {
                0 => chance.reply(now, &call),
                _ => failed(now, &call, Outcome::Unavailable),
            });
        }
        fn next_event(&mut self) -> Option<Time> {
            self.out.map(|reply| reply.finished)
        }
        fn advance(&mut self, now: Time, replies: &mut Vec<Reply>) {
            replies.extend(self.out.take_if(|reply| reply.finished <= now));
        }
    }
    let trace = trace(
        r#"{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":9,"append":[{"tokens":9}]},"output":{"tokens":2}}
{"k":"step","id":"2","prompt":{"tokens":20,"keep":11,"append":[{"tokens":9}]},"output":{"tokens":2}}"#,
    );
    let metrics = run(&trace, plan(1, 1), &mut Stubborn { made: 0, out: None });
    check_laws(&metrics);
    let laps: Vec<_> = metrics.laps().collect();
    assert_eq!(
        (
            metrics.summary.calls,
            metrics.summary.failed_calls,
            laps.len()
        ),
        (6, 4, 2)
    );
    assert_eq!(laps[1].call, CallId(3));
    assert_eq!(laps[1].retries, [CallId(4), CallId(5)]);
    // One second, then two.
    assert_eq!(laps[0].parts.gap.client, Span(3_000_000_000));
}

#[test]
fn a_child_nobody_waits_for_outlasts_its_parents_laps() {
    let lines = |join: &str| {
        format!(
            r#"{{"k":"session","id":"s"}}
{{"k":"agent","id":"main","session":"s"}}
{{"k":"step","id":"1","agent":"main","prompt":{{"tokens":9,"append":[{{"tokens":9}}]}},"output":{{"tokens":2}}}}
{{"k":"agent","id":"child","session":"s","parent":"main","spawn_step":"1","spawn_offset_us":50000000,"join":"{join}"}}
{{"k":"step","id":"c","agent":"child","prompt":{{"tokens":9,"append":[{{"tokens":9}}]}},"output":{{"tokens":2}}}}"#
        )
    };
    for (join, waits) in [("async", true), ("detached", false)] {
        let metrics = run(&trace(&lines(join)), plan(1, 1), &mut Chance::new(5, 0));
        let (row, summary) = (metrics.runs[0], &metrics.summary);
        let lasted = row.end.unwrap().0 - row.start;
        assert_eq!(lasted > row.main, waits, "{join}");
        assert!(
            summary.wall > Span(50_000_000_000),
            "the last end counts, {join}"
        );
        assert_eq!((row.laps, summary.laps), (2, 2));
        assert_eq!(
            summary.parts.total(),
            row.main,
            "only main threads are summed"
        );
        let child = metrics.calls().find(|call| call.lap.thread == 1).unwrap();
        assert_eq!(child.parent, Some(CallId(0)));
    }
}

#[test]
fn time_between_tokens_leaves_out_the_first() {
    let trace = recorded();
    let metrics = run(&trace, plan(1, 1), &mut Chance::new(9, 0));
    for call in metrics.calls() {
        let writing = call.finished - call.first_token.unwrap();
        let expected = call.output.0.checked_sub(1).filter(|gaps| *gaps > 0);
        let expected = expected.map(|gaps| (writing.0 as f64 / gaps as f64).round() as u64);
        assert_eq!(call.itl().map(|span| span.0), expected);
        assert_eq!(
            call.ttft(),
            Some(call.first_token.unwrap() - call.submitted)
        );
    }
}

#[test]
fn without_waits_a_run_is_its_calls() {
    let trace = recorded();
    let mut still = plan(1, 2);
    still.conduct.pace = Pace::None;
    let metrics = run(&trace, still, &mut Chance::new(2, 0));
    check_laws(&metrics);
    assert_eq!(metrics.summary.tool, Span::ZERO);
    assert_eq!(metrics.summary.idle_cut, Span::ZERO);
}
