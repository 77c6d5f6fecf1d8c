//! Benchmarks of a serving engine under load: `vllm bench serve`, AIPerf, guidellm.
//!
//! They report means over many calls of about one size. The time between tokens is that of a closed loop; the time to
//! the first token is used where one call ran at a time, because a queue has no size of its own in these files.

use super::read::{Source, number, read_of, text};
use super::{Format, Of, Read, Row, Unreadable, What};
use serde_json::Value;

/// Means of one run.
struct Means {
    line: usize,
    prompt: f64,
    answer: f64,
    sequences: f64,
    token_s: Option<f64>,
    first_token_s: Option<f64>,
    of: Of,
}

impl Means {
    /// Returns the rows of the run, and a note on what it does not give.
    fn rows(self, source: &Source<'_>) -> (Vec<Row>, Option<String>) {
        let whole = |mean: f64| mean.round().max(0.0) as u64;
        let sequences = whole(self.sequences).max(1);
        let row = |what, seconds| Row {
            prompt: whole(self.prompt),
            answer: whole(self.answer),
            sequences,
            seconds,
            ..source.row(self.line, what, &self.of)
        };
        let mut rows = Vec::new();
        let answer = whole(self.answer);
        if let Some(token_s) = self.token_s.filter(|time| *time > 0.0 && answer > 1) {
            rows.push(row(What::Steady, token_s * answer as f64));
        }
        let mut note = None;
        if let Some(first) = self.first_token_s.filter(|time| *time > 0.0) {
            if sequences == 1 {
                rows.push(row(What::FirstToken, first));
            } else {
                note = Some(format!(
                    "line {}: the time to the first token of {sequences} at a time holds waits of unknown length",
                    self.line
                ));
            }
        }
        (rows, note)
    }
}

fn collect(source: &Source<'_>, format: Format, all: Vec<Means>) -> Read {
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for means in all {
        let (some, note) = means.rows(source);
        rows.extend(some);
        notes.extend(note);
    }
    read_of(format, rows, notes)
}

/// Reads `vllm bench serve --save-result`, also several appended lines.
pub(super) fn vllm(source: &Source<'_>, documents: &[(usize, &Value)]) -> Result<Read, Unreadable> {
    let mut all = Vec::new();
    for &(line, one) in documents {
        let calls = source.positive(line, one, "completed")?;
        let prompt = source.positive(line, one, "total_input_tokens")? / calls;
        let answer = source.positive(line, one, "total_output_tokens")? / calls;
        let ms = |keys: [&str; 2]| {
            let found = keys.iter().find_map(|key| number(one.get(*key)));
            found.map(|ms| ms / 1e3)
        };
        let token_s = ms(["mean_tpot_ms", "median_tpot_ms"]);
        let first_token_s = ms(["mean_ttft_ms", "median_ttft_ms"]);
        // Without a limit, the calls in flight are what Little's law says.
        let asked = number(one.get("max_concurrency")).filter(|most| *most >= 1.0);
        let duration = source.positive(line, one, "duration")?;
        let call_s =
            first_token_s.unwrap_or(0.0) + token_s.unwrap_or(0.0) * (answer - 1.0).max(0.0);
        let sequences = asked.unwrap_or(calls * call_s / duration).min(calls);
        all.push(Means {
            line,
            prompt,
            answer,
            sequences,
            token_s,
            first_token_s,
            of: Of {
                engine: text(one.get("backend"))
                    .filter(|name| name.starts_with("vllm"))
                    .map(|_| "vllm".to_string()),
                model: text(one.get("model_id")),
                ..Of::default()
            },
        });
    }
    Ok(collect(source, Format::VllmServe, all))
}

/// Reads AIPerf's `profile_export_aiperf.json`, whose figures may stand under `records`.
pub(super) fn aiperf(
    source: &Source<'_>,
    documents: &[(usize, &Value)],
) -> Result<Read, Unreadable> {
    let mut all = Vec::new();
    for &(line, document) in documents {
        let figures = document.get("records").unwrap_or(document);
        let mean = |names: &[&str]| {
            let found = names.iter().find_map(|name| figures.get(*name));
            number(found.and_then(|figure| figure.get("avg")))
        };
        let needed = |names: &[&str]| {
            mean(names).filter(|mean| *mean > 0.0).ok_or_else(|| {
                let found = format!("no mean of `{}`", names[0]);
                source.wrong(line, found, "an export with `avg` for every figure")
            })
        };
        let config = document.get("input_config");
        let load = config.and_then(|config| config.get("loadgen"));
        let asked = number(load.and_then(|load| load.get("concurrency")));
        let sequences = asked
            .or_else(|| mean(&["effective_concurrency"]))
            .ok_or_else(|| {
                let found = "no `input_config.loadgen.concurrency`".to_string();
                source.wrong(line, found, "an export of a run with --concurrency")
            })?;
        let models = config
            .and_then(|config| config.get("endpoint"))
            .and_then(|endpoint| endpoint.get("model_names"));
        all.push(Means {
            line,
            prompt: needed(&["input_sequence_length"])?,
            answer: needed(&["output_sequence_length"])?,
            sequences,
            token_s: mean(&["inter_token_latency"]).map(|ms| ms / 1e3),
            first_token_s: mean(&["time_to_first_token"]).map(|ms| ms / 1e3),
            of: Of {
                model: text(models.and_then(|models| models.get(0))),
                ..Of::default()
            },
        });
    }
    Ok(collect(source, Format::AiPerf, all))
}

/// Reads guidellm's JSON: one benchmark for each rate or number of streams.
pub(super) fn guidellm(
    source: &Source<'_>,
    documents: &[(usize, &Value)],
) -> Result<Read, Unreadable> {
    let mut all = Vec::new();
    let benchmarks = documents.iter().flat_map(|(line, one)| {
        let list = one.get("benchmarks").and_then(Value::as_array);
        list.into_iter().flatten().map(move |one| (*line, one))
    });
    for (nth, (_, one)) in benchmarks.enumerate() {
        let at = source.text.match_indices("\"metrics\"").nth(nth);
        let line = at.map_or(1, |(at, _)| 1 + source.text[..at].matches('\n').count());
        let metrics = one.get("metrics");
        let mean = |name: &str| {
            let figure = metrics.and_then(|metrics| metrics.get(name));
            number(
                figure
                    .and_then(|figure| figure.get("successful"))
                    .and_then(|of| of.get("mean")),
            )
        };
        let needed = |name: &str| {
            mean(name).filter(|mean| *mean > 0.0).ok_or_else(|| {
                let found = format!("no mean of `{name}` of successful calls");
                source.wrong(line, found, "a benchmark with `metrics`")
            })
        };
        all.push(Means {
            line,
            prompt: needed("prompt_token_count")?,
            answer: needed("output_token_count")?,
            sequences: needed("request_concurrency")?,
            token_s: mean("inter_token_latency_ms").map(|ms| ms / 1e3),
            first_token_s: mean("time_to_first_token_ms").map(|ms| ms / 1e3),
            of: Of::default(),
        });
    }
    Ok(collect(source, Format::GuideLlm, all))
}
