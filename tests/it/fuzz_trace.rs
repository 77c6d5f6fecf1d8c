//! Damaged, cut and hostile files: readers may refuse, but never panic, hang, or take memory without bound.
//!
//! A seeded mutation fuzzer over the recorded samples and native files. `LAPTIME_FUZZ_SECONDS=600 cargo test fuzz`
//! runs it longer, `SEED=7` repeats one seed; each failure names its seed.

#![expect(clippy::print_stdout, reason = "tests tell what they measured")]

use laptime::trace::inspect::inspect;
use laptime::trace::read::{ReadOptions, import_bytes, load_bytes, load_bytes_as};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// Numbers and words that have broken parsers before.
const WORDS: [&str; 26] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "18446744073709551615",
    "18446744073709551616",
    "1000000000000000000",
    "4294967295",
    "4294967296",
    "-9223372036854775808",
    "1e-320",
    "9007199254740993",
    "\"0-ffffffffffffffff\"",
    "\"ffffffffffffffff\"",
    "\"main\"",
    "\"\\u0000\"",
    "0.1",
    "64",
    "512",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

const NATIVE: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"segment","id":"sys","kind":"system","tokens":900,"hash":"00000000000000aa"}
{"k":"segment","id":"ids","kind":"user","tokens":3,"token_ids":[1,2,3]}
{"k":"session","id":"a","arrival_us":0}
{"k":"step","id":"1","session":"a","prompt":{"tokens":1003,"append":[{"seg":"sys"},{"seg":"ids"},{"tokens":100}]},"output":{"tokens":50},"gap":{"tool_us":5,"client_us":6,"human_us":7,"unknown_us":8},"finish":"tool-call"}
{"k":"agent","id":"x","session":"a","spawn_step":"1","spawn_offset_us":10,"join":"blocking"}
{"k":"step","id":"x1","session":"a","agent":"x","prompt":{"tokens":640,"append":[{"blocks":"1-9 ff","block_size":64}]},"output":{"tokens":9,"segs":["ids"]}}
{"k":"step","id":"2","session":"a","prompt":{"tokens":1203,"keep":1053,"append":[{"tokens":100,"again":true},{"tokens":50}],"break":"edit","break_at":"recorded"},"output":{"tokens":7},"joins":["x"],"timing":{"sent_us":9,"model_us":4}}
{"k":"tool","step":"2","session":"a","name":"bash","duration_us":4}
{"k":"event","session":"a","what":"compaction"}
{"k":"session","id":"b","resumed":true,"block_scope":"session"}
{"k":"step","id":"1","session":"b","prompt":{"tokens":700,"append":[{"blocks":"1-9 fe","block_size":64},{"tokens":60}]},"output":{"tokens":9}}
{"k":"step","id":"2","session":"b","prompt":{"tokens":300,"base":"1","keep":130,"append":[{"seg":"ids"}]},"output":{"tokens":0}}
{"k":"later","what":"unknown"}
"#;

