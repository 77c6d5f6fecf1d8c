//! `laptime replay`: recorded sessions, N agents at a time, on one or several rigs.

use super::asked::Asked;
use super::live;
use super::output::{self, Target};
use super::talk::{self, Progress, Watched};
use crate::error::Error;
use crate::journal::Journal;
use crate::metrics::FAILURES;
use crate::report::text::counted;
use crate::report::{csv, json, text};
use crate::rig::Rig;
use crate::study::economy;
use crate::study::habits::PREFIX;
use crate::study::replay::{Replay as Replayed, Workload, replay};
use crate::trace::Trace;
use clap::Args;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  laptime replay --scenario scenarios/pr-triage-four-boxes.toml
  laptime replay --trace runs/ --rig rtx-5090/vllm/qwen3.6-27b-awq --agents 8
  laptime replay --trace run.jsonl --rig m5-max-40/llama.cpp/qwen3.6-27b-q8_0 --rig dgx-spark/vllm/qwen3.6-27b-fp8
  laptime replay --trace run.jsonl --rig recorded --json - | jq .summary.lap_s";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    #[command(flatten)]
    pub(super) asked: Asked,
    #[command(flatten)]
    pub(super) live: live::Flags,
    /// How many times the whole replay is made, each with content of its own.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "url", help_heading = "Live")]
    pub(super) repeat: u32,
    /// Write the result document to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write result.json, calls.csv and the event journal into DIR.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(super) out: Option<PathBuf>,
    /// Leave `calls` and `laps` out of the result document.
    #[arg(long, help_heading = "Output")]
    pub(super) no_calls: bool,
}

impl Replay {
    /// Replays and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let loaded = self.asked.load_for_replay()?;
        let rigs = loaded.build()?;
        let trace = &loaded.trace;
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let mut workload = self.asked.workload(&loaded)?;
        self.live.join(&mut workload.plan.conduct);
        if let Some(url) = &self.asked.url {
            return self.run_live(url, trace, &workload, rigs, json);
        }
        let folders = self
            .out
            .as_deref()
            .map(|out| open_folders(out, &rigs))
            .transpose()?;
        let replays = self.on_all(trace, &workload, rigs, folders.as_deref())?;
        for replayed in &replays {
            warn_of_failures(replayed);
        }
        let told = || text::render(&replays, output::look());
        self.deliver(&replays, json, &folders.unwrap_or_default(), told)
    }

    /// Returns the first setting that only a simulated rig can have.
    pub(super) fn settings_of_rigs(&self) -> Option<&(String, String)> {
        let mut all = self.asked.set.iter();
        all.find(|(key, _)| !key.starts_with(PREFIX) && !key.starts_with(economy::PREFIX))
    }

    /// Replays on every rig, several at the same time; results stand in the order of the rigs.
    fn on_all<'w>(
        &self,
        trace: &Trace,
        workload: &'w Workload,
        rigs: Vec<Rig>,
        folders: Option<&[PathBuf]>,
    ) -> Result<Vec<Replayed<'w>>, Error> {
        let progress = Progress::new(workload.calls * rigs.len() as u64, self.asked.quiet);
        let pool = self.asked.pool()?;
        let one = |(place, rig): (usize, Rig)| {
            let folder = folders.map(|folders| folders[place].as_path());
            on_one(trace, workload, rig, folder, &progress)
        };
        let replays = pool.install(|| rigs.into_par_iter().enumerate().map(one).collect());
        progress.finish();
        replays
    }

    /// Writes what was asked for and prints what `told` says, unless the standard output is taken. `folders` are those of
    /// the first replays.
    pub(super) fn deliver(
        &self,
        replays: &[Replayed<'_>],
        json: Option<Target>,
        folders: &[PathBuf],
        told: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let rows = !self.no_calls;
        if let Some(out) = &self.out {
            let document = Target::open(&out.join("result.json"))?;
            document.write(|mut out| json::write(&mut out, replays, rows))?;
            for (replayed, folder) in replays.iter().zip(folders) {
                let calls = Target::open(&folder.join("calls.csv"))?;
                calls.write(|out| csv::write(out, replayed))?;
            }
        }
        let silent = json.as_ref().is_some_and(Target::is_stdout);
        if let Some(target) = json {
            target.write(|mut out| json::write(&mut out, replays, rows))?;
        }
        if silent {
            return Ok(());
        }
        output::print(&told())
    }
}

pub(super) fn on_one<'w>(
    trace: &Trace,
    workload: &'w Workload,
    rig: Rig,
    folder: Option<&Path>,
    progress: &Progress,
) -> Result<Replayed<'w>, Error> {
    let path = folder
        .map(|folder| folder.join("journal.jsonl"))
        .unwrap_or_default();
    let wrong = |source| Error::write(&path, source);
    let journal = match folder {
        Some(_) => Some(Journal::new(BufWriter::new(
            File::create(&path).map_err(wrong)?,
        ))),
        None => None,
    };
    let mut watched = Watched::new(progress, journal);
    let replayed = replay(trace, workload, rig, &mut watched);
    if let Some(journal) = watched.into_inner() {
        let mut file = journal.finish().map_err(wrong)?;
        file.flush().map_err(wrong)?;
    }
    Ok(replayed)
}

/// Makes the folder of each rig: `out` itself for one rig, else one in it for each, named after the rig.
fn open_folders(out: &Path, rigs: &[Rig]) -> Result<Vec<PathBuf>, Error> {
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    let mut folders = Vec::new();
    for rig in rigs {
        let name = rig.point.name.replace(['/', '\\'], "_");
        let copies = taken.entry(name.clone()).or_default();
        *copies += 1;
        let folder = match (rigs.len(), *copies) {
            (1, _) => out.to_path_buf(),
            (_, 1) => out.join(name),
            (_, copy) => out.join(format!("{name}-{copy}")),
        };
        fs::create_dir_all(&folder).map_err(|source| Error::write(&folder, source))?;
        folders.push(folder);
    }
    Ok(folders)
}

pub(super) fn warn_of_failures(replayed: &Replayed<'_>) {
    let summary = &replayed.metrics.summary;
    if summary.failed_calls == 0 {
        return;
    }
    let whys = FAILURES
        .iter()
        .zip(&summary.failures)
        .filter(|(_, count)| **count > 0);
    let whys: Vec<String> = whys
        .map(|(outcome, count)| format!("{count} {} ({})", outcome.word(), outcome.meaning()))
        .collect();
    talk::warning(&format!(
        "{}: {} of {} failed: {}",
        replayed.point.name,
        summary.failed_calls,
        counted(summary.calls.into(), "call"),
        whys.join(", ")
    ));
}
