//! Figures by name, and targets that they are held to: `lap_s.p95<=30s`, `run_s.p50<=2x solo`, `share(lap_s<=30s)>=95%`.

use super::figures::Figures;
use crate::metrics::stats::percentile;
use crate::metrics::{CallRow, Summary};
use crate::units::{Span, three_digits};
use std::fmt;

/// What a value counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// A share of one.
    Share,
    /// Anything else.
    Number,
}

impl Unit {
    /// Returns a value as a person would write it.
    pub fn shown(self, value: f64) -> String {
        match self {
            Unit::Seconds => {
                Span::try_from_secs(value).map_or_else(|| "-".to_string(), |span| span.to_string())
            }
            Unit::Share => format!("{} %", three_digits(value * 100.0)),
            Unit::Number if value.fract() == 0.0 && value.abs() < 1e6 => format!("{value}"),
            Unit::Number if value.abs() >= 1e6 => format!("{}M", three_digits(value / 1e6)),
            Unit::Number => three_digits(value),
        }
    }
}

/// The rows that a spread is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Run,
    Lap,
    Ttft,
    Itl,
}

const OVERS: [(&str, Over); 4] = [
    ("run_s", Over::Run),
    ("lap_s", Over::Lap),
    ("ttft_s", Over::Ttft),
    ("itl_s", Over::Itl),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stat {
    Mean,
    Max,
    Percentile(u32),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Spread(Over, Stat),
    Within(Over, Span),
    Single(&'static str),
    Part(String),
}

/// Figures that are one number each; `true` where more is better.
const SINGLES: [(&str, bool); 18] = [
    ("wall_s", false),
    ("model_s", false),
    ("tool_s", false),
    ("runs", true),
    ("laps", true),
    ("calls", false),
    ("failed_calls", false),
    ("tokens.prompt", false),
    ("tokens.cached", true),
    ("tokens.computed", false),
    ("tokens.output", false),
    ("tokens.reread", false),
    ("energy_wh", false),
    ("cost_usd", false),
    ("energy_wh_per_run", false),
    ("cost_usd_per_run", false),
    ("runs_per_h", true),
    ("output_per_s", true),
];

/// A figure of a result, by its name in the result document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figure {
    name: String,
    what: What,
}

const NAMES: &str = "expected run_s, lap_s, ttft_s or itl_s with .mean, .p50, .p95, .max, ...; share(lap_s<=30s); wall_s, \
                     failed_calls, tokens.cached, runs_per_h, energy_wh_per_run, cost_usd_per_run, parts_s.queue, ...";

impl Figure {
    /// Reads a figure's name.
    pub fn parse(text: &str) -> Result<Figure, String> {
        let name: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        let over = |name: &str| OVERS.iter().find(|(one, _)| *one == name).map(|one| one.1);
        let wrong = || format!("`{name}` is not a figure; {NAMES}");
        let what = if let Some(inside) = name.strip_prefix("share(") {
            let inside = inside.strip_suffix(')').ok_or_else(wrong)?;
            let (rows, bound) = inside.split_once("<=").ok_or_else(wrong)?;
            What::Within(over(rows).ok_or_else(wrong)?, Span::parse(bound)?)
        } else if let Some(single) = SINGLES.iter().find(|(one, _)| *one == name) {
            What::Single(single.0)
        } else {
            let (rows, stat) = name.split_once('.').ok_or_else(wrong)?;
            let known = crate::metrics::lap::LapParts::default().named();
            if rows == "parts_s" && known.iter().any(|(part, _)| *part == stat) {
                What::Part(stat.to_string())
            } else {
                let stat = match stat {
                    "mean" => Stat::Mean,
                    "max" => Stat::Max,
                    _ => {
                        let percent = stat.strip_prefix('p').and_then(|it| it.parse().ok());
                        Stat::Percentile(percent.filter(|it| *it <= 100).ok_or_else(wrong)?)
                    }
                };
                What::Spread(over(rows).ok_or_else(wrong)?, stat)
            }
        };
        Ok(Figure { name, what })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what its values count.
    pub fn unit(&self) -> Unit {
        match &self.what {
            What::Spread(..) | What::Part(_) => Unit::Seconds,
            What::Within(..) => Unit::Share,
            What::Single(name) if name.ends_with("_s") && !name.contains("per") => Unit::Seconds,
            What::Single(_) => Unit::Number,
        }
    }

    /// Returns whether more of it is better.
    pub fn more_is_better(&self) -> bool {
        match &self.what {
            What::Within(..) => true,
            What::Single(name) => SINGLES.iter().any(|(one, more)| one == name && *more),
            What::Spread(..) | What::Part(_) => false,
        }
    }

    /// Returns the rows that it is a statistic of; nothing where it is none.
    pub(super) fn over(&self) -> Option<Over> {
        match &self.what {
            What::Spread(over, _) | What::Within(over, _) => Some(*over),
            What::Single(_) | What::Part(_) => None,
        }
    }

    /// Returns its value for these rows, of which there must be some, in seconds; it sorts them.
    pub(super) fn statistic(&self, values: &mut [f64]) -> f64 {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len() - 1;
        match &self.what {
            What::Spread(_, Stat::Max) => values[last],
            What::Spread(_, Stat::Percentile(percent)) => {
                let place = f64::from(*percent) / 100.0 * last as f64;
                let (below, rest) = (place as usize, place.fract());
                let above = values[(below + 1).min(last)];
                values[below] + (above - values[below]) * rest
            }
            What::Within(_, bound) => {
                let within = values.iter().filter(|value| **value <= bound.secs());
                within.count() as f64 / values.len() as f64
            }
            _ => values.iter().sum::<f64>() / values.len() as f64,
        }
    }

    /// Returns its value, seconds where it is a time; nothing where the result does not say.
    pub fn value(&self, of: &Figures) -> Option<f64> {
        match &self.what {
            What::Spread(over, stat) => spread(of, *over, *stat).map(Span::secs),
            What::Within(over, bound) => {
                let spans = spans(of, *over)?;
                let within = spans.iter().filter(|span| *span <= bound).count();
                (!spans.is_empty()).then(|| within as f64 / spans.len() as f64)
            }
            What::Part(name) => {
                let parts = of.summary.parts.named();
                let part = parts.iter().find(|(one, _)| one == name);
                part.map(|(_, span)| span.secs())
            }
            What::Single("tokens.cached" | "tokens.computed" | "tokens.reread")
                if !of.tells_cached =>
            {
                None
            }
            What::Single(name) => single(&of.summary, name),
        }
    }
}

fn single(summary: &Summary, name: &str) -> Option<f64> {
    let tokens = &summary.tokens;
    let runs = f64::from(summary.runs.max(1));
    let wall = summary.wall.secs();
    let rate = |count: f64| (wall > 0.0).then(|| count / wall);
    Some(match name {
        "wall_s" => wall,
        "model_s" => summary.model.secs(),
        "tool_s" => summary.tool.secs(),
        "runs" => f64::from(summary.runs),
        "laps" => f64::from(summary.laps),
        "calls" => f64::from(summary.calls),
        "failed_calls" => f64::from(summary.failed_calls),
        "tokens.prompt" => tokens.prompt.as_f64(),
        "tokens.cached" => tokens.cached.as_f64(),
        "tokens.computed" => tokens.computed.as_f64(),
        "tokens.output" => tokens.output.as_f64(),
        "tokens.reread" => {
            let classes = &summary.classes;
            (classes.evicted + classes.uncached + classes.broken).as_f64()
        }
        "energy_wh" => summary.energy?.0 / 3600.0,
        "cost_usd" => summary.cost?.0,
        "energy_wh_per_run" => summary.energy?.0 / 3600.0 / runs,
        "cost_usd_per_run" => summary.cost?.0 / runs,
        "runs_per_h" => rate(f64::from(summary.runs))? * 3600.0,
        _ => rate(tokens.output.as_f64())?,
    })
}

fn spread(of: &Figures, over: Over, stat: Stat) -> Option<Span> {
    let summary = &of.summary;
    let quantiles = match over {
        Over::Run => summary.run,
        Over::Lap => summary.lap,
        Over::Ttft => summary.ttft,
        Over::Itl => summary.itl,
    }?;
    match stat {
        Stat::Mean => Some(quantiles.mean),
        Stat::Max => Some(quantiles.max),
        Stat::Percentile(50) => Some(quantiles.p50),
        Stat::Percentile(90) => Some(quantiles.p90),
        Stat::Percentile(95) => Some(quantiles.p95),
        Stat::Percentile(99) => Some(quantiles.p99),
        Stat::Percentile(percent) => {
            let mut spans = spans(of, over)?;
            spans.sort_unstable();
            (!spans.is_empty()).then(|| percentile(&spans, percent))
        }
    }
}

/// Returns the single values of a spread, where the rows are known.
fn spans(of: &Figures, over: Over) -> Option<Vec<Span>> {
    let rows = of.rows.as_ref();
    Some(match over {
        Over::Run => of.run_spans().into_values().collect(),
        Over::Lap => rows?.laps.iter().map(|lap| lap.parts.total()).collect(),
        Over::Ttft => rows?.calls.iter().filter_map(CallRow::ttft).collect(),
        Over::Itl => rows?.calls.iter().filter_map(CallRow::itl).collect(),
    })
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Limit {
    Value(f64),
    /// So many times what a single agent has.
    Solo(f64),
}

/// A figure and what it is held to.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// The figure.
    pub figure: Figure,
    /// As it was written, without blanks.
    pub text: String,
    at_most: bool,
    strict: bool,
    limit: Limit,
}

impl Target {
    /// Reads `FIGURE<=LIMIT`; the limit is a time, a number, a percentage, or `2x solo`.
    pub fn parse(text: &str) -> Result<Target, String> {
        let text: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        let after = text.rfind(')').map_or(0, |at| at + 1);
        let operator = text[after..].find(['<', '>']).map(|at| at + after);
        let at = operator.ok_or_else(|| {
            format!("`{text}` is not a target; write it as lap_s.p95<=30s or failed_calls<=0")
        })?;
        let figure = Figure::parse(&text[..at])?;
        let at_most = text[at..].starts_with('<');
        let rest = &text[at + 1..];
        let strict = !rest.starts_with('=');
        let limit = limit(rest.trim_start_matches('='), figure.unit())
            .map_err(|why| format!("`{text}`: {why}"))?;
        Ok(Target {
            figure,
            text,
            at_most,
            strict,
            limit,
        })
    }

    /// Returns whether it speaks of a single agent's figures.
    pub fn needs_solo(&self) -> bool {
        matches!(self.limit, Limit::Solo(_))
    }

    /// Returns the figure's value and the limit as a number; nothing where either is not known.
    pub fn against(&self, found: &Figures, solo: Option<&Figures>) -> Option<(f64, f64)> {
        let limit = match self.limit {
            Limit::Value(limit) => limit,
            Limit::Solo(times) => times * self.figure.value(solo?)?,
        };
        Some((self.figure.value(found)?, limit))
    }

    /// Returns whether a value holds a limit.
    pub fn holds(&self, value: f64, limit: f64) -> bool {
        match (self.at_most, self.strict) {
            (true, true) => value < limit,
            (true, false) => value <= limit,
            (false, true) => value > limit,
            (false, false) => value >= limit,
        }
    }

    /// Returns how far the value is beyond its limit: at most 1 where it holds, 2 where it is twice as bad.
    pub fn strain(&self, found: &Figures, solo: Option<&Figures>) -> f64 {
        let Some((value, limit)) = self.against(found, solo) else {
            return f64::INFINITY;
        };
        let (bad, good) = if self.at_most {
            (value, limit)
        } else {
            (limit, value)
        };
        let strain = match (bad > 0.0, good > 0.0) {
            (_, true) => bad / good,
            (true, false) => f64::INFINITY,
            // None of what there must be none of is not near any limit.
            (false, false) => 0.0,
        };
        match (self.holds(value, limit), strain > 1.0) {
            (false, false) => 1.0 + f64::EPSILON,
            (true, true) => 1.0,
            _ => strain,
        }
    }
}

fn limit(text: &str, unit: Unit) -> Result<Limit, String> {
    if let Some(times) = text.strip_suffix("xsolo").or(text.strip_suffix('x')) {
        let times: Option<f64> = times.parse().ok();
        let times = times.filter(|times| times.is_finite() && *times > 0.0);
        return times
            .map(Limit::Solo)
            .ok_or_else(|| format!("`{text}` is no multiple; write 2x solo"));
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: Option<f64> = percent.parse().ok();
        let percent = percent.filter(|it| it.is_finite() && *it >= 0.0);
        return percent
            .map(|percent| Limit::Value(percent / 100.0))
            .ok_or_else(|| format!("`{text}` is no percentage"));
    }
    if unit == Unit::Seconds {
        return Ok(Limit::Value(Span::parse(text)?.secs()));
    }
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|it| it.is_finite() && *it >= 0.0)
        .map(Limit::Value)
        .ok_or_else(|| format!("`{text}` is no number"))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_the_words_of_the_result_document() {
        for text in [
            "lap_s.p95<=30s",
            "run_s.p50 <= 2x solo",
            "ttft_s.p99<5s",
            "share(lap_s<=30s)>=95%",
            "failed_calls<=0",
            "runs_per_h>=12",
            "parts_s.queue<=1m",
        ] {
            let target = Target::parse(text).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(target.to_string(), text.replace(' ', ""));
        }
        for (text, why) in [
            ("lap_s.p95", "is not a target"),
            ("lap.p95<=30s", "is not a figure"),
            ("lap_s.p101<=30s", "is not a figure"),
            ("lap_s.p95<=fast", "is not a duration"),
            ("calls<=-1", "is no number"),
            ("share(lap_s)>=9%", "is not a figure"),
        ] {
            assert!(Target::parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn limits_hold_or_not_at_the_limit_itself() {
        let at = |text: &str| Target::parse(text).unwrap().holds(30.0, 30.0);
        assert!(at("lap_s.p95<=30s") && at("runs>=30"));
        assert!(!at("lap_s.p95<30s") && !at("runs>30"));
    }
}
