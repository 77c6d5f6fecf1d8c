//! `laptime size`: how many agents a rig, or a real engine, carries within a target.

use super::asked::{Asked, Loaded};
use super::live::runtime;
use super::output::{self, Target as Out};
use super::rigs;
use super::talk::{self, Tried};
use super::turns::{self, Turns};
use crate::error::{Error, Exit};
use crate::report::answers::size;
use crate::report::json;
use crate::report::text::counted;
use crate::study;
use crate::study::figures::Figures;
use crate::study::probe::Curve;
use crate::study::size::{Measured, Sized};
use crate::study::target::Target;
use crate::units::Span;
use clap::Args;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  laptime size --scenario scenarios/sizing-parallel-agents.toml
  laptime size --trace runs/ --rig dgx-spark/llama.cpp/qwen3.6-27b-q8_0 --target 'lap_s.p95<=30s'
  laptime size --trace runs/ --url http://localhost:8000/v1 --target 'lap_s.p95<=30s' --budget 10m --out sized/
  laptime size --trace runs/ --rig A --rig B --target 'run_s.p50<=2x solo' --target 'share(ttft_s<=5s)>=95%' --max 64";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Size {
    #[command(flatten)]
    asked: Asked,
    /// What must hold, such as `lap_s.p95<=30s`, `run_s.p50<=2x solo` or `share(lap_s<=30s)>=95%`, quoted for the shell; may be repeated.
    #[arg(long, value_name = "TARGET", value_parser = Target::parse, help_heading = "Question")]
    target: Vec<Target>,
    /// The most agents that are tried.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Question")]
    max: u32,
    #[command(flatten)]
    turns: turns::Asked,
    /// How long a real engine may be measured.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = Span::parse, requires = "url", help_heading = "Live")]
    budget: Span,
    /// How often a real engine's sizes at the edge are measured at most.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "url", help_heading = "Live")]
    repeat: u32,
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
        let loaded = self.asked.load_for_replay()?;
        loaded.build()?;
        let json = self.json.as_deref().map(Out::open).transpose()?;
        let workload = self.asked.workload(&loaded)?;
        let mut found = Vec::new();
        let mut ended = None;
        if let Some(url) = &self.asked.url {
            let (sized, error) = runtime()?.block_on(self.measure(url, &loaded))?;
            found.push(sized);
            ended = error;
        }
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
        found.extend(all.map_err(|error| rigs::wrong(&error))?);
        let all = found;
        let silent = json.as_ref().is_some_and(Out::is_stdout);
        if let Some(json) = json {
            let document = size::document(&all, &self.target, self.max, self.asked.seed);
            json.write(|mut out| json::write_value(&mut out, &document))?;
        }
        if !silent {
            let look = output::look();
            output::print(&size::render(&all, &self.target, self.max, look))?;
        }
        if let Some(error) = ended {
            return Err(error);
        }
        let found = all.iter().any(|sized| sized.best().is_some());
        Ok(if found { Exit::Done } else { Exit::Gate })
    }
}

impl Size {
    /// Measures a real engine; the second value is why it ended before its time, where something went wrong.
    async fn measure(&self, url: &str, loaded: &Loaded) -> Result<(Sized, Option<Error>), Error> {
        let mut turns = Turns::new(&self.turns, &loaded.trace, self.asked.quiet);
        let met = turns.meet(url).await?;
        let (mut curve, mut found) = (Curve::default(), BTreeMap::<u32, Vec<Figures>>::new());
        let (mut kept, mut cut, mut ended) = (0, None, None);
        while let Some(size) = curve.next(self.max, self.repeat) {
            let name = format!("agents-{size}/repeat-{}", curve.times(size) + 1);
            let workload = self.asked.workload_of(loaded, size)?;
            let taken = if let Some(taken) = turns.kept(&name, &met, &workload)? {
                kept += 1;
                taken
            } else {
                let left = self.budget.saturating_sub(turns.spent());
                let expected = expected(&found, workload.runs, size);
                if left == Span::ZERO {
                    cut = Some(format!("no time was left for {}", agents(size)));
                    break;
                }
                if expected > left {
                    cut = Some(format!("{} would take about {expected}", agents(size)));
                    break;
                }
                let content = turns.fresh();
                match turns
                    .take(&name, &met, &workload, content, Some(left))
                    .await
                {
                    Ok(Some(taken)) => taken,
                    Ok(None) => {
                        cut = Some(format!("{} took longer than {left}", agents(size)));
                        break;
                    }
                    Err(error) if found.is_empty() => return Err(error),
                    Err(error) => {
                        cut = Some(error.to_string());
                        ended = Some(error);
                        break;
                    }
                }
            };
            // What one agent has is compared with nothing but itself.
            let solo = found.get(&1).filter(|_| size > 1);
            let solo = solo.map_or(&taken.figures, |all| &all[0]);
            let strain = study::size::strain(&self.target, &taken.figures, Some(solo));
            let spent = turns.spent();
            talk::note(
                self.asked.quiet,
                &format!(
                    "{}, {spent} of {}",
                    size::told(&taken.figures, &self.target, strain),
                    self.budget
                ),
            );
            curve.add(size, strain);
            found.entry(size).or_default().push(taken.figures);
        }
        if found.is_empty() {
            let why = cut.unwrap_or_default();
            return Err(Error::usage(format!("nothing was measured: {why}"))
                .with_help("give it more --budget, fewer --runs, or a shorter trace"));
        }
        let measured = Measured {
            kept,
            spent: turns.spent(),
            budget: self.budget,
            cut,
            curve,
        };
        Ok((Sized::measured(&met.point().name, measured, found), ended))
    }
}

fn agents(size: u32) -> String {
    counted(size.into(), "agent")
}

/// Returns how long so many agents will take, by the next smaller fleet; of the first nothing is known.
fn expected(found: &BTreeMap<u32, Vec<Figures>>, runs: u32, size: u32) -> Span {
    let below = found
        .range(..=size)
        .next_back()
        .and_then(|(_, all)| all.first());
    below.map_or(Span::ZERO, |one| {
        let more = f64::from(runs) / f64::from(one.workload.runs.max(1));
        Span::from_secs(one.summary.wall.secs() * more)
    })
}
