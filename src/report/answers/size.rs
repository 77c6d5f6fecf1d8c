//! How many agents a rig carries: one screen for one rig, a table for several; schema `laptime.size/1`.

use super::{ALARM, ANSWER, FAINT, TITLE, UNKNOWN, heads, how_known, known, line, shown};
use crate::metrics::FAILURES;
use crate::metrics::lap::Binds;
use crate::report::table::{Align, Cell, Look, Table, painted, wrapped};
use crate::report::text::{counted, percent};
use crate::study::figures::Figures;
use crate::study::size::{Measured, Sized};
use crate::study::target::{Figure, Target};
use serde_json::{Value, json};
use std::fmt::Write;

/// Returns the answer for people.
pub fn render(all: &[Sized], targets: &[Target], max: u32, look: Look) -> String {
    let mut text = String::new();
    if all.len() > 1 {
        text += &table(all, targets);
    }
    for sized in all {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &one(sized, targets, max, look);
    }
    text
}

fn agents(sized: &Sized, max: u32) -> String {
    let Some((best, _)) = sized.best() else {
        return "none".to_string();
    };
    let more = if best == max { " or more" } else { "" };
    format!("{best}{more}")
}

fn range(sized: &Sized) -> String {
    sized.range.map_or(UNKNOWN.to_string(), |range| {
        format!("{} to {}", range.low, range.high)
    })
}

const FAILED: &str = "failed_calls";

/// Why calls failed.
fn failures(found: &Figures) -> String {
    let all = FAILURES.iter().zip(found.summary.failures);
    let whys = all.filter(|(_, count)| *count > 0);
    let whys = whys.map(|(outcome, count)| format!("{count} {}", outcome.meaning()));
    format!(": {}", whys.collect::<Vec<_>>().join(", "))
}

/// What breaks where no more agents are carried: what calls wait for, unless it is that some of them fail.
fn binds(sized: &Sized, targets: &[Target]) -> &'static str {
    let Some((_, found)) = sized.edge() else {
        return UNKNOWN;
    };
    let solo = sized.curve.get(&1);
    let mut broken = targets.iter().filter(|one| one.strain(found, solo) > 1.0);
    if broken.all(|one| one.figure.name() == FAILED) {
        return "calls that fail";
    }
    sized.binds().map_or(UNKNOWN, Binds::words)
}

/// Returns one measurement in a few words.
pub fn told(found: &Figures, targets: &[Target], strain: f64) -> String {
    let figure = &targets[0].figure;
    format!(
        "{}: {} {}, {}",
        counted(found.workload.plan.agents.into(), "agent"),
        figure.name(),
        shown(figure, found),
        verdict(strain)
    )
}

fn verdict(strain: f64) -> &'static str {
    if strain <= 1.0 { "holds" } else { "does not" }
}

fn table(all: &[Sized], targets: &[Target]) -> String {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Left,
    ]);
    let first = &targets[0].figure;
    table.row(heads([
        "rig",
        "agents",
        "range",
        first.name(),
        "runs/h",
        "binds",
        "$/run",
        "Wh/run",
        "known",
    ]));
    for sized in all {
        let figure = |name: &str| {
            sized
                .best()
                .map_or(UNKNOWN.to_string(), |(_, found)| shown(&known(name), found))
        };
        let found = sized.best().map(|(_, found)| found);
        let trust = sized
            .curve
            .values()
            .next()
            .map(|one| one.point.trust.word());
        table.row([
            Cell::from(&sized.rig.0).styled(TITLE),
            Cell::from(agents(sized, u32::MAX)).styled(ANSWER),
            Cell::from(range(sized)),
            Cell::from(found.map_or(UNKNOWN.to_string(), |found| shown(first, found))),
            Cell::from(figure("runs_per_h")),
            Cell::from(binds(sized, targets)),
            Cell::from(figure("cost_usd_per_run")),
            Cell::from(figure("energy_wh_per_run")),
            Cell::from(trust.unwrap_or(UNKNOWN)).styled(FAINT),
        ]);
    }
    table.render()
}

