//! What a replay took and cost, as a person would say it: energy, money, and whether an API would have been cheaper.

use super::table::{Look, painted, wrapped};
use crate::rig::power::Energy;
use crate::study::economy::{DEFAULTS_FROM, Economy, Prices};
use crate::study::replay::Replay;
use crate::units::{Money, three_digits};
use anstyle::Style;
use std::fmt::Write;

const TITLE: Style = Style::new().bold();
const UNKNOWN: &str = "-";

/// Returns the cells of a column: energy a run and what it counts, cost a run and for a million tokens.
pub(super) fn column(replay: &Replay<'_>) -> [String; 4] {
    let runs = f64::from(replay.metrics.summary.runs.max(1));
    let energy = replay.energy.as_ref();
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_string());
    [
        or_unknown(energy.map(|energy| watt_hours(energy.total().watt_hours() / runs))),
        or_unknown(energy.map(|energy| energy.covers.word().to_string())),
        or_unknown(replay.economy.per_run.map(dollars)),
        or_unknown(replay.economy.per_mtok.map(dollars)),
    ]
}

/// Returns the paragraph about one replay; nothing where neither energy nor price is known.
pub(super) fn block(replay: &Replay<'_>, look: Look) -> String {
    let economy = &replay.economy;
    if replay.energy.is_none() && economy.hardware.is_none() && economy.api.is_none() {
        return String::new();
    }
    let mut lines = vec![replay.energy.as_ref().map_or_else(
        || "energy: not known, for want of watts in the catalogue".to_string(),
        energy,
    )];
    lines.push(cost(economy));
    lines.extend(api(economy));
    lines.push(basis(economy));
    let mut text = painted("energy and cost", TITLE) + "\n";
    for line in lines {
        let _ = writeln!(text, "  {}", wrapped(&line, look.width, 4));
    }
    text.push('\n');
    text
}

fn energy(energy: &Energy) -> String {
    let part = |name: &str, joules: crate::units::Joules| {
        let wh = joules.watt_hours();
        (wh > 0.0).then(|| format!("{name} {}", watt_hours(wh)))
    };
    let parts: Vec<String> = [
        part("reading prompts", energy.prefill),
        part("writing", energy.decode),
        part("attention", energy.attention),
        part("idle", energy.idle),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!(
        "{} of the {} ({}): {}",
        watt_hours(energy.total().watt_hours()),
        energy.covers.word(),
        energy.trust,
        parts.join(", ")
    )
}

fn cost(economy: &Economy) -> String {
    let known = |money: Option<Money>| money.map_or("not known".to_string(), dollars);
    let each = match (economy.per_run, economy.per_mtok) {
        (Some(run), Some(mtok)) => format!(
            "; {} a run, {} a million tokens of prompts and answers",
            dollars(run),
            dollars(mtok)
        ),
        _ => String::new(),
    };
    format!(
        "{} in all: electricity {}, the machine's share {}{each}",
        known(economy.total),
        known(economy.electricity),
        known(economy.hardware_share),
    )
}

fn api(economy: &Economy) -> Option<String> {
    let api = economy.api?;
    let even = match (api.break_even_runs, api.break_even_days) {
        (Some(runs), Some(days)) => format!(
            "the machine has paid for itself after {runs:.0} such runs, {} days of this work",
            three_digits(days)
        ),
        _ if economy.electricity.is_none() || economy.hardware.is_none() => {
            "when the machine has paid for itself is not known".to_string()
        }
        _ => {
            "the machine never pays for itself: the API costs less than its electricity".to_string()
        }
    };
    Some(format!(
        "{} from an API at these prices; {even}",
        dollars(api.total)
    ))
}

fn basis(economy: &Economy) -> String {
    let prices = &economy.prices;
    let machine = match &economy.hardware {
        None => "no price of the machine is known (cost.hardware_usd)".to_string(),
        Some(bought) => {
            let date = bought.date.as_ref();
            let when = date.map_or_else(String::new, |date| format!(" ({date}, {})", bought.trust));
            format!("{} for the machine{when}", dollars(bought.amount))
        }
    };
    let defaults = if *prices == Prices::default() {
        format!("; {DEFAULTS_FROM}, change them with --set cost.KEY=VALUE")
    } else {
        String::new()
    };
    format!(
        "counted with {machine}, {} years at {} % use, {} USD/kWh{defaults}",
        prices.years,
        three_digits(prices.utilisation * 100.0),
        prices.electricity.0,
    )
}

fn watt_hours(wh: f64) -> String {
    if wh >= 1000.0 {
        format!("{} kWh", three_digits(wh / 1000.0))
    } else {
        format!("{} Wh", three_digits(wh))
    }
}

/// Returns money as people write it, with a digit to spare where it is little.
fn dollars(money: Money) -> String {
    if money.0 == 0.0 || money.0 >= 100.0 {
        format!("{:.0} USD", money.0)
    } else {
        format!("{} USD", three_digits(money.0))
    }
}
