//! How often a gate raises a false alarm, and how often it misses a true one: many simulated noisy comparisons.

use laptime::agent::Conduct;
use laptime::catalog::Catalog;
use laptime::fleet::{Plan, Share};
use laptime::metrics::stats::Quantiles;
use laptime::operating_point::Kind;
use laptime::rng;
use laptime::study::figures::{Figures, Ground};
use laptime::study::gate::{Gate, Verdict, judge, verdict};
use laptime::study::target::Figure;
use laptime::trace::read;
use laptime::units::{Span, Time};
use rand_distr::{Distribution, Normal};
use std::collections::BTreeMap;

const COMPARISONS: u64 = 200;
const NOISE: f64 = 0.05;

/// A replay of so many runs, told as if it had been measured.
fn measured(runs: u32) -> Figures {
    let bytes = std::fs::read(crate::cli::TRACE).unwrap();
    let trace = read::load_bytes("two-sessions", &bytes, &read::ReadOptions::default()).unwrap();
    let catalog = Catalog::builtin();
    let ground = Ground {
        trace: &trace,
        habits: BTreeMap::new(),
        prices: laptime::study::economy::Prices::default(),
        catalog: &catalog,
        seed: 0,
    };
    let plan = Plan {
        agents: 2,
        runs: Some(runs),
        share: Share::Head,
        conduct: Conduct::default(),
    };
    let rig = ("h100/vllm/llama-3.1-8b-bf16".to_string(), Vec::new());
    let mut figures = ground.evaluate(&rig, plan).unwrap();
    figures.point.kind = Kind::Live;
    figures
}

/// The same, with every run as much longer as chance has it and `slower` besides.
fn noisy(base: &Figures, seed: u64, number: u64, by_run: bool, slower: f64) -> Figures {
    let mut random = rng::stream(seed, "noise", number);
    let normal = Normal::new(1.0, NOISE).unwrap();
    let mut found = base.clone();
    let whole: f64 = normal.sample(&mut random);
    for run in &mut found.runs {
        let own: f64 = normal.sample(&mut random);
        let factor = slower * if by_run { own } else { whole };
        if let Some((end, _)) = &mut run.end {
            let lasted = (*end - run.start).secs() * factor.max(0.1);
            *end = Time(run.start.0 + Span::from_secs(lasted).0);
        }
    }
    let mut spans: Vec<Span> = found.run_spans().into_values().collect();
    found.summary.run = Quantiles::of(&mut spans);
    found
}

fn gate(interleaved: bool) -> Gate {
    let tolerance = |name: &str| (Figure::parse(name).unwrap(), 0.05);
    Gate {
        targets: Vec::new(),
        tolerances: vec![tolerance("run_s.mean"), tolerance("run_s.p50")],
        exact: vec![Figure::parse("tokens.cached").unwrap()],
        confidence: 0.95,
        interleaved,
    }
}

/// Returns how many of the comparisons fail.
fn alarms(base: &Figures, repeats: u64, by_run: bool, gate: &Gate, slower: f64) -> u64 {
    let failed = (0..COMPARISONS).filter(|&seed| {
        let many = |first: u64, slower: f64| -> Vec<Figures> {
            let numbers = first..first + repeats;
            numbers
                .map(|number| noisy(base, seed, number, by_run, slower))
                .collect()
        };
        let findings = judge(gate, &many(repeats, slower), &many(0, 1.0), seed);
        verdict(&findings) == Verdict::Fail
    });
    failed.count() as u64
}

fn check(runs: u32, repeats: u64, by_run: bool, interleaved: bool) {
    let (base, gate) = (measured(runs), gate(interleaved));
    let false_alarms = alarms(&base, repeats, by_run, &gate, 1.0);
    let caught = alarms(&base, repeats, by_run, &gate, 1.1);
    assert!(
        false_alarms * 100 <= COMPARISONS * 5,
        "{false_alarms} false alarms"
    );
    assert!(caught * 100 >= COMPARISONS * 95, "{caught} caught");
}

#[test]
fn repeats_that_vary_as_a_whole_are_told_from_a_slowdown() {
    check(2, 10, false, false);
}

#[test]
fn repeats_in_turns_are_told_from_a_slowdown() {
    check(2, 10, false, true);
}

#[test]
fn runs_of_a_single_result_are_told_from_a_slowdown() {
    check(30, 1, true, false);
}

#[test]
fn too_few_repeats_are_unclear_and_no_alarm() {
    let base = measured(1);
    let (old, new) = (
        noisy(&base, 1, 0, false, 1.0),
        noisy(&base, 1, 0, false, 1.5),
    );
    let findings = judge(&gate(false), &[new], &[old], 0);
    assert_eq!(verdict(&findings), Verdict::Unclear, "{findings:?}");
}

#[test]
fn a_whole_number_that_moves_once_in_a_while_is_no_alarm() {
    let base = measured(2);
    let of = |cached: u64| {
        let mut one = base.clone();
        one.summary.tokens.cached = laptime::units::Tokens(cached);
        one
    };
    let verdict = |new: [u64; 6]| {
        let findings = judge(&gate(false), &new.map(of), &[7; 6].map(of), 0);
        findings.last().unwrap().verdict
    };
    assert_eq!(verdict([7; 6]), Verdict::Pass);
    // That the only other one of twelve is among the six new ones happens every other time.
    assert_eq!(verdict([7, 7, 9, 7, 7, 7]), Verdict::Unclear);
    // Four of twelve all new: 15 of 495 ways.
    assert_eq!(verdict([9, 9, 9, 9, 7, 7]), Verdict::Fail);
    assert_eq!(verdict([9; 6]), Verdict::Fail);
}
