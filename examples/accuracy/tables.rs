//! The tables of measurements: rows of figures, nothing computed.

use laptime::study::calibrate::schedule::Size;
use std::path::Path;
use std::str::FromStr;

/// Calls of one size that were sent together to a cold engine; means over the batches.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cell {
    pub(crate) hardware: String,
    pub(crate) engine: String,
    pub(crate) version: String,
    pub(crate) model: String,
    pub(crate) context: u64,
    pub(crate) sequences: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) answer_limit: u64,
    pub(crate) answer_tokens_mean: f64,
    pub(crate) batch_wall_s: f64,
    pub(crate) decode_per_slot_tps: f64,
    pub(crate) prompt_s: f64,
    pub(crate) healthy: bool,
    pub(crate) name: String,
}

/// A call of an agent that had its engine to itself.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Turn {
    pub(crate) run: String,
    pub(crate) model: String,
    pub(crate) state: String,
    pub(crate) size: Size,
    pub(crate) wall_s: f64,
}

/// A call of an agent that shared its engine.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SharedTurn {
    pub(crate) run: String,
    pub(crate) turn: u64,
    pub(crate) start_s: f64,
    /// The time since the answer before it.
    pub(crate) wait_s: f64,
    pub(crate) size: Size,
    pub(crate) wall_s: f64,
}

/// All measurements.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Tables {
    pub(crate) cells: Vec<Cell>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) shared: Vec<SharedTurn>,
}

/// Reads the tables of a folder.
pub(crate) fn read(folder: &Path) -> Tables {
    Tables {
        cells: rows(&folder.join("fleet_cells.csv"), |row| Cell {
            hardware: row.text("hardware"),
            engine: row.text("engine"),
            version: row.text("version"),
            model: row.text("model"),
            context: row.number("context"),
            sequences: row.number("sequences"),
            prompt_tokens: row.number("prompt_tokens"),
            answer_limit: row.number("answer_limit"),
            answer_tokens_mean: row.number("answer_tokens_mean"),
            batch_wall_s: row.number("batch_wall_s"),
            decode_per_slot_tps: row.number("decode_per_slot_tps"),
            prompt_s: row.number("prompt_s"),
            healthy: row.text("healthy") == "yes",
            name: row.text("cell"),
        }),
        turns: rows(&folder.join("solo_turns.csv"), |row| Turn {
            run: row.text("run"),
            model: row.text("model"),
            state: row.text("state"),
            size: row.size(),
            wall_s: row.number("wall_s"),
        }),
        shared: rows(&folder.join("contended_turns.csv"), |row| SharedTurn {
            run: row.text("run"),
            turn: row.number("turn"),
            start_s: row.number("start_s"),
            wait_s: row.number("wait_s"),
            size: row.size(),
            wall_s: row.number("wall_s"),
        }),
    }
}

/// Returns columns of a table as they are written.
pub(crate) fn texts<const N: usize>(file: &Path, columns: [&str; N]) -> Vec<[String; N]> {
    rows(file, |row| columns.map(|column| row.text(column)))
}

/// A row under its heading.
struct Row<'a> {
    file: &'a Path,
    heading: &'a csv::StringRecord,
    values: csv::StringRecord,
}

fn rows<T>(file: &Path, read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    let mut reader =
        csv::Reader::from_path(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let heading = reader.headers().expect("a table has a heading").clone();
    let all = reader.records().map(|values| {
        let values = values.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        read(&Row {
            file,
            heading: &heading,
            values,
        })
    });
    all.collect()
}

impl Row<'_> {
    fn text(&self, column: &str) -> String {
        let at = self.heading.iter().position(|name| name == column);
        let at = at.unwrap_or_else(|| panic!("{}: no column `{column}`", self.file.display()));
        self.values[at].to_string()
    }

    fn number<T: FromStr>(&self, column: &str) -> T {
        let text = self.text(column);
        let wrong = || panic!("{}: `{column}` is `{text}`", self.file.display());
        text.parse().unwrap_or_else(|_| wrong())
    }

    fn size(&self) -> Size {
        Size {
            prompt: self.number("prompt_tokens"),
            output: self.number("answer_tokens"),
        }
    }
}
