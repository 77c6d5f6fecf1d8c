//! Which format a file has: told by its content, never by its name.
//!
//! Formats are asked from the most particular to the least. Where the first line is longer than the probe, more is read
//! before anything is guessed from a document's beginning.

use super::super::error::TraceError;
use super::super::input::Input;
use super::{
    Format, aiperf, azure, bailian, burstgpt, capture, dynamo, logs, otel, table, tracelab,
};
use serde_json::{Map, Value};
use std::io::Read;

/// How much of a file is looked at to tell its format.
const PROBE: u64 = 64 << 10;
/// How much is looked at where the first line is longer than that: a captured prompt fills megabytes.
const LONG_PROBE: u64 = 32 << 20;
/// How many lines may be damaged before the first that tells the format.
const PROBE_LINES: usize = 20;

/// What a file was recognised as, or what it seems to be instead.
type Found = Result<Format, String>;

impl Format {
    /// Returns the format of a file, or a phrase that says what it seems to be instead.
    pub(in crate::trace) fn detect(input: &Input) -> Result<Found, TraceError> {
        let io = |error| TraceError::io("read", &input.path, error);
        let mut start = Vec::new();
        let mut reader = input.open().map_err(io)?;
        // A damaged end within the probe leaves a shorter probe.
        if let Err(error) = reader.by_ref().take(PROBE).read_to_end(&mut start)
            && start.is_empty()
        {
            return Ok(Err(format!("its packed data cannot be read ({error})")));
        }
        let mut found = certain(&start);
        if found.is_none() {
            if start.len() as u64 == PROBE {
                let _ = reader.take(LONG_PROBE).read_to_end(&mut start);
                found = certain(&start);
            }
            found = found.or_else(|| guessed(&start));
        }
        let found = found.unwrap_or_else(|| Err(instead(&start)));
        Ok(found.and_then(|format| match format {
            Format::Log(log) => log.belongs(input).map_or(Ok(format), Err),
            _ => Ok(format),
        }))
    }
}

/// Tells a format from whole lines, and from what only one format has.
fn certain(start: &[u8]) -> Option<Found> {
    let mut tables = true;
    for line in lines(start) {
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(object)) => {
                if let Some(found) = by_fields(&object) {
                    return Some(found);
                }
                tables = false;
            }
            _ if tables && !line.is_empty() && !line.starts_with(b"{") => {
                if let Some(found) = tabled(line) {
                    return Some(found);
                }
            }
            _ => {}
        }
    }
    // A session of block hashes is one document: its first line is longer than the probe, or is a lone brace.
    let text = String::from_utf8_lossy(start);
    let contains = |key: &str| text.contains(key);
    if contains("\"requests\"") && (contains("\"hash_ids\"") || contains("\"hash_id_scope\"")) {
        return Some(Ok(Format::Weka));
    }
    if contains("\"input_length\"") && contains("\"hash_ids\"") {
        return Some(Ok(Format::Mooncake));
    }
    let head = String::from_utf8_lossy(&start[..start.len().min(200)]);
    let head: String = head.chars().filter(|c| !c.is_whitespace()).collect();
    let har = head
        .trim_start_matches('\u{feff}')
        .starts_with("{\"log\":{");
    (har && (contains("\"startedDateTime\"") || contains("\"entries\""))).then_some(Ok(Format::Har))
}

/// Tells a format from a document of several lines, or from how one begins.
fn guessed(start: &[u8]) -> Option<Found> {
    let text = unmarked(start);
    if let Some(log) = logs::document(text) {
        return Some(log.map(Format::Log));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => by_fields(&object),
        _ => None,
    }
}

/// Says what a file without a known format seems to be.
fn instead(start: &[u8]) -> String {
    let whole = std::iter::once(unmarked(start));
    let object = lines(start).chain(whole).find_map(|text| {
        serde_json::from_slice::<Value>(text)
            .ok()
            .and_then(|value| match value {
                Value::Object(object) => Some(object),
                _ => None,
            })
    });
    match (object, unmarked(start).trim_ascii()) {
        (Some(object), _) => resemblance(&object),
        (None, []) => "it is empty".to_string(),
        (None, [b'{' | b'[', ..]) => "JSON of an unknown kind".to_string(),
        _ => "it does not begin with JSON".to_string(),
    }
}

/// Tells a format by the fields of a line or of a whole document.
fn by_fields(object: &Map<String, Value>) -> Option<Found> {
    particular(object).next().or_else(|| loose(object).map(Ok))
}

/// Returns the formats whose own fields an object has: one, or none.
fn particular(object: &Map<String, Value>) -> impl Iterator<Item = Found> {
    let has = |key: &str| object.contains_key(key);
    let kind = object.get("type").and_then(Value::as_str);
    let turn = matches!(kind, Some("model" | "tool" | "error" | "abort"));
    let sessions = has("requests") && (has("hash_id_scope") || has("block_size") || has("id"));
    let bailian = bailian::is_row(object);
    let rows = has("input_length") || (has("hash_ids") && !has("in"));
    let own = |is: bool, format: Format| is.then_some(Ok(format));
    [
        own(has("k"), Format::Native),
        own(has("iter") && turn, Format::Mmbt),
        logs::object(object).map(|log| log.map(Format::Log)),
        own(otel::is_batch(object), Format::Otel),
        own(dynamo::is_event(object), Format::Dynamo),
        own(tracelab::is_round(object), Format::TraceLab),
        own(capture::is_har(object), Format::Har),
        own(bailian, Format::Bailian),
        own(sessions, Format::Weka),
        own(rows && !bailian && !sessions, Format::Mooncake),
    ]
    .into_iter()
    .flatten()
}

