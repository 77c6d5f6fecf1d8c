//! Habits that break prefixes: what each costs, token by token, on both engines.

use laptime::agent::Conduct;
use laptime::catalog::Catalog;
use laptime::fleet::{Plan, Share};
use laptime::study::habits::Habits;
use laptime::study::replay::{Workload, replay};
use laptime::study::rig;
use laptime::trace::Trace;
use laptime::trace::read::{ReadOptions, load_bytes};

const VLLM: &str = "rtx-5090/vllm/llama-3.1-8b-bf16";
const LLAMA: &str = "rtx-5090/llama.cpp/llama-3.1-8b-q8_0";

/// A head of 160 tokens, three calls with tools between them, and one that follows a person.
const TRACE: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"segment","id":"head","kind":"system","tokens":160}
{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":200,"append":[{"seg":"head"},{"tokens":40}]},"output":{"tokens":32,"reasoning":20},"finish":"tool-call"}
{"k":"step","id":"2","prompt":{"tokens":272,"keep":232,"append":[{"tokens":40}]},"output":{"tokens":32,"reasoning":24},"finish":"tool-call"}
{"k":"step","id":"3","prompt":{"tokens":344,"keep":304,"append":[{"tokens":40}]},"output":{"tokens":16,"reasoning":0},"finish":"end-of-turn"}
{"k":"step","id":"4","prompt":{"tokens":400,"keep":360,"append":[{"tokens":40}]},"output":{"tokens":16,"reasoning":6},"finish":"end-of-turn"}
"#;

fn trace(text: &str) -> Trace {
    load_bytes("small", text.as_bytes(), &ReadOptions::default()).unwrap()
}

fn habits(settings: &[(&str, &str)]) -> Habits {
    parsed(settings).unwrap()
}

fn parsed(settings: &[(&str, &str)]) -> Result<Habits, String> {
    let settings: Vec<(String, String)> = settings
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
        .collect();
    Habits::parse(&settings).map_err(|error| error.to_string())
}

/// Of each call what came from the cache, was not cached, broken, and new.
fn classes(spec: &str, trace: &Trace, runs: u32, share: Share) -> Vec<[u64; 4]> {
    let settings = match spec {
        VLLM => vec![("engine.block_size".to_string(), "16".to_string())],
        _ => Vec::new(),
    };
    let rig = rig::build(spec, &settings, &Catalog::builtin(), &trace.content).unwrap();
    let plan = Plan {
        agents: 1,
        runs: Some(runs),
        share,
        conduct: Conduct::default(),
    };
    let workload = Workload::new(trace, plan, 0);
    let replayed = replay(trace, &workload, rig, &mut Vec::new());
    let calls = replayed.metrics.calls();
    calls
        .map(|call| {
            assert_eq!(call.classes.evicted.0, 0);
            let classes = call.classes;
            [call.cached, classes.uncached, classes.broken, classes.new].map(|tokens| tokens.0)
        })
        .collect()
}

fn costs(settings: &[(&str, &str)], vllm: &[[u64; 4]], llama: &[[u64; 4]]) {
    let changed = habits(settings).applied(trace(TRACE)).unwrap();
    assert_eq!(classes(VLLM, &changed, 1, Share::Head), vllm, "vLLM");
    assert_eq!(classes(LLAMA, &changed, 1, Share::Head), llama, "llama.cpp");
}

#[test]
fn without_habits_only_what_an_engine_does_not_keep_is_read_again() {
    costs(
        &[],
        &[
            [0, 0, 0, 200],
            [224, 8, 0, 40],
            [288, 16, 0, 40],
            [352, 8, 0, 40],
        ],
        &[
            [0, 0, 0, 200],
            [231, 1, 0, 40],
            [303, 1, 0, 40],
            [359, 1, 0, 40],
        ],
    );
}

#[test]
fn a_time_in_the_system_prompt_breaks_all_that_follows_it() {
    costs(
        &[("agent.timestamp", "system")],
        &[
            [0, 0, 0, 200],
            [0, 0, 232, 40],
            [0, 0, 304, 40],
            [0, 0, 360, 40],
        ],
        &[
            [0, 0, 0, 200],
            [0, 0, 232, 40],
            [0, 0, 304, 40],
            [0, 0, 360, 40],
        ],
    );
    costs(
        &[("agent.timestamp", "system:100")],
        &[
            [0, 0, 0, 200],
            [96, 4, 132, 40],
            [96, 4, 204, 40],
            [96, 4, 260, 40],
        ],
        &[
            [0, 0, 0, 200],
            [100, 0, 132, 40],
            [100, 0, 204, 40],
            [100, 0, 260, 40],
        ],
    );
}

#[test]
fn an_answer_that_is_written_anew_is_broken_once() {
    costs(
        &[("agent.rerender", "tool-calls")],
        &[
            [0, 0, 0, 200],
            [192, 8, 32, 40],
            [272, 0, 32, 40],
            [352, 8, 0, 40],
        ],
        &[
            [0, 0, 0, 200],
            [200, 0, 32, 40],
            [272, 0, 32, 40],
            [359, 1, 0, 40],
        ],
    );
}

#[test]
fn a_late_tool_list_loses_the_whole_prompt_once() {
    costs(
        &[("agent.tools", "late:3")],
        &[
            [0, 0, 0, 200],
            [224, 8, 0, 40],
            [0, 0, 304, 40],
            [352, 8, 0, 40],
        ],
        &[
            [0, 0, 0, 200],
            [231, 1, 0, 40],
            [0, 0, 304, 40],
            [359, 1, 0, 40],
        ],
    );
}

#[test]
fn copies_of_a_session_share_what_habits_leave_of_its_head() {
    let first = |settings: &[(&str, &str)]| {
        let changed = habits(settings).applied(trace(TRACE)).unwrap();
        classes(VLLM, &changed, 2, Share::Head)[4][0]
    };
    assert_eq!(first(&[]), 160);
    assert_eq!(first(&[("agent.timestamp", "system:100")]), 96);
    assert_eq!(first(&[("agent.timestamp", "system")]), 0);
    assert_eq!(first(&[("agent.tools", "late:2")]), 160);
    assert_eq!(first(&[("agent.rerender", "tool-calls")]), 160);
}

#[test]
fn no_habits_leave_the_trace_as_it_is() {
    let plain = trace(TRACE);
    let same = habits(&[("agent.timestamp", "none"), ("agent.tools", "recorded")])
        .applied(plain.clone())
        .unwrap();
    assert_eq!(plain.sessions, same.sessions);
}

#[test]
fn a_habit_that_does_not_exist_is_an_error_with_a_hint() {
    let wrong = |key, value| parsed(&[(key, value)]).unwrap_err();
    assert!(wrong("agent.timestamps", "system").contains("did you mean `agent.timestamp`?"));
    assert!(wrong("agent.timestamp", "user").contains("expected none, system"));
    assert!(wrong("agent.tools", "late:1").contains("at least 2"));
    assert!(wrong("agent.rerender", "all").contains("tool-calls"));
}

/// The same conversation under a template that sends no reasoning again: what was said stands at another place.
const DROPPED: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":200,"append":[{"tokens":200}]},"output":{"tokens":32,"reasoning":20},"finish":"tool-call"}
{"k":"step","id":"2","prompt":{"tokens":252,"keep":200,"append":[{"tokens":12,"again":true},{"tokens":40}],"break":"reasoning-dropped"},"output":{"tokens":16,"reasoning":0},"finish":"end-of-turn"}
"#;

#[test]
fn reasoning_that_is_not_sent_again_breaks_the_prompt_where_it_began() {
    costs(
        &[("agent.reasoning", "dropped")],
        &[
            [0, 0, 0, 200],
            [192, 8, 12, 40],
            [240, 12, 8, 40],
            [304, 12, 0, 40],
        ],
        &[
            [0, 0, 0, 200],
            [200, 0, 12, 40],
            [252, 0, 8, 40],
            [315, 1, 0, 40],
        ],
    );
}

#[test]
fn a_template_that_drops_reasoning_when_a_person_speaks_breaks_the_whole_turn_then() {
    costs(
        &[("agent.reasoning", "turn")],
        &[
            [0, 0, 0, 200],
            [224, 8, 0, 40],
            [288, 16, 0, 40],
            [192, 8, 116, 40],
        ],
        &[
            [0, 0, 0, 200],
            [231, 1, 0, 40],
            [303, 1, 0, 40],
            [200, 0, 116, 40],
        ],
    );
}

#[test]
fn reasoning_that_was_dropped_can_be_kept() {
    let recorded = trace(DROPPED);
    let plain = classes(LLAMA, &recorded, 1, Share::Head);
    assert_eq!(plain, [[0, 0, 0, 200], [200, 0, 12, 40]]);
    let kept = habits(&[("agent.reasoning", "kept")])
        .applied(recorded)
        .unwrap();
    let kept = classes(LLAMA, &kept, 1, Share::Head);
    assert_eq!(kept, [[0, 0, 0, 200], [231, 1, 0, 40]]);
    // What is so already stays as it is.
    let same = habits(&[("agent.reasoning", "dropped")])
        .applied(trace(DROPPED))
        .unwrap();
    assert_eq!(classes(LLAMA, &same, 1, Share::Head), plain);
    let same = habits(&[("agent.reasoning", "kept")])
        .applied(trace(TRACE))
        .unwrap();
    let recorded = classes(LLAMA, &trace(TRACE), 1, Share::Head);
    assert_eq!(classes(LLAMA, &same, 1, Share::Head), recorded);
}

#[test]
fn reasoning_of_unknown_size_is_not_guessed() {
    let unknown = TRACE.replace(r#","reasoning":24"#, "");
    let refused = habits(&[("agent.reasoning", "dropped")])
        .applied(trace(&unknown))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("1 of 3 answers"), "{refused}");
    assert!(refused.contains("session `s`"), "{refused}");
    assert!(
        parsed(&[("agent.reasoning", "sometimes")])
            .unwrap_err()
            .contains("kept, dropped or turn")
    );
}

/// Three calls, ten seconds and then six minutes of tools apart.
const SLOW: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"segment","id":"head","kind":"system","tokens":160}
{"k":"session","id":"s"}
{"k":"step","id":"1","prompt":{"tokens":200,"append":[{"seg":"head"},{"tokens":40}]},"output":{"tokens":32},"gap":{"tool_us":10000000},"finish":"tool-call"}
{"k":"step","id":"2","prompt":{"tokens":272,"keep":232,"append":[{"tokens":40}]},"output":{"tokens":32},"gap":{"tool_us":360000000},"finish":"tool-call"}
{"k":"step","id":"3","prompt":{"tokens":344,"keep":304,"append":[{"tokens":40}]},"output":{"tokens":16},"finish":"end-of-turn"}
"#;

