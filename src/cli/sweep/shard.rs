//! The journal of one shard: a line for each finished cell, from which a sweep goes on where it was cut off.
//!
//! The first line says which grid, of which program, on which recordings; a journal of another is not gone on with. Cells
//! are kept as they are printed, so that nothing is rounded on the way. A line that was cut short is made again.

use crate::error::Error;
use crate::report::rows::Column;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const SCHEMA: &str = "laptime.sweep/1";

/// What all shards of a sweep have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The digest of the grid, its recordings, and the program's version.
    pub(super) digest: String,
    /// How many cells there are.
    pub(super) cells: usize,
    /// How many shards.
    pub(super) shards: u32,
    /// The columns of a row.
    pub(super) columns: Vec<(String, Column)>,
    /// The columns that one wants the best of, and whether more is better.
    pub(super) wishes: Vec<(usize, bool)>,
}

impl Head {
    fn line(&self) -> String {
        let kind = |column: Column| match column {
            Column::Whole => "whole",
            Column::Word => "word",
            Column::Number => "number",
        };
        let columns: Vec<Value> = self
            .columns
            .iter()
            .map(|(name, column)| json!([name, kind(*column)]))
            .collect();
        json!({
            "schema": SCHEMA, "digest": self.digest, "cells": self.cells, "shards": self.shards,
            "columns": columns, "wishes": self.wishes,
        })
        .to_string()
    }

    fn read(line: &str) -> Option<Head> {
        let value: Value = serde_json::from_str(line).ok()?;
        let kind = |word: &str| match word {
            "whole" => Some(Column::Whole),
            "word" => Some(Column::Word),
            "number" => Some(Column::Number),
            _ => None,
        };
        let column = |one: &Value| Some((one[0].as_str()?.to_string(), kind(one[1].as_str()?)?));
        let wish = |one: &Value| Some((usize::try_from(one[0].as_u64()?).ok()?, one[1].as_bool()?));
        let head = Head {
            digest: value["digest"].as_str()?.to_string(),
            cells: usize::try_from(value["cells"].as_u64()?).ok()?,
            shards: u32::try_from(value["shards"].as_u64()?).ok()?,
            columns: value["columns"]
                .as_array()?
                .iter()
                .map(column)
                .collect::<Option<_>>()?,
            wishes: value["wishes"]
                .as_array()?
                .iter()
                .map(wish)
                .collect::<Option<_>>()?,
        };
        let known = head
            .wishes
            .iter()
            .all(|(column, _)| *column < head.columns.len());
        (value["schema"].as_str() == Some(SCHEMA) && known).then_some(head)
    }
}

/// Rows by cell.
pub(super) type Cells = BTreeMap<usize, Vec<String>>;

/// Returns the journal's name.
pub(super) fn path(folder: &Path, shard: u32, shards: u32) -> PathBuf {
    folder.join(format!("shard-{shard}-of-{shards}.jsonl"))
}

/// Reads a journal: its head, its rows, and how many of its bytes are whole lines.
pub(super) fn read(path: &Path) -> Result<Option<(Head, Cells, u64)>, Error> {
    let wrong = |what: &str| {
        Error::input(format!("{}: {what}", path.display()))
            .with_help("delete it to begin this shard again")
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error.to_string())),
    };
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let text =
        std::str::from_utf8(&bytes[..whole]).map_err(|_| wrong("is no journal of a sweep"))?;
    let mut lines = text.lines();
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let head = Head::read(first).ok_or_else(|| wrong("is no journal of a sweep"))?;
    let mut cells = Cells::new();
    for (number, line) in lines.enumerate() {
        let row =
            row(line).filter(|(cell, row)| *cell < head.cells && row.len() == head.columns.len());
        let (cell, row) = row.ok_or_else(|| wrong(&format!("line {} is no row", number + 2)))?;
        cells.insert(cell, row);
    }
    Ok(Some((head, cells, whole as u64)))
}

fn row(line: &str) -> Option<(usize, Vec<String>)> {
    let row: Vec<String> = serde_json::from_str(line).ok()?;
    let cell = row.first()?.parse().ok()?;
    Some((cell, row))
}

/// Opens a journal to be gone on with; returns what is in it already.
pub(super) fn open(path: &Path, head: &Head) -> Result<(File, Cells), Error> {
    let failed = |source| Error::write(path, source);
    let found = read(path)?;
    if let Some((found, ..)) = found.as_ref().filter(|(found, ..)| found != head) {
        let what = if found.digest == head.digest {
            "columns or shards"
        } else {
            "a grid, recordings or a version of laptime"
        };
        return Err(Error::usage(format!(
            "{} belongs to another sweep: it has other {what}",
            path.display()
        ))
        .with_help("give this one another folder with --out, or delete that one"));
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let (cells, whole) = found.map_or((Cells::new(), 0), |(_, cells, whole)| (cells, whole));
    // What was cut short in the middle of a line is written anew.
    file.set_len(whole).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    if whole == 0 {
        writeln!(file, "{}", head.line()).map_err(failed)?;
    }
    Ok((file, cells))
}

/// Adds a row, in one write, so that it is there whole or not at all.
pub(super) fn add(file: &mut File, row: &[String]) -> std::io::Result<()> {
    file.write_all(format!("{}\n", json!(row)).as_bytes())
}
