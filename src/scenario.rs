//! Scenarios: a question worth asking again, as a file. The flags of a replay, written down in TOML.
//!
//! Reading one checks every key and the type of its value, and says where in the file something is wrong. It knows the
//! flags by name only: what they mean is decided where flags typed by hand are read, so the two cannot drift apart.
//! `docs/scenario-format.md` describes the format.

pub mod gate;
pub mod grid;

use crate::catalog::suggest::{question, suggest};
use crate::units::Span;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What a value must look like.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// A string, or several.
    Texts,
    /// A path from the scenario's folder, or several.
    Paths,
    /// A table of strings, numbers and switches.
    Settings,
    /// A whole number of at least this.
    Whole(i64),
    /// A number above zero.
    Factor,
    /// A duration such as "60s".
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
    /// True or false.
    Switch,
}

/// The keys of a scenario. All but `about` are flags: of `laptime replay`, and the last few of commands that ask for more.
const KEYS: [(&str, Kind); 23] = [
    ("about", Kind::Texts),
    ("trace", Kind::Paths),
    ("rig", Kind::Texts),
    ("url", Kind::Texts),
    ("model", Kind::Texts),
    ("set", Kind::Settings),
    ("engine-args", Kind::Texts),
    ("agents", Kind::Whole(1)),
    ("runs", Kind::Whole(1)),
    ("share", Kind::Word(&["head", "none", "all"])),
    ("pace", Kind::Word(&["recorded", "tools", "none"])),
    ("pace-scale", Kind::Factor),
    ("idle-cap", Kind::Duration),
    ("on-refusal", Kind::Word(&["continue", "stop"])),
    ("warm-start", Kind::Switch),
    ("block-size", Kind::Whole(1)),
    ("seed", Kind::Whole(0)),
    ("catalog", Kind::Paths),
    ("target", Kind::Texts),
    ("max", Kind::Whole(1)),
    ("gate", Kind::Paths),
    ("across", Kind::Texts),
    ("figure", Kind::Texts),
];

/// Flags that say where an answer goes or how it is made: not part of a question.
const NOT_KEYS: [&str; 24] = [
    // How a real engine is reached and asked, which belongs to whoever stands before it.
    "against",
    "api-key-env",
    "budget",
    "connect-timeout",
    "engine",
    "extra-body",
    "header",
    "history",
    "max-client-lag",
    "prompts",
    "repeat",
    "retries",
    "retry-pause",
    "stall-timeout",
    "json",
    "out",
    "no-calls",
    "quiet",
    "threads",
    "baseline",
    "update-baseline",
    "junit",
    "markdown",
    "github",
];

/// What may stand in a scenario, for those who list it.
pub fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// Flags that may not stand in a scenario.
pub fn not_keys() -> impl Iterator<Item = &'static str> {
    NOT_KEYS.into_iter()
}

/// Why a scenario cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, counted from one.
        line: usize,
        /// What.
        what: String,
    },
}

/// A scenario that was read: flags with their values, in the order of [`keys`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scenario {
    /// What the scenario is for.
    pub about: Option<String>,
    /// Flags without their dashes, each with its values; a switch has none.
    pub flags: Vec<(&'static str, Vec<String>)>,
}

impl Scenario {
    /// Reads the scenario at `path`. Paths in it are taken from the folder it lies in.
    pub fn read(path: &Path) -> Result<Scenario, ScenarioError> {
        let text = fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        Scenario::parse(path, &text)
    }