/// Returns samples of every format, small enough to be mutated often.
fn samples() -> Vec<(String, Vec<u8>)> {
    let mut samples = vec![("native.jsonl".to_string(), NATIVE.as_bytes().to_vec())];
    for file in [
        "mmbt/p2_triage_27b_v1/transcript.jsonl",
        "mmbt/n1_27b_v1/transcript.jsonl",
        "mooncake/conversation_trace.head300.jsonl",
        "mmbt-contended/runs.mooncake.jsonl",
        "claude-code-hashed/trace_0546.json.gz",
        "claude-code-hashed/trace_0014.json.gz",
        "claude-code-hashed/trace_0174.json.gz",
        "codex/codex_053_rate_limit.jsonl",
    ] {
        let (folder, name) = file.split_once('/').unwrap();
        let Some(folder) = crate::trace::shared(folder) else {
            continue;
        };
        let mut bytes = std::fs::read(folder.join(name)).unwrap();
        if Path::new(name)
            .extension()
            .is_some_and(|suffix| suffix == "gz")
        {
            samples.push((name.to_string(), bytes.clone()));
            let mut plain = Vec::new();
            let mut unpack = flate2::read::GzDecoder::new(&bytes[..]);
            std::io::Read::read_to_end(&mut unpack, &mut plain).unwrap();
            bytes = plain;
        }
        // Most of a long file says the same again.
        let end = bytes.iter().take(60_000).rposition(|&byte| byte == b'\n');
        if name.ends_with("jsonl") && bytes.len() > 60_000 {
            bytes.truncate(end.unwrap_or(60_000));
        }
        let mut native = Vec::new();
        if import_bytes(name, &bytes, &ReadOptions::default(), &mut native).is_ok() {
            native.truncate(80_000);
            samples.push((format!("native-{name}"), native));
        }
        samples.push((name.trim_end_matches(".gz").to_string(), bytes));
    }
    samples
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let to = (at + rng.random_range(1..200)).min(bytes.len());
        match rng.random_range(0..9) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let copy = bytes[at..to].to_vec();
                let into = rng.random_range(0..=bytes.len());
                bytes.splice(into..into, copy);
            }
            5 => {
                let from = rng.random_range(0..other.len());
                let piece = &other[from..(from + 300).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            // A value becomes another one.
            _ => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                let digit = |byte: u8| byte.is_ascii_digit() || b"-.eE".contains(&byte);
                let Some(from) = bytes[at..].iter().position(|&byte| byte.is_ascii_digit()) else {
                    continue;
                };
                let from = at + from;
                let end = bytes[from..].iter().position(|&byte| !digit(byte));
                let end = end.map_or(bytes.len(), |end| from + end);
                bytes.splice(from..end, word.bytes());
            }
        }
    }
}

/// Reads a file in both ways, which must agree; returns whether it could be read.
pub(crate) fn try_out(name: &str, bytes: &[u8]) -> bool {
    let options = ReadOptions::default();
    let Ok(trace) = load_bytes(name, bytes, &options) else {
        return false;
    };
    let _ = inspect(&trace);
    for step in trace
        .sessions
        .iter()
        .flat_map(|session| &session.threads)
        .flat_map(|thread| &thread.steps)
    {
        assert_eq!(trace.content.end(step.prompt), step.prompt_tokens);
        assert_eq!(
            trace.content.end(step.output),
            step.prompt_tokens + step.output_tokens
        );
        assert!(step.seen + step.again <= step.prompt_tokens);
        assert!(step.seen_computed <= step.seen);
    }
    let mut native = Vec::new();
    import_bytes(name, bytes, &options, &mut native).expect("what loads can be imported");
    let again = load_bytes("imported.jsonl", &native, &options).expect("what was imported loads");
    crate::trace::assert_same(&trace, &again);
    true
}

#[test]
fn fuzzed_files_are_refused_or_read_but_never_break_the_reader() {
    let samples = samples();
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let only = number("SEED");
    let seconds = number("LAPTIME_FUZZ_SECONDS").unwrap_or(3);
    let first = number("LAPTIME_FUZZ_FROM").unwrap_or(0);
    for (name, bytes) in &samples {
        assert!(try_out(name, bytes) || name.starts_with("codex"), "{name}");
    }
    let mut read = 0;
    let mut seed = only.unwrap_or(first);
    let mut spent = 0.0;
    while spent < seconds as f64 {
        let run = || {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (name, bytes) = &samples[rng.random_range(0..samples.len())];
            let (_, other) = &samples[rng.random_range(0..samples.len())];
            let mut bytes = bytes.clone();
            mutate(&mut bytes, other, &mut rng);
            try_out(name, &bytes)
        };
        let (result, took) = crate::trace::timed(|| std::panic::catch_unwind(run));
        read += u64::from(result.unwrap_or_else(|_| panic!("SEED={seed} breaks the reader")));
        assert!(took < 20.0, "SEED={seed} takes {took} s");
        spent += took;
        seed += 1;
        if only.is_some() {
            break;
        }
    }
    println!(
        "{} files tried, {read} could be read, the last with SEED={}",
        seed - first,
        seed - 1
    );
}

