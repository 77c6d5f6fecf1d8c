//! `laptime calibrate`: measurements, read or made, to a rig that predicts them.

use super::live::{Way, refused, runtime};
use super::measure::{LIMIT, points};
use super::output::{self, Target};
use super::{rigs, talk};
use crate::catalog::efficiency::Efficiency;
use crate::catalog::rig::{Calibration, CapturedGraphs, HeldOut, RigProfile};
use crate::catalog::{Catalog, Hardware, Model};
use crate::error::Error;
use crate::known::Trust;
use crate::live::engine::Engine;
use crate::measured::{Of, Row, Unreadable, read};
use crate::report::calibration::Calibrated;
use crate::report::profile;
use crate::report::text::counted;
use crate::study::calibrate::rig::{Fit, Setup, fit};
use crate::study::live::{Wanted, meet};
use crate::study::rig::expected;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Calibrate {
    /// Measurements: output of llama-bench, llama-batched-bench, vllm bench serve, AIPerf or guidellm, results of
    /// this program, or a table as in docs/measurements; told apart by content.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        required_unless_present = "url",
        conflicts_with = "url"
    )]
    from: Vec<PathBuf>,
    /// An OpenAI-compatible engine to measure instead; nothing else should use it meanwhile.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Measure the most important sizes only, in two minutes instead of ten.
    #[arg(long, requires = "url")]
    quick: bool,
    /// The model to ask for at the URL; its first when absent.
    #[arg(long, value_name = "NAME", requires = "url", help_heading = "Live")]
    served_model: Option<String>,
    #[command(flatten)]
    way: Way,
    /// The machine that was measured, where the files do not say; only its rows are used.
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// The engine that was measured, where the files do not say; `ENGINE@VERSION` names its version too.
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// The model that was measured, with its quantisation, where the files do not say.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The rig file to write, to be named with --catalog; `-` is the standard output.
    #[arg(short, long, value_name = "RIG.toml")]
    output: Option<PathBuf>,
    /// Write the report as JSON to PATH, or to the standard output for `-`.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR")]
    catalog: Vec<PathBuf>,
    /// Show no notes; warnings and errors remain.
    #[arg(long, short)]
    quiet: bool,
}

/// What is calibrated.
struct Measured<'c> {
    hardware: &'c Hardware,
    engine: String,
    version: String,
    model: &'c Model,
}

