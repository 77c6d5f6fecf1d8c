//! Answers to questions asked of results: how many agents, why so slow, is it better, does it pass.

pub mod check;
pub mod compare;
pub mod explain;
pub mod size;

use super::table::{Cell, painted};
use crate::study::figures::Figures;
use crate::study::target::Figure;
use crate::units::three_digits;
use anstyle::{AnsiColor, Style};

pub(super) const TITLE: Style = Style::new().bold();
pub(super) const ANSWER: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const ALARM: Style =
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
pub(super) const UNKNOWN: &str = "-";

/// Returns a figure of a result as a person would write it.
pub(super) fn shown(figure: &Figure, of: &Figures) -> String {
    let value = figure.value(of);
    value.map_or(UNKNOWN.to_string(), |value| figure.unit().shown(value))
}

/// Returns a figure by a name that is known to be one.
pub(super) fn known(name: &str) -> Figure {
    Figure::parse(name).expect("the name is written in this program")
}

pub(super) fn heads<const N: usize>(names: [&str; N]) -> [Cell; N] {
    names.map(|name| Cell::from(name).styled(FAINT))
}

/// Returns a ratio as the percentage by which it differs from one.
pub(super) fn change(ratio: f64) -> String {
    // Percentages of a multiple are hard to read.
    if ratio >= 2.0 {
        return format!("x{}", three_digits(ratio));
    }
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

pub(super) fn line(name: &str, text: &str) -> String {
    format!("  {}  {text}\n", painted(name, FAINT))
}

/// Returns one sentence on how a result's figures are known.
pub(super) fn how_known(of: &Figures) -> String {
    let point = &of.point;
    let interval = point.error_interval.map_or(
        "; how far it may be off was not measured".to_string(),
        |(low, high)| format!("; true times are {low:.2} to {high:.2} of these"),
    );
    let interval = if point.trust == crate::known::Trust::Measured {
        String::new()
    } else {
        interval
    };
    format!("{}: {}{interval}", point.trust, point.known_by)
}
