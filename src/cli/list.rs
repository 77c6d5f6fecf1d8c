//! `laptime list`: what rigs can be made of, and how each thing is known.

use super::output;
use super::rigs::RECORDED;
use crate::error::Error;
use crate::report::json;
use crate::report::table::{Align, Cell, Table};
use clap::{Args, ValueEnum};

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct List {
    /// What to list.
    #[arg(value_enum)]
    what: What,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum What {
    /// Whole rigs.
    Rigs,
    /// Machines.
    Hardware,
    /// Serving engines.
    Engines,
    /// Models with their quantisation.
    Models,
}

/// One thing that can be named.
#[derive(serde::Serialize, Debug)]
struct Entry {
    name: String,
    about: String,
}

impl List {
    /// Looks up and prints.
    pub(super) fn run(self) -> Result<(), Error> {
        let entries = entries(self.what);
        if self.json {
            let mut text = Vec::new();
            json::write_value(&mut text, &entries).map_err(Error::stdout)?;
            return output::print(&String::from_utf8_lossy(&text));
        }
        let mut table = Table::new([Align::Left, Align::Left]);
        for entry in entries {
            table.row([Cell::from(entry.name), Cell::from(entry.about)]);
        }
        output::print(&table.render())
    }
}

fn entries(what: What) -> Vec<Entry> {
    match what {
        What::Rigs => vec![Entry {
            name: RECORDED.to_string(),
            about: "every call takes the time it took when it was recorded".to_string(),
        }],
        What::Hardware | What::Engines | What::Models => Vec::new(),
    }
}
