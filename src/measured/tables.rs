//! What this program writes itself: tables as in `docs/measurements`, and result documents.

use super::read::{Source, number, read_of, text};
use super::{Format, Of, Read, Row, Unreadable, What, llama_bench};
use serde_json::Value;

/// Reads a CSV table with a heading that is known; nothing when it is not.
pub(super) fn csv(source: &Source<'_>) -> Result<Option<Read>, Unreadable> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(source.text.as_bytes());
    let Ok(heading) = reader.headers().cloned() else {
        return Ok(None);
    };
    let has = |name: &str| heading.iter().any(|column| column == name);
    let bench = has("n_prompt") && has("n_gen") && has("avg_ts");
    let table = Table::of(&has);
    if !bench && table.is_none() {
        return Ok(None);
    }
    let mut objects = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(1, |at| at.line() as usize);
            source.wrong(
                line,
                format!("a broken row ({error})"),
                "as many cells as the heading has",
            )
        })?;
        let line = record.position().map_or(1, |at| at.line() as usize);
        objects.push((line, llama_bench::object(&heading, &record)));
    }
    let placed: Vec<(usize, &Value)> = objects.iter().map(|(line, one)| (*line, one)).collect();
    let Some(table) = table else {
        return llama_bench::objects(source, &placed).map(Some);
    };
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for &(line, one) in &placed {
        if text(one.get("healthy")).as_deref() == Some("no") {
            notes.push(format!("line {line}: marked as not healthy"));
            continue;
        }
        table.rows(source, line, one, &mut rows)?;
    }
    Ok(Some(read_of(Format::Table, rows, notes)))
}

/// The tables of `docs/measurements`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    /// A rate or a time by name in every row.
    Points,
    /// Cold batches.
    Cells,
    /// Calls of agents, one at a time.
    Turns,
}

impl Table {
    fn of(has: &impl Fn(&str) -> bool) -> Option<Table> {
        if has("metric") && has("value") && has("sequences") {
            Some(Table::Points)
        } else if has("batch_wall_s") && has("sequences") {
            Some(Table::Cells)
        } else if has("wall_s") && has("prompt_tokens") && has("answer_tokens") && !has("wait_s") {
            Some(Table::Turns)
        } else {
            None
        }
    }

    fn rows(
        self,
        source: &Source<'_>,
        line: usize,
        one: &Value,
        rows: &mut Vec<Row>,
    ) -> Result<(), Unreadable> {
        let of = Of {
            hardware: text(one.get("hardware")),
            engine: text(one.get("engine")),
            version: text(one.get("version")),
            model: text(one.get("model")),
        };
        let or_0 = |key: &str| number(one.get(key)).unwrap_or(0.0).round().max(0.0) as u64;
        let row = |what| Row {
            prompt: or_0("prompt_tokens"),
            depth: or_0("depth_tokens"),
            answer: or_0("answer_tokens"),
            sequences: or_0("sequences").max(1),
            chunk: number(one.get("ubatch")).map(|size| size as u64),
            ..source.row(line, what, &of)
        };
        match self {
            Table::Points => rows.push(point(source, line, one, &row(What::Prefill))?),
            Table::Cells => rows.push(Row {
                answer: or_0("answer_tokens_mean").max(1),
                seconds: source.positive(line, one, "batch_wall_s")?,
                ..row(What::Batch)
            }),
            Table::Turns => rows.push(Row {
                seconds: source.positive(line, one, "wall_s")?,
                ..row(What::Batch)
            }),
        }
        Ok(())
    }
}

/// Reads a row that names its metric.
fn point(source: &Source<'_>, line: usize, one: &Value, row: &Row) -> Result<Row, Unreadable> {
    let value = source.positive(line, one, "value")?;
    let metric = text(one.get("metric")).unwrap_or_default();
    let sequences = row.sequences as f64;
    // A rate without a length was taken over a run like those of the common benchmarks.
    let answer = if row.answer > 0 { row.answer } else { 32 };
    let (prompts, answers) = (row.prompt as f64 * sequences, answer as f64);
    let decode = |seconds| Row {
        what: What::Decode,
        prompt: 0,
        answer,
        seconds,
        ..row.clone()
    };
    let timed = |what, seconds| Row {
        what,
        answer,
        seconds,
        ..row.clone()
    };
    Ok(match metric.as_str() {
        "prefill_tps" | "prefill_agg_tps" => Row {
            answer: 0,
            seconds: prompts / value,
            ..row.clone()
        },
        "decode_tps" => decode(answers / value),
        "decode_agg_tps" => decode(answers * sequences / value),
        "tpot_mean" => timed(What::Steady, answers * value / 1e3),
        "output_tps" => timed(What::Throughput, answers * sequences / value),
        "ttft_mean" => timed(What::FirstToken, value / 1e3),
        "batch_wall_s" => timed(What::Batch, value),
        other => {
            let expected = "prefill_tps, prefill_agg_tps, decode_tps, decode_agg_tps, tpot_mean (ms), \
                            output_tps, ttft_mean (ms) or batch_wall_s";
            return Err(source.wrong(line, format!("`metric` is `{other}`"), expected));
        }
    })
}

