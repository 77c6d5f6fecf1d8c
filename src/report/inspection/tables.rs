//! The tables of an inspection, for people.
#![expect(
    clippy::format_push_string,
    reason = "text that is built up reads better with its templates in place"
)]

use super::super::table::{Align, Cell, Look, Table, bar, clipped, painted};
use super::super::text::percent;
use super::{FAINT, TITLE};
use crate::trace::inspect::{Inspection, LIFETIMES, PROMPT_SIZES, Summary};
use crate::units::Tokens;

/// How many sessions are shown one by one.
const SHOWN: usize = 20;

pub(super) fn begin(sessions: u64) -> String {
    if sessions == 1 {
        "1 begins".to_string()
    } else {
        format!("{sessions} begin")
    }
}

pub(super) fn section(title: &str, table: Option<Table>, otherwise: &str) -> String {
    let body = table.map_or_else(|| format!("  {otherwise}\n"), |table| table.render());
    format!("\n{}\n{body}", painted(title, TITLE))
}

pub(super) fn tokens(total: &Summary) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Right]);
    let mut row = |name: &str, count: Tokens, of: Option<Tokens>| {
        let share = of.map_or_else(String::new, |of| percent(count.as_f64(), of.as_f64()));
        table.row([name.into(), count.into(), Cell::from(share).styled(TITLE)]);
    };
    row("prompts", total.prompt, None);
    row("  reusable at best", total.reusable, Some(total.prompt));
    row("  new", total.new, Some(total.prompt));
    row("  again at another place", total.again, Some(total.prompt));
    row("answers", total.output, None);
    row("distinct", total.distinct, None);
    table
}

pub(super) fn sizes(total: &Summary) -> Table {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    table.row(["", "p10", "p50", "p90", "max"].map(|head| Cell::from(head).styled(FAINT)));
    for (name, spread) in [
        ("first prompt", &total.first_prompt),
        ("shared head", &total.head),
        ("growth per call", &total.growth),
    ] {
        if spread.count > 0 {
            let figures = [spread.p10, spread.p50, spread.p90, spread.max].map(signed);
            table.row(std::iter::once(name.into()).chain(figures));
        }
    }
    let largest = ["", "", ""]
        .map(Cell::from)
        .into_iter()
        .chain([total.largest_prompt.into()]);
    table.row(std::iter::once("largest prompt".into()).chain(largest));
    table
}

pub(super) fn prompt_sizes(total: &Summary, look: Look) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let most = total.prompt_sizes.iter().copied().max().unwrap_or(0);
    let first = total.prompt_sizes.iter().position(|&calls| calls > 0);
    let last = total.prompt_sizes.iter().rposition(|&calls| calls > 0);
    for place in first.unwrap_or(0)..=last.unwrap_or(0) {
        let calls = total.prompt_sizes[place];
        let name = match PROMPT_SIZES.get(place) {
            Some(&size) => format!("up to {}", Tokens(size)),
            None => "more".to_string(),
        };
        let share = calls as f64 / most.max(1) as f64;
        let room = look.width.saturating_sub(34).clamp(10, 50);
        table.row([name.into(), calls.into(), bar(share, room, look).into()]);
    }
    table
}

pub(super) fn ceilings(total: &Summary) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let mut row = |name: String, share: Option<f64>, of: &str| {
        if let Some(share) = share {
            let share = Cell::from(percent(share, 1.0)).styled(TITLE);
            table.row([name.into(), share, Cell::from(of).styled(FAINT)]);
        }
    };
    row(
        "one that never forgets".to_string(),
        total.hit_ceiling(),
        "of all prompt tokens",
    );
    let elsewhere = total.elsewhere.as_f64() / total.prompt.as_f64().max(1.0);
    let several = (total.sessions > 1).then_some(elsewhere);
    row("  of which from other sessions".to_string(), several, "");
    row(
        "the prompt before".to_string(),
        total.shared_with_previous(),
        "of prompts that follow one",
    );
    for (place, lifetime) in LIFETIMES.iter().enumerate() {
        row(
            format!("  kept for {lifetime}"),
            total.lives(place),
            "of those whose times are known",
        );
    }
    table
}

fn signed(tokens: i64) -> Cell {
    let sign = if tokens < 0 { "-" } else { "" };
    Cell::from(format!("{sign}{}", Tokens(tokens.unsigned_abs())))
}

pub(super) fn breaks(total: &Summary) -> Option<Table> {
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let breaks = &total.breaks;
    let mut some = false;
    for (name, kind) in [
        ("answer dropped or rewritten", breaks.answer_dropped),
        ("end of the prompt changed", breaks.tail),
        ("middle of the prompt rewritten", breaks.rewritten),
        ("prompt shrunk", breaks.shrunk),
    ] {
        if kind.count > 0 {
            some = true;
            let lost = format!(
                "{} prompt tokens not kept, {} to compute behind them",
                kind.lost, kind.cost
            );
            table.row([
                name.into(),
                kind.count.into(),
                Cell::from(lost).styled(FAINT),
            ]);
        }
    }
    if breaks.estimated > 0 {
        table.row([
            "  of these at an estimated place".into(),
            breaks.estimated.into(),
        ]);
    }
    some.then_some(table)
}

pub(super) fn waits(total: &Summary) -> Option<Table> {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    table.row(["", "count", "p50", "p90", "sum"].map(|head| Cell::from(head).styled(FAINT)));
    let waits = &total.waits;
    let mut some = false;
    for (name, wait) in [
        ("tools", waits.tool),
        ("unknown cause after a tool call", waits.unknown_tool),
        ("people", waits.human),
        ("unknown cause", waits.unknown),
        ("client", waits.client),
        ("the model, as recorded", waits.model),
    ] {
        if wait.count > 0 {
            some = true;
            table.row([
                name.into(),
                wait.count.into(),
                wait.p50.into(),
                wait.p90.into(),
                wait.sum.into(),
            ]);
        }
    }
    some.then_some(table)
}

pub(super) fn sessions(found: &Inspection, look: Look) -> String {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ]);
    let heads = ["session", "calls", "prompt tokens", "largest", "reusable"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for (name, summary) in found.sessions.iter().take(SHOWN) {
        table.row([
            clipped(name, look.width.saturating_sub(48).max(16)).into(),
            summary.calls.into(),
            summary.prompt.into(),
            summary.largest_prompt.into(),
            percent(summary.reusable.as_f64(), summary.prompt.as_f64()).into(),
        ]);
    }
    let mut text = format!("\n{}\n{}", painted("sessions", TITLE), table.render());
    if found.sessions.len() > SHOWN {
        text += &format!(
            "  and {} more; --json lists all\n",
            found.sessions.len() - SHOWN
        );
    }
    text
}
