//! The calibration: what is committed is what the command gives, and the accuracy it is meant to have.

#[path = "../../examples/accuracy/assess.rs"]
mod assess;
#[path = "../../examples/accuracy/points.rs"]
mod points;
#[path = "../../examples/accuracy/profile.rs"]
mod profile;
#[path = "../../examples/accuracy/report.rs"]
mod report;
#[path = "../../examples/accuracy/tables.rs"]
mod tables;

use assess::Found;
use laptime::catalog::Catalog;
use laptime::rig::cost::FEATURES;
use laptime::study::calibrate::{Errors, interval_80};
use std::path::Path;
use std::sync::LazyLock;

static FOUND: LazyLock<Found> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assess::assess(&tables::read(&root.join("docs/measurements")))
});

fn within(what: &str, errors: &[f64], median: f64, p90: f64) {
    let sum = Errors::of(errors).expect("there are measurements");
    assert!(sum.median <= median && sum.p90 <= p90, "{what}: {sum:?}");
}

#[test]
fn committed_profiles_are_what_the_fit_gives() {
    let catalog = Catalog::builtin();
    let check =
        |hardware: &str, engine: &str, model: &str, variant: Option<&str>, fitted: [f64; FEATURES]| {
            let profile = catalog
                .rig_profile(hardware, engine, model)
                .expect("it is calibrated");
            let committed = profile
                .calibration(variant)
                .expect("it is a variant")
                .coefficients;
            for (committed, fitted) in committed.linear().into_iter().zip(fitted) {
                let off = (committed - fitted).abs() / fitted.max(1e-30);
                assert!(
                    off < 1e-6,
                    "{hardware}/{engine}/{model}: {committed} is not {fitted}"
                );
            }
        };
    for one in &FOUND.fleet {
        for hardware in one.point.hardware {
            check(
                hardware,
                one.point.engine,
                one.point.model,
                None,
                one.coefficients.linear(),
            );
        }
    }
    for one in &FOUND.recorded {
        check(
            "rtx-pro-6000",
            "vllm",
            one.model,
            None,
            one.coefficients.linear(),
        );
        for (name, state) in &one.states {
            check(
                "rtx-pro-6000",
                "vllm",
                one.model,
                Some(name),
                state.coefficients.linear(),
            );
        }
    }
}

#[test]
fn committed_files_are_what_the_command_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = |path: &str| std::fs::read_to_string(root.join(path)).expect("it is committed");
    assert_eq!(committed("docs/accuracy.md"), report::markdown(&FOUND));
    for (name, text) in profile::files(&FOUND) {
        assert_eq!(committed(&format!("src/catalog/data/rig/{name}")), text);
    }
}

#[test]
fn cold_batches_are_predicted_by_the_other_cells() {
    let cells = || FOUND.fleet.iter().flat_map(|one| &one.cells);
    within(
        "all cells",
        &cells().map(|cell| cell.held_out).collect::<Vec<_>>(),
        0.015,
        0.06,
    );
    let four: Vec<f64> = cells()
        .filter(|cell| cell.cell.sequences == 4)
        .map(|cell| cell.held_out)
        .collect();
    within("four sequences", &four, 0.03, 0.10);
    for one in &FOUND.fleet {
        let errors: Vec<f64> = one.cells.iter().map(|cell| cell.held_out).collect();
        within(one.point.model, &errors, 0.03, 0.10);
        let (low, high) = interval_80(&errors);
        let inside = errors
            .iter()
            .filter(|error| (low..=high).contains(&(1.0 / (1.0 + **error))))
            .count();
        assert!(
            inside * 10 >= errors.len() * 8,
            "{}: {inside} of {}",
            one.point.model,
            errors.len()
        );
    }
}

#[test]
fn agent_runs_take_the_time_they_took() {
    let runs = || FOUND.recorded.iter().flat_map(|one| &one.runs);
    within(
        "ten runs",
        &runs().map(|run| run.fitted).collect::<Vec<_>>(),
        0.025,
        1.0,
    );
    let far: Vec<&str> = runs()
        .filter(|run| run.fitted.abs() > 0.06)
        .map(|run| run.run.as_str())
        .collect();
    assert_eq!(far, ["n1_35ba3b_v1"], "the run with a stall of 20 s");
    within(
        "turns",
        &runs().flat_map(|run| run.turns.clone()).collect::<Vec<_>>(),
        0.03,
        0.10,
    );
    let states = FOUND
        .recorded
        .iter()
        .flat_map(|one| one.states.values())
        .flat_map(|state| &state.runs);
    let held_out: Vec<f64> = states.filter_map(|run| run.held_out).collect();
    within("runs held out of their state", &held_out, 0.025, 0.05);
}

#[test]
fn runs_that_shared_an_engine_slow_each_other_down_as_recorded() {
    let errors: Vec<f64> = FOUND.shared.iter().map(|run| run.error).collect();
    within("contended runs", &errors, 0.035, 0.09);
}