/// Reads result documents: the calls that had the engine to themselves, each its first token and its answer.
pub(super) fn result(
    source: &Source<'_>,
    documents: &[(usize, &Value)],
) -> Result<Read, Unreadable> {
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for &(line, one) in documents {
        let point = one.get("operating_point");
        let said = |key: &str| text(point.and_then(|point| point.get(key)));
        let model = said("model").map(|model| match said("quantization") {
            Some(bits) => format!("{model}-{}", bits.to_lowercase()),
            None => model,
        });
        let of = Of {
            hardware: said("hardware"),
            engine: said("engine"),
            version: said("engine_version"),
            model,
        };
        if said("kind").as_deref() == Some("simulated") {
            notes.push(
                "its times were simulated: a fit finds the model behind them again".to_string(),
            );
        }
        let calls = one.get("calls").and_then(Value::as_array);
        let calls: Vec<Call> = calls.into_iter().flatten().filter_map(Call::read).collect();
        if calls.is_empty() {
            let expected = "a result with its calls (not written with --no-calls)";
            return Err(source.wrong(line, "no `calls` with times".to_string(), expected));
        }
        let before = rows.len();
        let lines = lines_of(source.text, "\"submitted_s\"");
        // Calls stand in the order in which they were submitted.
        let mut busy_until = f64::NEG_INFINITY;
        for (index, call) in calls.iter().enumerate() {
            let next = calls.get(index + 1);
            let free_after = next.is_none_or(|next| next.submitted >= call.finished);
            if busy_until <= call.submitted && free_after {
                let line = lines.get(index).copied().unwrap_or(line);
                call.rows(source, line, &of, &mut rows);
            }
            busy_until = busy_until.max(call.finished);
        }
        if rows.len() == before {
            notes.push("no call had the engine to itself; measure with one agent".to_string());
        }
    }
    Ok(read_of(Format::Result, rows, notes))
}

/// Returns the line of every occurrence of `word`.
fn lines_of(text: &str, word: &str) -> Vec<usize> {
    let numbered = text.lines().enumerate();
    numbered
        .flat_map(|(at, line)| line.matches(word).map(move |_| at + 1))
        .collect()
}

/// A call of a result.
struct Call {
    prompt: u64,
    cached: u64,
    output: u64,
    submitted: f64,
    first_token: Option<f64>,
    finished: f64,
}

impl Call {
    fn read(call: &Value) -> Option<Call> {
        let count = |key: &str| number(call.get(key)).map(|count| count as u64);
        let failed = text(call.get("outcome")).is_some_and(|outcome| outcome != "ok");
        if failed {
            return None;
        }
        Some(Call {
            prompt: count("prompt_tokens")?,
            cached: count("cached_tokens").unwrap_or(0),
            output: count("output_tokens")?,
            submitted: number(call.get("submitted_s"))?,
            first_token: number(call.get("first_token_s")),
            finished: number(call.get("finished_s"))?,
        })
    }

    fn rows(&self, source: &Source<'_>, line: usize, of: &Of, rows: &mut Vec<Row>) {
        let Some(first) = self.first_token else {
            return;
        };
        if self.prompt > self.cached && first > self.submitted {
            rows.push(Row {
                prompt: self.prompt - self.cached,
                depth: self.cached,
                answer: 0,
                seconds: first - self.submitted,
                ..source.row(line, What::FirstToken, of)
            });
        }
        if self.output > 1 && self.finished > first {
            rows.push(Row {
                depth: self.prompt + 1,
                answer: self.output - 1,
                seconds: self.finished - first,
                ..source.row(line, What::Decode, of)
            });
        }
    }
}
