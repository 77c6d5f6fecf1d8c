//! `laptime check`: pass or fail against thresholds and a baseline.

use super::asked::{Asked, Loaded};
use super::live::runtime;
use super::output::{self, Target as Out};
use super::turns::{self, Taken, Turns};
use super::{results, talk};
use crate::error::{Error, Exit};
use crate::report::answers::check::{self as report, Title};
use crate::report::{document, json};
use crate::scenario::gate::{Entry, GateFile};
use crate::study::compare::{self, Axis};
use crate::study::figures::Figures;
use crate::study::gate::{self, Gate, Verdict};
use crate::study::replay::replay;
use crate::study::target::{Figure, Target};
use clap::Args;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  laptime check --gate scenarios/gates/serving-config.toml
  laptime check --gate gate.toml --update-baseline             keep what is found as the baseline
  laptime check --url http://localhost:8001/v1 --against http://localhost:8000/v1 --trace runs/ --agents 4     in turns, A B B A
  laptime check --gate gate.toml after-*.json --baseline before-1.json --baseline before-2.json --junit check.xml";

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// Result documents to check, repeats of the same; without any, what the gate's scenario or the flags say is replayed.
    #[arg(value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// The file that says what must hold (docs/check.md).
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present_any = ["scenario", "url"],
        help_heading = "Question"
    )]
    gate: Option<PathBuf>,
    /// Result documents to compare with, instead of the gate's; may be repeated.
    #[arg(long, value_name = "RESULT", help_heading = "Question")]
    baseline: Vec<PathBuf>,
    /// Write what was found to the gate's baseline, and pass.
    #[arg(long, help_heading = "Question")]
    update_baseline: bool,
    /// A respect in which results and baseline are meant to differ; may be repeated.
    #[arg(long, value_name = "AXIS", value_parser = Axis::parse, help_heading = "Question")]
    across: Vec<Axis>,
    #[command(flatten)]
    asked: Asked,
    /// The engine as it was: measured in turns with the one at --url, instead of a baseline.
    #[arg(long, value_name = "URL", requires = "url", conflicts_with_all = ["baseline", "update_baseline"], help_heading = "Live")]
    against: Option<String>,
    /// How often each engine is measured.
    #[arg(long, value_name = "K", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "url", help_heading = "Live")]
    repeat: u32,
    #[command(flatten)]
    turns: turns::Asked,
    /// Write the answer as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write the answer as JUnit XML to PATH.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    junit: Option<PathBuf>,
    /// Write the answer as Markdown to PATH.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    markdown: Option<PathBuf>,
    /// Annotate as GitHub's runner understands, and append to its step summary.
    #[arg(long, help_heading = "Output")]
    github: bool,
}

