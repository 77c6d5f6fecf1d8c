//! The calibration: what is committed is what the command gives, and the accuracy it is meant to have.

#[path = "../../examples/accuracy/assess.rs"]
mod assess;
#[path = "../../examples/accuracy/points.rs"]
mod points;
#[path = "../../examples/accuracy/profile.rs"]
mod profile;
#[path = "../../examples/accuracy/published.rs"]
mod published;
#[path = "../../examples/accuracy/rates.rs"]
mod rates;
#[path = "../../examples/accuracy/report.rs"]
mod report;
#[path = "../../examples/accuracy/tables.rs"]
mod tables;

use assess::Found;
use laptime::catalog::Catalog;
use laptime::rig::cost::FEATURES;
use laptime::study::calibrate::{Errors, covered, interval_80};
use published::{Judged, Published};
use std::path::Path;
use std::sync::LazyLock;

static FOUND: LazyLock<Found> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assess::assess(&tables::read(&root.join("docs/measurements")))
});

static PUBLISHED: LazyLock<Published> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("docs/measurements");
    let points = published::read_points(&folder);
    published::assess(points, &tables::read(&folder), &published::catalog(root))
});

fn within(what: &str, errors: &[f64], median: f64, p90: f64) {
    let sum = Errors::of(errors).expect("there are measurements");
    assert!(sum.median <= median && sum.p90 <= p90, "{what}: {sum:?}");
}

#[test]
fn committed_profiles_are_what_the_fit_gives() {
    let catalog = Catalog::builtin();
    let check = |hardware: &str,
                 engine: &str,
                 model: &str,
                 variant: Option<&str>,
                 fitted: [f64; FEATURES]| {
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
    let builtin = Catalog::builtin();
    let shipped = profile::shipped(&PUBLISHED, &FOUND, &builtin);
    let accuracy = report::markdown(&FOUND, &PUBLISHED, shipped.len());
    assert_eq!(committed("docs/accuracy.md"), accuracy);
    let rigs = shipped
        .iter()
        .map(|rig| profile::published_file(rig, &PUBLISHED, &builtin));
    for (name, text) in profile::files(&FOUND).into_iter().chain(rigs) {
        assert_eq!(committed(&format!("src/catalog/data/rig/{name}")), text);
    }
    let table = profile::efficiencies(&PUBLISHED.learned);
    assert_eq!(committed("src/catalog/data/efficiency.toml"), table);
}

#[test]
fn published_rates_are_predicted_by_what_is_left() {
    let errors = |judged: &[Judged]| -> Vec<f64> { judged.iter().map(|one| one.error).collect() };
    within(
        "the rig's other points",
        &errors(&PUBLISHED.by_rig),
        0.10,
        0.20,
    );
    within("other models", &errors(&PUBLISHED.by_models), 0.20, 0.50);
    within(
        "other machines",
        &errors(&PUBLISHED.by_machines),
        0.20,
        0.65,
    );
}

#[test]
fn intervals_hold_what_they_promise() {
    let mut inside = [0.0; 2];
    for rig in &PUBLISHED.rigs {
        let errors: Vec<f64> = rig.fit.held_out.iter().map(|held| held.error).collect();
        inside[0] += covered(&errors) as f64;
        inside[1] += errors.len() as f64;
    }
    let share = inside[0] / inside[1];
    assert!((0.75..=0.85).contains(&share), "rigs: {share}");
    // An estimate's interval comes from models that were left out; each family is held against those of the others.
    let builtin = published::catalog(Path::new(env!("CARGO_MANIFEST_DIR")));
    let family = |one: &Judged| {
        &builtin
            .model(&PUBLISHED.points[one.point].model)
            .unwrap()
            .family
    };
    let (mut held, mut all) = (0, 0);
    for one in &PUBLISHED.by_models {
        let like = |other: &&Judged| other.group == one.group && family(other) != family(one);
        let others = PUBLISHED.by_models.iter().filter(like);
        let errors: Vec<f64> = others.map(|other| other.error).collect();
        if errors.len() < 10 {
            continue;
        }
        let (low, high) = interval_80(&errors);
        held += usize::from((low..=high).contains(&(1.0 / (1.0 + one.error))));
        all += 1;
    }
    let share = f64::from(held as u32) / f64::from(all as u32);
    assert!(
        (0.70..=0.90).contains(&share),
        "estimates: {share} of {all}"
    );
}

#[test]
#[expect(clippy::print_stderr, reason = "tests say what they skipped")]
fn the_published_table_is_the_shared_one() {
    let shared = crate::trace::shared("data").map(|data| data.join("hardware_points.csv"));
    let Some(file) = shared.filter(|file| file.exists()) else {
        eprintln!("skipped: the shared measurements are not here");
        return;
    };
    let theirs: std::collections::BTreeMap<String, [String; 3]> =
        tables::texts(&file, ["id", "metric", "value", "batch_or_conc"])
            .into_iter()
            .map(|[id, metric, value, sequences]| (id, [metric, value, sequences]))
            .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = root.join("docs/measurements/published_points.csv");
    for [id, metric, value, sequences] in
        tables::texts(&ours, ["id", "metric", "value", "sequences"])
    {
        assert_eq!(theirs.get(&id), Some(&[metric, value, sequences]), "{id}");
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
