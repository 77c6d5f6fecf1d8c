//! From a rig's name as typed to something that answers calls.

use super::talk;
use crate::catalog::{Catalog, args};
use crate::error::Error;
use crate::known::Trust;
use crate::operating_point::{Kind, OperatingPoint};
use crate::report::text::counted;
use crate::rig::Rig;
use crate::rig::recorded::Recorded;
use crate::study::economy::{self, Prices};
use crate::study::habits::{HabitError, Habits, PREFIX};
use crate::trace::Trace;
use crate::trace::content::Content;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The name of the rig that answers as the recording did.
pub(super) const RECORDED: &str = "recorded";

/// Reads `KEY=VALUE`.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_string(), value.trim().to_string()))
        }
        _ => Err("expected KEY=VALUE, such as engine.prefix_caching=off".to_string()),
    }
}

/// Where a user keeps a catalogue of their own, as the environment says it; empty for none.
const VARIABLE: &str = "LAPTIME_CATALOG";

/// Returns the built-in catalogue with the user's folders laid over it: their own first, then those named on the command
/// line.
pub(super) fn catalog(folders: &[PathBuf]) -> Result<Catalog, Error> {
    let mut all = match std::env::var_os(VARIABLE) {
        Some(paths) => std::env::split_paths(&paths)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
        None => own_folder()
            .filter(|folder| folder.is_dir())
            .into_iter()
            .collect::<Vec<PathBuf>>(),
    };
    all.extend_from_slice(folders);
    Catalog::with_overlays(&all).map_err(|error| {
        let help = format!(
            "{}; or leave the folder out: --catalog, {VARIABLE}, or {}",
            error.help(),
            own_folder().map_or("a folder of your own".to_string(), |own| own
                .display()
                .to_string())
        );
        Error::usage(error.to_string()).with_help(help)
    })
}

/// Returns the folder in which a user's own catalogue is looked for, where the platform has one.
fn own_folder() -> Option<PathBuf> {
    let set = |name: &str| {
        let value = std::env::var_os(name)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    let settings = if cfg!(windows) {
        set("APPDATA")
    } else if cfg!(target_os = "macos") {
        set("XDG_CONFIG_HOME")
            .or_else(|| Some(set("HOME")?.join("Library").join("Application Support")))
    } else {
        set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))
    };
    Some(settings?.join("laptime").join("catalog"))
}

/// Returns the settings of a rig: those of its engine's command line, then those named one by one, which win.
pub(super) fn settings(
    spec: &str,
    line: Option<&str>,
    set: &[(String, String)],
    catalog: &Catalog,
) -> Result<Vec<(String, String)>, Error> {
    let mut settings = Vec::new();
    if line.is_some() && spec == RECORDED {
        return Err(
            Error::usage(format!("the rig `{RECORDED}` has no command line"))
                .with_help("settings belong to simulated rigs"),
        );
    }
    let engine = spec.split('/').nth(1).unwrap_or_default();
    let name = engine.split('@').next().unwrap_or_default();
    if let (Some(line), Ok(engine)) = (line, catalog.engine(name.trim())) {
        let read = args::read(engine, line).map_err(|error| {
            Error::usage(error.to_string()).with_help(
                "`laptime list engines` shows what is honoured; leave out what should not count",
            )
        })?;
        for warning in read.warnings {
            talk::warning(&warning);
        }
        let own = |(key, value)| (format!("engine.{key}"), value);
        settings.extend(read.settings.into_iter().map(own));
    }
    settings.extend_from_slice(set);
    Ok(settings)
}

/// Builds the rig that `spec` names, with `settings` in force.
pub(super) fn build(
    spec: &str,
    settings: &[(String, String)],
    catalog: &Catalog,
    trace: &Trace,
) -> Result<Rig, Error> {
    if spec == RECORDED {
        return recorded(settings, trace);
    }
    let of_rig: Vec<(String, String)> = settings
        .iter()
        .filter(|(key, _)| !key.starts_with(PREFIX) && !key.starts_with(economy::PREFIX))
        .cloned()
        .collect();
    of_content(spec, &of_rig, catalog, &trace.content)
}

/// Builds the simulated rig that `spec` names for calls that point into `content`.
pub(super) fn of_content(
    spec: &str,
    settings: &[(String, String)],
    catalog: &Catalog,
    content: &Arc<Content>,
) -> Result<Rig, Error> {
    crate::study::rig::build(spec, settings, catalog, content).map_err(|error| {
        Error::usage(error.to_string())
            .with_help("`laptime list rigs|hardware|engines|models` shows names and settings")
    })
}

/// Reads what things cost among `settings`.
pub(super) fn prices(settings: &[(String, String)]) -> Result<Prices, Error> {
    let of_cost: Vec<(String, String)> = settings
        .iter()
        .filter(|(key, _)| key.starts_with(economy::PREFIX))
        .cloned()
        .collect();
    Prices::parse(&of_cost).map_err(|error| {
        Error::usage(error.to_string())
            .with_help("docs/economy.md says what there is under `cost.`")
    })
}

/// Reads the habits of the agent among `settings`.
pub(super) fn habits(settings: &[(String, String)]) -> Result<Habits, Error> {
    let of_agent: Vec<(String, String)> = settings
        .iter()
        .filter(|(key, _)| key.starts_with(PREFIX))
        .cloned()
        .collect();
    Habits::parse(&of_agent).map_err(|error| wrong_habit(&error))
}

/// Returns the error that says why a habit cannot be had.
pub(super) fn wrong_habit(error: &HabitError) -> Error {
    Error::usage(error.to_string())
        .with_help("docs/scenario-format.md says what there is under `agent.`")
}

fn recorded(settings: &[(String, String)], trace: &Trace) -> Result<Rig, Error> {
    let mut others = settings
        .iter()
        .filter(|(key, _)| !key.starts_with(economy::PREFIX));
    if let Some((key, _)) = others.next() {
        return Err(
            Error::usage(format!("the rig `{RECORDED}` has no setting `{key}`"))
                .with_help("settings belong to simulated rigs"),
        );
    }
    let backend = Recorded::new(trace);
    let all = trace.calls();
    let lacking = |count: usize, lacks: &str, then: &str| {
        if count > 0 {
            let have = if count == 1 {
                "does not say"
            } else {
                "do not say"
            };
            let of = counted(all as u64, "call");
            talk::warning(&format!(
                "{count} of {of} {have} {lacks}; on `{RECORDED}` {then}"
            ));
        }
    };
    lacking(
        backend.steps_without_time(),
        "how long it took",
        "that is no time",
    );
    let forgets_nothing = "that is what an engine that forgets nothing would have";
    lacking(
        backend.steps_without_cached(),
        "what came from a cache",
        forgets_nothing,
    );
    let models: Vec<&str> = trace
        .sessions
        .iter()
        .filter_map(|one| one.model.as_deref())
        .collect();
    let same = models.windows(2).all(|pair| pair[0] == pair[1]);
    let point = OperatingPoint {
        name: RECORDED.to_string(),
        kind: Kind::Simulated,
        hardware: None,
        engine: None,
        engine_version: None,
        model: models.first().filter(|_| same).map(ToString::to_string),
        quantization: None,
        settings: BTreeMap::new(),
        trust: Trust::Measured,
        error_interval: None,
        known_by:
            "every call takes the time it took when it was recorded; neighbours cost nothing, and \
                   the whole of a call counts as writing its answer"
                .to_string(),
    };
    Ok(Rig {
        point,
        cache: None,
        draw: None,
        price: None,
        backend: Box::new(backend),
    })
}
