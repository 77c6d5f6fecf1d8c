//! `laptime compare`: results or rigs side by side.

use super::asked::Asked;
use super::output::{self, Target as Out};
use super::results;
use crate::error::{Error, Exit};
use crate::report::answers::compare as report;
use crate::report::json;
use crate::study::compare::{self, Axis};
use crate::study::figures::Figures;
use crate::study::target::Figure;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  laptime compare before.json after.json
  laptime compare a1.json a2.json a3.json b1.json b2.json b3.json     repeats of the same are told apart from changes
  laptime compare --trace runs/ --rig dgx-spark/vllm/qwen3.6-27b-fp8 --rig rtx-pro-6000/vllm/qwen3.6-27b-fp8
  laptime compare --scenario scenarios/pr-triage-one-card.toml --across model";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compare {
    /// Result documents; without any, the rigs that are named are replayed.
    #[arg(value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// A respect in which the results are meant to differ: model, trace, window, pace, agents, ...; may be repeated.
    #[arg(long, value_name = "AXIS", value_parser = Axis::parse, help_heading = "Question")]
    across: Vec<Axis>,
    /// A figure to compare, such as `lap_s.p95`; may be repeated; the usual ones when absent.
    #[arg(long, value_name = "FIGURE", value_parser = Figure::parse, help_heading = "Question")]
    figure: Vec<Figure>,
    #[command(flatten)]
    asked: Asked,
    /// Write the answer as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
}

impl Compare {
    /// Compares and reports.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let mut named = results::read_all(&self.results)?;
        if named.is_empty() || !self.asked.rig.is_empty() {
            let loaded = self.asked.load()?;
            named.extend(results::replayed(&self.asked, &loaded)?);
        }
        let (names, all): (Vec<String>, Vec<Figures>) = named.into_iter().unzip();
        if all.len() < 2 {
            return Err(
                Error::usage("there is one result, and nothing to compare it with")
                    .with_help("name two result documents, or two rigs"),
            );
        }
        results::check_alike(&all, &self.across)?;
        let names = compare::told_apart(&names);
        let figures = if self.figure.is_empty() {
            compare::usual(&all)
        } else {
            self.figure.clone()
        };
        let json = self.json.as_deref().map(Out::open).transpose()?;
        let compared = compare::compare(&all, &figures, self.asked.seed);
        let silent = json.as_ref().is_some_and(Out::is_stdout);
        if let Some(json) = json {
            let document = report::document(&compared, &all, &names, self.asked.seed);
            json.write(|mut out| json::write_value(&mut out, &document))?;
        }
        if !silent {
            output::print(&report::render(&compared, &all, &names, output::look()))?;
        }
        Ok(Exit::Done)
    }
}
