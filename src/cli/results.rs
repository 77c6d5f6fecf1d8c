//! Result documents named on a command line, and rigs replayed where none are named.

use super::asked::{Asked, Loaded};
use super::rigs;
use super::talk::Tried;
use crate::error::Error;
use crate::report::document;
use crate::study::compare::{self, Axis, Difference};
use crate::study::figures::Figures;
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Reads every result in the document at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<Figures>, Error> {
    let wrong = |what: String| {
        Error::input(format!("{}: {what}", path.display()))
            .with_help("results are written by `laptime replay --json FILE`")
    };
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    document::read(&bytes).map_err(wrong)
}

/// Reads documents; returns each result with a name that tells it from the others.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<(String, Figures)>, Error> {
    let mut all = Vec::new();
    for path in paths {
        let results = read(path)?;
        let several = results.len() > 1;
        let stem = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        for one in results {
            let name = if several {
                one.point.name.clone()
            } else {
                stem.clone()
            };
            all.push((name, one));
        }
    }
    Ok(all)
}

/// Replays on every rig that was asked for.
pub(super) fn replayed(asked: &Asked, loaded: &Loaded) -> Result<Vec<(String, Figures)>, Error> {
    loaded.build()?;
    let workload = asked.workload(loaded)?;
    let (ground, tried) = (loaded.ground(), Tried::new(None, asked.quiet));
    let pool = asked.pool()?;
    let one = |rig| {
        tried.one_more();
        ground.evaluate(rig, workload.plan)
    };
    let all: Result<Vec<Figures>, _> = pool.install(|| loaded.rigs.par_iter().map(one).collect());
    tried.finish();
    let all = all.map_err(|error| rigs::wrong(&error))?;
    let names = loaded.rigs.iter().map(|(name, _)| name.clone());
    Ok(names.zip(all).collect())
}

/// Refuses results that are unlike in a respect that nobody named.
pub(super) fn check_alike(all: &[Figures], across: &[Axis]) -> Result<(), Error> {
    let unlike: Vec<Difference> = compare::differences(all)
        .into_iter()
        .filter(|one| one.unlike && !across.contains(&one.axis))
        .collect();
    if unlike.is_empty() {
        return Ok(());
    }
    let flags: Vec<String> = unlike
        .iter()
        .map(|one| format!("--across {}", one.axis.word()))
        .collect();
    Err(Error::usage(format!(
        "these are unlike operating points: they differ in {}",
        told(&unlike)
    ))
    .with_help(format!("if that is meant, say so: {}", flags.join(" "))))
}

/// Returns the respects in which results differ, with what each has.
pub(super) fn told(differences: &[Difference]) -> String {
    let one = |difference: &Difference| {
        let mut values = difference.values.clone();
        values.dedup();
        format!("{} ({})", difference.axis.word(), values.join(" / "))
    };
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
}