impl Calibrate {
    /// Reads, fits and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let json = self.json.as_deref().map(Target::open).transpose()?;
        let output = self.output.as_deref().map(Target::open).transpose()?;
        let both = [&json, &output].map(|one| one.as_ref().is_some_and(Target::is_stdout));
        if both == [true, true] {
            return Err(Error::usage(
                "the report and the rig cannot both go to the standard output",
            )
            .with_help("name a file with -o"));
        }
        let catalog = rigs::catalog(&self.catalog)?;
        let all = match &self.url {
            Some(url) => self.measured(url, &catalog)?,
            None => self.read()?,
        };
        let target = self.target(&catalog, &named(&all))?;
        let rows = self.chosen(&catalog, &target, all)?;
        let (efficiency, from) = expected(target.hardware, &target.engine, target.model, &catalog);
        let fitted = fitted(&target, &efficiency, &rows)?;
        for warning in &fitted.warnings {
            talk::warning(&format!("{}: {}", rows[warning.row].place(), warning.what));
        }
        let rig = self.profile(&target, &fitted, &rows, &from);
        let silent = both.contains(&true);
        if let Some(output) = output {
            let comment = "Written by `laptime calibrate`; name this file with --catalog.";
            let text = profile::file(&rig, comment);
            output.write(|out| out.write_all(text.as_bytes()))?;
        }
        let report = Calibrated {
            profile: &rig,
            fit: &fitted,
            rows: &rows,
        };
        if let Some(json) = json {
            json.write(|mut out| report.write(&mut out))?;
        }
        if !silent {
            output::print(&report.render())?;
        }
        if let Some(path) = self.output.as_ref().filter(|path| path.as_os_str() != "-") {
            let path = path.display();
            let how = format!(
                "{path} written; replay with --catalog {path} --rig {}",
                rig.name()
            );
            talk::note(self.quiet, &how);
        }
        Ok(())
    }

    /// Measures the engine at `url`, once it is clear what the figures will be about.
    fn measured(&self, url: &str, catalog: &Catalog) -> Result<Vec<Row>, Error> {
        let dialect = self.engine.as_deref().and_then(|name| {
            let name = name.split('@').next().unwrap_or(name);
            let known = Engine::NAMES.iter().find(|(known, _)| *known == name);
            known.map(|(_, engine)| *engine)
        });
        runtime()?.block_on(async {
            // An engine that is named is only named if it does not say itself what it is.
            let wanted = self.way.wanted(url, None, self.served_model.clone(), LIMIT);
            let met = match (meet(&wanted).await, dialect) {
                (Ok(met), Some(engine)) if met.point().engine.as_deref() == Some("unknown") => {
                    let wanted = Wanted {
                        engine: Some(engine),
                        ..wanted
                    };
                    meet(&wanted).await.map_err(|why| refused(url, why))?
                }
                (met, _) => met.map_err(|why| refused(url, why))?,
            };
            let point = met.point();
            let of = Of {
                hardware: None,
                engine: point
                    .engine
                    .clone()
                    .filter(|name| catalog.engine(name).is_ok()),
                version: point.engine_version.clone(),
                model: point.model.clone(),
            };
            let target = self.target(catalog, std::slice::from_ref(&of))?;
            let what = format!(
                "measuring {} as {}/{}/{}",
                point.name, target.hardware.name, target.engine, target.model.name
            );
            talk::note(self.quiet, &what);
            let points = points(&met, self.quick, self.quiet).await?;
            let rows = points.iter().zip(1..).filter(|(point, _)| point.is_clear());
            Ok::<Vec<Row>, Error>(
                rows.map(|(point, number)| point.row(&of, &met.point().name, number))
                    .collect(),
            )
        })
    }

    fn read(&self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for path in &self.from {
            let name = path.display().to_string();
            let bytes = std::fs::read(path).map_err(|source| {
                Error::input(format!("cannot read {name}: {source}"))
                    .with_help("check that the path exists and is a file")
            })?;
            let text = String::from_utf8(bytes).map_err(|_| {
                Error::input(format!(
                    "{name}: not text; expected JSON, CSV or a table in UTF-8"
                ))
                .with_help("save the benchmark's output as text")
            })?;
            let read = read::read(&name, &text).map_err(|error| wrong(&error))?;
            let note = format!(
                "{name}: {}, {}",
                read.format.title(),
                counted(read.rows.len() as u64, "measurement")
            );
            talk::note(self.quiet, &note);
            for note in &read.notes {
                talk::note(self.quiet, &format!("{name}: {note}"));
            }
            rows.extend(read.rows);
        }
        Ok(rows)
    }

    /// Finds out what was measured, from the flags and from what the files or the engine say.
    fn target<'c>(&self, catalog: &'c Catalog, said: &[Of]) -> Result<Measured<'c>, Error> {
        let who = match self.url {
            Some(_) => "the engine does",
            None => "the files do",
        };
        let engine = self.engine.as_deref();
        let (engine, version) = match engine.map(|engine| engine.split_once('@')) {
            Some(Some((engine, version))) => (Some(engine.to_string()), Some(version.to_string())),
            _ => (engine.map(ToString::to_string), None),
        };
        let unknown = |error: crate::catalog::Unknown| {
            Error::usage(error.to_string()).with_help(
                "`laptime list hardware|engines|models` shows names; --catalog adds some",
            )
        };
        let hardware = decided((who, "hardware"), self.hardware.clone(), said, |of| {
            &of.hardware
        })?;
        let engine = decided((who, "engine"), engine, said, |of| &of.engine)?;
        let known = |of: &Of| {
            of.model
                .as_deref()
                .is_some_and(|name| catalog.model(name).is_ok())
        };
        // What llama.cpp calls a model is no name of the catalogue.
        let same = |of: &&Of| {
            of.hardware.as_ref().is_none_or(|name| *name == hardware)
                && of.engine.as_ref().is_none_or(|name| *name == engine)
        };
        let named = said.iter().filter(|of| known(of));
        let named: Vec<Of> = named.filter(same).cloned().collect();
        let model = decided((who, "model"), self.model.clone(), &named, |of| &of.model)?;
        let profile = catalog.engine(&engine).map_err(unknown)?;
        let about = |of: &&Of| same(of) && (!known(of) || of.model.as_ref() == Some(&model));
        let said = said.iter().filter(about).find_map(|of| of.version.clone());
        Ok(Measured {
            hardware: catalog.hardware(&hardware).map_err(unknown)?,
            engine: profile.name.clone(),
            version: version
                .or(said)
                .unwrap_or_else(|| profile.default_version.clone()),
            model: catalog.model(&model).map_err(unknown)?,
        })
    }

    /// Returns the rows that are about the target, or that do not say what they are about.
    fn chosen(
        &self,
        catalog: &Catalog,
        target: &Measured<'_>,
        rows: Vec<Row>,
    ) -> Result<Vec<Row>, Error> {
        let all = rows.len();
        let is = |name: &Option<String>, own: &str, found: Option<&str>| {
            name.as_deref()
                .is_none_or(|name| found.unwrap_or(name) == own)
        };
        let chosen: Vec<Row> = rows
            .into_iter()
            .filter(|row| {
                let of = &row.of;
                let hardware = of
                    .hardware
                    .as_deref()
                    .and_then(|name| catalog.hardware(name).ok());
                let engine = of
                    .engine
                    .as_deref()
                    .and_then(|name| catalog.engine(name).ok());
                let model = of
                    .model
                    .as_deref()
                    .and_then(|name| catalog.model(name).ok());
                let model_fits = model.is_none_or(|model| model.name == target.model.name);
                is(
                    &of.hardware,
                    &target.hardware.name,
                    hardware.map(|one| one.name.as_str()),
                ) && is(
                    &of.engine,
                    &target.engine,
                    engine.map(|one| one.name.as_str()),
                ) && model_fits
            })
            .collect();
        if chosen.is_empty() {
            let what = format!(
                "none of {} is about {}/{}/{}",
                counted(all as u64, "measurement"),
                target.hardware.name,
                target.engine,
                target.model.name
            );
            return Err(Error::input(what).with_help("name what was measured as the files do"));
        }
        if chosen.len() < all {
            let left = format!("{} about something else left out", all - chosen.len());
            talk::note(self.quiet, &left);
        }
        Ok(chosen)
    }

    fn profile(&self, target: &Measured<'_>, fit: &Fit, rows: &[Row], from: &str) -> RigProfile {
        let of_place = |name: &String, short: String| {
            let count = rows.iter().filter(|row| row.file == *name).count();
            (count > 0).then(|| format!("{}: {}", short, counted(count as u64, "measurement")))
        };
        let of_file = |path: &PathBuf| {
            let name = path.display().to_string();
            let short = Path::new(&name)
                .file_name()
                .map_or(name.clone(), |name| name.to_string_lossy().into_owned());
            of_place(&name, short)
        };
        let calibrated_on = match (&self.url, rows.first()) {
            (Some(_), Some(row)) => {
                let short = format!("{} at {}", target.version, row.file);
                of_place(&row.file, short).into_iter().collect()
            }
            _ => self.from.iter().filter_map(of_file).collect(),
        };
        let captured = if matches!(target.engine.as_str(), "vllm" | "sglang") {
            CapturedGraphs::Vllm
        } else {
            CapturedGraphs::None
        };
        RigProfile {
            hardware: target.hardware.name.clone(),
            engine: target.engine.clone(),
            engine_version: id(&target.version),
            model: target.model.name.clone(),
            captured_graphs: captured,
            trust: Trust::Calibrated,
            default: Calibration {
                what: "the measurements given to `laptime calibrate`".to_string(),
                calibrated_on,
                coefficients: fit.coefficients,
                priors: fit.priors.clone(),
                error: Some(HeldOut {
                    what: "measured times, each left out in turn".to_string(),
                    count: u32::try_from(fit.errors.count).unwrap_or(u32::MAX),
                    median: fit.errors.median,
                    p90: fit.errors.p90,
                    interval: fit.interval,
                    interval_from:
                        "leave-one-out errors: the rank that covers 80 %, symmetric as a ratio"
                            .to_string(),
                }),
            },
            variants: BTreeMap::new(),
            notes: vec![format!("what these measurements do not show is {from}")],
        }
    }
}