fn one(sized: &Sized, targets: &[Target], max: u32, look: Look) -> String {
    let told: Vec<&str> = targets.iter().map(|target| target.text.as_str()).collect();
    let told = told.join(", ");
    let mut text = painted(&sized.rig.0, TITLE) + "\n\n";
    match sized.best() {
        Some((best, _)) => {
            let more = if best == max {
                ", the most that were tried,"
            } else {
                ""
            };
            let verb = if best == 1 { "holds" } else { "hold" };
            let who = counted(best.into(), "agent");
            let _ = writeln!(text, "  {} {verb} {told}", painted(&(who + more), ANSWER));
        }
        None => {
            let _ = writeln!(
                text,
                "  {}",
                painted(&format!("not even one agent holds {told}"), ALARM)
            );
        }
    }
    let holes = sized.search.holes();
    if !holes.is_empty() {
        let sizes: Vec<String> = holes.iter().map(ToString::to_string).collect();
        let sizes = sizes.join(", ");
        let _ = writeln!(
            text,
            "  {}",
            painted(
                &format!("but smaller fleets of {sizes} do not: the curve is not monotonic"),
                ALARM
            )
        );
    }
    if let Some(cut) = sized.measured.as_ref().and_then(|it| it.cut.as_ref()) {
        let told =
            format!("not all is known: {cut}; a second call with the same --out goes on from here");
        let _ = writeln!(text, "  {}", painted(&wrapped(&told, look.width, 2), ALARM));
    }
    text.push('\n');
    text += &curve(sized, targets);
    text.push('\n');
    text += &edge(sized, targets);
    if let Some((_, found)) = sized.best() {
        for (name, what) in [
            ("cost_usd_per_run", "cost"),
            ("energy_wh_per_run", "energy"),
        ] {
            let value = shown(&known(name), found);
            let unit = if what == "cost" { "USD" } else { "Wh" };
            if value != UNKNOWN {
                text += &line(what, &format!("{value} {unit} a run at that size"));
            }
        }
    }
    if let Some(found) = sized.range {
        let told = format!(
            "{} agents if the rig is as slow, or as fast, as {}",
            range(sized),
            found.by
        );
        text += &line("range", &told);
    }
    if let Some(any) = sized.curve.values().next() {
        text += &line("known", &wrapped(&how_known(any), look.width, 9));
    }
    let mut tried = format!("{} of {max} sizes", sized.search.strains.len());
    if let Some(measured) = &sized.measured {
        tried += &measurements(measured);
    }
    text + &line("tried", &tried)
}

/// How a real engine was measured.
fn measurements(measured: &Measured) -> String {
    let all: usize = measured.curve.strains.values().map(Vec::len).sum();
    let replays = counted(all as u64, "replay");
    let kept = if measured.kept > 0 {
        format!(", {} kept from before", measured.kept)
    } else {
        String::new()
    };
    let apart = measured.curve.spread().map_or(String::new(), |apart| {
        format!("; repeats are up to {} off their mean", percent(apart, 1.0))
    });
    format!(
        ", {replays}{kept}, in {} of {}{apart}",
        measured.spent, measured.budget
    )
}

/// The sizes around the edge, and the way there in powers of two.
fn curve(sized: &Sized, targets: &[Target]) -> String {
    let best = sized.search.best().unwrap_or(0);
    let mut figures: Vec<Figure> = Vec::new();
    let told = targets.iter().map(|target| target.figure.clone());
    for figure in told.chain(["run_s.p50", "ttft_s.p95", "runs_per_h"].map(known)) {
        if !figures.contains(&figure) {
            figures.push(figure);
        }
    }
    let mut aligns = vec![Align::Right; figures.len() + 1];
    aligns.push(Align::Left);
    let mut table = Table::new(aligns);
    let names = figures.iter().map(Figure::name);
    let names = std::iter::once("agents").chain(names).chain([""]);
    table.row(names.map(|name| Cell::from(name).styled(FAINT)));
    let near = |size: u32| {
        let on_the_way = size.is_power_of_two() && size <= best.saturating_mul(2).max(2);
        size.abs_diff(best) <= 2 || on_the_way
    };
    for (&size, found) in sized.curve.iter().filter(|(size, _)| near(**size)) {
        let strain = sized.search.strains.get(&size);
        let style = if size == best {
            ANSWER
        } else {
            anstyle::Style::new()
        };
        let mut verdict = verdict(strain.copied().unwrap_or(f64::INFINITY)).to_string();
        if let Some(measured) = &sized.measured {
            let times = counted(measured.curve.times(size).into(), "time");
            let _ = write!(verdict, ", {times}");
        }
        let values = figures.iter().map(|figure| shown(figure, found));
        let cells = std::iter::once(size.to_string()).chain(values);
        let cells = cells.map(|cell| Cell::from(cell).styled(style));
        table.row(cells.chain([Cell::from(verdict).styled(FAINT)]));
    }
    table.render()
}

