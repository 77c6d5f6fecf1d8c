//! A TOML table read field by field, so that every error can name file, line, field, found and expected.
//!
//! Units are resolved here: whoever reads a figure asks for a quantity and gets it in its base unit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{CatalogError, Place};
use crate::catalog::suggest::suggest;
use crate::known::{Known, Trust};
use crate::units::Bytes;

/// A catalogue file with its name.
pub(super) struct File<'a> {
    name: &'a str,
    text: &'a str,
    /// Remarks on figures, by field: gathered while reading.
    notes: RefCell<BTreeMap<String, String>>,
    /// Every field that was asked for, to hold the published schemas to.
    #[cfg(test)]
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> File<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> File<'a> {
        File {
            name,
            text,
            notes: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Returns every field that was asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// Parses the whole file.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'a>>, CatalogError> {
        DeTable::parse(self.text).map_err(|error| CatalogError::Syntax {
            at: self.place(error.span().unwrap_or(0..0)),
            message: error.message().to_string(),
        })
    }

    /// Returns the remarks on figures that were read since the last call.
    pub(super) fn take_notes(&self) -> BTreeMap<String, String> {
        self.notes.take()
    }

    /// Returns the first line that holds `name`, or the first line.
    pub(super) fn place_of(&self, name: &str) -> Place {
        let start = self.text.find(name).unwrap_or(0);
        self.place(start..start)
    }

    fn place(&self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Place {
            file: self.name.to_string(),
            line: before.split(|byte| *byte == b'\n').count(),
        }
    }
}

/// What a figure measures, with the units it may be given in.
#[derive(Clone, Copy)]
pub(super) enum Quantity {
    Bytes,
    BytesPerSec,
    FlopsPerSec,
    Watts,
    Dollars,
    Params,
    Tokens,
    Bits,
    Seconds,
    Ratio,
}

