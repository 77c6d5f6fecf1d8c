//! House rules that the compiler does not know: layers, lengths, words, and a word about every file.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, from the bottom; a module may use lower layers, itself, and what is listed beside it.
const LAYERS: [(u8, &str, &[&str]); 31] = [
    (0, "ids", &[]),
    (0, "known", &[]),
    (0, "rng", &[]),
    (0, "units", &[]),
    (1, "call", &[]),
    (1, "catalog", &[]),
    (1, "event", &["call"]),
    (1, "measured", &[]),
    (1, "operating_point", &[]),
    (1, "scenario", &["trace", "catalog"]),
    (1, "trace", &[]),
    (2, "agent", &[]),
    (2, "fleet", &["agent"]),
    (2, "metrics", &[]),
    (2, "rig", &[]),
    (3, "journal", &[]),
    (3, "listen", &[]),
    (3, "live", &["wire"]),
    (3, "proxy", &["listen", "wire"]),
    (3, "serve", &["listen", "wire"]),
    (3, "sim", &[]),
    (3, "wire", &[]),
    (4, "study", &[]),
    (5, "cli", &["error", "report"]),
    (5, "error", &[]),
    (5, "report", &[]),
    (6, "lib", &[]),
    (6, "main", &["lib"]),
    (6, "anonymize", &[]),
    (6, "synth", &[]),
    (6, "tests", &[]),
];

/// Where formats are owned, and with them serde.
const SERIALISES: [&str; 26] = [
    "trace/record.rs",
    "trace/read.rs",
    "trace/format.rs",
    "trace/input.rs",
    "trace/import/",
    "trace/inspect.rs",
    "catalog/load",
    "scenario.rs",
    "scenario/",
    "journal.rs",
    "proxy/answered.rs",
    "proxy/asked.rs",
    "proxy/threads.rs",
    "proxy/recorder",
    "proxy/writer.rs",
    "serve/api",
    "wire.rs",
    "measured/",
    "report/calibration.rs",
    "report/json.rs",
    "report/answers/",
    "report/document",
    "report/catalog.rs",
    "report/claims.rs",
    "report/inspection.rs",
    "cli/sweep/shard.rs",
];

/// Words that must not stay behind; written in halves so that this file may be read too.
const BANNED: [(&str, &str); 8] = [
    ("dbg", "!("),
    ("todo", "!("),
    ("unimplemented", "!("),
    ("FIX", "ME"),
    ("TO", "DO"),
    ("XX", "X"),
    ("/tm", "p/"),
    ("/ho", "me/"),
];

fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let mut inside: Vec<PathBuf> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            inside.sort();
            left.extend(inside);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(!found.is_empty());
    found
}

fn module(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

fn layer(module: &str) -> (u8, &'static [&'static str]) {
    let found = LAYERS.iter().find(|(_, name, _)| *name == module);
    let Some(&(layer, _, may)) = found else {
        panic!("module `{module}` has no place in the table of layers")
    };
    (layer, may)
}

/// Returns the modules that `text` names after `crate::`, outside of its tests.
fn used(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for (name, text) in files("src") {
        let own = module(&name);
        let (height, may) = layer(own);
        for other in used(&text) {
            let (below, _) = layer(other);
            if other != own && below >= height && !may.contains(&other) {
                wrong.push(format!("src/{name} uses `{other}`"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn serde_stays_where_formats_are_owned() {
    for (name, text) in files("src") {
        let owner = SERIALISES.iter().any(|place| name.starts_with(place));
        let code = text.split("#[cfg(test)]").next().unwrap();
        let uses = code
            .lines()
            .any(|line| line.trim_start().starts_with("use serde") || line.contains("serde::"));
        assert!(owner || !uses, "src/{name} uses serde, and owns no format");
    }
}

#[test]
fn the_core_neither_waits_nor_prints() {
    for (name, text) in files("src") {
        if layer(module(&name)).0 != 2 {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in [
            "std::fs",
            "std::io",
            "std::time",
            "std::thread",
            "async fn",
            "println!",
        ] {
            assert!(!code.contains(word), "src/{name} mentions {word}");
        }
    }
}

#[test]
fn files_and_functions_fit_a_mind() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests/it"] {
        for (name, text) in files(folder) {
            let lines: Vec<&str> = text.lines().collect();
            if lines.len() > 600 && name != "trace/compile.rs" {
                wrong.push(format!("{folder}/{name} has {} lines", lines.len()));
            }
            wrong.extend(
                long_functions(&lines)
                    .into_iter()
                    .map(|what| format!("{folder}/{name}: {what}")),
            );
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Finds functions of more than 90 lines: from `fn` to the closing brace with the same indentation.
fn long_functions(lines: &[&str]) -> Vec<String> {
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let starts = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
        ];
        if !starts.iter().any(|begin| code.starts_with(begin)) {
            continue;
        }
        let end = format!("{indent}}}");
        let length = lines[start..]
            .iter()
            .position(|line| *line == end)
            .unwrap_or(0);
        if length > 90 {
            long.push(format!(
                "{} takes {length} lines",
                code.trim_end_matches(" {")
            ));
        }
    }
    long
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests/it"] {
        for (name, text) in files(folder) {
            assert!(
                text.starts_with("//! "),
                "{folder}/{name} does not begin with its purpose"
            );
        }
    }
}

#[test]
fn nothing_is_left_lying_about() {
    for folder in ["src", "tests/it"] {
        for (name, text) in files(folder) {
            for (first, second) in BANNED {
                let word = format!("{first}{second}");
                assert!(!text.contains(&word), "{folder}/{name} contains `{word}`");
            }
        }
    }
}
