//! Every shared sample replays, and the table of `docs/importing.md` is what importing them gives.
//!
//! `UPDATE_DOCS=1 cargo test table_of_samples` writes the table anew.

use crate::agent_totals::{Totals, imported, totals};
use crate::trace::shared;
use laptime::trace::read::{ImportReport, ReadOptions, import};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a folder that stand for recordings, with the folder where others are read with them.
fn recordings(folder: &Path) -> (Vec<(PathBuf, ImportReport)>, Vec<String>) {
    let mut native = Vec::new();
    let Ok(report) = import(
        &[folder.to_path_buf()],
        &ReadOptions::default(),
        &mut |_| {},
        &mut native,
    ) else {
        return (Vec::new(), Vec::new());
    };
    let leaders: BTreeSet<&str> = report
        .skipped
        .iter()
        .filter_map(|note| note.split_once(": it is read with ").map(|(_, with)| with))
        .collect();
    let found = report.sources.iter().map(|source| {
        let path = PathBuf::from(&source.name);
        // A leader that is not the parent of its kin is read by its folder.
        let whole = leaders.contains(source.name.as_str())
            && path.extension().is_some_and(|suffix| suffix == "json");
        let path = if whole {
            path.parent().unwrap().to_path_buf()
        } else {
            path
        };
        let report = imported(&path).1;
        (path, report)
    });
    (found.collect(), report.skipped.clone())
}

const AGENT_FOLDERS: [&str; 9] = [
    "claude-code",
    "codex",
    "gemini-cli",
    "qwen-code",
    "opencode",
    "swe-agent",
    "mini-swe-agent",
    "openhands",
    "openhands-completions",
];

#[test]
fn every_sample_replays() {
    for folder in AGENT_FOLDERS {
        let Some(folder) = shared(folder) else {
            continue;
        };
        for (path, _) in recordings(&folder).0 {
            let out = Command::new(env!("CARGO_BIN_EXE_laptime"))
                .args([
                    "replay",
                    "--rig",
                    "rtx-pro-6000/vllm/qwen3.6-27b-fp8",
                    "--trace",
                ])
                .arg(&path)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{}: {said}", path.display());
        }
    }
}

const MARKS: [&str; 2] = ["<!-- samples: begin -->\n", "<!-- samples: end -->"];

/// Thousands with separators.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One row: all that is in a table about a sample, or about the many samples of a folder.
fn row(
    table: &mut String,
    name: &str,
    format: &str,
    whole: &Totals,
    told: &Totals,
    losses: &BTreeSet<usize>,
) {
    let least = losses.first().copied().unwrap_or(0);
    let most = losses.last().copied().unwrap_or(0);
    let losses = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    let cached = if told.calls == 0 {
        "-".to_string()
    } else {
        grouped(told.cached)
    };
    let (calls, prompt, output) = (
        grouped(whole.calls),
        grouped(whole.prompt),
        grouped(whole.output),
    );
    let (sessions, counted) = (whole.sessions, grouped(told.calls));
    let seconds = whole.tool_us as f64 / 1e6;
    let tools = if whole.tools == 0 {
        "-".to_string()
    } else {
        format!("{seconds:.1}")
    };
    writeln!(table, "| `{name}` | {format} | {sessions} | {calls} | {counted} | {prompt} | {cached} | {output} | {tools} | {losses} |").unwrap();
}

/// Returns the table of everything under the shared traces that can be imported.
fn table(root: &Path) -> String {
    let mut text = String::from(
        "| sample | format | sessions | calls | counted | prompt tokens | cached | output tokens | tool seconds | losses |\n\
         | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    for folder in folders {
        let rows: Vec<_> = recordings(&folder)
            .0
            .into_iter()
            .map(|(path, report)| {
                let records = imported(&path).0;
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let losses = report
                    .sources
                    .iter()
                    .map(|source| source.losses.len())
                    .sum::<usize>();
                let format = report.sources[0].format.clone();
                (
                    name,
                    format,
                    totals(&records, false),
                    totals(&records, true),
                    losses,
                )
            })
            .collect();
        if rows.len() <= 12 {
            for (name, format, whole, told, losses) in &rows {
                row(
                    &mut text,
                    name,
                    format,
                    whole,
                    told,
                    &BTreeSet::from([*losses]),
                );
            }
            continue;
        }
        let sum = |of: fn(&(String, String, Totals, Totals, usize)) -> &Totals| {
            rows.iter()
                .map(of)
                .fold(Totals::default(), |sum, one| Totals {
                    sessions: sum.sessions + one.sessions,
                    calls: sum.calls + one.calls,
                    prompt: sum.prompt + one.prompt,
                    cached: sum.cached + one.cached,
                    output: sum.output + one.output,
                    tools: sum.tools + one.tools,
                    tool_us: sum.tool_us + one.tool_us,
                })
        };
        let name = format!(
            "{}/ ({} files)",
            folder.strip_prefix(root).unwrap().display(),
            rows.len()
        );
        let losses = rows.iter().map(|row| row.4).collect();
        row(
            &mut text,
            &name,
            &rows[0].1,
            &sum(|row| &row.2),
            &sum(|row| &row.3),
            &losses,
        );
    }
    text
}

#[test]
fn the_table_of_samples_is_what_importing_them_gives() {
    let Some(claude) = shared("claude-code") else {
        return;
    };
    let table = table(claude.parent().unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/importing.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(MARKS[0]).expect("the page marks its table");
    let (there, after) = rest.split_once(MARKS[1]).expect("the page marks its table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(
            path,
            format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1]),
        )
        .unwrap();
        return;
    }
    assert_eq!(
        there, table,
        "UPDATE_DOCS=1 cargo test table_of_samples writes it anew"
    );
}
