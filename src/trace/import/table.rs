//! Tables with a header line, read by the names of their columns.

use super::super::input::{Input, Lines};
use super::Feed;
use std::io;

/// A table being read.
pub(super) struct Table {
    lines: Lines,
    columns: Vec<String>,
}

/// A row.
pub(super) struct Row<'a> {
    /// Its line, counted from 1.
    pub(super) line: u64,
    columns: &'a [String],
    cells: Vec<String>,
}

/// Returns the cells of a line, in lower case where they name columns.
pub(super) fn header(line: &[u8]) -> Vec<String> {
    cells(line).iter().map(|cell| cell.to_lowercase()).collect()
}

fn cells(line: &[u8]) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(line);
    let mut record = csv::ByteRecord::new();
    match reader.read_byte_record(&mut record) {
        Ok(true) => record
            .iter()
            .map(|cell| String::from_utf8_lossy(cell).into_owned())
            .collect(),
        _ => Vec::new(),
    }
}

impl Table {
    /// Opens a table and reads its header.
    pub(super) fn open(input: &Input) -> io::Result<Table> {
        let mut lines = input.lines()?;
        let columns = match lines.next() {
            Some(Ok(line)) => header(line),
            _ => Vec::new(),
        };
        Ok(Table { lines, columns })
    }

    /// Returns the next row; what cannot be read is told.
    pub(super) fn next(&mut self, feed: &mut Feed<'_>) -> Option<Row<'_>> {
        let cells = loop {
            match self.lines.next()? {
                Ok(line) => break cells(line),
                Err(broken) => {
                    if !feed.broken(&broken) {
                        return None;
                    }
                }
            }
        };
        Some(Row {
            line: self.lines.number,
            columns: &self.columns,
            cells,
        })
    }
}

impl Row<'_> {
    /// Returns what stands in a column, where anything does.
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.cells
            .get(at)
            .map(String::as_str)
            .filter(|cell| !cell.is_empty())
    }

    /// Returns a whole number that is not negative.
    pub(super) fn count(&self, column: &str) -> Option<u64> {
        let text = self.text(column)?;
        text.parse().ok().or_else(|| {
            let real: f64 = text.parse().ok()?;
            (real.fract() == 0.0 && (0.0..9e15).contains(&real)).then_some(real as u64)
        })
    }

    /// Returns a number.
    pub(super) fn real(&self, column: &str) -> Option<f64> {
        self.text(column)?
            .parse()
            .ok()
            .filter(|real: &f64| real.is_finite())
    }
}
