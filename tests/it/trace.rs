//! Traces as people have them: recorded files are read, written as native files, and read again.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests tell what they measured and skipped"
)]

use laptime::trace::content::ROOT;
use laptime::trace::inspect::inspect;
use laptime::trace::read::{ReadOptions, import, load, load_bytes};
use laptime::trace::{Ending, Session, Step, Trace};
use laptime::units::Span;
use std::path::{Path, PathBuf};

/// Returns a folder of recorded samples, or says that the test is skipped.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var("LAPTIME_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_string());
    let path = Path::new(&root).join("traces").join(folder);
    if path.exists() {
        Some(path)
    } else {
        eprintln!(
            "skipped: {} does not exist (set LAPTIME_SHARED)",
            path.display()
        );
        None
    }
}

fn read(path: &Path) -> Trace {
    load(&[path.to_path_buf()], &ReadOptions::default(), &mut |_| {})
        .unwrap_or_else(|error| panic!("{error}\nhelp: {}", error.help()))
}

fn sum(trace: &Trace, of: impl Fn(&laptime::trace::Step) -> u64) -> u64 {
    let threads = trace.sessions.iter().flat_map(|session| &session.threads);
    threads.flat_map(|thread| &thread.steps).map(of).sum()
}

#[test]
fn hashed_sessions_have_the_totals_of_their_files() {
    let Some(folder) = shared("claude-code-hashed") else {
        return;
    };
    let trace = read(&folder);
    assert_eq!(trace.sessions.len(), 64);
    assert_eq!(trace.calls(), 4_343);
    assert_eq!(sum(&trace, |step| step.prompt_tokens.0), 508_160_035);
    for source in &trace.sources {
        assert_eq!(source.problems, Vec::<String>::new(), "{}", source.name);
    }
    let resumed = trace
        .sessions
        .iter()
        .filter(|session| session.resumed)
        .count();
    assert_eq!(resumed, 29);
}

#[test]
fn hashed_sessions_share_what_was_measured_on_them() {
    let Some(folder) = shared("claude-code-hashed") else {
        return;
    };
    let total = inspect(&read(&folder)).total;
    let shared = total.shared_with_previous().unwrap();
    assert!((0.96..0.985).contains(&shared), "{shared}");
    // Sixteen of the sub-agents were awaited; nothing is known of what came after the other two.
    assert_eq!((total.agents.count, total.agents.joined), (18, 16));
    assert_eq!(total.agents.calls, 175);
    println!(
        "shared {shared:.4}, ceiling {:.4}",
        total.hit_ceiling().unwrap()
    );
    println!("breaks {:?}", total.breaks);
    println!(
        "again {:?} new {:?} distinct {:?}",
        total.again, total.new, total.distinct
    );
}

#[test]
fn waits_never_count_a_sub_agent_twice() {
    let Some(folder) = shared("claude-code-hashed") else {
        return;
    };
    for session in read(&folder).sessions {
        let main = &session.threads[0].steps;
        let sent = |at: usize| main[at].recorded.sent().unwrap().secs();
        let waits: f64 = main.iter().map(|step| wait(step).secs()).sum();
        let models = main.iter().filter_map(|step| step.recorded.model());
        let models: f64 = models.map(Span::secs).sum();
        let length = sent(main.len() - 1) - sent(0);
        let last = main
            .last()
            .unwrap()
            .recorded
            .model()
            .unwrap_or_default()
            .secs();
        // Moments are whole seconds, and rounding does not add up: `think_time` is finer.
        let slack = 1.0 + main.len() as f64 * 0.3;
        assert!(
            waits + models - last <= length + slack,
            "{}: {waits} {models} {length}",
            session.id
        );
    }
}

fn wait(step: &Step) -> Span {
    step.gap.tool + step.gap.client + step.gap.human + step.gap.unknown
}

