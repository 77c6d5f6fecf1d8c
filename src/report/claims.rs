//! Whether claimed speeds can be true: a table for people, a list for programs, and the page `docs/claims.md`.

use super::json::write_value;
use super::table::{Align, Cell, Look, Table, painted, wrapped};
use super::text::percent;
use crate::catalog::claim::Metric;
use crate::rig::ceiling::Ceiling;
use crate::study::claims::{Judged, Verdict};
use crate::units::three_digits;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const ALARM: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const UNKNOWN: &str = "-";

#[derive(Serialize)]
struct Row<'a> {
    hardware: &'a str,
    model: &'a str,
    metric: &'static str,
    low: f64,
    high: f64,
    unit: &'static str,
    streams: u64,
    context_tokens: u64,
    conditions: Option<&'a str>,
    source: &'a str,
    ceiling: Option<f64>,
    expected_ceiling: Option<f64>,
    bound_by: Option<&'static str>,
    ceiling_trust: Option<&'static str>,
    fraction_low: Option<f64>,
    fraction_high: Option<f64>,
    verdict: &'static str,
    why: &'a str,
}

/// Writes claims for programs.
pub fn write(out: &mut impl Write, judged: &[Judged]) -> io::Result<()> {
    let row = |one| {
        let Judged {
            hardware,
            claim,
            ceiling,
            fraction,
            verdict,
            why,
        }: &Judged = one;
        Row {
            hardware,
            model: &claim.model,
            metric: claim.metric.word(),
            low: claim.low,
            high: claim.high,
            unit: claim.metric.unit(),
            streams: claim.streams,
            context_tokens: claim.context,
            conditions: claim.conditions.as_deref(),
            source: &claim.source,
            ceiling: ceiling.as_ref().map(|ceiling| ceiling.hard),
            expected_ceiling: ceiling.as_ref().map(|ceiling| ceiling.expected),
            bound_by: ceiling.as_ref().map(|ceiling| ceiling.by.words()),
            ceiling_trust: ceiling.as_ref().map(|ceiling| ceiling.trust.word()),
            fraction_low: fraction.map(|(low, _)| low),
            fraction_high: fraction.map(|(_, high)| high),
            verdict: verdict.word(),
            why,
        }
    };
    write_value(out, &judged.iter().map(row).collect::<Vec<Row<'_>>>())
}

fn figure(one: &Judged) -> String {
    let claim = &one.claim;
    let unit = claim.metric.unit();
    let range = if claim.low < claim.high {
        format!("{}-{}", claim.low, claim.high)
    } else {
        claim.low.to_string()
    };
    let mut text = format!("{range} {unit}");
    if claim.metric != Metric::Decode {
        let _ = write!(text, " {}", claim.metric.word());
    }
    if claim.streams > 1 {
        let _ = write!(text, " x{}", claim.streams);
    }
    if claim.context > 0 {
        let _ = write!(text, " @{}", claim.context);
    }
    text
}

fn shares(one: &Judged) -> String {
    let share = |share: f64| percent(share, 1.0);
    one.fraction.map_or(UNKNOWN.to_string(), |(low, high)| {
        if high > low * 1.001 {
            format!("{:.0}-{:.0} %", low * 100.0, high * 100.0)
        } else {
            share(low)
        }
    })
}

fn limit(metric: Metric, ceiling: &Ceiling) -> String {
    let end = match metric {
        Metric::FirstToken => "at least",
        _ => "at most",
    };
    let figure = three_digits(ceiling.hard);
    let by = ceiling.by.words();
    let (unit, trust) = (metric.unit(), ceiling.trust);
    let expected = three_digits(ceiling.expected);
    if expected == figure {
        format!("{end} {figure} {unit} by {by} ({trust})")
    } else {
        format!("{end} {figure} {unit} by {by}, {expected} to be expected ({trust})")
    }
}

fn verdict(one: &Judged) -> Cell {
    let cell = Cell::from(one.verdict.word());
    match one.verdict {
        Verdict::Possible => cell.styled(TITLE),
        _ => cell.styled(ALARM),
    }
}

/// Returns one claim held against several machines.
pub fn of_one(judged: &[Judged], look: Look) -> String {
    let mut text = String::new();
    if let Some(first) = judged.first() {
        let head = format!("{} {}", first.claim.model, figure(first));
        let _ = writeln!(text, "{}\n", painted(&head, TITLE));
    }
    let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
    for one in judged {
        table.row([
            Cell::from(&one.hardware),
            verdict(one),
            Cell::from(shares(one)),
            Cell::from(match &one.ceiling {
                Some(ceiling) => limit(one.claim.metric, ceiling),
                None => one.why.clone(),
            })
            .styled(FAINT),
        ]);
    }
    text += &table.render();
    if let [only] = judged
        && only.verdict != Verdict::Possible
    {
        let _ = write!(text, "\n  {}\n", wrapped(&only.why, look.width, 2));
    }
    text
}

/// Returns several claims, each about a machine of its own.
pub fn of_many(judged: &[Judged], _: Look) -> String {
    let mut table = Table::new([
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Left,
    ]);
    let heads = ["hardware", "model", "claimed", "of ceiling", "verdict"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for one in judged {
        table.row([
            Cell::from(&one.hardware),
            Cell::from(&one.claim.model),
            Cell::from(figure(one)),
            Cell::from(shares(one)),
            verdict(one),
        ]);
    }
    format!("{}\n{}\n", table.render(), sum(judged))
}

fn sum(judged: &[Judged]) -> String {
    let count = |verdict: Verdict| judged.iter().filter(|one| one.verdict == verdict).count();
    let told = [
        Verdict::Possible,
        Verdict::Unlikely,
        Verdict::PartlyImpossible,
        Verdict::Impossible,
        Verdict::CannotTell,
    ]
    .map(|verdict| format!("{} {}", count(verdict), verdict.word()));
    format!("{} claims: {}", judged.len(), told.join(", "))
}

const INTRODUCTION: &str = "\
# Published speeds, and whether they can be true

This page is made by `laptime list claims --markdown` and tested to be current. The claims stand in
`src/catalog/data/claims.toml`: figures that articles of 2026 state for these boxes, with what the article is. They are never
calibrated on.

A *ceiling* is what the machine could do if nothing were lost: every pass reads the weights that one token needs, and the keys and
values of its context, at the full specified bandwidth; prompts are computed at the fastest published rate, attention for free. A
claim above its ceiling is **impossible**, whoever measured it, unless several tokens are written in a pass (speculative decoding),
which no claim here states. What rests on a specification that is itself an estimate is at worst *unlikely*, unless it is off by more
than a factor of two. *Unlikely* is also what lies above 90 % of a ceiling: published measurements of dense models reach 65 to 87 % of
specified bandwidth, sparse ones 40 to 63 % (`docs/accuracy.md`). *Possible* means only that nothing speaks against it. Ask about any
figure with `laptime list hardware --check \"llama-3.1-70b-q4_k_m 45 tok/s\"`.
";

/// Returns the page `docs/claims.md`.
pub fn markdown(judged: &[Judged]) -> String {
    let mut text = INTRODUCTION.to_string();
    let _ = writeln!(text, "\n{}.\n", sum(judged));
    text += "| hardware | model | claimed | ceiling | share of it | verdict | why | source |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for one in judged {
        let ceiling = one.ceiling.as_ref().map_or(UNKNOWN.to_string(), |ceiling| {
            format!("{} {}", three_digits(ceiling.hard), one.claim.metric.unit())
        });
        let source = match &one.claim.conditions {
            Some(conditions) => format!("{}: {conditions}", one.claim.source),
            None => one.claim.source.clone(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {ceiling} | {} | {} | {} | {source} |",
            one.hardware,
            one.claim.model,
            figure(one),
            shares(one),
            one.verdict.word(),
            one.why,
        );
    }
    text
}
