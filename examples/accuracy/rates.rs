//! The part of `docs/accuracy.md` about published rates, and the table of what is to be reached.

use super::assess::Found;
use super::published::{Judged, Published};
use laptime::study::calibrate::{Errors, covered};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const INTRO: &str = "\
## Published rates of other machines, engines and models

Decode and prefill rates at depth and in batches, and times per token under load, as others published them
(`docs/measurements/published_points.csv`; what was left out of it and why stands in the README there). Each is predicted three ways,
none of which has seen it:

- **rig**: the machine, engine build and model are calibrated on their other points; each point is left out in turn. Only where at
  least six points of one build exist.
- **other models**: efficiencies of the same machine and engine, learned from other models; the whole family of the predicted model
  is left out. This is what a rig of the catalogue without a profile gets.
- **other machines**: efficiencies of the same engine on other machines; the predicted machine is left out with all that was
  measured on it. Where no other machine was measured, typical efficiencies: a pure roofline.

*Covered* is the share of points within the 80 % interval that the other points' errors give. Half-saturations were chosen
with all points of a machine in view.

";

/// Adds the section.
pub(crate) fn section(text: &mut String, published: &Published, shipped: usize) {
    text.push_str(INTRO);
    let ways = [
        ("rig", &published.by_rig),
        ("other models", &published.by_models),
        ("other machines", &published.by_machines),
    ];
    text.push_str("| what | predicted by | count | median | p90 | covered |\n| --- | --- | --: | --: | --: | --: |\n");
    for (how, judged) in ways {
        let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for one in judged {
            let what = published.points[one.point].row.what.word();
            kinds.entry(what).or_default().push(one.error);
        }
        let all: Vec<f64> = judged.iter().map(|one| one.error).collect();
        line(text, "all", how, &all);
        let current = judged.iter().filter(|one| !one.group.old);
        let current: Vec<f64> = current.map(|one| one.error).collect();
        line(text, "current builds", how, &current);
        for (kind, errors) in kinds {
            line(text, kind, how, &errors);
        }
    }
    let _ = writeln!(
        text,
        "\n{} machine, build and model combinations have points enough for a rig of their own; {shipped} of them, of machines and models in the \
         catalogue and of current builds, are shipped as profiles.\n",
        published.rigs.len()
    );
    groups(text, published);
}

fn line(text: &mut String, what: &str, how: &str, errors: &[f64]) {
    if let Some(sum) = Errors::of(errors) {
        let _ = writeln!(
            text,
            "| {what} | {how} | {} | {} | {} | {:.0} % |",
            sum.count,
            percent(sum.median),
            percent(sum.p90),
            100.0 * covered(errors) as f64 / errors.len() as f64
        );
    }
}

fn groups(text: &mut String, published: &Published) {
    text.push_str(
        "### By machine and engine\n\nMedian error, and p90. *2025* is builds of last year on an engineering sample.\n\n\
         | machine, engine, backend | points | rig | other models | other machines |\n| --- | --: | --: | --: | --: |\n",
    );
    let mut all: BTreeMap<_, [Vec<f64>; 3]> = BTreeMap::new();
    let ways = [
        &published.by_rig,
        &published.by_models,
        &published.by_machines,
    ];
    for (way, judged) in ways.into_iter().enumerate() {
        for one in judged {
            all.entry(&one.group).or_default()[way].push(one.error);
        }
    }
    for (group, ways) in all {
        let old = if group.old { ", 2025" } else { "" };
        let cells = ways.each_ref().map(|errors| {
            Errors::of(errors).map_or("-".to_string(), |sum| {
                format!("{}, {}", percent(sum.median), percent(sum.p90))
            })
        });
        let _ = writeln!(
            text,
            "| {}, {}, {}{old} | {} | {} | {} | {} |",
            group.chip,
            group.engine,
            group.backend,
            ways[2].len(),
            cells[0],
            cells[1],
            cells[2]
        );
    }
    text.push('\n');
}

/// Adds the table of what is to be reached, and whether it is.
pub(crate) fn bars(text: &mut String, found: &Found, published: &Published) {
    text.push_str(
        "## What is to be reached\n\n| what | bar: median, p90 | reached | met |\n| --- | --: | --: | --- |\n",
    );
    let states = found.recorded.iter().flat_map(|one| {
        let of_states = one.states.values().flat_map(|state| &state.runs);
        let own = one.runs.iter().filter(|_| one.states.is_empty());
        of_states.chain(own)
    });
    let runs: Vec<_> = states.collect();
    let solo: Vec<f64> = runs.iter().filter_map(|run| run.held_out).collect();
    let turns: Vec<f64> = runs
        .iter()
        .flat_map(|run| run.held_out_turns.clone())
        .collect();
    let shared: Vec<f64> = found.shared.iter().map(|run| run.error).collect();
    let cells: Vec<f64> = found
        .fleet
        .iter()
        .flat_map(|one| one.cells.iter().map(|cell| cell.held_out))
        .collect();
    let errors = |judged: &[Judged]| -> Vec<f64> { judged.iter().map(|one| one.error).collect() };
    let current = |judged: &[Judged]| -> Vec<f64> {
        let current = judged.iter().filter(|one| !one.group.old);
        current.map(|one| one.error).collect()
    };
    let all = [
        (
            "whole agent runs alone, state of the machine known, run held out",
            0.025,
            0.05,
            solo,
        ),
        (
            "whole agent runs that shared an engine (looked at, see below)",
            0.035,
            0.09,
            shared,
        ),
        ("single turns, run held out", 0.03, 1.0, turns),
        ("cold batches, cell held out", 0.03, 0.10, cells),
        (
            "published rates, calibrated on the same machine and engine",
            0.10,
            1.0,
            errors(&published.by_rig),
        ),
        (
            "published rates, machine and engine measured, model never seen",
            0.10,
            1.0,
            errors(&published.by_models),
        ),
        (
            "the same, current builds only",
            0.10,
            1.0,
            current(&published.by_models),
        ),
        (
            "published rates, machine never seen",
            0.20,
            1.0,
            errors(&published.by_machines),
        ),
    ];
    for (what, median, p90, errors) in all {
        let Some(sum) = Errors::of(&errors) else {
            continue;
        };
        let met = sum.median <= median && sum.p90 <= p90;
        let bar = if p90 < 1.0 {
            format!("{}, {}", percent(median), percent(p90))
        } else {
            percent(median)
        };
        let _ = writeln!(
            text,
            "| {what} | {bar} | {}, {} | {} |",
            percent(sum.median),
            percent(sum.p90),
            if met { "yes" } else { "no" }
        );
    }
    text.push_str(
        "| cold batches at 8 sequences, two cards | 5.0 %, 12.0 % | - | not known: no such cell is in the tables |\n\
         | prefix-cache hits, call by call | exact | - | held by tests against recordings of vLLM and llama.cpp |\n\n",
    );
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