#[test]
fn transcripts_have_the_totals_of_their_summaries() {
    let Some(folder) = shared("mmbt") else { return };
    let trace = read(&folder);
    assert_eq!(trace.sessions.len(), 10);
    let mut compared = 0;
    for session in &trace.sessions {
        let path = folder.join(&*session.id).join("summary.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        let steps = &session.threads[0].steps;
        let output: u64 = steps.iter().map(|step| step.output_tokens.0).sum();
        let prompt: u64 = steps.iter().map(|step| step.prompt_tokens.0).sum();
        let models = steps.iter().filter_map(|step| step.recorded.model());
        let length = models
            .chain(steps.iter().map(wait))
            .map(Span::secs)
            .sum::<f64>();
        assert_eq!(summary["total_prompt_tokens"], prompt, "{}", session.id);
        assert_eq!(summary["total_completion_tokens"], output, "{}", session.id);
        assert_eq!(summary["iterations"], steps.len(), "{}", session.id);
        let elapsed = summary["elapsed_s"].as_f64().unwrap();
        assert!(
            (elapsed - length).abs() < 0.5,
            "{}: {elapsed} {length}",
            session.id
        );
        compared += 1;
    }
    assert_eq!(compared, 9);
}

#[test]
fn delays_of_mooncake_rows_belong_to_the_answer_before() {
    let Some(folder) = shared("mmbt-contended") else {
        return;
    };
    let trace = read(&folder);
    assert_eq!((trace.sessions.len(), trace.calls()), (16, 1_113));
    let first = &trace.sessions[0];
    assert_eq!(&*first.id, "p1_bugfix_27b-nothink_v8");
    let steps = &first.threads[0].steps;
    assert_eq!(steps[0].gap.tool, Span::from_micros(120_000));
    assert_eq!(steps[0].gap.after, Ending::ToolCall);
    // Eight full blocks of 512 stay; the ninth was private to its call.
    assert_eq!((steps[2].prompt_tokens.0, steps[2].seen.0), (4_229, 4_096));
}

#[test]
fn an_imported_file_loads_as_the_file_it_came_from() {
    for folder in ["claude-code-hashed", "mmbt", "mooncake", "mmbt-contended"] {
        let Some(folder) = shared(folder) else { return };
        let paths = [folder];
        let mut native = Vec::new();
        let report = import(&paths, &ReadOptions::default(), &mut |_| {}, &mut native).unwrap();
        let direct = read(&paths[0]);
        let again = load_bytes("imported.jsonl", &native, &ReadOptions::default()).unwrap();
        assert_eq!(again.sources[0].problems, Vec::<String>::new());
        assert_eq!(
            (report.sessions, report.calls),
            (again.sessions.len(), again.calls())
        );
        assert_same(&direct, &again);
    }
}

/// Asserts that two traces say the same, whatever numbers their nodes have.
pub(crate) fn assert_same(a: &Trace, b: &Trace) {
    let forget = |session: &Session| {
        let mut session = session.clone();
        for step in session
            .threads
            .iter_mut()
            .flat_map(|thread| &mut thread.steps)
        {
            (step.prompt, step.output) = (ROOT, ROOT);
        }
        session
    };
    assert_eq!(a.sessions.len(), b.sessions.len());
    for (one, other) in a.sessions.iter().zip(&b.sessions) {
        assert_eq!(forget(one), forget(other));
    }
    // Numbering the nodes in the order of first use must give equal paths.
    assert_eq!(paths(a), paths(b));
}

fn paths(trace: &Trace) -> Vec<(u32, u64, bool)> {
    let mut numbers = std::collections::HashMap::new();
    let mut path = Vec::new();
    let mut all = Vec::new();
    let threads = trace.sessions.iter().flat_map(|session| &session.threads);
    for step in threads.flat_map(|thread| &thread.steps) {
        for tip in [step.prompt, step.output] {
            trace.content.path(tip, &mut path);
            // Only the part that was not met before says anything new.
            let known = path.iter().rposition(|node| numbers.contains_key(node));
            for &node in &path[known.unwrap_or(0)..] {
                let next = numbers.len() as u32;
                let number = *numbers.entry(node).or_insert(next);
                all.push((
                    number,
                    trace.content.end(node).0,
                    trace.content.is_head(node),
                ));
            }
        }
    }
    all
}

/// Writes `sessions` native sessions of `steps` steps that add twenty blocks each.
fn generated(sessions: usize, steps: usize) -> Vec<u8> {
    use std::io::Write;
    let mut text = br#"{"k":"header","format":"laptime-trace","version":1}"#.to_vec();
    let mut next = 1u64;
    for session in 0..sessions {
        write!(text, "\n{{\"k\":\"session\",\"id\":\"s{session}\"}}").unwrap();
        let (mut tokens, mut output) = (0u64, 0u64);
        for step in 0..steps {
            let keep = tokens + output;
            // Answers vary, so blocks rarely begin at a multiple of their size.
            (tokens, output) = (keep + 20 * 64 + 30, 200 + (step as u64 * 37) % 300);
            write!(
                text,
                "\n{{\"k\":\"step\",\"id\":\"{step}\",\"session\":\"s{session}\",\"prompt\":{{\"tokens\":{tokens},\
                 \"keep\":{keep},\"append\":[{{\"blocks\":\"{next:x}-{:x} {:x}\",\"block_size\":64}},{{\"tokens\":30}}]}},\
                 \"output\":{{\"tokens\":{output}}},\"gap\":{{\"tool_us\":61000,\"client_us\":2000}},\
                 \"timing\":{{\"sent_us\":{},\"model_us\":5000000}},\"finish\":\"tool-call\"}}",
                next + 18,
                next + 40,
                step * 6_000_000,
            )
            .unwrap();
            next += 41;
        }
    }
    text
}

#[test]
fn ten_thousand_steps_load_at_once() {
    let text = generated(50, 200);
    let (trace, secs) = timed(|| load_bytes("generated.jsonl", &text, &ReadOptions::default()));
    assert_eq!(trace.unwrap().calls(), 10_000);
    println!("10,000 steps, {} bytes: {secs:.3} s", text.len());
    // The goal is 0.3 s when optimised; this is a test build on a busy machine.
    assert!(secs < 10.0, "{secs}");
}

/// Prints what a million steps cost: `cargo test --release million -- --ignored --nocapture`.
#[test]
#[ignore = "takes a gigabyte and says something only when optimised"]
fn a_million_steps_load_in_bounded_memory() {
    for (sessions, steps) in [(5_000, 200), (1_000, 1_000)] {
        let path =
            std::env::temp_dir().join(format!("laptime-{}-million.jsonl", std::process::id()));
        std::fs::write(&path, generated(sessions, steps)).unwrap();
        let before = peak_memory();
        let (trace, secs) = timed(|| read(&path));
        let bytes = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(trace.calls(), 1_000_000);
        println!(
            "{sessions} sessions of {steps} steps, {bytes} bytes: {secs:.2} s; peak {before} -> {}",
            peak_memory()
        );
    }
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_string()
}

#[expect(
    clippy::disallowed_types,
    reason = "the test measures how long reading takes"
)]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