    /// Reads `text` as the scenario at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Scenario, ScenarioError> {
        let wrong = |fault: Fault| wrong_in(path, text, fault);
        let root = DeTable::parse(text).map_err(|error| {
            wrong((
                error.span().unwrap_or(0..0),
                error.message().replace('\n', ", "),
            ))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        flags_of(root.get_ref(), folder).map_err(wrong)
    }
}

/// Returns the error that says in which line of a file something is wrong.
fn wrong_in(path: &Path, text: &str, (at, what): Fault) -> ScenarioError {
    ScenarioError::Wrong {
        path: path.to_path_buf(),
        line: text.as_bytes()[..at.start.min(text.len())]
            .split(|byte| *byte == b'\n')
            .count(),
        what,
    }
}

/// Where something is wrong, and what.
type Fault = (Range<usize>, String);
type Values<'v, 't> = &'v Spanned<DeValue<'t>>;

fn flags_of(root: &DeTable<'_>, folder: &Path) -> Result<Scenario, Fault> {
    let mut scenario = Scenario::default();
    for (key, _) in root {
        check_name(key)?;
    }
    for (key, kind) in KEYS {
        let Some((_, value)) = root.iter().find(|(name, _)| name.get_ref() == key) else {
            continue;
        };
        let values = values_of(kind, value, folder).map_err(|expected| {
            let found = shown(value.get_ref());
            (
                value.span(),
                format!("`{key}` is {found}; expected {expected}"),
            )
        })?;
        match (key, kind) {
            ("about", _) => scenario.about = values.into_iter().next(),
            // A switch that is off is a flag that is not given.
            (_, Kind::Switch) if values == ["false"] => {}
            (_, Kind::Switch) => scenario.flags.push((key, Vec::new())),
            _ => scenario.flags.push((key, values)),
        }
    }
    Ok(scenario)
}

fn check_name(key: &Spanned<std::borrow::Cow<'_, str>>) -> Result<(), Fault> {
    let name = key.get_ref().as_ref();
    if keys().any(|known| known == name) {
        return Ok(());
    }
    let what = if NOT_KEYS.contains(&name) {
        format!("`{name}` is not part of a scenario; give --{name} on the command line")
    } else {
        format!("unknown key `{name}`{}", question(&suggest(name, keys())))
    };
    Err((key.span(), what))
}

/// Returns the values as they would be typed, or what was expected.
fn values_of(kind: Kind, value: Values<'_, '_>, folder: &Path) -> Result<Vec<String>, String> {
    let one = |text: Option<String>, expected: &str| {
        text.map(|text| vec![text])
            .ok_or_else(|| expected.to_string())
    };
    match kind {
        Kind::Texts => texts(value).ok_or_else(|| "a string, or a list of strings".to_string()),
        Kind::Paths => {
            let paths = texts(value).ok_or_else(|| "a path, or a list of paths".to_string())?;
            Ok(paths.iter().map(|path| from(folder, path)).collect())
        }
        Kind::Settings => {
            let mut settings = Vec::new();
            let complete = gather("", value, &mut settings);
            complete
                .then_some(settings)
                .ok_or_else(|| "a table of settings, such as \"engine.parallel\" = 4".to_string())
        }
        Kind::Whole(least) => one(
            whole(value.get_ref())
                .filter(|number| *number >= least)
                .map(|number| number.to_string()),
            &format!("a whole number of at least {least}"),
        ),
        Kind::Factor => one(
            number(value.get_ref()).filter(|text| {
                text.parse::<f64>()
                    .is_ok_and(|factor| factor.is_finite() && factor > 0.0)
            }),
            "a number above 0",
        ),
        Kind::Duration => one(
            text(value).filter(|text| Span::parse(text).is_ok()),
            "a duration such as \"250ms\", \"30s\" or \"5m\"",
        ),
        Kind::Word(words) => one(
            text(value).filter(|text| words.contains(&text.as_str())),
            &format!("one of \"{}\"", words.join("\", \"")),
        ),
        Kind::Switch => match value.get_ref() {
            DeValue::Boolean(on) => Ok(vec![on.to_string()]),
            _ => Err("true or false".to_string()),
        },
    }
}

fn text(value: Values<'_, '_>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
        _ => None,
    }
}

fn texts(value: Values<'_, '_>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Array(items) => some_texts(items),
        _ => text(value).map(|text| vec![text]),
    }
}

fn some_texts(items: &DeArray<'_>) -> Option<Vec<String>> {
    let texts: Option<Vec<String>> = items.iter().map(text).collect();
    texts.filter(|texts| !texts.is_empty())
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok(),
        _ => None,
    }
}

fn number(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(_) => whole(value).map(|number| number.to_string()),
        DeValue::Float(digits) => Some(digits.as_str().to_string()),
        _ => None,
    }
}

