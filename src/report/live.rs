//! What a person reads of a live replay: how far the client can be believed, and what was predicted beside it.

use super::table::{Align, Cell, Look, Table, painted, wrapped};
use super::text::counted;
use crate::ids::CallId;
use crate::live::Ending;
use crate::metrics::{CallRow, Summary};
use crate::study::live::LiveNotes;
use crate::study::replay::Replay;
use crate::units::{Span, three_digits};
use anstyle::{AnsiColor, Style};
use std::collections::BTreeMap;
use std::fmt::Write;

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const ALARM: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// Returns what is to be said of a live replay beside its figures.
pub(super) fn section(live: &LiveNotes, look: Look) -> String {
    let mut text = painted("how it was measured", TITLE) + "\n";
    let mut line = |name: &str, what: &str, style: Style| {
        let what = painted(&wrapped(what, look.width, 11), style);
        let _ = writeln!(text, "  {}  {what}", painted(&format!("{name:7}"), FAINT));
    };
    let plain = Style::new();
    match live.ending {
        Ending::Completed => {}
        Ending::Drained => line(
            "ended",
            "interrupted; calls under way were waited for",
            ALARM,
        ),
        Ending::Aborted => line(
            "ended",
            "cut short; calls under way are in no figure",
            ALARM,
        ),
        Ending::Lost => line("ended", "the engine was lost", ALARM),
    }
    if let Some(health) = &live.health {
        let mut what = Vec::new();
        if let Some(lag) = health.send_lag {
            what.push(format!(
                "calls sent {} late at p50, {} at p99",
                lag.p50, lag.p99
            ));
        }
        if let Some(lag) = health.loop_lag {
            what.push(format!("event loop {} late at p99", lag.p99));
        }
        if let Some(cores) = health.cores {
            what.push(format!("{} cores", three_digits(cores)));
        }
        what.push(counted(health.connections, "connection"));
        line("client", &what.join(", "), plain);
        for why in &health.bound {
            line("", &format!("not valid: {why}"), ALARM);
        }
    }
    let form = match live.form.as_str() {
        "tokens" => "token ids",
        _ => "messages, through the engine's template",
    };
    let off = live
        .prompt_error()
        .map_or_else(String::new, |(_, overall)| {
            format!(
                "; {} % off their recorded length",
                three_digits(overall * 100.0)
            )
        });
    line("prompts", &format!("{form}{off}"), plain);
    // A journal does not say how many there were.
    if live.health.is_some() {
        let warm = counted(live.warm_up.into(), "call");
        let warm = format!("{warm} before the clock started, in no figure");
        line("warm-up", &warm, plain);
    }
    line("window", &window(live), plain);
    for note in &live.notes {
        line("note", note, FAINT);
    }
    text
}

fn window(live: &LiveNotes) -> String {
    let Some(window) = &live.window else {
        return "there was no time in which all lanes were busy; figures are of everything"
            .to_string();
    };
    let span = window.to - window.from;
    let rate = window.output as f64 / span.secs().max(1e-9);
    let lap = window
        .lap
        .map_or("-".to_string(), |lap| lap.p50.to_string());
    format!(
        "figures are of everything; all lanes were busy for {span} from {}: {}, p50 {lap}, {} tokens/s",
        window.from,
        counted(window.laps.into(), "lap"),
        three_digits(rate)
    )
}