#[test]
fn the_example_in_the_documentation_is_a_trace() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trace-format.md"));
    let text = text.unwrap();
    let example = text
        .split("```jsonl\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let trace = load_bytes("example.jsonl", example.as_bytes(), &ReadOptions::default()).unwrap();
    assert_eq!(trace.sources[0].problems, Vec::<String>::new());
    let seen = |session: usize, thread: usize| {
        let steps = &trace.sessions[session].threads[thread].steps;
        let said = |step: &Step| (step.prompt_tokens.0, step.seen.0, step.again.0);
        steps.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(
        seen(0, 0),
        [
            (13_000, 0, 0),
            (13_290, 13_090, 0),
            (13_950, 13_290, 60),
            (13_500, 12_800, 500)
        ]
    );
    assert_eq!(seen(1, 0), [(14_100, 0, 0), (14_500, 14_080, 0)]);
    let tip = |session: usize| trace.sessions[session].threads[0].steps[0].prompt;
    let head = trace.content.meeting(tip(0), tip(1));
    assert_eq!(trace.content.end(head).0, 12_800);
    assert!(trace.content.is_head(head));
    let main = &trace.sessions[0].threads[0].steps;
    assert_eq!((main[1].gap.spawns.len(), main[1].gap.joins.len()), (1, 1));
}
