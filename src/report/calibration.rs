//! What a calibration found, for people and for programs (schema `laptime.calibration/1`).

use super::json::write_value;
use super::table::{Align, Cell, Table};
use crate::catalog::RigProfile;
use crate::measured::{Row, What};
use crate::rig::cost::FEATURE_NAMES;
use crate::study::calibrate::Errors;
use crate::study::calibrate::rig::{Fit, Held};
use anstyle::Style;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

const TITLE: Style = Style::new().bold();

/// A fit with what it was made from.
#[derive(Clone, Copy, Debug)]
pub struct Calibrated<'a> {
    /// What came of it.
    pub profile: &'a RigProfile,
    /// The fit.
    pub fit: &'a Fit,
    /// The rows.
    pub rows: &'a [Row],
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    laptime_version: &'static str,
    rig: String,
    engine_version: &'a str,
    measurements: usize,
    held_out: Summary,
    interval_80: [f64; 2],
    coefficients: serde_json::Map<String, serde_json::Value>,
    priors: &'a [String],
    warnings: Vec<Placed>,
    rows: Vec<Timed>,
}

#[derive(Serialize)]
struct Summary {
    count: usize,
    median: f64,
    p90: f64,
    max: f64,
}

#[derive(Serialize)]
struct Placed {
    file: String,
    line: usize,
    what: String,
}

#[derive(Serialize)]
struct Timed {
    file: String,
    line: usize,
    what: &'static str,
    prompt_tokens: u64,
    depth_tokens: u64,
    answer_tokens: u64,
    sequences: u64,
    measured_s: f64,
    held_out_s: f64,
    error: f64,
}

impl Calibrated<'_> {
    /// Writes the document.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let fit = self.fit;
        let linear = fit.coefficients.linear();
        let named = FEATURE_NAMES.iter().zip(linear);
        let mut coefficients: serde_json::Map<String, serde_json::Value> = named
            .map(|(name, value)| ((*name).to_string(), value.into()))
            .collect();
        coefficients.insert(
            "half_tokens".to_string(),
            fit.coefficients.half_tokens.into(),
        );
        let warnings = fit.warnings.iter().map(|warning| Placed {
            file: self.rows[warning.row].file.clone(),
            line: self.rows[warning.row].line,
            what: warning.what.clone(),
        });
        let document = Document {
            schema: "laptime.calibration/1",
            laptime_version: env!("CARGO_PKG_VERSION"),
            rig: self.profile.name(),
            engine_version: &self.profile.engine_version,
            measurements: fit.held_out.len(),
            held_out: Summary {
                count: fit.errors.count,
                median: fit.errors.median,
                p90: fit.errors.p90,
                max: fit.errors.max,
            },
            interval_80: [fit.interval.0, fit.interval.1],
            coefficients,
            priors: &fit.priors,
            warnings: warnings.collect(),
            rows: fit.held_out.iter().map(|held| self.timed(held)).collect(),
        };
        write_value(out, &document)
    }

    fn timed(&self, held: &Held) -> Timed {
        let row = &self.rows[held.row];
        Timed {
            file: row.file.clone(),
            line: row.line,
            what: row.what.word(),
            prompt_tokens: row.prompt,
            depth_tokens: row.depth,
            answer_tokens: row.answer,
            sequences: row.sequences,
            measured_s: row.seconds,
            held_out_s: held.predicted_s,
            error: held.error,
        }
    }

    /// Returns the answer for a person.
    pub fn render(&self) -> String {
        let fit = self.fit;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{TITLE}{}{TITLE:#} fitted to {} measurements; each held out in turn:\n",
            self.profile.name(),
            fit.held_out.len()
        );
        let mut table = Table::new([
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
        ]);
        table.row(["", "count", "median", "p90", "max"].map(Cell::from));
        for what in [
            What::Prefill,
            What::Decode,
            What::Batch,
            What::Steady,
            What::FirstToken,
            What::Throughput,
        ] {
            let of_kind = fit
                .held_out
                .iter()
                .filter(|held| self.rows[held.row].what == what);
            let errors: Vec<f64> = of_kind.map(|held| held.error).collect();
            if let Some(errors) = Errors::of(&errors) {
                summed(&mut table, what.word(), &errors);
            }
        }
        summed(&mut table, "all", &fit.errors);
        text.push_str(&table.render());
        let _ = writeln!(
            text,
            "\n80 % of further measurements should take {:.2} to {:.2} times what this rig says.",
            fit.interval.0, fit.interval.1
        );
        if !fit.priors.is_empty() {
            let _ = writeln!(
                text,
                "No measurement shows {}; expected values stand there.",
                fit.priors.join(", ")
            );
        }
        text
    }
}

fn summed(table: &mut Table, name: &str, errors: &Errors) {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    table.row([
        Cell::from(name),
        Cell::from(errors.count),
        Cell::from(percent(errors.median)),
        Cell::from(percent(errors.p90)),
        Cell::from(percent(errors.max)),
    ]);
}