impl Check {
    /// Checks and reports.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let asks = self.asks()?;
        let about = asks.read.about.as_deref();
        talk::note(
            self.asked.quiet || about.is_none(),
            about.unwrap_or_default(),
        );
        // What is missing is told before anything is measured.
        let alone = self.update_baseline || self.against.is_some();
        let mut baseline = if alone {
            Vec::new()
        } else {
            self.baseline(&asks)?
        };
        let Found {
            documents,
            beside,
            ended,
        } = self.found()?;
        baseline.extend(beside);
        let found = figures(&documents)?;
        let mut names: Vec<&str> = found.iter().map(|one| one.point.name.as_str()).collect();
        names.dedup();
        let what = names.join(", ");
        if self.update_baseline {
            return match ended {
                Some(error) => Err(error),
                None => update(&asks, &documents),
            };
        }
        for old in &baseline {
            let mut pair: Vec<Figures> = vec![old.clone()];
            pair.extend(found.iter().cloned());
            results::check_alike(&pair, &asks.across)?;
        }
        let findings = gate::judge(&asks.gate, &found, &baseline, self.asked.seed);
        let pair: Vec<Figures> = baseline
            .first()
            .into_iter()
            .chain(found.first())
            .cloned()
            .collect();
        let differences = compare::differences(&pair);
        let title = Title {
            gate: &asks.name(),
            what: &what,
            differences: &differences,
        };
        self.deliver(title, &findings)?;
        if let Some(error) = ended {
            return Err(error);
        }
        Ok(match gate::verdict(&findings) {
            Verdict::Fail => Exit::Gate,
            Verdict::Pass | Verdict::Unclear => Exit::Done,
        })
    }

    /// Returns what must hold: what the file says, or what is usual for real engines.
    fn asks(&self) -> Result<Asks, Error> {
        let live = self.asked.url.is_some();
        let mut asks = match &self.gate {
            Some(path) => Asks::read(path)?,
            None if live => Asks::usual(),
            None => {
                return Err(
                    Error::usage("the scenario names no `gate`").with_help("add --gate FILE")
                );
            }
        };
        asks.gate.interleaved |= self.against.is_some();
        asks.across.extend(&self.across);
        if live {
            // A context that cuts calls short is what the gate is to find.
            asks.across.push(Axis::Window);
        }
        Ok(asks)
    }

    /// Measures the engine, in turns with the one it is checked against.
    async fn measure(&self, url: &str, loaded: &Loaded) -> Result<Found, Error> {
        let mut turns = Turns::new(&self.turns, &loaded.trace, self.asked.quiet);
        let new = turns.meet(url).await?;
        let old = match &self.against {
            Some(against) => Some(turns.meet(against).await?),
            None => None,
        };
        let apart = self.against.as_deref() == Some(url);
        let workload = self.asked.workload(loaded)?;
        let mut found = Found::default();
        for turn in 1..=self.repeat {
            let mut sides = vec![("new", &new)];
            sides.extend(old.iter().map(|old| ("old", old)));
            let mut pair = Found::default();
            // A B B A: what drifts over the day falls on both alike.
            if turn % 2 == 1 {
                sides.reverse();
            }
            let name = |side: &str| format!("{side}/repeat-{turn}");
            let kept = sides
                .iter()
                .map(|(side, met)| turns.kept(&name(side), met, &workload));
            let kept: Vec<Option<Taken>> = kept.collect::<Result<_, Error>>()?;
            let whole = kept.iter().all(Option::is_some);
            let mut content = turns.fresh();
            for ((side, met), taken) in sides.into_iter().zip(kept) {
                let name = name(side);
                // A pair is of the same content and of about the same time, or it is none.
                let taken = if let Some(taken) = taken.filter(|_| whole) {
                    taken
                } else {
                    if apart {
                        content = turns.fresh();
                    }
                    let taken = turns.take(&name, met, &workload, content, None);
                    match taken.await {
                        Ok(Some(taken)) => taken,
                        Ok(None) => continue,
                        Err(error) if found.documents.is_empty() => return Err(error),
                        Err(error) => {
                            found.ended = Some(error);
                            return Ok(found);
                        }
                    }
                };
                let wall = taken.figures.summary.wall;
                let told = format!("{side}, {turn} of {}: all runs in {wall}", self.repeat);
                talk::note(self.asked.quiet, &told);
                if side == "old" {
                    pair.beside.push(taken.figures);
                } else {
                    pair.documents.push(taken.document);
                }
            }
            found.beside.extend(pair.beside);
            found.documents.extend(pair.documents);
        }
        Ok(found)
    }

    /// Returns the results to check, read, replayed or measured.
    fn found(&self) -> Result<Found, Error> {
        if let Some(url) = &self.asked.url {
            if !self.results.is_empty() || !self.asked.rig.is_empty() {
                return Err(Error::usage(
                    "what is checked is either results, or rigs, or the engine at --url",
                )
                .with_help("name one of them"));
            }
            let loaded = self.asked.load_for_replay()?;
            return runtime()?.block_on(self.measure(url, &loaded));
        }
        let mut documents = Vec::new();
        for path in &self.results {
            let wrong = |what: String| Error::input(format!("{}: {what}", path.display()));
            let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
            documents.extend(document::split(&bytes).map_err(wrong)?);
        }
        if documents.is_empty() {
            let loaded = self.asked.load()?;
            let rigs = loaded.build()?;
            let workload = self.asked.workload(&loaded)?;
            for rig in rigs {
                let replayed = replay(&loaded.trace, &workload, rig, &mut Vec::new());
                let mut bytes = Vec::new();
                let written = json::write(&mut bytes, &[replayed], true);
                written.map_err(|source| Error::write(Path::new("memory"), source))?;
                documents.push(String::from_utf8_lossy(&bytes).trim_end().to_string());
            }
        }
        Ok(Found {
            documents,
            ..Found::default()
        })
    }

    fn baseline(&self, asks: &Asks) -> Result<Vec<Figures>, Error> {
        let read = &asks.read;
        let typed = !self.baseline.is_empty();
        let paths = if typed {
            &self.baseline
        } else {
            &read.baseline
        };
        let needed = !asks.gate.tolerances.is_empty() || !asks.gate.exact.is_empty();
        if needed && paths.is_empty() {
            let what = format!(
                "{} compares with a baseline, and there is none",
                asks.path.display()
            );
            talk::warning(&what);
        }
        let mut all = Vec::new();
        for one in paths {
            if !typed && !one.exists() {
                return Err(
                    Error::input(format!("the baseline {} is not there", one.display()))
                        .with_help("--update-baseline writes it from what is found now"),
                );
            }
            all.extend(results::read(one)?);
        }
        Ok(all)
    }

    fn deliver(&self, title: Title<'_>, findings: &[gate::Finding]) -> Result<(), Error> {
        let write = |path: &Option<PathBuf>, text: String| match path {
            Some(path) => Out::open(path)?.write(|out| out.write_all(text.as_bytes())),
            None => Ok(()),
        };
        write(&self.junit, report::junit(title, findings))?;
        write(&self.markdown, report::markdown(title, findings))?;
        if self.github {
            // The runner reads either stream; the answer has the standard output to itself.
            let _ = std::io::stderr().write_all(report::annotations(title, findings).as_bytes());
            if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from) {
                let opened = fs::OpenOptions::new().append(true).create(true).open(&path);
                let text = report::markdown(title, findings);
                let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
                written.map_err(|source| Error::write(&path, source))?;
            }
        }
        let json = self.json.as_deref().map(Out::open).transpose()?;
        let silent = json.as_ref().is_some_and(Out::is_stdout);
        if let Some(json) = json {
            let document = report::document(title, findings);
            json.write(|mut out| json::write_value(&mut out, &document))?;
        }
        if silent {
            return Ok(());
        }
        output::print(&report::render(title, findings, output::look()))
    }
}

