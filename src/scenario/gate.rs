//! Gate files: what a change must not make worse, as TOML. `docs/check.md` describes the format.
//!
//! What figures and limits mean is decided where those typed by hand are read; entries keep their line for that.

use super::{Fault, ScenarioError, Values, from, gather, shown, texts, wrong_in};
use crate::catalog::suggest::{question, suggest};
use std::fs;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What may stand in a gate file.
const KEYS: [&str; 9] = [
    "about",
    "scenario",
    "baseline",
    "target",
    "tolerance",
    "exact",
    "across",
    "confidence",
    "interleaved",
];

/// What may stand in a gate file, for those who list it.
pub fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter()
}

/// Something written in a file, and the line it stands in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What was written.
    pub text: String,
    /// Where, counted from one.
    pub line: usize,
}

/// A gate file that was read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GateFile {
    /// What the gate is for.
    pub about: Option<String>,
    /// What is replayed where no results are given.
    pub scenario: Option<PathBuf>,
    /// Results to compare with.
    pub baseline: Vec<PathBuf>,
    /// What must hold whatever the baseline says.
    pub targets: Vec<Entry>,
    /// By how much figures may get worse: `FIGURE=5%`.
    pub tolerances: Vec<Entry>,
    /// Figures that must not change at all.
    pub exact: Vec<Entry>,
    /// In what the results are meant to differ.
    pub across: Vec<Entry>,
    /// How sure one must be that something got worse, as a share; 0.95 when absent.
    pub confidence: Option<f64>,
    /// Whether results and baseline were measured in turns, and are pairs in their order.
    pub interleaved: bool,
}

impl GateFile {
    /// Reads the gate at `path`. Paths in it are taken from the folder it lies in.
    pub fn read(path: &Path) -> Result<GateFile, ScenarioError> {
        let text = fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        GateFile::parse(path, &text)
    }

    /// Reads `text` as the gate at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<GateFile, ScenarioError> {
        let root = DeTable::parse(text).map_err(|error| {
            let what = error.message().replace('\n', ", ");
            wrong_in(path, text, (error.span().unwrap_or(0..0), what))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let line = |at: usize| {
            text.as_bytes()[..at.min(text.len())]
                .split(|byte| *byte == b'\n')
                .count()
        };
        let mut gate = GateFile::default();
        for (key, value) in root.get_ref() {
            gate.take(key.get_ref(), key.span(), value, folder, &line)
                .map_err(|fault| wrong_in(path, text, fault))?;
        }
        Ok(gate)
    }

    fn take(
        &mut self,
        key: &str,
        at: std::ops::Range<usize>,
        value: &Spanned<DeValue<'_>>,
        folder: &Path,
        line: &dyn Fn(usize) -> usize,
    ) -> Result<(), Fault> {
        let wrong = |expected: &str| {
            let found = shown(value.get_ref());
            (
                value.span(),
                format!("`{key}` is {found}; expected {expected}"),
            )
        };
        let some = || texts(value).ok_or_else(|| wrong("a string, or a list of strings"));
        let paths = || {
            Ok::<_, Fault>(
                some()?
                    .iter()
                    .map(|path| PathBuf::from(from(folder, path)))
                    .collect::<Vec<_>>(),
            )
        };
        match key {
            "about" => self.about = some()?.into_iter().next(),
            "scenario" => self.scenario = paths()?.into_iter().next(),
            "baseline" => self.baseline = paths()?,
            "target" => {
                self.targets = entries(value, line).ok_or_else(|| wrong("a list of targets"))?;
            }
            "exact" => {
                self.exact = entries(value, line).ok_or_else(|| wrong("a list of figures"))?;
            }
            "across" => {
                self.across = entries(value, line).ok_or_else(|| wrong("a list of axes"))?;
            }
            "tolerance" => {
                let mut told = Vec::new();
                if !gather("", value, &mut told) {
                    return Err(wrong("a table of figures, such as \"run_s.p50\" = \"5%\""));
                }
                let line = line(value.span().start);
                self.tolerances = told.into_iter().map(|text| Entry { text, line }).collect();
            }
            "confidence" => {
                let share =
                    super::number(value.get_ref()).and_then(|text| text.parse::<f64>().ok());
                let share = share.map(|percent| percent / 100.0);
                let share = share.filter(|share| (0.5..1.0).contains(share));
                self.confidence =
                    Some(share.ok_or_else(|| wrong("a percentage from 50 to below 100"))?);
            }
            "interleaved" => match value.get_ref() {
                DeValue::Boolean(on) => self.interleaved = *on,
                _ => return Err(wrong("true or false")),
            },
            _ => {
                let hint = question(&suggest(key, keys()));
                return Err((at, format!("unknown key `{key}`{hint}")));
            }
        }
        Ok(())
    }
}

fn entries(value: Values<'_, '_>, line: &dyn Fn(usize) -> usize) -> Option<Vec<Entry>> {
    let one = |value: Values<'_, '_>| {
        let text = super::text(value)?;
        Some(Entry {
            text,
            line: line(value.span().start),
        })
    };
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(one).collect(),
        _ => one(value).map(|entry| vec![entry]),
    }
}
