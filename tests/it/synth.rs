//! Synthetic sessions against the statistics they are drawn from, as published tables state them.
//!
//! The figures expected here are those of the recorded sessions (kv-cache-tester, 692 deduplicated sessions; MMBT, 301 runs),
//! not those of the preset files: reuse, shares and lifetimes are in no preset, they follow from how a session is made.

use crate::cli::Lab;
use crate::trace::shared;
use laptime::trace::content::Content;
use laptime::trace::inspect::{Summary, inspect};
use laptime::trace::read::{ReadOptions, load, load_bytes};
use laptime::trace::synth::{Mix, fit, write};
use laptime::trace::{Step, Trace};
use std::collections::HashSet;

fn bytes(mix: &Mix, sessions: u64, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write(mix, sessions, seed, &mut |_| {}, &mut out).unwrap();
    out
}

fn read(bytes: &[u8]) -> Trace {
    let trace = load_bytes("synth.jsonl", bytes, &ReadOptions::default()).unwrap();
    assert_eq!(trace.sources[0].problems, Vec::<String>::new());
    trace
}

fn made(preset: &str, sessions: u64, seed: u64) -> Trace {
    read(&bytes(&Mix::preset(preset).unwrap(), sessions, seed))
}

/// What is measured of each session's main conversation.
#[derive(Default)]
struct Figures {
    turns: Vec<f64>,
    first: Vec<f64>,
    output: Vec<f64>,
    growth: Vec<f64>,
    /// Prompt tokens that the request before did not begin with.
    uncached: Vec<f64>,
    tool: Vec<f64>,
    /// Prompt tokens of a session by the distinct ones of its prompts, as the recorded sessions were counted.
    reuse: Vec<f64>,
}

fn figures(trace: &Trace) -> Figures {
    let mut found = Figures::default();
    let content = &trace.content;
    for session in &trace.sessions {
        let steps = &session.threads[0].steps;
        found.turns.push(steps.len() as f64);
        found.first.push(steps[0].prompt_tokens.as_f64());
        found.reuse.push(reuse(content, steps));
        found
            .output
            .extend(steps.iter().map(|step| step.output_tokens.as_f64()));
        found.tool.extend(
            steps
                .iter()
                .map(|step| step.gap.tool.secs())
                .filter(|secs| *secs > 0.0),
        );
        for pair in steps.windows(2) {
            let (before, now) = (
                pair[0].prompt_tokens.as_f64(),
                pair[1].prompt_tokens.as_f64(),
            );
            let kept = content
                .end(content.meeting(pair[0].output, pair[1].prompt))
                .as_f64();
            found.growth.push(now - before);
            found.uncached.push(now - kept.min(before));
        }
    }
    found
}

/// Returns a session's prompt tokens by the distinct ones among them. Answers that no prompt repeats are not counted: block
/// hashes of prompts, of which the recorded sessions consist, do not show them.
fn reuse(content: &Content, steps: &[Step]) -> f64 {
    let (mut sent, mut distinct) = (0.0, 0.0);
    let mut met = HashSet::new();
    for step in steps {
        sent += step.prompt_tokens.as_f64();
        let fresh = content
            .upwards(step.prompt)
            .take_while(|&node| met.insert(node));
        distinct += fresh
            .map(|node| (content.end(node) - content.start(node)).as_f64())
            .sum::<f64>();
    }
    sent / distinct
}

fn quantile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Checks a figure against what was measured, within a share of it.
#[track_caller]
fn near(what: &str, found: f64, measured: f64, within: f64) {
    let off = (found / measured - 1.0).abs();
    assert!(
        off <= within,
        "{what}: {found} for {measured}, {:.1} % off",
        100.0 * off
    );
}

/// Checks a share against what was measured, within a tenth of what it lacks to the whole.
#[track_caller]
fn lacks(what: &str, found: f64, measured: f64) {
    let off = (found - measured).abs();
    assert!(
        off <= 0.1 * (1.0 - measured),
        "{what}: {found} for {measured}"
    );
}

#[test]
fn claude_code_is_as_recorded() {
    for seed in 1..=5 {
        let trace = made("claude-code", 1_000, seed);
        let total = inspect(&trace).total;
        let prompt = total.prompt.as_f64();
        let share = prompt / (prompt + total.output.as_f64());
        lacks("share of prompts in all tokens", share, 0.9963);
        lacks(
            "hit against the request before",
            total.shared_with_previous().unwrap(),
            0.9735,
        );
        // With first prompts cold.
        lacks(
            "hit with cold starts",
            total.shared.as_f64() / prompt,
            0.9620,
        );
        for (place, hit) in [0.784, 0.923, 0.970].into_iter().enumerate() {
            lacks("hit of a lifetime", total.lives(place).unwrap(), hit);
        }
        let timed = total.shared.as_f64() / total.timed.as_f64();
        lacks("hit without end", timed, 0.973);
        let found = figures(&trace);
        near("reuse p50", quantile(&found.reuse, 50.0), 22.1, 0.1);
        near("uncached p50", quantile(&found.uncached, 50.0), 708.0, 0.1);
        near("uncached mean", mean(&found.uncached), 3_133.0, 0.1);
        near("turns p50", quantile(&found.turns, 50.0), 44.0, 0.15);
        near("output p50", quantile(&found.output, 50.0), 222.0, 0.1);
        near("output mean", mean(&found.output), 441.0, 0.1);
        let resumed = total.resumed as f64 / total.sessions as f64;
        near("resumed", resumed, 0.44, 0.1);
    }
}