#[test]
fn what_is_cached_does_not_outlive_its_breakpoint() {
    let found = |lifetime: &str, spec: &str| {
        let lifetime = habits(&[("agent.breakpoints", lifetime)]).breakpoints;
        let trace = trace(SLOW);
        let rig = rig::build(spec, &[], &Catalog::builtin(), &trace.content).unwrap();
        let plan = Plan {
            agents: 1,
            runs: None,
            share: Share::Head,
            conduct: Conduct {
                cache_lifetime: lifetime,
                ..Conduct::default()
            },
        };
        let workload = Workload::new(&trace, plan, 0);
        let replayed = replay(&trace, &workload, rig, &mut Vec::new());
        let calls = replayed.metrics.calls();
        calls
            .map(|call| (call.cached.0, call.classes.evicted.0))
            .collect::<Vec<_>>()
    };
    let kept = [(0, 0), (231, 0), (303, 0)];
    assert_eq!(found("none", LLAMA), kept);
    assert_eq!(found("1h", LLAMA), kept);
    // The engine had stored it for this conversation and has it no longer.
    assert_eq!(found("5m", LLAMA), [(0, 0), (231, 0), (0, 303)]);
    assert_eq!(found("5m", VLLM), [(0, 0), (224, 0), (0, 288)]);
    assert!(parsed(&[("agent.breakpoints", "0s")]).is_err());
    assert!(
        parsed(&[("agent.breakpoints", "soon")])
            .unwrap_err()
            .contains("5m, 1h")
    );
}
