//! Profiles as files of the catalogue.

use super::assess::{Fleet, Found, Recorded, RunErrors};
use super::points;
use super::published::{Published, PublishedRig};
use laptime::catalog::efficiency::{Learned, TERM_NAMES};
use laptime::catalog::{Calibration, CapturedGraphs, Catalog, HeldOut, RigProfile};
use laptime::known::Trust;
use laptime::report::profile::{coefficients, file, held_out, number};
use laptime::rig::cost::Coefficients;
use laptime::study::calibrate::{Errors, interval_80};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The least reach of an interval from a handful of runs: two states of one machine were this far apart.
const STATE_REACH: f64 = 1.09;
/// A rig whose points predict each other worse than this is no better than an estimate, and is not shipped.
const FAR_OFF: f64 = 0.10;
/// The least reach of an interval from many cells of one day: runs of one machine in one state were this far apart.
const RUN_REACH: f64 = 1.05;

/// Returns every profile: its file's name and text.
pub(crate) fn files(found: &Found) -> Vec<(String, String)> {
    let fleet = found.fleet.iter().flat_map(|one| {
        one.point.hardware.iter().map(move |hardware| {
            let (engine, model) = (one.point.engine, one.point.model);
            (
                format!("{hardware}.{engine}.{model}.toml"),
                fleet_file(one, hardware),
            )
        })
    });
    let recorded = found.recorded.iter().map(|one| {
        (
            format!("rtx-pro-6000.vllm.{}.toml", one.model),
            recorded_file(one),
        )
    });
    fleet.chain(recorded).collect()
}

fn head(hardware: &str, engine: &str, version: &str, model: &str, notes: &[&str]) -> String {
    let mut text = String::from(
        "# Written by `cargo run --release --example accuracy`; see docs/accuracy.md.\n",
    );
    let captured = points::captured(engine).word();
    let _ = writeln!(
        text,
        "hardware = \"{hardware}\"\nengine = \"{engine}\"\nengine_version = \"{version}\""
    );
    let _ = writeln!(
        text,
        "model = \"{model}\"\ncaptured_graphs = \"{captured}\"\ntrust = \"calibrated\""
    );
    let _ = writeln!(text, "notes = [");
    for note in notes {
        let _ = writeln!(text, "    \"{note}\",");
    }
    text.push_str("]\n");
    text
}

fn fleet_file(one: &Fleet, hardware: &str) -> String {
    let point = one.point;
    let mut text = head(
        hardware,
        point.engine,
        &one.version,
        point.model,
        point.notes,
    );
    let machines = point.hardware.join(" and ");
    let cells = one.cells.len();
    let _ = write!(
        text,
        "\n[default]\nwhat = \"all healthy cells of {machines}\"\n\
         calibrated_on = [\"MMBT fleet study, May 2026: {cells} cells of docs/measurements/fleet_cells.csv\"]\npriors = []\n"
    );
    text.push_str(&coefficients(
        "default",
        &Coefficients {
            overlap: points::overlap(hardware),
            ..one.coefficients
        },
    ));
    let held: Vec<f64> = one.cells.iter().map(|cell| cell.held_out).collect();
    let how = "leave-one-cell-out errors: the rank that covers 80 %, symmetric as a ratio, at least the 5 % by which recorded runs of one machine differ";
    text.push_str(&error(
        "default",
        "wall time of cold batches, each cell left out in turn",
        &held,
        how,
        RUN_REACH,
    ));
    text
}

fn recorded_file(one: &Recorded) -> String {
    let mut notes = vec![
        "whole agent runs recorded against one vLLM, one call at a time; what a further row costs is a prior",
        "the version of the engine is not in the receipts; prefix caching did not apply to these models then",
    ];
    if !one.states.is_empty() {
        notes.push("the default lies between two states of the machine; --set rig.variant=april (600 and 550 W) or may (500 W) names one");
    }
    if one.runs.len() == 1 {
        notes.push(
            "one run only, with a stall of 20 s that no model explains and the fit leaves aside",
        );
    }
    let mut text = head("rtx-pro-6000", "vllm", "0.19.1", one.model, &notes);
    let what = if one.states.is_empty() {
        "all recorded runs"
    } else {
        "between both states of the machine"
    };
    text.push_str("\n[default]\n");
    text.push_str(&recorded_body(
        "default",
        what,
        &one.runs,
        &one.coefficients,
    ));
    for (name, state) in &one.states {
        let what = format!("the machine as in {name} 2026");
        let _ = write!(text, "\n[[variant]]\nname = \"{name}\"\n");
        text.push_str(&recorded_body(
            "variant",
            &what,
            &state.runs,
            &state.coefficients,
        ));
    }
    text
}

fn recorded_body(table: &str, what: &str, runs: &[RunErrors], with: &Coefficients) -> String {
    let mut text = format!("what = \"{what}\"\ncalibrated_on = [\n");
    for run in runs {
        let _ = writeln!(text, "    \"MMBT agent run {}\",", run.run);
    }
    text.push_str("]\npriors = [\"row_s\", \"second_row_s\", \"kv_imbalance\"]\n");
    text.push_str(&coefficients(table, with));
    let held: Vec<f64> = runs.iter().filter_map(|run| run.held_out).collect();
    if held.is_empty() {
        let turns: Vec<f64> = runs
            .iter()
            .flat_map(|run| run.held_out_turns.clone())
            .collect();
        let how = "one run only: the distance of two states of one machine, seen on another model";
        text.push_str(&error(
            table,
            "single turns, every other one left out",
            &turns,
            how,
            STATE_REACH,
        ));
    } else {
        let how = "leave-one-run-out errors, at least the distance of two states of one machine";
        text.push_str(&error(
            table,
            "model time of whole runs, each left out in turn",
            &held,
            how,
            STATE_REACH,
        ));
    }
    text
}

