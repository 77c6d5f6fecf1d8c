//! Planted causes: a trace or a rig with one thing wrong, which the explanation must name before all else.

use laptime::agent::Conduct;
use laptime::catalog::Catalog;
use laptime::fleet::{Plan, Share};
use laptime::study::explain::{Cause, Explained, explain};
use laptime::study::figures::Ground;
use laptime::trace::Trace;
use laptime::trace::read;
use std::collections::BTreeMap;
use std::fmt::Write;

const RIG: &str = "h100/vllm/llama-3.1-8b-bf16";

/// A session that begins with `first` tokens and adds `each` in each of `laps` steps.
struct Planted {
    first: u64,
    each: u64,
    laps: u64,
    output: u64,
    tool_us: u64,
    /// Whether the answer's reasoning is dropped and the rest of the conversation is rendered anew each time.
    renders_anew: bool,
}

const QUIET: Planted = Planted {
    first: 3000,
    each: 400,
    laps: 12,
    output: 60,
    tool_us: 20_000,
    renders_anew: false,
};

fn trace(sessions: &[Planted]) -> Trace {
    let mut text = "{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n".to_string();
    for (place, planted) in sessions.iter().enumerate() {
        let Planted {
            first,
            each,
            laps,
            output,
            tool_us,
            renders_anew,
        } = planted;
        let _ = writeln!(text, "{{\"k\":\"session\",\"id\":\"s{place}\"}}");
        let mut tokens = *first;
        for lap in 0..*laps {
            let prompt = match (lap, renders_anew) {
                (0, _) => format!("{{\"tokens\":{tokens},\"append\":[{{\"tokens\":{tokens}}}]}}"),
                (_, false) => {
                    let keep = tokens + output;
                    tokens = keep + each;
                    format!(
                        "{{\"tokens\":{tokens},\"keep\":{keep},\"append\":[{{\"tokens\":{each}}}]}}"
                    )
                }
                (_, true) => {
                    let again = tokens - 1000;
                    tokens += each;
                    format!(
                        "{{\"tokens\":{tokens},\"keep\":1000,\"append\":[{{\"tokens\":{again},\"again\":true}},{{\"tokens\":{each}}}],\"break\":\"reasoning-dropped\",\"break_at\":\"recorded\"}}"
                    )
                }
            };
            let _ = writeln!(
                text,
                "{{\"k\":\"step\",\"id\":\"{lap}\",\"session\":\"s{place}\",\"prompt\":{prompt},\"output\":{{\"tokens\":{output}}},\
                 \"gap\":{{\"tool_us\":{tool_us}}},\"finish\":\"tool-call\"}}"
            );
        }
    }
    read::load_bytes("planted", text.as_bytes(), &read::ReadOptions::default()).unwrap()
}

fn explained(sessions: &[Planted], settings: &[(&str, &str)]) -> Explained {
    let (trace, catalog) = (trace(sessions), Catalog::builtin());
    let ground = Ground {
        trace: &trace,
        habits: BTreeMap::new(),
        prices: laptime::study::economy::Prices::default(),
        catalog: &catalog,
        seed: 0,
    };
    let plan = Plan {
        agents: sessions.len() as u32,
        runs: None,
        share: Share::Head,
        conduct: Conduct::default(),
    };
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    explain(
        &ground,
        &(RIG.to_string(), settings.collect()),
        plan,
        None,
        &|| {},
    )
    .unwrap()
}

fn first_cause(sessions: &[Planted], settings: &[(&str, &str)], expected: Cause) {
    let found = explained(sessions, settings);
    let told: Vec<String> = found
        .causes
        .iter()
        .map(|effect| format!("{} {:.3}", effect.what.word(), effect.saved))
        .collect();
    assert_eq!(found.causes[0].what, expected, "{told:?}");
    assert!(found.causes[0].saved > 0.1, "{told:?}");
}

#[test]
fn a_cache_that_is_too_small_is_named() {
    let large = || Planted {
        first: 20_000,
        ..QUIET
    };
    first_cause(
        &[large(), large(), large(), large()],
        &[("engine.num_gpu_blocks_override", "3500")],
        Cause::CacheTooSmall,
    );
}

#[test]
fn a_greedy_neighbour_is_named() {
    let greedy = Planted {
        first: 60_000,
        each: 30_000,
        laps: 3,
        output: 20,
        ..QUIET
    };
    let short = || Planted { laps: 4, ..QUIET };
    first_cause(
        &[short(), short(), short(), greedy],
        &[],
        Cause::GreedyNeighbour,
    );
}

#[test]
fn reasoning_that_is_dropped_each_turn_is_named() {
    let anew = Planted {
        first: 40_000,
        renders_anew: true,
        ..QUIET
    };
    first_cause(&[anew], &[], Cause::BrokenPrefix);
}

#[test]
fn slow_tools_are_named() {
    let slow = || Planted {
        tool_us: 30_000_000,
        ..QUIET
    };
    first_cause(&[slow(), slow()], &[], Cause::SlowTools);
}

#[test]
fn too_few_slots_are_named() {
    let sessions: Vec<Planted> = (0..8)
        .map(|_| Planted {
            output: 300,
            ..QUIET
        })
        .collect();
    first_cause(
        &sessions,
        &[("engine.max_num_seqs", "1")],
        Cause::TooFewSlots,
    );
}

#[test]
fn more_of_anything_never_makes_a_lone_agent_slower() {
    let found = explained(
        &[Planted {
            first: 20_000,
            ..QUIET
        }],
        &[],
    );
    for effect in &found.levers {
        assert!(
            effect.saved > -0.02,
            "{} costs {:.3}",
            effect.what.word(),
            -effect.saved
        );
    }
    let bandwidth = found
        .levers
        .iter()
        .find(|effect| effect.what.word() == "bandwidth x2")
        .unwrap();
    assert!(
        bandwidth.saved > 0.2,
        "decode is most of it, and reads memory"
    );
}