fn figures(documents: &[String]) -> Result<Vec<Figures>, Error> {
    let one = |text: &String| {
        let read = document::read(text.as_bytes());
        read.map_err(|what| Error::input(format!("a result cannot be used: {what}")))
    };
    let all: Result<Vec<Vec<Figures>>, Error> = documents.iter().map(one).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// Writes results to where the gate looks for its baseline.
fn update(asks: &Asks, documents: &[String]) -> Result<Exit, Error> {
    let [baseline] = asks.read.baseline.as_slice() else {
        let told = format!(
            "{} must name one `baseline` to be updated",
            asks.path.display()
        );
        return Err(Error::usage(told).with_help("such as baseline = \"baseline.json\""));
    };
    let text = document::join(documents);
    Out::open(baseline)?.write(|out| out.write_all(text.as_bytes()))?;
    talk::note(
        false,
        &format!(
            "{} holds {} now",
            baseline.display(),
            crate::report::text::counted(documents.len() as u64, "result")
        ),
    );
    Ok(Exit::Done)
}

/// What is checked.
#[derive(Debug, Default)]
struct Found {
    /// Results, each a document.
    documents: Vec<String>,
    /// Those of the engine that was measured in turns with it.
    beside: Vec<Figures>,
    /// Why there are no more of them, where something went wrong.
    ended: Option<Error>,
}

/// What must hold, and where that was said.
#[derive(Debug)]
struct Asks {
    path: PathBuf,
    read: GateFile,
    gate: Gate,
    across: Vec<Axis>,
}

impl Asks {
    fn read(path: &Path) -> Result<Asks, Error> {
        let read = GateFile::read(path).map_err(|error| {
            Error::usage(error.to_string()).with_help("docs/check.md describes the file")
        })?;
        let (gate, across) = meant(path, &read)?;
        Ok(Asks {
            path: path.to_path_buf(),
            read,
            gate,
            across,
        })
    }

    fn usual() -> Asks {
        Asks {
            path: PathBuf::from("the usual gate"),
            read: GateFile::default(),
            gate: Gate::usual(),
            across: Vec::new(),
        }
    }

    fn name(&self) -> String {
        let stem = self.path.file_stem().unwrap_or(self.path.as_os_str());
        stem.to_string_lossy().trim_end_matches(".gate").to_string()
    }
}

/// Returns what the entries of a gate file mean.
fn meant(path: &Path, read: &GateFile) -> Result<(Gate, Vec<Axis>), Error> {
    fn all<T>(
        path: &Path,
        entries: &[Entry],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let one = |entry: &Entry| {
            parse(&entry.text)
                .map_err(|why| Error::usage(format!("{}:{}: {why}", path.display(), entry.line)))
        };
        entries.iter().map(one).collect()
    }
    let tolerance = |text: &str| {
        let (figure, limit) = text
            .split_once('=')
            .ok_or("expected a figure and a percentage")?;
        let share = limit
            .trim()
            .strip_suffix('%')
            .and_then(|it| it.trim().parse::<f64>().ok());
        let share = share.filter(|share| share.is_finite() && *share >= 0.0);
        let share = share.ok_or_else(|| {
            format!("`{figure}` may get worse by `{limit}`; expected a percentage such as \"5%\"")
        })?;
        Ok((Figure::parse(figure)?, share / 100.0))
    };
    let gate = Gate {
        targets: all(path, &read.targets, Target::parse)?,
        tolerances: all(path, &read.tolerances, tolerance)?,
        exact: all(path, &read.exact, Figure::parse)?,
        confidence: read.confidence.unwrap_or(0.95),
        interleaved: read.interleaved,
    };
    if gate.targets.iter().any(Target::needs_solo) {
        return Err(Error::usage(format!(
            "{}: a gate knows no single agent to compare with",
            path.display()
        ))
        .with_help("write the limit as a time or a number"));
    }
    if gate.targets.is_empty() && gate.tolerances.is_empty() && gate.exact.is_empty() {
        return Err(Error::usage(format!("{} checks nothing", path.display()))
            .with_help("give it `target`, `tolerance` or `exact`"));
    }
    Ok((gate, all(path, &read.across, Axis::parse)?))
}