fn error(table: &str, what: &str, errors: &[f64], how: &str, least: f64) -> String {
    let Some(sum) = Errors::of(errors) else {
        return String::new();
    };
    let reach = interval_80(errors).1.max(least);
    let error = HeldOut {
        what: what.to_string(),
        count: sum.count as u32,
        median: sum.median,
        p90: sum.p90,
        interval: (1.0 / reach, reach),
        interval_from: how.to_string(),
    };
    held_out(table, &error)
}

/// Returns the table of learned efficiencies.
pub(crate) fn efficiencies(table: &[Learned]) -> String {
    let mut text = String::from(
        "# Written by `cargo run --release --example accuracy` from docs/measurements; see docs/model.md for the terms.\n",
    );
    for one in table {
        let chip = one.chip.as_deref().unwrap_or("any");
        let _ = writeln!(
            text,
            "\n[[efficiency]]\nchip = \"{chip}\"\nengine = \"{}\"\nbackend = \"{}\"\npath = \"{}\"\nsparse = {}\npoints = {}",
            one.engine,
            one.backend,
            one.path.word(),
            one.sparse,
            one.points
        );
        text.push_str("[efficiency.terms]\n");
        for (name, value) in TERM_NAMES.iter().zip(one.efficiency.terms) {
            if value > 0.0 {
                let _ = writeln!(text, "{name} = {}", number(value));
            }
        }
        if let Some(half) = one.efficiency.half_tokens {
            let _ = writeln!(text, "half_tokens = {}", number(half));
        }
        if let Some(error) = &one.error {
            text.push_str(held_out("efficiency", error).trim_start());
        }
    }
    text
}

/// Returns the rigs to ship: of every machine, engine and model of the catalogue that was measured enough and has no
/// profile of its own study, the one with the backend that is usual there, else the one with the most points.
pub(crate) fn shipped<'p>(
    published: &'p Published,
    found: &Found,
    catalog: &Catalog,
) -> Vec<&'p PublishedRig> {
    let mut best: BTreeMap<[&str; 3], (&PublishedRig, (bool, usize))> = BTreeMap::new();
    for rig in &published.rigs {
        let (Ok(hardware), Ok(engine)) =
            (catalog.hardware(&rig.hardware), catalog.engine(&rig.engine))
        else {
            continue;
        };
        let own = |model: &str| model == rig.model;
        let studied = found.fleet.iter().any(|one| {
            one.point.engine == rig.engine
                && own(one.point.model)
                && one.point.hardware.contains(&rig.hardware.as_str())
        }) || (rig.hardware == "rtx-pro-6000"
            && rig.engine == "vllm"
            && found.recorded.iter().any(|one| own(one.model)));
        let old = published.points[rig.points[0]].group(&hardware.chip).old;
        if catalog.model(&rig.model).is_err() || old || studied || rig.fit.errors.median > FAR_OFF {
            continue;
        }
        let usual = engine.backend(hardware.platform) == Some(rig.backend.as_str());
        let rank = (usual, rig.fit.errors.count);
        let key = [&rig.hardware, &rig.engine, &rig.model].map(String::as_str);
        if best.get(&key).is_none_or(|(_, other)| rank > *other) {
            best.insert(key, (rig, rank));
        }
    }
    best.into_values().map(|(rig, _)| rig).collect()
}

/// Returns the file of a rig that was fitted to published points: its name and text.
pub(crate) fn published_file(
    rig: &PublishedRig,
    published: &Published,
    catalog: &Catalog,
) -> (String, String) {
    let engine = catalog.engine(&rig.engine).expect("it is in the catalogue");
    let version = &engine.default_version;
    let ids: Vec<&str> = rig
        .points
        .iter()
        .map(|&at| published.points[at].id.as_str())
        .collect();
    let errors: Vec<f64> = rig.fit.held_out.iter().map(|held| held.error).collect();
    let reach = interval_80(&errors).1.max(RUN_REACH);
    let captured = if rig.engine == "vllm" {
        CapturedGraphs::Vllm
    } else {
        CapturedGraphs::None
    };
    let profile = RigProfile {
        hardware: rig.hardware.clone(),
        engine: rig.engine.clone(),
        engine_version: version.clone(),
        model: rig.model.clone(),
        captured_graphs: captured,
        trust: Trust::Calibrated,
        default: Calibration {
            what: format!("{} under {} ({})", rig.host, rig.engine, rig.backend),
            calibrated_on: vec![format!(
                "{} published points of docs/measurements/published_points.csv, {} to {}",
                rig.fit.errors.count,
                ids[0],
                ids[ids.len() - 1]
            )],
            coefficients: rig.fit.coefficients,
            priors: rig.fit.priors.clone(),
            error: Some(HeldOut {
                what: "published rates, each left out in turn".to_string(),
                count: rig.fit.errors.count as u32,
                median: rig.fit.errors.median,
                p90: rig.fit.errors.p90,
                interval: (1.0 / reach, reach),
                interval_from: "leave-one-out errors: the rank that covers 80 %, symmetric as a ratio, at least the 5 % by which runs of one machine differ".to_string(),
            }),
        },
        variants: BTreeMap::new(),
        notes: vec![
            "benchmark rates as published, of one machine; what they do not show is what other models and machines lead one to expect".to_string(),
            format!("measured with build {} and the {} backend; taken to behave as version {version}", rig.version, rig.backend),
        ],
    };
    let name = format!("{}.{}.{}.toml", rig.hardware, rig.engine, rig.model);
    let comment = "Written by `cargo run --release --example accuracy`; see docs/accuracy.md.";
    (name, file(&profile, comment))
}
