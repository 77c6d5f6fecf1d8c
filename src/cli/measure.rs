//! `laptime measure`: what an engine can do, as a table from which a rig is fitted.

use super::live::{Asked, refused, runtime};
use super::output::Target;
use super::talk;
use crate::error::{Error, Exit};
use crate::live::engine::{context, slots};
use crate::study::live::{Met, meet};
use crate::study::measure::{Point, Room, measure, sizes};
use crate::units::{Span, three_digits};
use clap::Args;
use std::io;
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Measure {
    /// An OpenAI-compatible engine.
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    asked: Asked,
    /// The machine it runs on, by its name in the catalogue.
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// The model it serves, by its name in the catalogue.
    #[arg(long, value_name = "NAME")]
    catalog_model: Option<String>,
    /// Measure the most important sizes only, in two minutes instead of ten.
    #[arg(long)]
    quick: bool,
    /// Where the table goes; `-` is the standard output.
    #[arg(short, long, value_name = "TABLE.csv", default_value = "-")]
    output: PathBuf,
    /// Say nothing while measuring.
    #[arg(long, short)]
    quiet: bool,
}

impl Measure {
    /// Measures and writes the table.
    pub(super) fn run(self) -> Result<(), Error> {
        let target = Target::open(&self.output)?;
        let wanted = self.asked.wanted(&self.url, LIMIT);
        let (met, points) = runtime()?.block_on(async {
            let met = meet(&wanted).await.map_err(|why| refused(&self.url, why))?;
            let points = points(&met, self.quick, self.quiet).await?;
            Ok::<_, Error>((met, points))
        })?;
        target.write(|out| self.table(&met, &points, out))
    }

    /// Writes the points as tables of measurements have them.
    fn table(&self, met: &Met, points: &[Point], out: &mut dyn io::Write) -> io::Result<()> {
        let point = met.point();
        let mut table = csv::Writer::from_writer(out);
        table.write_record([
            "hardware",
            "engine",
            "version",
            "model",
            "metric",
            "value",
            "prompt_tokens",
            "depth_tokens",
            "answer_tokens",
            "sequences",
            "least",
            "most",
            "times",
            "cached_tokens",
        ])?;
        let known = |name: &Option<String>| name.clone().unwrap_or_default();
        for one in points {
            let size = &one.size;
            table.write_record([
                known(&self.hardware),
                known(&point.engine),
                known(&point.engine_version),
                known(&self.catalog_model),
                size.metric.word().to_string(),
                one.value.to_string(),
                size.prompt.to_string(),
                size.depth.to_string(),
                size.answer.to_string(),
                size.sequences.to_string(),
                one.range.0.to_string(),
                one.range.1.to_string(),
                one.times.to_string(),
                one.cached
                    .map_or_else(String::new, |cached| cached.to_string()),
            ])?;
        }
        table.flush()
    }
}

/// How late the client may be: what it is late by, it measures.
pub(super) const LIMIT: Span = Span(1_000_000_000);

/// Measures an engine, the most important sizes only if it is to be `quick`.
pub(super) async fn points(met: &Met, quick: bool, quiet: bool) -> Result<Vec<Point>, Error> {
    let context = context(&met.point().settings).unwrap_or(u64::MAX);
    let room = Room {
        context,
        slots: slots(&met.point().settings).unwrap_or(u64::MAX),
        shared: met.point().engine.as_deref() == Some("llama.cpp"),
    };
    let sizes = sizes(quick, room);
    let budget = Span::from_secs(if quick { 120.0 } else { 600.0 });
    let tell = |point: &Point| talk::note(quiet, &told(point));
    let points = measure(met, &sizes, budget, tell).await.map_err(|why| {
        Error::live(Exit::NoSuccess, format!("the engine failed: {why}"))
            .with_help("nothing was written; `laptime replay --url` shows what it does with calls")
    })?;
    if points.is_empty() {
        return Err(Error::live(Exit::NoSuccess, "nothing could be measured")
            .with_help("the engine tells too small a context, or answers too slowly"));
    }
    if points.len() < sizes.len() {
        talk::warning(&format!(
            "{} of {} sizes measured: time was up, or the engine has no room for so many calls at a time",
            points.len(),
            sizes.len()
        ));
    }
    Ok(points)
}

fn told(point: &Point) -> String {
    let size = &point.size;
    format!(
        "{} of {} tokens at depth {}, answer {}, x {}: {} at first",
        size.metric.word(),
        size.prompt,
        size.depth,
        size.answer,
        size.sequences,
        three_digits(point.value),
    )
}