/// Every log of an agent: the shared ones, and those written for tests.
fn logs() -> Vec<(String, String, Vec<u8>)> {
    let mut logs: Vec<(String, String, Vec<u8>)> = crate::agent_samples::ALL
        .iter()
        .map(|&(format, name, text)| (format.to_string(), name.to_string(), text.into()))
        .collect();
    for (format, folder) in [
        ("claude-code", "claude-code"),
        ("codex", "codex"),
        ("gemini-cli", "gemini-cli"),
        ("qwen-code", "qwen-code"),
        ("swe-agent", "swe-agent"),
        ("mini-swe-agent", "mini-swe-agent"),
        ("openhands", "openhands"),
        ("openhands-completions", "openhands-completions"),
    ] {
        let Some(folder) = crate::trace::shared(folder) else {
            continue;
        };
        let mut left = vec![folder];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                left.extend(entries.map(|entry| entry.unwrap().path()));
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let log = [".json", ".jsonl", ".traj"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            if log && !name.ends_with(".meta.json") {
                logs.push((format.to_string(), name, std::fs::read(&path).unwrap()));
            }
        }
    }
    logs.sort();
    logs
}

#[test]
fn a_hundred_mutations_of_every_agent_log_neither_break_nor_slow_its_importer() {
    a_hundred_mutations(&logs(), &|format, name, bytes| {
        let told = load_bytes_as(format, name, bytes).expect("the format is known");
        // What is told by content goes the same way, unless the mutation changed what it looks like.
        let found = load_bytes(name, bytes, &ReadOptions::default());
        u64::from(told.is_ok()) + u64::from(found.is_ok())
    });
}

#[test]
fn a_hundred_mutations_of_every_other_sample_neither_break_nor_slow_its_importer() {
    let mut others = samples();
    for folder in ["azure", "mooncake", "otel-genai", "tracelab"] {
        let Some(folder) = crate::trace::shared(folder) else {
            continue;
        };
        let paths = std::fs::read_dir(folder).unwrap();
        for path in paths.map(|entry| entry.unwrap().path()) {
            let mut bytes = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Most of a long file says the same again.
            if bytes.len() > 60_000 {
                let end = bytes[..60_000].iter().rposition(|&byte| byte == b'\n');
                bytes.truncate(end.unwrap_or(60_000));
            }
            if Path::new(&name).extension().is_none_or(|end| end != "md") {
                others.push((name, bytes));
            }
        }
    }
    others.sort();
    let others = others.into_iter();
    let others: Vec<_> = others
        .map(|(name, bytes)| (String::new(), name, bytes))
        .collect();
    a_hundred_mutations(&others, &|_, name, bytes| {
        u64::from(load_bytes(name, bytes, &ReadOptions::default()).is_ok())
    });
}

/// Mutates each of some files, of a format and a name, a hundred times; `read` returns how many readings came to an end.
fn a_hundred_mutations(
    logs: &[(String, String, Vec<u8>)],
    read: &dyn Fn(&str, &str, &[u8]) -> u64,
) {
    let mut read_on = 0;
    for (index, (format, name, bytes)) in logs.iter().enumerate() {
        let once = || crate::trace::timed(|| read(format, name, bytes)).1;
        let usual = (0..3).map(|_| once()).fold(f64::INFINITY, f64::min);
        let other = &logs[(index + 1) % logs.len()].2;
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut mutated = bytes.clone();
            mutate(&mut mutated, &other[..other.len().min(4_096)], &mut rng);
            let run = || {
                let run = || read(format, name, &mutated);
                let (result, took) = crate::trace::timed(|| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
                });
                (
                    result
                        .unwrap_or_else(|_| panic!("{name} breaks its importer with seed {seed}")),
                    took,
                )
            };
            let (result, mut took) = run();
            read_on += result;
            // A busy machine is no slow importer: only what is slow again and again is. Milliseconds are noise.
            for _ in 0..5 {
                if took <= 10.0 * usual + 0.01 {
                    break;
                }
                took = took.min(run().1);
            }
            assert!(
                took <= 10.0 * usual + 0.01,
                "{name} takes {took} s with seed {seed}, and {usual} s as it is"
            );
        }
    }
    println!(
        "{} files, {} mutations, {read_on} readings came to an end",
        logs.len(),
        logs.len() * 100
    );
}
