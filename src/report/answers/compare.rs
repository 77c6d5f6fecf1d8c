//! Results side by side, with how far a difference may be chance; schema `laptime.compare/1`.

use super::{ALARM, ANSWER, FAINT, TITLE, UNKNOWN, change, line};
use crate::report::table::{Align, Cell, Look, Table, painted, wrapped};
use crate::report::text::percent;
use crate::study::compare::{Against, Compared};
use crate::study::figures::Figures;
use crate::study::target::Unit;
use serde_json::{Value, json};
use std::fmt::Write;

/// Returns the answer for people; `names` tell the results apart.
pub fn render(compared: &Compared, all: &[Figures], names: &[String], look: Look) -> String {
    let mut text = String::new();
    for (place, group) in compared.groups.iter().enumerate() {
        let letter = letter(place);
        let point = &all[group[0]].point;
        let mut of: Vec<&str> = group.iter().map(|&one| names[one].as_str()).collect();
        of.dedup();
        let name = of.join(", ");
        let told = if name.contains(&point.name) {
            name
        } else {
            format!("{name}: {}", point.name)
        };
        let _ = writeln!(
            text,
            "  {}  {} ({}, {})",
            painted(&letter, TITLE),
            told,
            point.kind.word(),
            point.trust
        );
    }
    for difference in &compared.differences {
        let values: Vec<String> = compared
            .groups
            .iter()
            .enumerate()
            .map(|(place, group)| format!("{} {}", letter(place), difference.values[group[0]]))
            .collect();
        let told = format!("{}: {}", difference.axis.word(), values.join("; "));
        let style = if difference.unlike { ALARM } else { FAINT };
        let _ = writeln!(
            text,
            "  {}",
            painted(&wrapped(&format!("differ in {told}"), look.width, 2), style)
        );
    }
    text.push('\n');
    text += &table(compared).render();
    text.push('\n');
    let told = if compared.exact {
        "simulated, so the same again: intervals say how much the difference varies over the rows that were replayed, \
         not over repeats"
    } else {
        "intervals: 95 of 100 draws of paired runs (of rows, where runs are few); A/A: spread of repeats, which a \
         difference must exceed"
    };
    text += &line("note", &wrapped(told, look.width, 8));
    text
}

/// Returns the letter by which a group goes.
pub fn letter(place: usize) -> String {
    let letter = char::from(b'A' + (place % 26) as u8);
    let round = place / 26;
    if round == 0 {
        letter.to_string()
    } else {
        format!("{letter}{round}")
    }
}

fn table(compared: &Compared) -> Table {
    let others = compared.groups.len() - 1;
    let mut aligns = vec![Align::Left, Align::Right];
    aligns.extend([Align::Right, Align::Right, Align::Left, Align::Right].repeat(others));
    aligns.push(Align::Right);
    let mut table = Table::new(aligns);
    let mut heads = vec!["figure".to_string(), "A".to_string()];
    for place in 1..=others {
        let letter = letter(place);
        heads.extend([
            letter.clone(),
            format!("{letter}/A"),
            "95 %".to_string(),
            "lower in".to_string(),
        ]);
    }
    heads.push("A/A".to_string());
    table.row(heads.into_iter().map(|head| Cell::from(head).styled(FAINT)));
    for row in &compared.rows {
        let unit = row.figure.unit();
        let better = row.figure.more_is_better();
        let mut cells = vec![
            Cell::from(row.figure.name()),
            Cell::from(told(row.groups[0].value, unit)),
        ];
        for group in &row.groups[1..] {
            cells.extend(beside(group, unit, better));
        }
        let spread = row
            .groups
            .iter()
            .filter_map(|group| group.spread)
            .reduce(f64::max);
        cells.push(
            Cell::from(spread.map_or(UNKNOWN.to_string(), |it| format!("{:.1} %", it * 100.0)))
                .styled(FAINT),
        );
        table.row(cells);
    }
    table
}

fn told(value: Option<f64>, unit: Unit) -> String {
    value.map_or(UNKNOWN.to_string(), |value| unit.shown(value))
}

fn beside(group: &Against, unit: Unit, more_is_better: bool) -> [Cell; 4] {
    let ratio = group.ratio.map_or(UNKNOWN.to_string(), change);
    let sure = group
        .interval
        .is_some_and(|(low, high)| low > 1.0 || high < 1.0);
    let good = group
        .ratio
        .is_some_and(|ratio| (ratio > 1.0) == more_is_better);
    let style = match (sure, good) {
        (true, true) => ANSWER,
        (true, false) => ALARM,
        _ => anstyle::Style::new(),
    };
    let interval = group.interval.map_or(String::new(), |(low, high)| {
        format!("{} to {}", change(low), change(high))
    });
    [
        Cell::from(told(group.value, unit)),
        Cell::from(ratio).styled(style),
        Cell::from(interval).styled(FAINT),
        Cell::from(
            group
                .lower
                .map_or(String::new(), |share| percent(share, 1.0)),
        ),
    ]
}

/// Returns the answer for programs.
pub fn document(compared: &Compared, all: &[Figures], names: &[String], seed: u64) -> Value {
    let groups = compared.groups.iter().enumerate().map(|(place, group)| {
        json!({
            "name": letter(place),
            "results": group.iter().map(|&one| names[one].as_str()).collect::<Vec<_>>(),
            "rig": all[group[0]].point.name,
            "kind": all[group[0]].point.kind.word(),
        })
    });
    let differences = compared
        .differences
        .iter()
        .map(|one| json!({ "axis": one.axis.word(), "unlike": one.unlike, "values": one.values }));
    let rows = compared.rows.iter().map(|row| {
        let groups = row.groups.iter().enumerate().map(|(place, group)| {
            json!({
                "name": letter(place),
                "value": group.value,
                "ratio": group.ratio,
                "interval": group.interval.map(|(low, high)| [low, high]),
                "lower_share": group.lower,
                "repeat_spread": group.spread,
            })
        });
        json!({
            "figure": row.figure.name(),
            "more_is_better": row.figure.more_is_better(),
            "groups": groups.collect::<Vec<Value>>(),
        })
    });
    json!({
        "schema": "laptime.compare/1",
        "laptime_version": env!("CARGO_PKG_VERSION"),
        "seed": seed,
        "exact": compared.exact,
        "groups": groups.collect::<Vec<Value>>(),
        "differences": differences.collect::<Vec<Value>>(),
        "figures": rows.collect::<Vec<Value>>(),
    })
}
