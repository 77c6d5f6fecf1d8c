//! `laptime replay`: recorded sessions, N agents at a time, on one or several rigs.

use super::output::{self, Target};
use super::talk::{self, Progress, Watched};
use super::{live, rigs, traces};
use crate::agent;
use crate::error::Error;
use crate::fleet;
use crate::journal::Journal;
use crate::metrics::FAILURES;
use crate::report::text::counted;
use crate::report::{csv, json, text};
use crate::rig::Rig;
use crate::study::economy;
use crate::study::habits::{Habits, PREFIX};
use crate::study::replay::{Replay as Replayed, Workload, replay};
use crate::trace::Trace;
use crate::units::Span;
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Calls have 32-bit names, and a few are made again.
const MOST_CALLS: u64 = 4_000_000_000;

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
    /// A file that holds these flags, such as scenarios/pr-triage-four-boxes.toml; flags typed as well replace its own.
    #[arg(long, value_name = "FILE", help_heading = "Workload")]
    scenario: Option<PathBuf>,
    /// Traces to replay, native or importable, .gz or .zst; a folder stands for all in it.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "scenario", help_heading = "Workload")]
    trace: Vec<PathBuf>,
    /// HARDWARE/ENGINE[@VERSION]/MODEL to simulate, or `recorded`; may be repeated.
    #[arg(
        long,
        value_name = "RIG",
        required_unless_present_any = ["url", "scenario"],
        help_heading = "Rig"
    )]
    rig: Vec<String>,
    /// An OpenAI-compatible engine to replay against.
    #[arg(long, value_name = "URL", help_heading = "Rig")]
    url: Option<String>,
    #[command(flatten)]
    pub(super) live: live::Flags,
    /// A setting of the engine, rig, agent or costs, such as `engine.prefix_caching=off`, `rig.power_cap_w=300` or `cost.years=4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = rigs::setting, help_heading = "Rig")]
    set: Vec<(String, String)>,
    /// Flags as the engine's own command line takes them, such as "--max-num-seqs 16".
    #[arg(
        long,
        value_name = "ARGS",
        allow_hyphen_values = true,
        help_heading = "Rig"
    )]
    engine_args: Option<String>,
    /// How many runs are under way at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    agents: u32,
    /// How many runs in all; every session once, and at least one for each agent, when absent.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    runs: Option<u32>,
    /// What runs have in common.
    #[arg(long, value_enum, default_value_t = Share::Head, help_heading = "Workload")]
    share: Share,
    /// Which recorded waits are replayed.
    #[arg(long, value_enum, default_value_t = Pace::Tools, help_heading = "Workload")]
    pace: Pace,
    /// How many times faster than recorded the waits pass.
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive, help_heading = "Workload")]
    pace_scale: f64,
    /// The longest single wait of a person or of unknown cause.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = Span::parse, help_heading = "Workload")]
    idle_cap: Span,
    /// What a refused call does to its run.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnRefusal::Continue, help_heading = "Workload")]
    on_refusal: OnRefusal,
    /// Begin resumed sessions with all but the newest part of their first prompt in the cache.
    #[arg(long, help_heading = "Workload")]
    warm_start: bool,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    block_size: Option<u32>,
    /// Where random choices begin.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Workload")]
    seed: u64,
    /// Write the result document to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write result.json, calls.csv and the event journal into DIR.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(super) out: Option<PathBuf>,
    /// Leave `calls` and `laps` out of the result document.
    #[arg(long, help_heading = "Output")]
    pub(super) no_calls: bool,
    /// Show no progress; warnings and errors remain.
    #[arg(long, short, help_heading = "Output")]
    pub(super) quiet: bool,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR", help_heading = "Rig")]
    catalog: Vec<PathBuf>,
    /// How many rigs are simulated at the same time; all cores when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rig")]
    threads: Option<u32>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Share {
    /// What the recording shares, and the head between copies of a session.
    Head,
    /// Nothing.
    None,
    /// Everything: copies of a session are identical.
    All,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Pace {
    /// All waits; sessions also start when they were recorded to start.
    Recorded,
    /// Tools and the client's overhead; people answer at once.
    Tools,
    /// No waits.
    None,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum OnRefusal {
    /// The run goes on with its next recorded step.
    Continue,
    /// The run ends.
    Stop,
}

/// Reads a number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_string())?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("expected a number above 0".to_string())
    }
}

