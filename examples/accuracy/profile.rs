//! Profiles as files of the catalogue.

use super::assess::{Fleet, Found, Recorded, RunErrors};
use super::points;
use laptime::rig::cost::Coefficients;
use laptime::study::calibrate::{Errors, interval_80};
use std::fmt::Write as _;

/// The least reach of an interval from a handful of runs: two states of one machine were this far apart.
const STATE_REACH: f64 = 1.09;
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

fn coefficients(table: &str, with: &Coefficients) -> String {
    let mut text = format!("\n[{table}.coefficients]\n");
    let mut line = |name: &str, value: f64| {
        let _ = writeln!(text, "{name} = {}", number(value));
    };
    line("weights_s", with.weights_s);
    line("experts_s", with.experts_s);
    line("row_s", with.row_s);
    line("second_row_s", with.second_row_s);
    line("kv_s", with.kv_s);
    if let Some(short) = with.kv_short_s {
        line("kv_short_s", short);
        line("short_tokens", with.short_tokens as f64);
    }
    line("kv_imbalance", with.kv_imbalance);
    line("token_s", with.token_s);
    line("half_tokens", with.half_tokens);
    line("attention_s", with.attention_s);
    line("request_s", with.request_s);
    line("expert_share", with.expert_share);
    line("overlap", with.overlap);
    text
}

/// Returns a number with seven digits, or all of it where it is short.
fn number(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 8 {
        plain
    } else {
        format!("{value:.6e}")
    }
}

fn error(table: &str, what: &str, errors: &[f64], how: &str, least: f64) -> String {
    let Some(sum) = Errors::of(errors) else {
        return String::new();
    };
    let reach = interval_80(errors).1.max(least);
    format!(
        "\n[{table}.error]\nwhat = \"{what}\"\ncount = {}\nmedian = {:.4}\np90 = {:.4}\n\
         interval_from_ratio = {:.4}\ninterval_to_ratio = {:.4}\ninterval = \"{how}\"\n",
        sum.count,
        sum.median,
        sum.p90,
        1.0 / reach,
        reach,
    )
}