impl Quantity {
    /// Returns the units and the factor of each to the base unit.
    fn units(self) -> &'static [(&'static str, f64)] {
        const KIB: f64 = 1024.0;
        match self {
            Quantity::Bytes => &[
                ("B", 1.0),
                ("kB", 1e3),
                ("MB", 1e6),
                ("GB", 1e9),
                ("TB", 1e12),
                ("KiB", KIB),
                ("MiB", KIB * KIB),
                ("GiB", KIB * KIB * KIB),
            ],
            Quantity::BytesPerSec => &[
                ("B/s", 1.0),
                ("MB/s", 1e6),
                ("GB/s", 1e9),
                ("TB/s", 1e12),
                ("Gbit/s", 1e9 / 8.0),
            ],
            Quantity::FlopsPerSec => &[
                ("FLOPS", 1.0),
                ("GFLOPS", 1e9),
                ("TFLOPS", 1e12),
                ("TOPS", 1e12),
                ("PFLOPS", 1e15),
            ],
            Quantity::Watts => &[("W", 1.0), ("kW", 1e3)],
            Quantity::Dollars => &[("USD", 1.0)],
            Quantity::Params => &[("params", 1.0), ("M params", 1e6), ("B params", 1e9)],
            Quantity::Tokens => &[("tokens", 1.0)],
            Quantity::Bits => &[("bits", 1.0)],
            Quantity::Seconds => &[("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("min", 60.0)],
            Quantity::Ratio => &[("x", 1.0)],
        }
    }
}

/// A table of a file, whose fields are read one by one.
pub(super) struct Fields<'f, 't> {
    file: &'f File<'t>,
    path: String,
    line: Range<usize>,
    table: &'f DeTable<'t>,
    read: RefCell<BTreeSet<String>>,
}

impl<'f, 't> Fields<'f, 't> {
    pub(super) fn new(file: &'f File<'t>, root: &'f Spanned<DeTable<'t>>) -> Fields<'f, 't> {
        Fields {
            file,
            path: String::new(),
            line: 0..0,
            table: root.get_ref(),
            read: RefCell::default(),
        }
    }

    /// Refuses fields that nobody has read.
    pub(super) fn finish(self) -> Result<(), CatalogError> {
        let read = self.read.borrow();
        let unread = self
            .table
            .iter()
            .find(|(key, _)| !read.contains(key.get_ref().as_ref()));
        let Some((key, _)) = unread else {
            return Ok(());
        };
        Err(CatalogError::UnknownField {
            at: self.file.place(key.span()),
            field: self.name(key.get_ref()),
            suggestions: suggest(key.get_ref(), read.iter().map(String::as_str)),
        })
    }

    /// Returns the names of the fields in name order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table
            .keys()
            .map(|key| key.get_ref().to_string())
            .collect()
    }

    pub(super) fn text(&self, key: &str) -> Result<String, CatalogError> {
        let text = self.optional_text(key)?;
        text.ok_or_else(|| self.missing(key, "a string"))
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<String>, CatalogError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::String(text) if !text.trim().is_empty() => Ok(Some(text.to_string())),
                _ => Err(self.wrong(key, value, "a string that is not empty")),
            },
        }
    }

    /// Returns a name: lower case, without blanks, so that it can be typed on a command line.
    pub(super) fn id(&self, key: &str) -> Result<String, CatalogError> {
        let id = self.text(key)?;
        if id.chars().all(is_id) {
            return Ok(id);
        }
        Err(self.wrong_value(key, &format!("`{id}`"), ID))
    }

    /// Returns a list of names, empty when the field is absent.
    pub(super) fn ids(&self, key: &str) -> Result<Vec<String>, CatalogError> {
        let ids = self.texts(key)?;
        match ids.iter().find(|id| !id.chars().all(is_id)) {
            None => Ok(ids),
            Some(wrong) => Err(self.wrong_value(key, &format!("`{wrong}`"), ID)),
        }
    }

    /// Returns a list of strings, empty when the field is absent.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, CatalogError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let expected = "a list of strings";
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong(key, value, expected));
        };
        items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err(self.wrong(key, item, expected)),
            })
            .collect()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CatalogError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(on) => Ok(Some(*on)),
                _ => Err(self.wrong(key, value, "true or false")),
            },
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<u32, CatalogError> {
        let count = self.optional_count(key)?;
        count.ok_or_else(|| self.missing(key, "a whole number"))
    }

    pub(super) fn optional_count(&self, key: &str) -> Result<Option<u32>, CatalogError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let count = number(value.get_ref()).filter(|n| n.fract() == 0.0 && (0.0..4e9).contains(n));
        match count {
            Some(count) => Ok(Some(count as u32)),
            None => Err(self.wrong(key, value, "a whole number")),
        }
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, CatalogError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match number(value.get_ref()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, value, "a number")),
            },
        }
    }

    /// Returns a size written as text, such as "70 GiB".
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<Bytes>, CatalogError> {
        let Some(text) = self.optional_text(key)? else {
            return Ok(None);
        };
        let wrong = |_| self.wrong_value(key, &format!("`{text}`"), "a size such as \"70 GiB\"");
        Bytes::parse(&text).map(Some).map_err(wrong)
    }

    /// Returns the field as it stands, unread by type.
    pub(super) fn raw(&self, key: &str) -> Result<&'f Spanned<DeValue<'t>>, CatalogError> {
        self.get(key).ok_or_else(|| self.missing(key, "a value"))
    }

    pub(super) fn table(&self, key: &str) -> Result<Fields<'f, 't>, CatalogError> {
        let table = self.optional_table(key)?;
        table.ok_or_else(|| self.missing(key, "a table"))
    }

    pub(super) fn optional_table(&self, key: &str) -> Result<Option<Fields<'f, 't>>, CatalogError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => self.as_table(key, value).map(Some),
        }
    }

    /// Returns the tables of a list, none when the field is absent.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<Fields<'f, 't>>, CatalogError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.as_table(&format!("{key}[{at}]"), item))
                .collect(),
            _ => Err(self.wrong(key, value, "a list of tables")),
        }
    }

    pub(super) fn figure(&self, key: &str, kind: Quantity) -> Result<Known<f64>, CatalogError> {
        let figure = self.optional_figure(key, kind)?;
        let units: Vec<&str> = kind.units().iter().map(|(unit, _)| *unit).collect();
        let expected = format!("a figure in {}", units.join(", "));
        figure.ok_or_else(|| self.missing(key, &expected))
    }

    /// Reads `{ value, unit, source, trust }` into the base unit of its quantity.
    pub(super) fn optional_figure(
        &self,
        key: &str,
        kind: Quantity,
    ) -> Result<Option<Known<f64>>, CatalogError> {
        let Some(fields) = self.optional_table(key)? else {
            return Ok(None);
        };
        let names: Vec<&str> = kind.units().iter().map(|(unit, _)| *unit).collect();
        let expected = format!("a number from 0, in {}", names.join(", "));
        let amount = match fields.get("value") {
            None => return Err(fields.missing("value", &expected)),
            Some(value) => number(value.get_ref())
                .filter(|amount| *amount >= 0.0 && amount.is_finite())
                .ok_or_else(|| fields.wrong("value", value, &expected))?,
        };
        let unit = fields.text("unit")?;
        let factor = kind.units().iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = factor else {
            return Err(CatalogError::Unit {
                at: fields.at("unit"),
                field: self.name(key),
                found: unit,
                expected: names.join(", "),
            });
        };
        let known = fields.known(amount * factor)?;
        if let Some(note) = fields.optional_text("note")? {
            self.file.notes.borrow_mut().insert(self.name(key), note);
        }
        fields.finish()?;
        Ok(Some(known))
    }

    /// Returns `value` with this table's own `source` and `trust`.
    pub(super) fn known<T>(&self, value: T) -> Result<Known<T>, CatalogError> {
        let source = self.text("source")?;
        let word = self.text("trust")?;
        let expected = "measured, calibrated, datasheet or estimate";
        let trust = Trust::from_word(&word)
            .ok_or_else(|| self.wrong_value("trust", &format!("`{word}`"), expected))?;
        Ok(Known {
            value,
            source,
            trust,
        })
    }

    /// Returns the one of `all` whose word the field holds.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        all: &[T],
        word: fn(T) -> &'static str,
    ) -> Result<T, CatalogError> {
        let found = self.text(key)?;
        let chosen = all.iter().copied().find(|choice| word(*choice) == found);
        let words: Vec<&str> = all.iter().map(|choice| word(*choice)).collect();
        let expected = format!("one of {}", words.join(", "));
        chosen.ok_or_else(|| self.wrong_value(key, &format!("`{found}`"), &expected))
    }

    pub(super) fn missing(&self, key: &str, expected: &str) -> CatalogError {
        CatalogError::Missing {
            at: self.file.place(self.line.clone()),
            field: self.name(key),
            expected: expected.to_string(),
        }
    }

    pub(super) fn wrong_value(&self, key: &str, found: &str, expected: &str) -> CatalogError {
        CatalogError::Wrong {
            at: self.at(key),
            field: self.name(key),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(super) fn wrong(
        &self,
        key: &str,
        value: &Spanned<DeValue<'t>>,
        expected: &str,
    ) -> CatalogError {
        CatalogError::Wrong {
            at: self.file.place(value.span()),
            field: self.name(key),
            found: shown(value.get_ref()),
            expected: expected.to_string(),
        }
    }

    fn get(&self, key: &str) -> Option<&'f Spanned<DeValue<'t>>> {
        self.read.borrow_mut().insert(key.to_string());
        #[cfg(test)]
        self.file.asked.borrow_mut().insert(self.name(key));
        self.table.get(key)
    }

    fn at(&self, key: &str) -> Place {
        let span = self.table.get(key).map_or(self.line.clone(), Spanned::span);
        self.file.place(span)
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn as_table(
        &self,
        key: &str,
        value: &'f Spanned<DeValue<'t>>,
    ) -> Result<Fields<'f, 't>, CatalogError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(key, value, "a table"));
        };
        Ok(Fields {
            file: self.file,
            path: self.name(key),
            line: value.span(),
            table,
            read: RefCell::default(),
        })
    }
}

const ID: &str = "a name of lower-case letters, digits, '.', '-' and '_'";

fn is_id(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '.' | '-' | '_')
}

/// Returns a whole or real number as a real one.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str().parse().ok(),
        DeValue::Float(digits) => digits.as_str().parse().ok(),
        _ => None,
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(digits) => digits.to_string(),
        DeValue::Float(digits) => digits.to_string(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(_) => "a list".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    }
}