#[test]
fn its_halves_have_the_quantiles_of_their_rows() {
    for (preset, turns, first) in [
        (
            "claude-code-fresh",
            [(10.0, 12.0), (50.0, 68.0), (90.0, 177.6)],
            [(10.0, 13_297.0), (50.0, 19_030.0), (90.0, 24_440.0)],
        ),
        (
            "claude-code-resumed",
            [(10.0, 5.0), (50.0, 25.0), (90.0, 90.8)],
            [(10.0, 61_042.0), (50.0, 119_225.0), (90.0, 414_627.0)],
        ),
    ] {
        let found = figures(&made(preset, 1_000, 3));
        for (percent, measured) in turns {
            near(
                &format!("{preset}: turns p{percent}"),
                quantile(&found.turns, percent),
                measured,
                0.15,
            );
        }
        for (percent, measured) in first {
            near(
                &format!("{preset}: first p{percent}"),
                quantile(&found.first, percent),
                measured,
                0.15,
            );
        }
    }
}

/// A row of the statistics of local runs: p50 and p90 of requests, p50 of first prompts, p10, p50 and p90 of growth and of
/// answers, p50 of tool seconds, and the share of prompts in all tokens.
type LocalRow = (&'static str, [f64; 2], f64, [f64; 3], [f64; 3], f64, f64);

#[test]
fn local_runs_have_the_quantiles_of_their_rows() {
    let rows: [LocalRow; 3] = [
        (
            "local-minimal",
            [28.0, 131.0],
            1_394.0,
            [80.0, 203.0, 1_293.0],
            [37.0, 81.0, 1_001.0],
            0.07,
            0.994,
        ),
        (
            "ticket-triage",
            [16.0, 29.0],
            1_733.0,
            [166.0, 404.0, 2_105.0],
            [45.0, 245.0, 1_069.0],
            0.07,
            0.949,
        ),
        (
            "pr-audit",
            [54.0, 63.0],
            2_040.0,
            [104.0, 332.0, 1_462.0],
            [42.0, 92.0, 1_059.0],
            0.06,
            0.965,
        ),
    ];
    for (preset, turns, first, growth, output, tool, share) in rows {
        let trace = made(preset, 1_000, 4);
        let found = figures(&trace);
        for (percent, measured) in [50.0, 90.0].into_iter().zip(turns) {
            near(
                &format!("{preset}: turns p{percent}"),
                quantile(&found.turns, percent),
                measured,
                0.15,
            );
        }
        near(
            &format!("{preset}: first p50"),
            quantile(&found.first, 50.0),
            first,
            0.1,
        );
        for (at, percent) in [10.0, 50.0, 90.0].into_iter().enumerate() {
            near(
                &format!("{preset}: growth p{percent}"),
                quantile(&found.growth, percent),
                growth[at],
                0.15,
            );
            near(
                &format!("{preset}: output p{percent}"),
                quantile(&found.output, percent),
                output[at],
                0.15,
            );
        }
        near(
            &format!("{preset}: tools p50"),
            quantile(&found.tool, 50.0),
            tool,
            0.1,
        );
        let total = inspect(&trace).total;
        let prompt = total.prompt.as_f64();
        let found = prompt / (prompt + total.output.as_f64());
        assert!(
            (found - share).abs() < 0.02,
            "{preset}: prompts are {found}, measured {share}"
        );
    }
}

#[test]
fn explorers_go_out_in_groups_and_share_nothing_with_their_parent() {
    let trace = made("explore-fanout", 300, 5);
    let total = inspect(&trace).total;
    assert_eq!(total.agents.joined, total.agents.count);
    assert!((1..=3).contains(&total.agents.largest_launch));
    near(
        "groups",
        total.agents.count as f64 / total.agents.launches as f64,
        63.0 / 38.0,
        0.15,
    );
    near(
        "requests of one",
        total.agents.calls as f64 / total.agents.count as f64,
        10.73,
        0.1,
    );
    let content = &trace.content;
    let (mut turns, mut first, mut siblings) = (Vec::new(), Vec::new(), Vec::new());
    for session in &trace.sessions {
        let parent = session.threads[0].steps[0].prompt;
        for thread in &session.threads[1..] {
            let own = &thread.steps[0];
            assert_eq!(content.end(content.meeting(parent, own.prompt)).0, 0);
            turns.push(thread.steps.len() as f64);
            first.push(own.prompt_tokens.as_f64());
        }
        for pair in session.threads[1..].windows(2) {
            let (one, other) = (pair[0].steps[0].prompt, &pair[1].steps[0]);
            let shared = content.end(content.meeting(one, other.prompt)).as_f64();
            siblings.push(shared / other.prompt_tokens.as_f64());
        }
    }
    near("turns p50", quantile(&turns, 50.0), 11.0, 0.1);
    near("first prompt p50", quantile(&first, 50.0), 10_335.0, 0.1);
    near(
        "shared with a sibling p50",
        quantile(&siblings, 50.0),
        0.981,
        0.01,
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_more_sessions_begin_with_fewer() {
    let mix = Mix::preset("explore-fanout").unwrap();
    let few = bytes(&mix, 5, 9);
    assert_eq!(few, bytes(&mix, 5, 9));
    assert!(bytes(&mix, 8, 9).starts_with(&few));
    assert_ne!(few, bytes(&mix, 5, 10));
}

#[test]
fn more_of_given_sessions_looks_like_them() {
    let Some(folder) = shared("claude-code-hashed") else {
        return;
    };
    let given = load(&[folder], &ReadOptions::default(), &mut |_| {}).unwrap();
    let mix = fit(&given).unwrap();
    for seed in 1..=5 {
        alike(&given, &read(&bytes(&mix, 640, seed)));
    }
}

fn alike(given: &Trace, more: &Trace) {
    let (was, is) = (inspect(given).total, inspect(more).total);
    let each = |of: &Summary, value: f64| value / of.sessions as f64;
    near(
        "requests of a session",
        each(&is, (is.calls - is.agents.calls) as f64),
        each(&was, (was.calls - was.agents.calls) as f64),
        0.25,
    );
    near(
        "resumed",
        each(&is, is.resumed as f64),
        each(&was, was.resumed as f64),
        0.15,
    );
    near(
        "prompt of a request",
        is.prompt.as_f64() / is.calls as f64,
        was.prompt.as_f64() / was.calls as f64,
        0.25,
    );
    near(
        "output of a request",
        is.output.as_f64() / is.calls as f64,
        was.output.as_f64() / was.calls as f64,
        0.15,
    );
    near(
        "growth p50",
        is.growth.p50 as f64,
        was.growth.p50 as f64,
        0.15,
    );
    near(
        "first prompt p50",
        is.first_prompt.p50 as f64,
        was.first_prompt.p50 as f64,
        0.25,
    );
    near(
        "human p50",
        is.waits.human.p50.secs(),
        was.waits.human.p50.secs(),
        0.25,
    );
    near(
        "unknown p50",
        is.waits.unknown_tool.p50.secs(),
        was.waits.unknown_tool.p50.secs(),
        0.15,
    );
    near(
        "model p50",
        is.waits.model.p50.secs(),
        was.waits.model.p50.secs(),
        0.15,
    );
    sub_agents(&was, &is);
    let shared = |of: &Summary| of.shared_with_previous().unwrap();
    assert!(
        (shared(&is) - shared(&was)).abs() < 0.01,
        "{} for {}",
        shared(&is),
        shared(&was)
    );
    for place in 0..3 {
        let (found, given) = (is.lives(place).unwrap(), was.lives(place).unwrap());
        assert!(
            (found - given).abs() < 0.04,
            "lifetime {place}: {found} for {given}"
        );
    }
}

/// Compares sub-agents: few sessions have any, so how many there are is left to chance within a third.
fn sub_agents(was: &Summary, is: &Summary) {
    let of = |of: &Summary| {
        let (own, sessions) = (&of.agents, of.sessions as f64);
        [
            own.joined as f64 / sessions,
            own.count as f64 / own.launches as f64,
            own.calls as f64 / own.count as f64,
            own.prompt.as_f64() / own.calls as f64,
        ]
    };
    let what = [
        ("sub-agents of a session", 0.35),
        ("sub-agents of a launch", 0.2),
        ("requests of a sub-agent", 0.2),
        ("prompt of a sub-agent's request", 0.4),
    ];
    for ((what, within), (is, was)) in what.into_iter().zip(of(is).into_iter().zip(of(was))) {
        near(what, is, was, within);
    }
}

#[test]
fn the_command_writes_what_inspect_and_replay_read() {
    let lab = Lab::new();
    let made = lab.run(&[
        "synth",
        "--preset",
        "pr-audit",
        "--sessions",
        "3",
        "--seed",
        "7",
        "-o",
        "pr.jsonl.gz",
    ]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let found = lab.run(&["inspect", "pr.jsonl.gz", "--json", "-"]).json();
    assert_eq!(found["total"]["sessions"], 3);
    let wrong = lab.run(&["synth", "--preset", "pr-adit", "-o", "x.jsonl"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("pr-audit"), "{}", wrong.stderr);
}
