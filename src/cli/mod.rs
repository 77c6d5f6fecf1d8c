//! The command line: what was typed, and the dispatch to one file for each command.
//!
//! A command turns what was typed into what is meant, calls the library, arranges a report and says how it went.
//! The standard output carries the answer alone; talk goes to the standard error.

mod anonymize;
mod asked;
mod calibrate;
mod check;
mod compare;
mod edge;
mod explain;
mod export;
mod import;
mod inspect;
mod list;
mod live;
mod measure;
mod output;
mod record;
mod replay;
mod report;
mod results;
mod rigs;
mod scenario;
mod selftest;
mod serve;
mod size;
mod sweep;
mod synth;
mod talk;
mod traces;
mod turns;

use crate::error::{Error, Exit};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;

/// Times the agent loop: replays recorded coding-agent sessions on a rig and accounts for every second.
#[derive(Parser, Debug)]
#[command(name = "laptime", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a gate failed; 2 the command line or a scenario is wrong; \
3 an input file is wrong; 4 no call succeeded or an engine was lost; 5 an internal error; 6 a live run was \
bound by its client; 130 interrupted.";

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Replay recorded sessions with N agents on one or several rigs, and report.
    Replay(replay::Replay),
    /// Find the largest number of agents that holds a target.
    Size(size::Size),
    /// Show results or rigs side by side, and how far a difference may be chance.
    Compare(compare::Compare),
    /// Say where the time went, and what one change at a time would do.
    Explain(explain::Explain),
    /// Pass or fail against thresholds and a baseline.
    Check(check::Check),
    /// Replay a grid of scenarios on all cores, a row for each cell.
    Sweep(sweep::Sweep),
    /// Put the rows of a sweep's shards together.
    Merge(sweep::Merge),
    /// Say what is in a trace.
    Inspect(inspect::Inspect),
    /// Turn a foreign trace into the native format, and say what was lost.
    Import(import::Import),
    /// Write a trace in a dialect that other tools read.
    Export(export::Export),
    /// Reduce a trace to hashes or to sizes, so that it can be shown to others and still replays the same.
    Anonymize(anonymize::Anonymize),
    /// Draw more sessions of the same kind, from presets or from given traces.
    Synth(synth::Synth),
    /// Measure what a real engine can do, as a table from which a rig is fitted.
    Measure(measure::Measure),
    /// Say how well this machine can measure, against an engine of known timing.
    Selftest(selftest::Selftest),
    /// Show results again, make a page of them, or a result of a journal.
    Report(report::Report),
    /// Fit a rig to measurements, and say how far it is off.
    Calibrate(calibrate::Calibrate),
    /// List what rigs can be made of.
    List(list::List),
    /// Record what agents and their engine say to each other, as a trace.
    Record(record::Record),
    /// Serve a simulated rig over HTTP, as an OpenAI-compatible engine would.
    Serve(serve::Serve),
}

/// Does what the command line asks and returns how it went.
pub fn main() -> Exit {
    let words: Vec<OsString> = std::env::args_os().collect();
    let typed = Typed::command().get_matches_from(&words);
    let written_out = match typed.subcommand() {
        Some((_, command)) => scenario::written_out(&words, command),
        None => Ok(None),
    };
    let meant = match written_out {
        Ok(None) => Typed::from_arg_matches(&typed).unwrap_or_else(|error| error.exit()),
        Ok(Some(words)) => Typed::parse_from(words),
        Err(error) => return tell(&error),
    };
    let done = match meant.command {
        Command::Replay(command) => command.run().map(|()| Exit::Done),
        Command::Size(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Sweep(command) => command.run(),
        Command::Merge(command) => command.run(),
        Command::Inspect(command) => command.run().map(|()| Exit::Done),
        Command::Import(command) => command.run().map(|()| Exit::Done),
        Command::Export(command) => command.run().map(|()| Exit::Done),
        Command::Anonymize(command) => command.run().map(|()| Exit::Done),
        Command::Synth(command) => command.run().map(|()| Exit::Done),
        Command::Measure(command) => command.run().map(|()| Exit::Done),
        Command::Selftest(command) => command.run().map(|()| Exit::Done),
        Command::Report(command) => command.run().map(|()| Exit::Done),
        Command::Calibrate(command) => command.run().map(|()| Exit::Done),
        Command::List(command) => command.run().map(|()| Exit::Done),
        Command::Record(command) => command.run(),
        Command::Serve(command) => command.run(),
    };
    match done {
        Ok(exit) => exit,
        Err(error) => tell(&error),
    }
}

fn tell(error: &Error) -> Exit {
    let exit = error.exit();
    if exit != Exit::Done {
        talk::error(error);
    }
    exit
}