/// Adds the settings of a table as `KEY=VALUE`; tables within tables are keys with points.
fn gather(prefix: &str, value: Values<'_, '_>, settings: &mut Vec<String>) -> bool {
    let key = prefix.trim_end_matches('.');
    let single = match value.get_ref() {
        DeValue::Table(table) => {
            return table.iter().all(|(name, value)| {
                gather(&format!("{prefix}{}.", name.get_ref()), value, settings)
            });
        }
        DeValue::Boolean(on) => Some(if *on { "on" } else { "off" }.to_string()),
        DeValue::String(text) => Some(text.to_string()),
        other => number(other),
    };
    match single {
        Some(single) if !key.is_empty() => {
            settings.push(format!("{key}={single}"));
            true
        }
        _ => false,
    }
}

/// Returns `path` as seen from where `folder` is, without needless steps down and up again.
fn from(folder: &Path, path: &str) -> String {
    let mut parts: Vec<Component<'_>> = Vec::new();
    let joined = folder.join(path);
    for part in joined.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let path: PathBuf = parts.iter().collect();
    path.to_string_lossy().into_owned()
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Array(_) => "a list".to_string(),
        DeValue::Table(_) => "a table".to_string(),
        DeValue::Datetime(_) => "a date".to_string(),
        DeValue::Integer(digits) => digits.as_str().to_string(),
        DeValue::Float(digits) => digits.as_str().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<String>, String> {
        let scenario = Scenario::parse(Path::new("scenarios/one.toml"), text);
        let told = |(name, values): (&str, Vec<String>)| format!("{name} {}", values.join(" "));
        scenario
            .map(|scenario| scenario.flags.into_iter().map(told).collect())
            .map_err(|error| error.to_string())
    }

    fn flags(text: &str, expected: &[&str]) {
        let expected = expected.iter().map(ToString::to_string).collect();
        assert_eq!(check(text), Ok(expected));
    }

    fn refused(text: &str, expected: &str) {
        assert_eq!(check(text), Err(expected.to_string()));
    }

    #[test]
    fn keys_become_flags_in_one_order() {
        flags("agents = 4\nrig = 'a/b/c'\n", &["rig a/b/c", "agents 4"]);
        flags("rig = ['a', 'b']", &["rig a b"]);
        flags("warm-start = true", &["warm-start "]);
        flags("warm-start = false", &[]);
        flags(
            "pace-scale = 2.5\nidle-cap = '5m'\npace = 'none'",
            &["pace none", "pace-scale 2.5", "idle-cap 5m"],
        );
    }

    #[test]
    fn settings_may_be_quoted_dotted_or_nested() {
        let expected = &["set engine.ctx_size=65536 engine.prefix_caching=off"];
        flags(
            "[set]\n'engine.ctx_size' = 65_536\n'engine.prefix_caching' = false",
            expected,
        );
        flags(
            "set.engine.ctx_size = 65536\nset.engine.prefix_caching = 'off'",
            expected,
        );
        flags(
            "[set.engine]\nctx_size = 0x10000\nprefix_caching = false",
            expected,
        );
    }

    #[test]
    fn paths_are_taken_from_the_folder_of_the_scenario() {
        flags("trace = '../traces/a.jsonl'", &["trace traces/a.jsonl"]);
        flags("trace = ['b', './c']", &["trace scenarios/b scenarios/c"]);
        assert_eq!(from(Path::new(".."), "../traces"), "../../traces");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_a_remedy() {
        refused(
            "agents = 1\nagnets = 2",
            "scenarios/one.toml:2: unknown key `agnets`; did you mean `agents`?",
        );
        refused(
            "\n\npace_scale = 2",
            "scenarios/one.toml:3: unknown key `pace_scale`; did you mean `pace-scale` or `pace`?",
        );
        refused(
            "json = 'x'",
            "scenarios/one.toml:1: `json` is not part of a scenario; give --json on the command line",
        );
        refused(
            "agents = 0",
            "scenarios/one.toml:1: `agents` is 0; expected a whole number of at least 1",
        );
        refused(
            "share = \"some\"",
            "scenarios/one.toml:1: `share` is \"some\"; expected one of \"head\", \"none\", \"all\"",
        );
        refused(
            "\nidle-cap = 5",
            "scenarios/one.toml:2: `idle-cap` is 5; expected a duration such as \"250ms\", \"30s\" or \"5m\"",
        );
        assert!(
            check("agents = ")
                .unwrap_err()
                .starts_with("scenarios/one.toml:1: ")
        );
    }
}
