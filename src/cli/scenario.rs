//! From a scenario to the words of a command line, so that a file and a person are read by the same rules.

use super::talk;
use crate::error::Error;
use crate::scenario::Scenario;
use crate::scenario::gate::GateFile;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::ffi::OsString;
use std::path::PathBuf;

/// Returns the command line with the scenario it names written out; nothing where it names none.
///
/// What was typed replaces what the scenario says: a flag wholly, a setting by its key.
pub(super) fn written_out(
    words: &[OsString],
    typed: &ArgMatches,
) -> Result<Option<Vec<OsString>>, Error> {
    let named = typed
        .try_get_one::<PathBuf>("scenario")
        .ok()
        .flatten()
        .cloned();
    let Some(path) = named.or_else(|| of_gate(typed)) else {
        return Ok(None);
    };
    let scenario = Scenario::read(&path).map_err(|error| {
        Error::usage(error.to_string()).with_help("docs/scenario-format.md describes the file")
    })?;
    if let Some(about) = &scenario.about {
        talk::note(typed.get_flag("quiet"), about);
    }
    let id = |flag: &str| flag.replace('-', "_");
    // Asked of a flag that the command does not have, clap would panic.
    let has = |flag: &str| typed.try_contains_id(&id(flag)).is_ok();
    let by_hand =
        |flag: &str| has(flag) && typed.value_source(&id(flag)) == Some(ValueSource::CommandLine);
    // The program and the command come first.
    let (first, rest) = words.split_at(words.len().min(2));
    let mut all = first.to_vec();
    for (flag, values) in scenario.flags {
        let replaced = match flag {
            "set" => false,
            "rig" | "url" => by_hand("rig") || by_hand("url"),
            _ => by_hand(flag),
        };
        // A scenario may say more than one command asks for.
        if replaced || !has(flag) {
            continue;
        }
        if values.is_empty() {
            all.push(format!("--{flag}").into());
        }
        let kept = values
            .iter()
            .filter(|value| flag != "set" || !set_by_hand(typed, value));
        all.extend(kept.map(|value| OsString::from(format!("--{flag}={value}"))));
    }
    all.extend_from_slice(rest);
    Ok(Some(all))
}

/// Returns whether `laptime replay` has this flag; the others belong to commands that ask for more.
pub(super) fn of_replay(flag: &str) -> bool {
    !matches!(flag, "target" | "max" | "gate" | "across" | "figure")
}

/// Returns the scenario that a gate file names, where results to check are not given. What is wrong with it is told later.
fn of_gate(typed: &ArgMatches) -> Option<PathBuf> {
    let gate = typed.try_get_one::<PathBuf>("gate").ok().flatten()?;
    let given = typed.value_source("results").is_some();
    let read = GateFile::read(gate).ok().filter(|_| !given)?;
    read.scenario
}

fn set_by_hand(typed: &ArgMatches, setting: &str) -> bool {
    let key = setting.split('=').next();
    let mut settings = typed
        .get_many::<(String, String)>("set")
        .into_iter()
        .flatten();
    settings.any(|(typed, _)| Some(typed.as_str()) == key)
}
