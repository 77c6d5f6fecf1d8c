//! llama.cpp's own benchmarks: `llama-bench` (JSON, JSONL, CSV, markdown) and `llama-batched-bench` (table, JSONL).

use super::read::{Source, number, read_of, text};
use super::{Format, Of, Read, Row, Unreadable, What};
use serde_json::{Map, Value};

/// Reads objects of `llama-bench -o json` or `-o jsonl`, or rows of its CSV.
pub(super) fn objects(
    source: &Source<'_>,
    documents: &[(usize, &Value)],
) -> Result<Read, Unreadable> {
    let mut rows = Vec::new();
    for &(line, one) in documents {
        let version = number(one.get("build_number")).filter(|build| *build > 0.0);
        let of = Of {
            engine: Some("llama.cpp".to_string()),
            version: version.map(|build| format!("b{build}")),
            model: text(one.get("model_type")),
            ..Of::default()
        };
        let (prompt, answer) = (
            source.count(line, one, "n_prompt")?,
            source.count(line, one, "n_gen")?,
        );
        let depth = number(one.get("n_depth")).unwrap_or(0.0) as u64;
        let chunk = number(one.get("n_ubatch")).map(|size| size as u64);
        let rate = source.positive(line, one, "avg_ts")?;
        let row = Row {
            chunk: chunk.filter(|size| *size > 0),
            ..source.row(line, What::Prefill, &of)
        };
        rows.extend(test(row, prompt, answer, depth, rate));
    }
    Ok(read_of(Format::LlamaBench, rows, Vec::new()))
}

/// Returns the row of one test: `pp`, `tg`, or both in turn.
fn test(row: Row, prompt: u64, answer: u64, depth: u64, rate: f64) -> Option<Row> {
    let seconds = (prompt + answer) as f64 / rate;
    let what = match (prompt, answer) {
        (0, 0) => return None,
        (_, 0) => What::Prefill,
        (0, _) => What::Decode,
        _ if depth == 0 => What::Batch,
        // Both at depth: nothing else says how the time is shared out.
        _ => return None,
    };
    Some(Row {
        what,
        prompt,
        depth,
        answer,
        seconds,
        ..row
    })
}

/// Reads objects of `llama-batched-bench --output-format jsonl`.
pub(super) fn batched(
    source: &Source<'_>,
    documents: &[(usize, &Value)],
) -> Result<Read, Unreadable> {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for &(line, one) in documents {
        let count = |key| source.count(line, one, key);
        let shared = number(one.get("is_pp_shared")) == Some(1.0);
        let chunk = number(one.get("n_ubatch")).map(|size| size as u64);
        let sizes = [count("pp")?, count("tg")?, count("pl")?];
        let times = [
            number(one.get("t_pp")).unwrap_or(0.0),
            number(one.get("t_tg")).unwrap_or(0.0),
        ];
        batch(source, line, sizes, times, (shared, chunk), &mut rows);
        if shared && notes.is_empty() {
            notes.push("prompts were shared, so each counts as read once".to_string());
        }
    }
    Ok(read_of(Format::BatchedBench, rows, notes))
}

/// Adds the rows of one batch: its prompts read in turn, then its answers written together.
fn batch(
    source: &Source<'_>,
    line: usize,
    [prompt, answer, sequences]: [u64; 3],
    [prompt_s, answer_s]: [f64; 2],
    (shared, chunk): (bool, Option<u64>),
    rows: &mut Vec<Row>,
) {
    let of = Of {
        engine: Some("llama.cpp".to_string()),
        ..Of::default()
    };
    if prompt > 0 && prompt_s > 0.0 {
        rows.push(Row {
            prompt,
            sequences: if shared { 1 } else { sequences },
            chunk,
            seconds: prompt_s,
            ..source.row(line, What::Prefill, &of)
        });
    }
    if answer > 0 && answer_s > 0.0 {
        rows.push(Row {
            depth: prompt,
            answer,
            sequences,
            seconds: answer_s,
            ..source.row(line, What::Decode, &of)
        });
    }
}

