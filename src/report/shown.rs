//! Result documents that were written before: as one document again, and as a short answer for a person.

use super::json::{RESULTS, write_value};
use super::table::{Align, Cell, Table};
use anstyle::Style;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};

const TITLE: Style = Style::new().bold();

/// Writes one result, or several as one document.
pub fn write(out: &mut impl Write, results: &[Value]) -> io::Result<()> {
    match results {
        [one] => write_value(out, one),
        several => {
            let all = json!({
                "schema": RESULTS,
                "laptime_version": env!("CARGO_PKG_VERSION"),
                "results": several,
            });
            write_value(out, &all)
        }
    }
}

/// Returns the figures that a result is first asked for, by name.
pub(super) fn figures(result: &Value) -> Vec<(&'static str, String)> {
    let summary = &result["summary"];
    let count = |at: &str| {
        let value = summary.pointer(at).and_then(Value::as_u64);
        value.map_or("unknown".to_string(), |value| value.to_string())
    };
    let secs = |at: &str| {
        let value = summary.pointer(at).and_then(Value::as_f64);
        value.map_or("unknown".to_string(), seconds)
    };
    vec![
        ("whole replay", secs("/wall_s")),
        ("median lap", secs("/lap_s/p50")),
        ("slow lap (p95)", secs("/lap_s/p95")),
        ("median first token", secs("/ttft_s/p50")),
        ("calls", count("/calls")),
        ("of these failed", count("/failed_calls")),
        ("prompt tokens", count("/tokens/prompt")),
        ("from the cache", count("/tokens/cached")),
        ("tokens of answers", count("/tokens/output")),
    ]
}

/// Returns the parts of the time of all laps that are not 0, the largest first, each with its share.
pub(super) fn parts(result: &Value) -> Vec<(&str, f64, f64)> {
    let all = result["summary"]["parts_s"].as_object();
    let all = all.into_iter().flatten();
    let mut parts: Vec<(&str, f64, f64)> = all
        .filter_map(|(name, secs)| Some((name.as_str(), secs.as_f64()?, 0.0)))
        .filter(|(_, secs, _)| *secs > 0.0)
        .collect();
    let total: f64 = parts.iter().map(|(_, secs, _)| secs).sum();
    for part in &mut parts {
        part.2 = part.1 / total;
    }
    parts.sort_by(|one, other| other.1.total_cmp(&one.1));
    parts
}

/// Returns what a result holds for, in a line.
pub(super) fn title(result: &Value) -> String {
    let point = &result["operating_point"];
    let workload = &result["workload"];
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_string();
    format!(
        "{} ({}, {}), {} agents, {} runs",
        word(&point["rig"]),
        word(&point["kind"]),
        word(&point["trust"]),
        workload["agents"],
        workload["runs"]
    )
}

/// Returns seconds as a person reads them.
pub(super) fn seconds(secs: f64) -> String {
    if secs < 1.0 {
        format!("{:.0} ms", secs * 1e3)
    } else if secs < 100.0 {
        format!("{secs:.2} s")
    } else {
        format!("{secs:.0} s")
    }
}

/// Returns the answer for a person.
pub fn render(result: &Value) -> String {
    let mut text = format!("{TITLE}{}{TITLE:#}\n\n", title(result));
    let mut table = Table::new([Align::Left, Align::Right]);
    for (name, figure) in figures(result) {
        table.row([Cell::from(name), Cell::from(figure)]);
    }
    text += &table.render();
    text += "\nWhere the time went:\n";
    let mut table = Table::new([Align::Left, Align::Right, Align::Right]);
    for (name, secs, share) in parts(result) {
        let share = format!("{:.1} %", share * 100.0);
        table.row([
            Cell::from(name),
            Cell::from(seconds(secs)),
            Cell::from(share),
        ]);
    }
    text += &table.render();
    let _ = writeln!(text);
    text
}
