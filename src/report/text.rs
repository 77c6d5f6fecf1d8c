//! The answer a person reads: how long it takes first, then where the time goes, then what it is made of.
//!
//! With several rigs their answers stand side by side first. Styles are always written; whoever prints strips them
//! where they are not wanted.

use super::expense;
use super::table::{Align, Cell, Look, Table, bar, clipped, painted, wrapped};
use crate::metrics::lap::{Binds, Bottleneck, LapParts};
use crate::metrics::stats::Quantiles;
use crate::metrics::{FAILURES, LapRow, RunMetrics, Summary};
use crate::operating_point::OperatingPoint;
use crate::study::replay::{Replay, Workload};
use crate::units::{Span, Time, Tokens, three_digits};
use anstyle::{AnsiColor, Style};
use std::fmt::Write;

const TITLE: Style = Style::new().bold();
const ANSWER: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
const FAINT: Style = Style::new().dimmed();
const ALARM: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// How many of the slowest laps are shown.
const SLOWEST: usize = 5;
const UNKNOWN: &str = "-";

/// Returns the report of one replay, or of several on the same workload.
pub fn render(replays: &[Replay<'_>], look: Look) -> String {
    let mut text = String::new();
    if let [first, _, ..] = replays {
        text += &workload_line(first.workload);
        text += "\n\n";
        text += &side_by_side(replays, look);
    }
    for replay in replays {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &one(replay, look, replays.len() == 1);
    }
    text
}

fn one(replay: &Replay<'_>, look: Look, alone: bool) -> String {
    let summary = &replay.metrics.summary;
    let mut text = painted(&replay.point.name, TITLE) + "\n";
    if alone {
        text += &workload_line(replay.workload);
        text.push('\n');
    }
    text.push('\n');
    text += &answer(&replay.metrics);
    text += &known(&replay.point, look);
    if let Some(notes) = &replay.live {
        text.push('\n');
        text += &super::live::section(notes, look);
    }
    text.push('\n');
    text += &where_time_went(&summary.parts, look);
    text.push('\n');
    text += &what_bound(summary, look);
    text += &tokens(summary);
    text.push('\n');
    text += &expense::block(replay, look);
    text += &slowest(replay, look);
    text
}

fn workload_line(workload: &Workload) -> String {
    let conduct = &workload.plan.conduct;
    format!(
        "{}, {} of {}, share {}, pace {}",
        counted(workload.plan.agents.into(), "agent"),
        counted(workload.runs.into(), "run"),
        counted(workload.sessions.len() as u64, "session"),
        workload.plan.share.word(),
        conduct.pace.word(),
    )
}

fn answer(metrics: &RunMetrics) -> String {
    let summary = &metrics.summary;
    let ended = metrics.runs.iter().filter(|run| run.end.is_some()).count();
    let mut runs = counted(summary.runs.into(), "run");
    if ended < summary.runs as usize {
        // A replay that was stopped: what it shows of runs is of those that ended.
        runs = format!("{ended} of {runs} ended");
    }
    let mut table = Table::new([Align::Left; 6]);
    let mut row = |name: &str, spread: Option<Quantiles>, main: bool, note: String| {
        let style = if main { ANSWER } else { Style::new() };
        let figure = |name: &str, pick: fn(&Quantiles) -> Span| {
            let value = spread
                .as_ref()
                .map(pick)
                .map_or(UNKNOWN.to_string(), |it| it.to_string());
            Cell::from(format!("{name} {value}")).styled(style)
        };
        table.row([
            Cell::from(name).styled(if main { TITLE } else { FAINT }),
            figure("p50", |it| it.p50),
            figure("p90", |it| it.p90),
            figure("p95", |it| it.p95),
            figure("max", |it| it.max),
            Cell::from(note).styled(FAINT),
        ]);
    };
    row(
        "run",
        summary.run,
        true,
        format!("{runs} in {}", summary.wall),
    );
    row(
        "lap",
        summary.lap,
        true,
        counted(summary.laps.into(), "lap"),
    );
    row(
        "first token",
        summary.ttft,
        false,
        counted(summary.calls.into(), "call"),
    );
    row("between tokens", summary.itl, false, String::new());
    let mut text = table.render();
    for (outcome, &count) in FAILURES.iter().zip(&summary.failures) {
        if count > 0 {
            let line = format!(
                "{} of {} ended {}",
                count,
                counted(summary.calls.into(), "call"),
                outcome.word()
            );
            let _ = writeln!(text, "  {}", painted(&line, ALARM));
        }
    }
    if summary.idle_cut > Span::ZERO {
        let line = format!(
            "{} of recorded idle time beyond the cap was not replayed",
            summary.idle_cut
        );
        let _ = writeln!(text, "  {}", painted(&line, FAINT));
    }
    text
}

fn known(point: &OperatingPoint, look: Look) -> String {
    let mut how = format!("{}: {}", point.trust, point.known_by);
    if let Some((low, high)) = point.error_interval {
        let _ = write!(
            how,
            " (true time is {} to {} of this)",
            times(low),
            times(high)
        );
    }
    format!(
        "  {}  {}\n",
        painted("known", FAINT),
        wrapped(&how, look.width, 9)
    )
}

fn where_time_went(parts: &LapParts, look: Look) -> String {
    let total = parts.total();
    let mut text = painted("where the time went", TITLE);
    let _ = writeln!(
        text,
        "  {}",
        painted(&format!("main threads' laps, {total} in all"), FAINT)
    );
    let longest = parts
        .named()
        .iter()
        .map(|(_, span)| *span)
        .max()
        .unwrap_or_default();
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
    let room = look.width.saturating_sub(48).clamp(8, 40);
    for (name, span) in parts.named() {
        if span > Span::ZERO {
            let length = span.secs() / longest.secs();
            table.row([
                Cell::from(part_words(name)),
                Cell::from(span),
                Cell::from(percent(span.secs(), total.secs())).styled(TITLE),
                Cell::from(bar(length, room, look)).styled(ANSWER),
            ]);
        }
    }
    text += &table.render();
    text
}

/// What the calls of all threads were waiting for, by the rig's own accounts.
pub(super) fn what_bound(summary: &Summary, look: Look) -> String {
    let Some(bound) = summary.bound else {
        return String::new();
    };
    let total = bound.total();
    let mut told: Vec<(&'static str, Span)> = bound.named().into();
    told.retain(|(_, span)| span.secs() >= 0.005 * total.secs() && *span > Span::ZERO);
    // A stable sort: of equals, the first of the document's order comes first.
    told.sort_by_key(|(_, span)| std::cmp::Reverse(*span));
    let share = |(name, span): &(&'static str, Span)| {
        let words = Binds::Rig(name).words();
        format!("{words} {}", percent(span.secs(), total.secs()))
    };
    let shares: Vec<String> = told.iter().map(share).collect();
    if shares.is_empty() {
        return String::new();
    }
    format!(
        "{}\n  {}\n\n",
        painted("what calls were bound by", TITLE),
        wrapped(&shares.join(", "), look.width, 2)
    )
}

fn tokens(summary: &Summary) -> String {
    let totals = &summary.tokens;
    let classes = &summary.classes;
    let mut table = Table::new([Align::Left, Align::Right, Align::Right]);
    let mut row = |name: &str, count: Tokens, share: bool| {
        let share = if share {
            percent(count.as_f64(), totals.prompt.as_f64())
        } else {
            String::new()
        };
        table.row([
            Cell::from(name),
            Cell::from(count),
            Cell::from(share).styled(TITLE),
        ]);
    };
    row("prompt", totals.prompt, false);
    row("  from cache", totals.cached, true);
    for (name, count) in [
        ("    at best with this memory", totals.cached_optimal),
        ("    with unlimited memory", totals.cached_unbounded),
    ] {
        if let Some(count) = count {
            row(name, count, true);
        }
    }
    row("  computed", classes.total(), true);
    let refused = totals.computed.saturating_sub(classes.total());
    for (name, count) in [
        ("    new", classes.new),
        ("    re-read, evicted", classes.evicted),
        ("    re-read, not cached", classes.uncached),
        ("    re-read, prefix broken", classes.broken),
        ("  of calls not served", refused),
    ] {
        if count > Tokens::ZERO {
            row(name, count, true);
        }
    }
    row("answers", totals.output, false);
    format!("{}\n{}", painted("tokens", TITLE), table.render())
}

fn slowest(replay: &Replay<'_>, look: Look) -> String {
    let laps = replay.metrics.slowest_laps(SLOWEST);
    let mut table = Table::new([
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Left,
    ]);
    let heads = ["took", "run", "lap", "thread", "start", "mostly", "session"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for lap in &laps {
        table.row(slow_lap(replay, lap, look));
    }
    format!("{}\n{}", painted("slowest laps", TITLE), table.render())
}

fn slow_lap(replay: &Replay<'_>, lap: &LapRow<'_>, look: Look) -> [Cell; 7] {
    let place = replay.metrics.session_of(lap.lap.run);
    let total = lap.parts.total();
    let mostly = lap.parts.binds().map_or(UNKNOWN.to_string(), |what| {
        let share = percent(spent(&lap.parts, what).secs(), total.secs());
        format!("{} {share}", what.word())
    });
    let thread = match lap.lap.thread {
        0 => "main".to_string(),
        child => format!("sub-agent {child}"),
    };
    [
        Cell::from(total).styled(ANSWER),
        Cell::from(lap.lap.run.0),
        Cell::from(lap.lap.lap),
        Cell::from(thread),
        Cell::from(lap.start.since(Time::ZERO)),
        Cell::from(mostly),
        Cell::from(clipped(
            &replay.workload.sessions[place],
            look.width.saturating_sub(70).max(16),
        )),
    ]
}

/// Tables with a column for each rig, as many beside each other as fit.
fn side_by_side(replays: &[Replay<'_>], look: Look) -> String {
    let columns: Vec<Vec<Cell>> = replays.iter().map(column).collect();
    let mut text = String::new();
    let mut left = &columns[..];
    while !left.is_empty() {
        let fits = |count: &usize| {
            let widths = beside(&left[..*count]).widths();
            widths.iter().map(|width| width + 2).sum::<usize>() <= look.width
        };
        let count = (2..=left.len()).take_while(fits).last().unwrap_or(1);
        if !text.is_empty() {
            text.push('\n');
        }
        text += &beside(&left[..count]).render();
        left = &left[count..];
    }
    text
}

const ROWS: [&str; 24] = [
    "rig",
    "",
    "",
    "run p50",
    "run p90",
    "laps",
    "lap p50",
    "lap p95",
    "first token p50",
    "model",
    "tools",
    "prefill",
    "re-read",
    "decode",
    "contention",
    "queue",
    "binds",
    "binds on the rig",
    "energy a run",
    "  counts the",
    "cost a run",
    "  a million tokens",
    "calls refused",
    "known",
];

fn beside(columns: &[Vec<Cell>]) -> Table {
    let mut aligns = vec![Align::Left];
    aligns.resize(columns.len() + 1, Align::Right);
    let mut table = Table::new(aligns);
    for (place, name) in ROWS.into_iter().enumerate() {
        let name = Cell::from(name).styled(FAINT);
        let cells: Vec<Cell> = columns.iter().map(|column| column[place].clone()).collect();
        if cells.iter().all(Cell::is_empty) {
            continue;
        }
        table.row(std::iter::once(name).chain(cells));
    }
    table
}

fn column(replay: &Replay<'_>) -> Vec<Cell> {
    let summary = &replay.metrics.summary;
    let parts = &summary.parts;
    let mut name = replay.point.name.split('/').map(str::to_string);
    let mut cells: Vec<Cell> = (0..3)
        .map(|_| Cell::from(name.next().unwrap_or_default()).styled(TITLE))
        .collect();
    let figure = |spread: &Option<Quantiles>, pick: fn(&Quantiles) -> Span| {
        Cell::from(
            spread
                .as_ref()
                .map(pick)
                .map_or(UNKNOWN.to_string(), |it| it.to_string()),
        )
    };
    cells.push(figure(&summary.run, |it| it.p50).styled(ANSWER));
    cells.push(figure(&summary.run, |it| it.p90).styled(ANSWER));
    cells.push(Cell::from(summary.laps));
    cells.push(figure(&summary.lap, |it| it.p50).styled(ANSWER));
    cells.push(figure(&summary.lap, |it| it.p95).styled(ANSWER));
    cells.push(figure(&summary.ttft, |it| it.p50));
    let total = parts.total().secs();
    let share = |span: Span| Cell::from(percent(span.secs(), total));
    cells.push(share(parts.calls.total()));
    for what in [
        Bottleneck::Tool,
        Bottleneck::Prefill,
        Bottleneck::Reread,
        Bottleneck::Decode,
        Bottleneck::Contention,
        Bottleneck::Queue,
    ] {
        cells.push(share(spent(parts, what)));
    }
    for told in [summary.mostly(), summary.mostly_on_rig()] {
        cells.push(Cell::from(told.map_or(UNKNOWN, Binds::words)).styled(TITLE));
    }
    cells.extend(expense::column(replay).map(Cell::from));
    let refused = Cell::from(summary.failed_calls);
    cells.push(if summary.failed_calls > 0 {
        refused.styled(ALARM)
    } else {
        refused
    });
    cells.push(Cell::from(replay.point.trust));
    cells
}

fn spent(parts: &LapParts, what: Bottleneck) -> Span {
    let gathered = parts.gathered();
    gathered
        .iter()
        .filter(|(one, _)| *one == what)
        .map(|(_, span)| *span)
        .sum()
}

fn part_words(name: &str) -> &str {
    match name {
        "client" => "client",
        "queue" => "waiting in the queue",
        "kv_transfer" => "moving the cache",
        "prefill_new" => "reading what is new",
        "reread_evicted" => "re-reading, evicted",
        "reread_uncached" => "re-reading, not cached",
        "reread_broken" => "re-reading, broken",
        "decode" => "writing answers",
        "contention" => "slowed by neighbours",
        "tool" => "tools",
        "wait" => "people",
        "subagent" => "sub-agents",
        other => other,
    }
}

/// Returns the share as a person would write it.
pub fn percent(part: f64, whole: f64) -> String {
    if whole == 0.0 {
        return UNKNOWN.to_string();
    }
    let percent = part / whole * 100.0;
    if percent > 0.0 && percent < 0.05 {
        "<0.1 %".to_string()
    } else {
        format!("{percent:.1} %")
    }
}

fn times(ratio: f64) -> String {
    format!("{}x", three_digits(ratio))
}

/// Returns "1 run" or "12,000 runs".
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count))
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_agree_with_their_noun() {
        assert_eq!(counted(1, "run"), "1 run");
        assert_eq!(counted(999, "run"), "999 runs");
        assert_eq!(counted(1_234_567, "run"), "1,234,567 runs");
    }

    #[test]
    fn small_shares_are_not_shown_as_nothing() {
        assert_eq!(percent(0.0, 10.0), "0.0 %");
        assert_eq!(percent(1.0, 1e6), "<0.1 %");
        assert_eq!(percent(1.0, 0.0), "-");
    }
}
