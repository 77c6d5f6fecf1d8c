//! `laptime size`: how many agents a rig carries within a target.

use super::asked::Asked;
use super::output::{self, Target as Out};
use super::rigs;
use super::talk::Tried;
use crate::error::{Error, Exit};
use crate::report::answers::size;
use crate::report::json;
use crate::study;
use crate::study::target::Target;
use clap::Args;
use rayon::prelude::*;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  laptime size --scenario scenarios/sizing-parallel-agents.toml
  laptime size --trace runs/ --rig dgx-spark/llama.cpp/qwen3.6-27b-q8_0 --target 'lap_s.p95<=30s'
  laptime size --trace runs/ --rig A --rig B --target 'run_s.p50<=2x solo' --target 'share(ttft_s<=5s)>=95%' --max 64";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Size {
    #[command(flatten)]
    asked: Asked,
    /// What must hold, such as '`lap_s.p95`<=30s', '`run_s.p50`<=2x solo' or '`share(lap_s`<=30s)>=95%'; may be repeated.
    #[arg(long, value_name = "TARGET", value_parser = Target::parse, help_heading = "Question")]
    target: Vec<Target>,
    /// The most agents that are tried.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Question")]
    max: u32,
    /// Write the answer as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
}

impl Size {
    /// Searches and reports.
    pub(super) fn run(mut self) -> Result<Exit, Error> {
        if self.target.is_empty() {
            return Err(Error::usage("size needs a --target")
                .with_help("such as --target 'lap_s.p95<=30s'; a scenario may name it, too"));
        }
        // A refused call takes no time: whoever does not speak of failures wants none.
        if self
            .target
            .iter()
            .all(|one| one.figure.name() != "failed_calls")
        {
            let none = Target::parse("failed_calls<=0");
            self.target.extend(none);
        }
        let loaded = self.asked.load()?;
        loaded.build()?;
        let json = self.json.as_deref().map(Out::open).transpose()?;
        let workload = self.asked.workload(&loaded)?;
        let (ground, tried) = (loaded.ground(), Tried::new(None, self.asked.quiet));
        let pool = self.asked.pool()?;
        let one = |rig| {
            let counted = || tried.one_more();
            study::size::size(
                &ground,
                rig,
                workload.plan,
                &self.target,
                self.max,
                &counted,
            )
        };
        let all: Result<Vec<_>, _> = pool.install(|| loaded.rigs.par_iter().map(one).collect());
        tried.finish();
        let all = all.map_err(|error| rigs::wrong(&error))?;
        let silent = json.as_ref().is_some_and(Out::is_stdout);
        if let Some(json) = json {
            let document = size::document(&all, &self.target, self.max, self.asked.seed);
            json.write(|mut out| json::write_value(&mut out, &document))?;
        }
        if !silent {
            let look = output::look();
            output::print(&size::render(&all, &self.target, self.max, look))?;
        }
        let found = all.iter().any(|sized| sized.best().is_some());
        Ok(if found { Exit::Done } else { Exit::Gate })
    }
}
