//! What is asked in every question: which traces, on which rigs, with how many agents, and how they behave.

use super::rigs;
use super::traces;
use crate::agent;
use crate::catalog::Catalog;
use crate::error::Error;
use crate::fleet;
use crate::report::text::counted;
use crate::rig::Rig;
use crate::study::economy::Prices;
use crate::study::figures::{Ground, RigSpec};
use crate::study::habits::{Habits, PREFIX};
use crate::study::replay::Workload;
use crate::trace::Trace;
use crate::units::Span;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Calls have 32-bit names, and a few are made again.
const MOST_CALLS: u64 = 4_000_000_000;

/// What was typed.
#[derive(Args, Clone, Debug)]
pub(super) struct Asked {
    /// A file that holds these flags, such as scenarios/pr-triage-four-boxes.toml; flags typed as well replace its own.
    #[arg(long, value_name = "FILE", help_heading = "Workload")]
    pub(super) scenario: Option<PathBuf>,
    /// Traces to replay, native or importable, .gz or .zst; a folder stands for all in it.
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Workload")]
    pub(super) trace: Vec<PathBuf>,
    /// HARDWARE/ENGINE[@VERSION]/MODEL to simulate, or `recorded`; may be repeated.
    #[arg(long, value_name = "RIG", help_heading = "Rig")]
    pub(super) rig: Vec<String>,
    /// An OpenAI-compatible engine to replay against.
    #[arg(long, value_name = "URL", help_heading = "Rig")]
    pub(super) url: Option<String>,
    /// A setting of the engine, rig, agent or costs, such as `engine.prefix_caching=off`, `rig.power_cap_w=300` or `cost.years=4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = rigs::setting, help_heading = "Rig")]
    pub(super) set: Vec<(String, String)>,
    /// Flags as the engine's own command line takes them, such as "--max-num-seqs 16".
    #[arg(
        long,
        value_name = "ARGS",
        allow_hyphen_values = true,
        help_heading = "Rig"
    )]
    pub(super) engine_args: Option<String>,
    /// How many runs are under way at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    pub(super) agents: u32,
    /// How many runs in all; every session once, and at least one for each agent, when absent.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    pub(super) runs: Option<u32>,
    /// What runs have in common.
    #[arg(long, value_enum, default_value_t = Share::Head, help_heading = "Workload")]
    pub(super) share: Share,
    /// Which recorded waits are replayed.
    #[arg(long, value_enum, default_value_t = Pace::Tools, help_heading = "Workload")]
    pub(super) pace: Pace,
    /// How many times faster than recorded the waits pass.
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive, help_heading = "Workload")]
    pub(super) pace_scale: f64,
    /// The longest single wait of a person or of unknown cause.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = Span::parse, help_heading = "Workload")]
    pub(super) idle_cap: Span,
    /// What a refused call does to its run.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnRefusal::Continue, help_heading = "Workload")]
    pub(super) on_refusal: OnRefusal,
    /// Begin resumed sessions with all but the newest part of their first prompt in the cache.
    #[arg(long, help_heading = "Workload")]
    pub(super) warm_start: bool,
    /// Tokens in a block of hashed traces, instead of inferring it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Workload")]
    pub(super) block_size: Option<u32>,
    /// Where random choices begin.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Workload")]
    pub(super) seed: u64,
    /// Show no progress; warnings and errors remain.
    #[arg(long, short, help_heading = "Output")]
    pub(super) quiet: bool,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR", help_heading = "Rig")]
    pub(super) catalog: Vec<PathBuf>,
    /// How many rigs are simulated at the same time; all cores when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Rig")]
    pub(super) threads: Option<u32>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum Share {
    /// What the recording shares, and the head between copies of a session.
    Head,
    /// Nothing.
    None,
    /// Everything: copies of a session are identical.
    All,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum Pace {
    /// All waits; sessions also start when they were recorded to start.
    Recorded,
    /// Tools and the client's overhead; people answer at once.
    Tools,
    /// No waits.
    None,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum OnRefusal {
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

/// Everything a question stands on, read and built.
pub(super) struct Loaded {
    pub(super) trace: Trace,
    pub(super) habits: Habits,
    pub(super) prices: Prices,
    pub(super) catalog: Catalog,
    pub(super) rigs: Vec<RigSpec>,
    pub(super) seed: u64,
}

impl Loaded {
    /// Returns what the studies take.
    pub(super) fn ground(&self) -> Ground<'_> {
        Ground {
            trace: &self.trace,
            habits: self.habits.settings(),
            prices: self.prices,
            catalog: &self.catalog,
            seed: self.seed,
        }
    }

    /// Builds every rig, and warns of what recordings lack.
    pub(super) fn build(&self) -> Result<Vec<Rig>, Error> {
        let specs = self.rigs.iter();
        specs
            .map(|(spec, settings)| rigs::build(spec, settings, &self.catalog, &self.trace))
            .collect()
    }
}

impl Asked {
    /// Reads traces and catalogue, and the settings of every rig, for a question that is answered by simulating.
    pub(super) fn load(&self) -> Result<Loaded, Error> {
        if self.url.is_some() {
            return Err(
                Error::usage("--url is for `replay`, `size` and `check`; this question is answered by simulating")
                    .with_help("name a rig with --rig HARDWARE/ENGINE/MODEL, or give the results of live replays to `compare` and `explain`"),
            );
        }
        self.load_for_replay()
    }

    /// Reads traces and catalogue, and the settings of every rig; there may be a real engine beside them.
    pub(super) fn load_for_replay(&self) -> Result<Loaded, Error> {
        self.check()?;
        let habits = rigs::habits(&self.set)?;
        let prices = rigs::prices(&self.set)?;
        let trace = traces::load(&self.trace, self.block_size, self.quiet)?;
        let trace = habits
            .applied(trace)
            .map_err(|error| rigs::wrong_habit(&error))?;
        let catalog = rigs::catalog(&self.catalog)?;
        let specs = self.rig.iter().map(|spec| {
            let line = self.engine_args.as_deref();
            let settings = rigs::settings(spec, line, &self.set, &catalog)?;
            Ok((spec.clone(), settings))
        });
        let specs: Result<Vec<RigSpec>, Error> = specs.collect();
        Ok(Loaded {
            rigs: specs?,
            trace,
            habits,
            prices,
            catalog,
            seed: self.seed,
        })
    }

    /// Returns what is the same for all that replays the same content: its recordings, and what is done to them.
    pub(super) fn ground_key(&self) -> String {
        let habits = self.set.iter().filter(|(key, _)| key.starts_with(PREFIX));
        let habits: Vec<_> = habits.collect();
        format!(
            "{:?} {:?} {habits:?} {:?}",
            self.trace, self.block_size, self.catalog
        )
    }

    /// Returns the threads on which replays run side by side.
    pub(super) fn pool(&self) -> Result<rayon::ThreadPool, Error> {
        let threads = self.threads.unwrap_or(0) as usize;
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::usage(format!("cannot use {threads} threads: {error}")))
    }

    /// Says what neither the command line nor its scenario names.
    fn check(&self) -> Result<(), Error> {
        let missing = match (
            self.trace.is_empty(),
            self.rig.is_empty() && self.url.is_none(),
        ) {
            (false, false) => return Ok(()),
            (true, _) => "trace",
            (false, true) => "rig",
        };
        Err(match &self.scenario {
            Some(scenario) => Error::usage(format!("{} names no `{missing}`", scenario.display()))
                .with_help(format!(
                    "give it one, or add --{missing} to the command line"
                )),
            None => Error::usage(format!("a --{missing} is required")).with_help(format!(
                "add --{missing}, or --scenario with a file that names one"
            )),
        })
    }

    /// Returns the workload that the plan makes of what was loaded.
    pub(super) fn workload(&self, loaded: &Loaded) -> Result<Workload, Error> {
        self.workload_of(loaded, self.agents)
    }

    /// Returns the same for another number of agents.
    pub(super) fn workload_of(&self, loaded: &Loaded, agents: u32) -> Result<Workload, Error> {
        let plan = fleet::Plan {
            agents,
            ..self.plan(&loaded.habits)
        };
        let mut workload = Workload::new(&loaded.trace, plan, self.seed);
        workload.settings = loaded.habits.settings();
        workload.prices = loaded.prices;
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

    /// Returns how many runs there are, at once and in all, and how agents behave.
    pub(super) fn plan(&self, habits: &Habits) -> fleet::Plan {
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
            cache_lifetime: habits.breakpoints,
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
}