fn edge(sized: &Sized, targets: &[Target]) -> String {
    let Some((size, found)) = sized.edge() else {
        return String::new();
    };
    let solo = sized.curve.get(&1);
    let mut broken: Vec<String> = Vec::new();
    for target in targets {
        let Some((value, limit)) = target.against(found, solo) else {
            broken.push(format!("{} is not known", target.figure.name()));
            continue;
        };
        if !target.holds(value, limit) {
            let unit = target.figure.unit();
            let whys = if target.figure.name() == FAILED {
                failures(found)
            } else {
                String::new()
            };
            broken.push(format!(
                "{} is {}, limit {}{whys}",
                target.figure.name(),
                unit.shown(value),
                unit.shown(limit)
            ));
        }
    }
    if broken.is_empty() {
        broken
            .push("the mean of its repeats does not hold, the one in the middle does".to_string());
    }
    let mut text = line("breaks", &format!("at {size}: {}", broken.join("; ")));
    if sized.beyond.is_empty() {
        return text + &line("waits", &waits(found));
    }
    let helps: Vec<String> = sized
        .beyond
        .iter()
        .take(3)
        .map(|(lever, strain)| {
            let verdict = if *strain <= 1.0 {
                "would hold"
            } else {
                "would not"
            };
            format!("{} {verdict}", lever.word())
        })
        .collect();
    text += &line(
        "binds",
        &format!(
            "{} ({})",
            painted(binds(sized, targets), TITLE),
            helps.join(", ")
        ),
    );
    text
}

/// What laps wait for most, where no account of a rig says what binds.
fn waits(found: &Figures) -> String {
    let parts = &found.summary.parts;
    let total = parts.total().secs();
    let mut all = parts.gathered().to_vec();
    all.sort_by_key(|(_, span)| std::cmp::Reverse(*span));
    let most = all
        .iter()
        .take(4)
        .filter(|(_, span)| span.secs() > 0.01 * total);
    let told = most.map(|(what, span)| format!("{} {}", what.word(), percent(span.secs(), total)));
    format!("laps are {}", told.collect::<Vec<_>>().join(", "))
}

fn told_measured(measured: &Measured) -> Value {
    let times = measured.curve.strains.iter();
    let times = times.map(|(size, all)| (size.to_string(), json!(all.len())));
    json!({
        "times": times.collect::<serde_json::Map<String, Value>>(),
        "kept": measured.kept,
        "repeat_spread": measured.curve.spread(),
        "spent_s": measured.spent.secs(),
        "budget_s": measured.budget.secs(),
        "complete": measured.cut.is_none(),
        "cut": measured.cut,
    })
}

/// Returns the answer for programs.
pub fn document(all: &[Sized], targets: &[Target], max: u32, seed: u64) -> Value {
    let figure = |name: &str, of: &Figures| known(name).value(of);
    let one = |sized: &Sized| {
        let curve: Vec<Value> = sized
            .curve
            .iter()
            .map(|(size, found)| {
                let values = targets.iter().map(|target| {
                    (
                        target.figure.name().to_string(),
                        json!(target.figure.value(found)),
                    )
                });
                let values: serde_json::Map<String, Value> = values.collect();
                json!({
                    "agents": size,
                    "holds": sized.search.strains.get(size).is_some_and(|strain| *strain <= 1.0),
                    "figures": values,
                    "run_s_p50": figure("run_s.p50", found),
                    "lap_s_p95": figure("lap_s.p95", found),
                    "runs_per_h": figure("runs_per_h", found),
                    "cost_usd_per_run": figure("cost_usd_per_run", found),
                    "energy_wh_per_run": figure("energy_wh_per_run", found),
                })
            })
            .collect();
        let beyond = sized.beyond.iter().map(|(lever, strain)| json!({ "change": lever.word(), "holds": *strain <= 1.0, "strain": strain.is_finite().then_some(strain) }));
        json!({
            "rig": sized.rig.0,
            "agents": sized.best().map(|(best, _)| best),
            "range": sized.range.map(|range| [range.low, range.high]),
            "binds": sized.binds().map(Binds::name),
            "holes": sized.search.holes(),
            "trust": sized.curve.values().next().map(|one| one.point.trust.word()),
            "curve": curve,
            "one_more": beyond.collect::<Vec<Value>>(),
            "measured": sized.measured.as_ref().map(told_measured),
        })
    };
    json!({
        "schema": "laptime.size/1",
        "laptime_version": env!("CARGO_PKG_VERSION"),
        "seed": seed,
        "targets": targets.iter().map(|target| target.text.as_str()).collect::<Vec<_>>(),
        "max": max,
        "rigs": all.iter().map(one).collect::<Vec<Value>>(),
    })
}