/// Tells the formats that have no fields of their own: a request with an answer, or only a request.
fn loose(object: &Map<String, Value>) -> Option<Format> {
    if capture::is_line(object) {
        Some(Format::Requests)
    } else {
        aiperf::is_input(object).then_some(Format::AiPerf)
    }
}

/// Tells the formats that are tables by their columns; says what other tables seem to be.
fn tabled(line: &[u8]) -> Option<Result<Format, String>> {
    let columns = table::header(line);
    let has = |all: &[&str]| {
        all.iter()
            .all(|name| columns.iter().any(|column| column == name))
    };
    if columns.len() < 2 {
        return None;
    }
    Some(if has(&azure::COLUMNS) {
        Ok(Format::Azure)
    } else if has(&burstgpt::COLUMNS) {
        Ok(Format::BurstGpt)
    } else if has(&tracelab::COLUMNS) {
        Ok(Format::TraceLabWorkload)
    } else if columns.len() == 6 && columns[0].parse::<f64>().is_ok() {
        Err("it looks like the arrival rates of a ServeGen client: a generator's statistics, which hold no requests; \
             generate requests with ServeGen and import those"
            .to_string())
    } else if columns.len() >= 4 && columns.iter().all(|column| is_name(column)) {
        Err(format!(
            "a table with the columns {}, ...; no trace that is known has those",
            columns[..4].join(", ")
        ))
    } else {
        return None;
    })
}

/// Returns whether a cell of a header may be a name, rather than a part of a sentence.
fn is_name(cell: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_- ./()".contains(c);
    !cell.is_empty() && cell.len() <= 40 && cell.chars().all(plain) && cell.parse::<f64>().is_err()
}

/// Returns the first lines, without the padding of damaged files.
fn lines(start: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = unmarked(start)
        .split(|&byte| byte == b'\n')
        .take(PROBE_LINES);
    lines.map(|line| {
        let line = line.trim_ascii();
        let from = line.iter().position(|&byte| byte != 0);
        &line[from.unwrap_or(line.len())..]
    })
}

/// Returns a text without its byte order mark.
fn unmarked(text: &[u8]) -> &[u8] {
    text.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(text)
}

/// Says what a JSON object seems to be, for people who gave the wrong file.
fn resemblance(object: &Map<String, Value>) -> String {
    let has = |key: &str| object.contains_key(key);
    let known = if has("sessionId") && has("uuid") {
        "a line of a Claude Code or Qwen Code session log, without what it says"
    } else if object.values().any(|part| part["input_tokens"].is_string()) {
        "the length distributions of a ServeGen client: a generator's statistics, which hold no requests"
    } else if has("schema_version") && has("run_name") {
        "a receipt of the MMBT harness; its transcript.jsonl is the recording"
    } else if has("run_name") || has("finish_reason") || has("total_prompt_tokens") {
        "a summary of a run"
    } else {
        let keys: Vec<&str> = object.keys().take(4).map(String::as_str).collect();
        return format!("JSON with the fields {}", keys.join(", "));
    };
    format!("it looks like {known}")
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "tests say what they skipped")]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// What the folders of the shared samples hold.
    const FOLDERS: [(&str, &[&str]); 17] = [
        ("azure", &["azure"]),
        ("claude-code", &["claude-code"]),
        ("claude-code-hashed", &["kv-cache-tester"]),
        ("codex", &["codex"]),
        ("gemini-cli", &["gemini-cli"]),
        ("mini-swe-agent", &["mini-swe-agent"]),
        ("mmbt", &["mmbt"]),
        ("mmbt-contended", &["mooncake"]),
        ("mooncake", &["mooncake"]),
        ("opencode", &["opencode"]),
        ("openhands", &["openhands"]),
        ("openhands-completions", &["openhands-completions"]),
        ("otel-genai", &["OpenTelemetry GenAI"]),
        ("qwen-code", &["qwen-code"]),
        ("servegen", &[]),
        ("swe-agent", &["swe-agent"]),
        ("tracelab", &["tracelab", "tracelab workload"]),
    ];

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_shared_sample_is_its_own_format_and_no_other() {
        let root = std::env::var("LAPTIME_SHARED")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_string());
        let root = Path::new(&root).join("traces");
        if !root.exists() {
            eprintln!(
                "skipped: {} does not exist (set LAPTIME_SHARED)",
                root.display()
            );
            return;
        }
        for (folder, formats) in FOLDERS {
            let mut recognised = 0;
            let mut found = Vec::new();
            files(&root.join(folder), &mut found);
            for path in found {
                let input = Input::new(&path, true).unwrap();
                let Ok(format) = Format::detect(&input).unwrap() else {
                    continue;
                };
                recognised += 1;
                let shown = path.display();
                assert!(
                    formats.contains(&format.name()),
                    "{shown} is {}",
                    format.name()
                );
                let mut start = Vec::new();
                let reader = input.open().unwrap();
                reader.take(LONG_PROBE).read_to_end(&mut start).unwrap();
                for line in lines(&start) {
                    let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
                        continue;
                    };
                    let claims = particular(&object).count();
                    assert!(claims <= 1, "{shown}: {claims} formats claim {object:?}");
                }
            }
            assert_eq!(recognised > 0, !formats.is_empty(), "{folder}");
        }
    }
}