impl Replay {
    /// Replays and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        self.check_scenario()?;
        let habits = rigs::habits(&self.set)?;
        let prices = rigs::prices(&self.set)?;
        let trace = traces::load(&self.trace, self.block_size, self.quiet)?;
        let trace = habits
            .applied(trace)
            .map_err(|error| rigs::wrong_habit(&error))?;
        let catalog = rigs::catalog(&self.catalog)?;
        let built: Result<Vec<Rig>, Error> = self
            .rig
            .iter()
            .map(|spec| {
                let line = self.engine_args.as_deref();
                let settings = rigs::settings(spec, line, &self.set, &catalog)?;
                rigs::build(spec, &settings, &catalog, &trace)
            })
            .collect();
        let rigs = built?;
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let mut workload = self.workload(&trace, habits)?;
        workload.prices = prices;
        if let Some(url) = &self.url {
            return self.run_live(url, &trace, &workload, rigs, json);
        }
        let folders = self
            .out
            .as_deref()
            .map(|out| open_folders(out, &rigs))
            .transpose()?;
        let replays = self.on_all(&trace, &workload, rigs, folders.as_deref())?;
        for replayed in &replays {
            warn_of_failures(replayed);
        }
        self.deliver(&replays, json, folders.as_deref())
    }

    /// A scenario may leave out what is asked of a command line without one; what neither names is missing.
    fn check_scenario(&self) -> Result<(), Error> {
        let Some(scenario) = &self.scenario else {
            return Ok(());
        };
        let missing = match (
            self.trace.is_empty(),
            self.rig.is_empty() && self.url.is_none(),
        ) {
            (false, false) => return Ok(()),
            (true, _) => "trace",
            (false, true) => "rig",
        };
        Err(
            Error::usage(format!("{} names no `{missing}`", scenario.display())).with_help(
                format!("give it one, or add --{missing} to the command line"),
            ),
        )
    }

    fn workload(&self, trace: &Trace, habits: Habits) -> Result<Workload, Error> {
        let mut plan = self.plan();
        plan.conduct.cache_lifetime = habits.breakpoints;
        let mut workload = Workload::new(trace, plan, self.seed);
        workload.settings = habits.settings();
        if workload.calls > MOST_CALLS {
            return Err(Error::usage(format!(
                "{} make {} calls; at most {MOST_CALLS} can be replayed at once",
                counted(workload.runs.into(), "run"),
                workload.calls
            ))
            .with_help("ask for fewer --runs or --agents"));
        }
        Ok(workload)
    }

    /// Returns the first setting that only a simulated rig can have.
    pub(super) fn settings_of_rigs(&self) -> Option<&(String, String)> {
        let mut all = self.set.iter();
        all.find(|(key, _)| !key.starts_with(PREFIX) && !key.starts_with(economy::PREFIX))
    }

    fn plan(&self) -> fleet::Plan {
        let conduct = agent::Conduct {
            pace: match self.pace {
                Pace::Recorded => agent::Pace::Recorded,
                Pace::Tools => agent::Pace::Tools,
                Pace::None => agent::Pace::None,
            },
            pace_scale: self.pace_scale,
            idle_cap: self.idle_cap,
            on_refusal: match self.on_refusal {
                OnRefusal::Continue => agent::OnRefusal::Continue,
                OnRefusal::Stop => agent::OnRefusal::Stop,
            },
            warm_start: self.warm_start,
            history: self.live.history(),
            retries: self.live.retries(),
            ..agent::Conduct::default()
        };
        fleet::Plan {
            agents: self.agents,
            runs: self.runs,
            share: match self.share {
                Share::Head => fleet::Share::Head,
                Share::None => fleet::Share::None,
                Share::All => fleet::Share::All,
            },
            conduct,
        }
    }

    /// Replays on every rig, several at the same time; results stand in the order of the rigs.
    fn on_all<'w>(
        &self,
        trace: &Trace,
        workload: &'w Workload,
        rigs: Vec<Rig>,
        folders: Option<&[PathBuf]>,
    ) -> Result<Vec<Replayed<'w>>, Error> {
        let progress = Progress::new(workload.calls * rigs.len() as u64, self.quiet);
        let threads = self.threads.unwrap_or(0) as usize;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::usage(format!("cannot use {threads} threads: {error}")))?;
        let one = |(place, rig): (usize, Rig)| {
            let folder = folders.map(|folders| folders[place].as_path());
            on_one(trace, workload, rig, folder, &progress)
        };
        let replays = pool.install(|| rigs.into_par_iter().enumerate().map(one).collect());
        progress.finish();
        replays
    }

    fn deliver(
        &self,
        replays: &[Replayed<'_>],
        json: Option<Target>,
        folders: Option<&[PathBuf]>,
    ) -> Result<(), Error> {
        let rows = !self.no_calls;
        if let (Some(out), Some(folders)) = (&self.out, folders) {
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
        output::print(&text::render(replays, output::look()))
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
