//! The hashed Claude Code sessions against the statistics of the whole corpus, and against their own files.
//!
//! The sample holds 64 of 692 sessions; the ranges leave room for that, and what is exact is computed from the files.

#![expect(clippy::type_complexity, reason = "a table")]
#![expect(clippy::print_stdout, reason = "tests tell what they measured")]

use laptime::trace::Trace;
use laptime::trace::inspect::{Inspection, inspect};
use laptime::trace::read::{ReadOptions, load};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;

fn read() -> Option<(Trace, Inspection, Vec<(String, Value)>)> {
    let folder = crate::trace::shared("claude-code-hashed")?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let document = |path: &PathBuf| {
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        (document["id"].as_str().unwrap().to_string(), document)
    };
    let documents = files.iter().map(document).collect();
    let trace = load(&[folder], &ReadOptions::default(), &mut |_| {}).unwrap();
    let found = inspect(&trace);
    Some((trace, found, documents))
}

fn ids(request: &Value) -> Vec<u64> {
    let ids = request["hash_ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_u64().unwrap()).collect()
}

/// Returns a session's own requests, without sub-agents.
fn own(document: &Value) -> Vec<&Value> {
    let requests = document["requests"].as_array().unwrap().iter();
    requests
        .filter(|request| request["type"] != "subagent")
        .collect()
}

#[test]
fn prompts_share_with_the_one_before_what_the_corpus_says() {
    let Some((_, found, documents)) = read() else {
        return;
    };
    let (mut shared, mut followed) = (0, 0);
    for (_, document) in &documents {
        for pair in own(document).windows(2) {
            let (a, b) = (ids(pair[0]), ids(pair[1]));
            shared += 64 * a.iter().zip(&b).take_while(|(a, b)| a == b).count() as u64;
            followed += pair[1]["in"].as_u64().unwrap();
        }
    }
    let independent = shared as f64 / followed as f64;
    let ours = found.total.shared_with_previous().unwrap();
    println!(
        "{ours:.4} shared with the request before; by whole blocks of main threads {independent:.4}"
    );
    // 97.35 % in the corpus; whole blocks leave out up to 63 tokens a prompt of a hundred thousand.
    assert!((0.965..0.98).contains(&ours), "{ours}");
    assert!((ours - independent).abs() < 0.003, "{ours} {independent}");
}

#[test]
fn breaks_have_the_classes_and_shares_of_the_corpus() {
    let Some((_, found, documents)) = read() else {
        return;
    };
    let total = &found.total;
    let pairs = (total.calls - total.threads) as f64;
    let share = |count: u64| count as f64 / pairs * 100.0;
    let breaks = &total.breaks;
    let big = breaks.rewritten.count + breaks.shrunk.count;
    let kept = 100.0 - share(breaks.tail.count + big);
    println!(
        "kept {kept:.2} %, tail {:.2} %, rewritten {:.2} %, shrunk {:.2} %",
        share(breaks.tail.count),
        share(breaks.rewritten.count),
        share(breaks.shrunk.count)
    );
    // 93.16 % extend, 4.93 % change the last sixteen blocks, 1.92 % break; 0.74 % shrink.
    assert!((89.0..97.0).contains(&kept), "{kept}");
    assert!((2.0..8.0).contains(&share(breaks.tail.count)));
    assert!((1.0..3.0).contains(&share(big)), "{}", share(big));
    assert!((0.3..1.3).contains(&share(breaks.shrunk.count)));
    // Big breaks cause about 45 % of what an endless cache would have to compute.
    let cost = (breaks.rewritten.cost + breaks.shrunk.cost).as_f64();
    let missed = (total.followed - total.shared).as_f64();
    println!(
        "big breaks cause {:.1} % of what is not shared",
        cost / missed * 100.0
    );
    assert!((0.30..0.60).contains(&(cost / missed)), "{}", cost / missed);
    // Every shrunk prompt of the files is one of ours.
    let shrunk = documents.iter().flat_map(|(_, document)| {
        let pairs: Vec<(u64, u64)> = own(document)
            .windows(2)
            .map(|pair| {
                (
                    pair[0]["in"].as_u64().unwrap(),
                    pair[1]["in"].as_u64().unwrap(),
                )
            })
            .collect();
        pairs
    });
    let shrunk = shrunk.filter(|(a, b)| b * 10 < a * 9).count() as u64;
    assert!(
        breaks.shrunk.count >= shrunk,
        "{} {shrunk}",
        breaks.shrunk.count
    );
}

#[test]
fn waits_have_the_sizes_of_the_corpus() {
    let Some((_, found, _)) = read() else {
        return;
    };
    let waits = &found.total.waits;
    let (tool, human) = (&waits.unknown_tool, &waits.human);
    println!(
        "tool p50 {} p90 {}, human p50 {} p90 {}",
        tool.p50, tool.p90, human.p50, human.p90
    );
    // 8.7 s and 76.4 s after tool calls, 182 s and 2,392 s after an end of turn.
    assert!((6.5..12.0).contains(&tool.p50.secs()) && (40.0..120.0).contains(&tool.p90.secs()));
    assert!(
        (90.0..360.0).contains(&human.p50.secs()) && (1_000.0..5_000.0).contains(&human.p90.secs())
    );
}

#[test]
fn a_cache_with_a_lifetime_holds_what_the_corpus_says() {
    let Some((_, found, _)) = read() else {
        return;
    };
    // 78.4 %, 92.3 % and 97.0 % for a minute, five minutes and an hour.
    for (place, expected) in [0.784, 0.923, 0.970].into_iter().enumerate() {
        let lives = found.total.lives(place).unwrap();
        println!("lifetime {place}: {lives:.4}, corpus {expected}");
        assert!((lives - expected).abs() < 0.04, "{lives} {expected}");
    }
    let lived = found.total.lived;
    assert!(lived[0] <= lived[1] && lived[1] <= lived[2]);
}

#[test]
fn sub_agents_begin_their_duration_before_their_moment() {
    let Some((trace, _, documents)) = read() else {
        return;
    };
    let mut compared = 0;
    for (id, document) in &documents {
        let session = trace
            .sessions
            .iter()
            .find(|session| *session.id == **id)
            .unwrap();
        for entry in document["requests"].as_array().unwrap() {
            if entry["type"] != "subagent" || entry["requests"].as_array().is_none_or(Vec::is_empty)
            {
                continue;
            }
            let launched = entry["status"] == "async_launched";
            let lasted = if launched {
                0.0
            } else {
                entry["duration_ms"].as_f64().unwrap() / 1e3
            };
            let start = entry["t"].as_f64().unwrap() - lasted;
            let name = entry["agent_id"].as_str().unwrap();
            let place = session
                .threads
                .iter()
                .position(|thread| thread.id == name)
                .unwrap();
            let first = session.threads[place].steps[0]
                .recorded
                .sent()
                .unwrap()
                .secs();
            let inner = entry["requests"][0]["t"].as_f64().unwrap();
            assert!(
                (first - start - inner).abs() < 0.01,
                "{id} {name}: {first} {start}"
            );
            let parent = session
                .threads
                .iter()
                .flat_map(|thread| &thread.steps)
                .find(|step| {
                    step.gap
                        .spawns
                        .iter()
                        .any(|spawn| spawn.thread as usize == place)
                })
                .unwrap();
            let spawn = parent
                .gap
                .spawns
                .iter()
                .find(|spawn| spawn.thread as usize == place)
                .unwrap();
            let answered =
                parent.recorded.sent().unwrap() + parent.recorded.model().unwrap_or_default();
            // Moments are whole seconds: an agent may seem to begin a second before the answer that starts it.
            let begins = (answered + spawn.offset).secs();
            assert!(
                (begins - start).abs() <= 1.01 || begins > start,
                "{id} {name}: {begins} {start}"
            );
            compared += 1;
        }
    }
    println!("{compared} sub-agents");
    assert_eq!(compared, 18);
}

#[test]
fn a_wait_for_sub_agents_holds_only_what_came_after_them() {
    let Some((trace, _, documents)) = read() else {
        return;
    };
    let mut compared = 0;
    for (id, document) in &documents {
        let session = trace
            .sessions
            .iter()
            .find(|session| *session.id == **id)
            .unwrap();
        let main = &session.threads[0].steps;
        for (index, step) in main
            .iter()
            .enumerate()
            .filter(|(_, step)| !step.gap.joins.is_empty())
        {
            let next = own(document)[index + 1];
            let end_of = |&child: &u32| {
                let steps = &session.threads[child as usize].steps;
                let ends = steps.iter().map(|step| {
                    step.recorded.sent().unwrap().secs()
                        + step.recorded.model().unwrap_or_default().secs()
                });
                ends.fold(0.0, f64::max)
            };
            let ended = step.gap.joins.iter().map(end_of).fold(0.0, f64::max);
            let wait = (step.gap.human + step.gap.unknown).secs();
            let expected = (next["t"].as_f64().unwrap() - ended).max(0.0);
            assert!(
                (wait - expected).abs() < 0.01,
                "{id} {index}: {wait} {expected}"
            );
            // The file's own figure holds the whole run of the sub-agents.
            if let Some(think) = next["think_time"].as_f64() {
                assert!(wait <= think + 1.0, "{id} {index}: {wait} {think}");
            }
            compared += 1;
        }
    }
    println!("{compared} joins");
    assert!(compared >= 5);
}
