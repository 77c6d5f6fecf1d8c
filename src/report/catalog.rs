//! Lists of what the catalogue knows, for people and for programs (an array of objects).
#![expect(
    clippy::format_push_string,
    reason = "text that is built up reads better with its templates in place"
)]

use super::json::write_value;
use super::table::{Align, Cell, Look, Table, painted, wrapped};
use crate::known::{Known, Trust};
use crate::study::rig::Basis;
use crate::units::{BytesPerSec, FlopsPerSec, three_digits};
use anstyle::Style;
use serde::Serialize;
use std::io::{self, Write};

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// A thing that can be named on the command line.
#[derive(Serialize, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// What it is, in words.
    pub title: String,
    /// What a person wants to see beside it.
    #[serde(skip)]
    pub columns: Vec<String>,
    /// The weakest trust among its figures, where it has some.
    #[serde(serialize_with = "maybe_word")]
    pub trust: Option<Trust>,
    /// What is known of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// Settings it takes, and what they do.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "settings")]
    pub settings: Vec<(String, String)>,
    /// What else must be known.
    pub note: Option<String>,
    /// The file it comes from, unless it is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For a rig: what its times rest on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basis: Option<BasisOut>,
    /// For a rig that cannot be: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cannot: Option<String>,
}

/// What a rig's times rest on, for programs.
#[derive(Serialize, Debug)]
pub struct BasisOut {
    kind: &'static str,
    /// The rig that was measured instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried_from: Option<String>,
    /// The error on measurements that were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_out: Option<HeldOutOut>,
}

#[derive(Serialize, Debug)]
struct HeldOutOut {
    what: String,
    count: u32,
    median: f64,
    p90: f64,
}

impl BasisOut {
    /// Returns whether it is of that kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Returns what a rig rests on.
    pub fn new(basis: &Basis) -> BasisOut {
        let (carried_from, held_out) = match basis {
            Basis::Calibrated(error) => (None, error.as_ref()),
            Basis::CarriedOver(from) => (Some(from.clone()), None),
            Basis::Roofline => (None, None),
        };
        BasisOut {
            kind: basis.word(),
            carried_from,
            held_out: held_out.map(|error| HeldOutOut {
                what: error.what.clone(),
                count: error.count,
                median: error.median,
                p90: error.p90,
            }),
        }
    }
}

impl Entry {
    /// Returns whether a name of it contains `word`.
    pub fn is_called(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let mut names = std::iter::once(&self.name).chain(&self.aliases);
        names.any(|name| name.contains(&word))
    }

    /// Returns an entry of which only this is known.
    pub fn plain(name: String, title: &str, columns: Vec<String>, trust: Option<Trust>) -> Entry {
        Entry {
            name,
            aliases: Vec::new(),
            title: title.to_string(),
            columns,
            trust,
            figures: Vec::new(),
            settings: Vec::new(),
            note: None,
            from: None,
            basis: None,
            cannot: None,
        }
    }

    /// Returns the entry with what is known of it.
    #[must_use]
    pub fn with_figures(mut self, figures: Vec<Figure>) -> Entry {
        self.trust = figures.iter().map(|figure| figure.trust).max();
        self.figures = figures;
        self
    }
}

/// A number with its source and trust.
#[derive(Serialize, Debug)]
pub struct Figure {
    name: &'static str,
    value: Number,
    #[serde(skip)]
    text: String,
    source: String,
    #[serde(serialize_with = "word")]
    trust: Trust,
}