/// Reads the tables that both programs print; nothing when there is none.
pub(super) fn markdown(source: &Source<'_>) -> Result<Option<Read>, Unreadable> {
    let mut heading: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    let mut format = None;
    for (at, text) in source.text.lines().enumerate() {
        let line = at + 1;
        let Some(cells) = cells(text) else {
            continue;
        };
        let is = |name: &str| cells.iter().any(|cell| cell == name);
        if is("test") && is("t/s") {
            (heading, format) = (Some(cells), Some(Format::LlamaBench));
        } else if is("PP") && is("TG") && is("B") {
            (heading, format) = (Some(cells), Some(Format::BatchedBench));
        } else if let Some(heading) = &heading {
            if cells
                .iter()
                .all(|cell| cell.trim_matches(['-', ':', ' ']).is_empty())
            {
                continue;
            }
            let row = Printed {
                source,
                line,
                heading,
                cells: &cells,
            };
            if format == Some(Format::LlamaBench) {
                rows.extend(row.bench()?);
            } else {
                row.batched(&mut rows)?;
            }
        }
    }
    Ok(format.map(|format| read_of(format, rows, Vec::new())))
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inside = line.trim().strip_prefix('|')?;
    let inside = inside.strip_suffix('|').unwrap_or(inside);
    Some(
        inside
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect(),
    )
}

/// One row of a printed table.
struct Printed<'a> {
    source: &'a Source<'a>,
    line: usize,
    heading: &'a [String],
    cells: &'a [String],
}

impl Printed<'_> {
    fn cell(&self, name: &str) -> Option<&str> {
        let at = self.heading.iter().position(|cell| cell == name)?;
        self.cells.get(at).map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<f64, Unreadable> {
        let cell = self.cell(name).unwrap_or("nothing");
        let plain = cell.split(['±', ' ']).next().unwrap_or_default().trim();
        let number: Option<f64> = plain.parse().ok();
        number
            .filter(|number| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| {
                let found = format!("`{name}` is `{cell}`");
                self.source.wrong(self.line, found, "a number from 0")
            })
    }

    /// Reads a row of `llama-bench`, whose test is written `pp512`, `tg128`, `pp512+tg128` or `pp512 @ d4096`.
    fn bench(&self) -> Result<Option<Row>, Unreadable> {
        let test_cell = self.cell("test").unwrap_or_default().to_string();
        let rate = self.number("t/s")?;
        let wrong = || {
            let found = format!("the test is `{test_cell}`");
            self.source.wrong(
                self.line,
                found,
                "such as `pp512`, `tg128` or `pp512 @ d4096`",
            )
        };
        let (mut prompt, mut answer, mut depth) = (0, 0, 0);
        for part in test_cell.split(['+', '@']) {
            let part = part.trim();
            let count = |prefix| part.strip_prefix(prefix).and_then(|n: &str| n.parse().ok());
            if let Some(count) = count("pp") {
                prompt = count;
            } else if let Some(count) = count("tg") {
                answer = count;
            } else {
                depth = count("d").ok_or_else(wrong)?;
            }
        }
        if rate <= 0.0 {
            return Err(self
                .source
                .wrong(self.line, "a rate of 0".to_string(), "a rate above 0"));
        }
        let of = Of {
            engine: Some("llama.cpp".to_string()),
            model: self.cell("model").map(ToString::to_string),
            ..Of::default()
        };
        let chunk = self.number("n_ubatch").ok().map(|size| size as u64);
        let row = Row {
            chunk,
            ..self.source.row(self.line, What::Prefill, &of)
        };
        Ok(test(row, prompt, answer, depth, rate))
    }

    fn batched(&self, rows: &mut Vec<Row>) -> Result<(), Unreadable> {
        let count = |name| self.number(name).map(|number| number as u64);
        let sizes = [count("PP")?, count("TG")?, count("B")?];
        let times = [self.number("T_PP s")?, self.number("T_TG s")?];
        batch(self.source, self.line, sizes, times, (false, None), rows);
        Ok(())
    }
}

/// Turns a row of CSV into an object with the same names.
pub(super) fn object(heading: &csv::StringRecord, row: &csv::StringRecord) -> Value {
    let fields = heading.iter().zip(row.iter());
    let named: Map<String, Value> = fields
        .map(|(name, value)| (name.to_string(), Value::String(value.to_string())))
        .collect();
    Value::Object(named)
}
