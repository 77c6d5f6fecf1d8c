//! `laptime explain`: where the time went, and what one change at a time would do.

use super::asked::{Asked, Loaded};
use super::output::{self, Target as Out};
use super::talk::{self, Tried};
use super::{results, rigs};
use crate::error::{Error, Exit};
use crate::fleet::Plan;
use crate::operating_point::Kind;
use crate::report::answers::explain as report;
use crate::report::json;
use crate::study::explain::{self, Explained};
use crate::study::figures::Figures;
use crate::study::rig;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  laptime explain --scenario scenarios/fan-out-agents.toml
  laptime explain --trace runs/ --rig rtx-5090/vllm/qwen3.6-27b-awq --agents 8
  laptime explain result.json                    where the time went
  laptime explain result.json --trace runs/      and what would help, simulated";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// A result document; without one, the rig that is named is replayed.
    #[arg(value_name = "RESULT")]
    result: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    /// Write the answer as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
}

impl Explain {
    /// Explains and reports.
    pub(super) fn run(mut self) -> Result<Exit, Error> {
        let given = self.result.as_deref().map(results::read).transpose()?;
        let json = self.json.as_deref().map(Out::open).transpose()?;
        let mut explained = Vec::new();
        match given {
            None => explained = self.explain(None)?,
            Some(all) if self.asked.trace.is_empty() => {
                explained.extend(all.into_iter().map(explain::told_by));
            }
            Some(all) => {
                for one in &all {
                    explained.extend(self.explain(Some(one))?);
                }
            }
        }
        let silent = json.as_ref().is_some_and(Out::is_stdout);
        if let Some(json) = json {
            let mut documents: Vec<_> = explained.iter().map(report::document).collect();
            let one = if documents.len() == 1 {
                documents.remove(0)
            } else {
                documents.into()
            };
            json.write(|mut out| json::write_value(&mut out, &one))?;
        }
        if !silent {
            let look = output::look();
            let texts: Vec<String> = explained
                .iter()
                .map(|one| report::render(one, look))
                .collect();
            output::print(&texts.join("\n"))?;
        }
        Ok(Exit::Done)
    }

    /// Explains every rig, or a given result on the rig that it came from or that stands in for it.
    fn explain(&mut self, given: Option<&Figures>) -> Result<Vec<Explained>, Error> {
        if let Some(given) = given {
            self.stand_in(given)?;
        }
        let mut loaded = self.asked.load()?;
        if let Some(given) = given {
            let sources = loaded.trace.sources.iter();
            let digests = sources.map(|one| one.digest.as_str());
            let replayed = given.workload.traces.iter();
            if !replayed.map(|(_, digest)| digest.as_str()).eq(digests) {
                return Err(Error::usage(
                    "the trace is not the one of the result: their digests differ",
                )
                .with_help("name the files that were replayed, in the same order"));
            }
            if given.point.kind == Kind::Simulated {
                let chosen = chosen(given, &loaded)?;
                loaded.rigs = vec![(given.point.name.clone(), chosen)];
            }
        }
        loaded.build()?;
        let mut plan = self.asked.workload(&loaded)?.plan;
        if let Some(given) = given {
            plan = Plan {
                ..given.workload.plan
            };
        }
        let (ground, tried) = (loaded.ground(), Tried::new(None, self.asked.quiet));
        let pool = self.asked.pool()?;
        let counted = || tried.one_more();
        let all = loaded.rigs.iter().map(|rig| {
            let base = given.cloned();
            pool.install(|| explain::explain(&ground, rig, plan, base, &counted))
        });
        let all: Result<Vec<Explained>, _> = all.collect();
        tried.finish();
        all.map_err(|error| rigs::wrong(&error))
    }

    /// Makes up for what was not typed with the rig and the habits of a result.
    fn stand_in(&mut self, given: &Figures) -> Result<(), Error> {
        let live = given.point.kind == Kind::Live;
        match (self.asked.rig.first(), live) {
            (Some(rig), true) => {
                let told = format!(
                    "changes are simulated on {rig}, which stands in for what was measured"
                );
                talk::note(self.asked.quiet, &told);
            }
            (None, true) => {
                return Err(Error::usage(
                    "a live result needs a rig on which changes are simulated",
                )
                .with_help("name the one most like it with --rig, or leave out --trace"));
            }
            (Some(_), false) => {
                return Err(Error::usage("a simulated result brings its own rig")
                    .with_help("leave out --rig, or leave out the result"));
            }
            (None, false) => self.asked.rig.push(given.point.name.clone()),
        }
        let habits = given.workload.settings.iter();
        let habits = habits.map(|(key, value)| (key.clone(), value.clone()));
        self.asked.set.extend(habits);
        Ok(())
    }
}

/// Returns the settings of a result that somebody chose: those that are not what the rig has by itself.
fn chosen(given: &Figures, loaded: &Loaded) -> Result<Vec<(String, String)>, Error> {
    let plain = (given.point.name.clone(), Vec::new());
    let plain = rig::build_for(&plain.0, &plain.1, &loaded.catalog, &loaded.trace);
    let plain = plain.map_err(|error| rigs::wrong(&error))?.point.settings;
    let own = given.point.settings.iter();
    let own = own.filter(|(key, value)| plain.get(*key) != Some(value));
    let engine = given
        .point
        .engine
        .as_deref()
        .and_then(|name| loaded.catalog.engine(name).ok());
    // What follows from other settings is no setting, and is worked out again.
    let settable = |key: &str| match key.strip_prefix("engine.") {
        Some(own) => engine.is_some_and(|engine| engine.setting(own).is_some()),
        None => true,
    };
    let own = own.filter(|(key, _)| settable(key));
    Ok(own
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect())
}