/// A figure that is compared.
type Figure = (&'static str, fn(&Summary) -> Option<f64>, bool);

const FIGURES: [Figure; 9] = [
    ("run p50", |it| it.run.map(|it| it.p50.secs()), true),
    ("lap p50", |it| it.lap.map(|it| it.p50.secs()), true),
    ("lap p95", |it| it.lap.map(|it| it.p95.secs()), true),
    (
        "first token p50",
        |it| it.ttft.map(|it| it.p50.secs()),
        true,
    ),
    (
        "first token p95",
        |it| it.ttft.map(|it| it.p95.secs()),
        true,
    ),
    (
        "between tokens p50",
        |it| it.itl.map(|it| it.p50.secs()),
        true,
    ),
    ("wall", |it| Some(it.wall.secs()), true),
    (
        "tokens from cache",
        |it| Some(it.tokens.cached.as_f64()),
        false,
    ),
    ("failed calls", |it| Some(f64::from(it.failed_calls)), false),
];

/// Returns the repeats of a live replay side by side, and every prediction against them.
pub fn beside(live: &[Replay<'_>], simulated: &[Replay<'_>]) -> String {
    let mut text = String::new();
    if live.len() > 1 && simulated.is_empty() {
        let _ = writeln!(text, "\n{}", painted("repeats", TITLE));
        text += &table(live, None);
    }
    for one in simulated {
        let title = format!("predicted by {}", one.point.name);
        let _ = writeln!(text, "\n{}", painted(&title, TITLE));
        text += &table(live, Some(&one.metrics.summary));
        if let Some(first) = live.first() {
            let _ = writeln!(text, "  {}", first_difference(first, one));
        }
    }
    text
}

fn table(live: &[Replay<'_>], predicted: Option<&Summary>) -> String {
    let mut table = Table::new([
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ]);
    let heads = ["", "predicted", "measured", "error", "spread of repeats"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for (name, of, time) in FIGURES {
        let figure = |value: f64| match (time, Span::try_from_secs(value)) {
            (true, Some(span)) => span.to_string(),
            _ => three_digits(value),
        };
        let mut measured: Vec<f64> = live
            .iter()
            .filter_map(|one| of(&one.metrics.summary))
            .collect();
        measured.sort_by(f64::total_cmp);
        let middle = measured.get(measured.len() / 2).copied();
        let predicted = predicted.and_then(of);
        let error = predicted.zip(middle).filter(|(_, middle)| *middle > 0.0);
        let error = error.map(|(predicted, middle)| (predicted / middle - 1.0) * 100.0);
        let spread = match (measured.first(), measured.last()) {
            (Some(least), Some(most)) if measured.len() > 1 => {
                format!("{} to {}", figure(*least), figure(*most))
            }
            _ => String::new(),
        };
        let dash = || "-".to_string();
        table.row([
            Cell::from(name),
            Cell::from(predicted.map_or_else(dash, figure)),
            Cell::from(middle.map_or_else(dash, figure)).styled(TITLE),
            Cell::from(error.map_or_else(String::new, |error| format!("{error:+.1} %"))),
            Cell::from(spread).styled(FAINT),
        ]);
    }
    table.render()
}

/// Says where prediction and engine first differ in what came from the cache.
fn first_difference(live: &Replay<'_>, simulated: &Replay<'_>) -> String {
    let Some(notes) = &live.live else {
        return String::new();
    };
    let key = |row: &CallRow| (row.lap.run, row.lap.thread, row.lap.lap);
    let predicted: BTreeMap<_, CallRow> = simulated
        .metrics
        .calls()
        .map(|row| (key(&row), row))
        .collect();
    let told = |call: CallId| {
        let seen = notes.calls.get(call.index()).and_then(Option::as_ref);
        seen.is_some_and(|seen| seen.cached.is_some())
    };
    let (mut equal, mut all, mut first) = (0, 0, None);
    for row in live
        .metrics
        .calls()
        .filter(|row| told(row.call) && !row.outcome.failed())
    {
        let Some(other) = predicted.get(&key(&row)) else {
            continue;
        };
        all += 1;
        if row.cached == other.cached {
            equal += 1;
        } else {
            first.get_or_insert((row, other.cached));
        }
    }
    match first {
        None if all == 0 => "the engine does not tell what came from its cache".to_string(),
        None => format!("all {all} calls found in the cache what was predicted"),
        Some((row, predicted)) => format!(
            "{equal} of {all} calls found in the cache what was predicted; the first that did not is lap {} of run {}, \
             thread {}: {} tokens, predicted {predicted}",
            row.lap.lap, row.lap.run.0, row.lap.thread, row.cached
        ),
    }
}