#[derive(Serialize, Debug)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl Figure {
    /// Returns a whole number; `show` gives it for programs and for people.
    pub fn whole<T>(
        name: &'static str,
        known: &Known<T>,
        show: impl Fn(&T) -> (u64, String),
    ) -> Figure {
        let (value, text) = show(&known.value);
        Figure::new(name, Number::Whole(value), text, known)
    }

    /// Returns a real number; `show` gives it for programs and for people.
    pub fn real<T>(
        name: &'static str,
        known: &Known<T>,
        show: impl Fn(&T) -> (f64, String),
    ) -> Figure {
        let (value, text) = show(&known.value);
        Figure::new(name, Number::Real(value), text, known)
    }

    fn new<T>(name: &'static str, value: Number, text: String, known: &Known<T>) -> Figure {
        Figure {
            name,
            value,
            text,
            source: known.source.clone(),
            trust: known.trust,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn word<S: serde::Serializer>(trust: &Trust, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(trust.word())
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference to the field"
)]
fn maybe_word<S: serde::Serializer>(
    trust: &Option<Trust>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match trust {
        Some(trust) => word(trust, serializer),
        None => serializer.serialize_none(),
    }
}

fn settings<S: serde::Serializer>(
    all: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(all.iter().map(|(name, what)| (name, what)))
}

/// Returns a memory bandwidth as people say it.
pub fn bandwidth(rate: BytesPerSec) -> String {
    format!("{} GB/s", three_digits(rate.0 / 1e9))
}

/// Returns a rate of computing as people say it.
pub fn compute(rate: FlopsPerSec) -> String {
    format!("{} T/s", three_digits(rate.0 / 1e12))
}

/// Returns the list for people, with each figure's source where asked.
pub fn render(entries: &[Entry], sources: bool, look: Look) -> String {
    if sources {
        return entries
            .iter()
            .map(|entry| details(entry, look))
            .collect::<Vec<_>>()
            .join("\n");
    }
    let columns = entries
        .iter()
        .map(|entry| entry.columns.len())
        .max()
        .unwrap_or(0);
    let mut table = Table::new(vec![Align::Left; columns + 3]);
    for entry in entries {
        // A rig says in its columns what it rests on.
        let trust = entry.trust.filter(|_| entry.basis.is_none());
        let trust = trust.map_or("", Trust::word);
        let title = match &entry.from {
            Some(file) => format!("{} (from {file})", entry.title),
            None => entry.title.clone(),
        };
        let mut cells = vec![Cell::from(&entry.name).styled(TITLE)];
        cells.extend(entry.columns.iter().map(Cell::from));
        cells.resize(columns + 1, Cell::from(""));
        cells.push(Cell::from(trust).styled(FAINT));
        cells.push(Cell::from(title.trim_start()).styled(FAINT));
        table.row(cells);
    }
    table.render()
}

/// Returns rigs that cannot be, each with why below its name.
pub fn render_cannot(entries: &[Entry], look: Look) -> String {
    let lines = entries.iter().filter_map(|entry| {
        let why = wrapped(entry.cannot.as_ref()?, look.width, 4);
        Some(format!("{}\n    {why}\n", painted(&entry.name, TITLE)))
    });
    lines.collect()
}

fn details(entry: &Entry, look: Look) -> String {
    let mut text = format!(
        "{}  {}\n",
        painted(&entry.name, TITLE),
        painted(&entry.title, FAINT)
    );
    if let Some(file) = &entry.from {
        text += &format!("  from {file}\n");
    }
    if !entry.aliases.is_empty() {
        text += &format!("  also {}\n", entry.aliases.join(", "));
    }
    if entry.figures.is_empty() && !entry.columns.is_empty() {
        text += &format!("  {}\n", entry.columns.join(", "));
    }
    if let Some(note) = &entry.note {
        text += &format!("  {}\n", wrapped(note, look.width, 2));
    }
    let mut table = Table::new([Align::Left, Align::Right, Align::Left, Align::Left]);
    for figure in &entry.figures {
        table.row([
            figure.name.into(),
            Cell::from(&figure.text).styled(TITLE),
            figure.trust.into(),
            Cell::from(&figure.source).styled(FAINT),
        ]);
    }
    for (name, what) in &entry.settings {
        table.row([
            name.into(),
            Cell::from(""),
            Cell::from(""),
            Cell::from(what).styled(FAINT),
        ]);
    }
    text + &table.render()
}

/// Writes the list for programs.
pub fn write(out: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
    write_value(out, &entries)
}
