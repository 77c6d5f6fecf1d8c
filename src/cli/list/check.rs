//! `laptime list hardware --check` and `laptime list claims`: whether speeds can be true.

use crate::catalog::Catalog;
use crate::cli::output;
use crate::error::Error;
use crate::report::claims as report;
use crate::study::claims::{self, Judged};

/// Judges one claim against every machine whose name contains all `words`.
pub(super) fn one(
    text: &str,
    words: &[String],
    json: bool,
    catalog: &Catalog,
) -> Result<(), Error> {
    let claim = claims::parse(text).map_err(Error::usage)?;
    let called = |name: &str| words.iter().all(|word| name.contains(&word.to_lowercase()));
    let mut judged = Vec::new();
    for hardware in catalog.all_hardware() {
        let mut names = std::iter::once(&hardware.name).chain(&hardware.aliases);
        if names.any(|name| called(name)) {
            judged.push(claims::judge(&claim, hardware, catalog).map_err(|error| unknown(&error))?);
        }
    }
    if judged.is_empty() {
        return Err(
            Error::usage(format!("no hardware is called `{}`", words.join(" ")))
                .with_help("`laptime list hardware` shows all"),
        );
    }
    print(&judged, json, report::of_one)
}

/// Judges what has been published, as far as hardware or model contain all `words`.
pub(super) fn published(
    words: &[String],
    json: bool,
    markdown: bool,
    catalog: &Catalog,
) -> Result<(), Error> {
    let mut judged = claims::published(catalog).map_err(|error| unknown(&error))?;
    judged.retain(|one| {
        let name = format!("{} {}", one.hardware, one.claim.model);
        words.iter().all(|word| name.contains(&word.to_lowercase()))
    });
    if markdown {
        return output::print(&report::markdown(&judged));
    }
    print(&judged, json, report::of_many)
}

fn print(
    judged: &[Judged],
    json: bool,
    text: fn(&[Judged], crate::report::table::Look) -> String,
) -> Result<(), Error> {
    if json {
        let mut out = Vec::new();
        report::write(&mut out, judged).map_err(Error::stdout)?;
        return output::print(&String::from_utf8_lossy(&out));
    }
    output::print(&text(judged, output::look()))
}

fn unknown(error: &crate::catalog::Unknown) -> Error {
    Error::usage(error.to_string()).with_help("`laptime list models` shows names")
}