fn fitted(target: &Measured<'_>, efficiency: &Efficiency, rows: &[Row]) -> Result<Fit, Error> {
    let setup = Setup {
        hardware: target.hardware,
        engine: &target.engine,
        model: target.model,
        expected: efficiency,
        devices: 1,
    };
    fit(&setup, rows).map_err(|error| {
        Error::input(error.to_string()).with_help(
            "measure prompts of several sizes, and answers at several depths and batch sizes",
        )
    })
}

/// Returns what the rows say they are about.
fn named(rows: &[Row]) -> Vec<Of> {
    rows.iter().map(|row| row.of.clone()).collect()
}

fn wrong(error: &Unreadable) -> Error {
    Error::input(error.to_string()).with_help(match error {
        Unreadable::Unknown { .. } => {
            "`llama-bench -o json` and `vllm bench serve --save-result` write what is read here"
        }
        Unreadable::Wrong { .. } => "correct the line, or leave it out",
        Unreadable::Empty { .. } => "measure prompts and answers of stated sizes",
    })
}

/// Returns the name that was typed, else the one that the rows agree on.
fn decided(
    (who, what): (&str, &str),
    typed: Option<String>,
    said: &[Of],
    of: fn(&Of) -> &Option<String>,
) -> Result<String, Error> {
    if let Some(typed) = typed {
        return Ok(typed);
    }
    let mut names: Vec<&String> = said.iter().filter_map(|one| of(one).as_ref()).collect();
    names.sort();
    names.dedup();
    match names.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(
            Error::usage(format!("{who} not say which {what} was measured"))
                .with_help(format!("name it with --{what}")),
        ),
        several => {
            let several: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            let what = format!(
                "the files hold more than one {what}: {}",
                several.join(", ")
            );
            Err(Error::usage(what.clone())
                .with_help("choose one with --hardware, --engine and --model"))
        }
    }
}

/// Returns a version as it may stand in a catalogue file.
fn id(version: &str) -> String {
    let plain = version.trim().to_lowercase();
    plain
        .chars()
        .map(|one| {
            if one.is_ascii_alphanumeric() || ".-_".contains(one) {
                one
            } else {
                '-'
            }
        })
        .collect()
}
