//! An engine's own command line, read as settings.
//!
//! What a flag does to time decides what becomes of it: honoured ones are assigned, those that change nothing in time are
//! named in a warning, and any other is an error, because ignoring it would make the prediction one of another server.

use super::engine::{EngineProfile, SettingError, SettingKind};

/// How the reasons begin for which a flag changes nothing in time.
const HARMLESS: [&str; 13] = [
    "a name",
    "answers have the recorded length",
    "changes how a model is loaded",
    "changes how blocks are named",
    "changes what is reported",
    "changes what is said",
    "host work is a fixed part",
    "loading is not modelled",
    "models stay loaded",
    "parsing of answers is not modelled",
    "prompts are taken as recorded",
    "the model names its quantisation",
    "the rig names the model",
];

/// One more: addresses, which stand for themselves.
const ADDRESS: &str = "where it listens";

/// Flags that are harmless with these values, because the simulation assumes them.
const ASSUMED: [(&[&str], &[&str]); 2] = [
    (
        &["n_gpu_layers", "ngl", "gpu_layers"],
        &["99", "999", "9999", "-1", "all", "auto"],
    ),
    (&["flash_attn", "fa"], &["", "on", "auto", "1", "true"]),
];

/// What a command line asks for.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Arguments {
    /// Settings by their own names, with their values as text, in the order in which they were given.
    pub settings: Vec<(String, String)>,
    /// What is ignored, and why that changes nothing.
    pub warnings: Vec<String>,
}

/// Why a command line cannot be read.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ArgumentError {
    /// A quotation mark has no partner.
    #[error("a quotation mark in `{0}` is not closed")]
    Quote(String),
    /// A flag that takes a value stands alone.
    #[error("`{flag}` of {engine} needs a value: {expected}")]
    Missing {
        /// The engine.
        engine: String,
        /// The flag as typed.
        flag: String,
        /// What it takes.
        expected: String,
    },
    /// A word that belongs to no flag.
    #[error("`{word}` belongs to no flag of {engine}")]
    Stray {
        /// The engine.
        engine: String,
        /// The word.
        word: String,
    },
    /// The flag is unknown, not modelled, or has another kind of value.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Splits a line into words as a shell does: at spaces, but not within quotation marks or after a backslash.
pub fn words(line: &str) -> Result<Vec<String>, ArgumentError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let escaped = letters.next().filter(|&letter| letter != '\n');
                word.get_or_insert_default().extend(escaped);
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(ArgumentError::Quote(line.to_string()));
    }
    words.extend(word);
    Ok(words)
}

/// Reads the command line of an engine: its flags, or its environment variables as `NAME=value`.
pub fn read(engine: &EngineProfile, line: &str) -> Result<Arguments, ArgumentError> {
    let words = words(line)?;
    let mut arguments = Arguments::default();
    let begin = words
        .iter()
        .position(|word| is_flag(word) || variable(word).is_some());
    let ignored = &words[..begin.unwrap_or(words.len())];
    if !ignored.is_empty() {
        arguments.warnings.push(format!(
            "`{}` is ignored: the rig names engine and model",
            ignored.join(" ")
        ));
    }
    let mut at = ignored.len();
    while at < words.len() {
        at = read_flag(engine, &words, at, &mut arguments)?;
    }
    Ok(arguments)
}

/// Reads the flag at `at`; returns where the next one stands.
fn read_flag(
    engine: &EngineProfile,
    words: &[String],
    at: usize,
    arguments: &mut Arguments,
) -> Result<usize, ArgumentError> {
    let word = &words[at];
    let (flag, given) = match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word.as_str(), None),
    };
    if !is_flag(word) && variable(word).is_none() {
        return Err(ArgumentError::Stray {
            engine: engine.title.clone(),
            word: word.clone(),
        });
    }
    let plain = flag
        .trim_start_matches('-')
        .replace('-', "_")
        .to_lowercase();
    let next = words.get(at + 1).map(String::as_str);
    let Some((name, kind)) = meant(engine, &plain) else {
        // How many values an unmodelled flag takes is not known: all up to the next flag are its own.
        let rest = &words[at + 1..];
        let own = rest.iter().take_while(|word| !is_flag(word)).count();
        let values = match given {
            Some(value) => value.to_string(),
            None => rest[..own].join(" "),
        };
        excuse(engine, flag, &plain, &values, arguments)?;
        return Ok(at + 1 + if given.is_some() { 0 } else { own });
    };
    let (value, used) = match (given, next) {
        (Some(value), _) => (value.to_string(), 1),
        (None, next) if *kind == SettingKind::Bool => {
            let said = next.filter(|word| engine.assign(&name, word).is_ok());
            (
                said.unwrap_or("on").to_string(),
                1 + usize::from(said.is_some()),
            )
        }
        (None, Some(next)) if !is_flag(next) || next.parse::<f64>().is_ok() => {
            (next.to_string(), 2)
        }
        _ => {
            return Err(ArgumentError::Missing {
                engine: engine.title.clone(),
                flag: flag.to_string(),
                expected: kind.to_string(),
            });
        }
    };
    let negated = plain.strip_prefix("no_") == Some(&name);
    let (own_name, value) = engine.assign(&name, &value)?;
    let value = match (value.as_bool(), negated) {
        (Some(on), true) => if on { "off" } else { "on" }.to_string(),
        _ => value.to_string(),
    };
    arguments.settings.push((own_name.to_string(), value));
    Ok(at + used)
}

/// Returns the name by which the engine knows a flag, and what the flag takes; `no_x` turns a switch `x` around.
fn meant<'e>(engine: &'e EngineProfile, plain: &str) -> Option<(String, &'e SettingKind)> {
    if let Some(setting) = engine.setting(plain) {
        return Some((plain.to_string(), &setting.kind));
    }
    let positive = plain.strip_prefix("no_")?;
    let setting = engine.setting(positive)?;
    let switch = setting.kind == SettingKind::Bool;
    switch.then(|| (positive.to_string(), &setting.kind))
}

/// Warns of a flag that changes nothing in time, or refuses it.
fn excuse(
    engine: &EngineProfile,
    flag: &str,
    plain: &str,
    value: &str,
    arguments: &mut Arguments,
) -> Result<(), ArgumentError> {
    let assumed =
        |(names, values): &(&[&str], &[&str])| names.contains(&plain) && values.contains(&value);
    let why = engine.unmodelled.get(plain).map(String::as_str);
    let harmless = why.filter(|why| {
        let reasons = HARMLESS.iter().chain([&ADDRESS]);
        let mut reasons = reasons.filter(|reason| why.starts_with(**reason));
        reasons.next().is_some() || ASSUMED.iter().any(assumed)
    });
    match harmless {
        Some(why) => {
            let title = &engine.title;
            let warning = format!("`{flag}` of {title} is ignored: {why}");
            arguments.warnings.push(warning);
            Ok(())
        }
        None => Err(engine
            .assign(flag, value)
            .err()
            .map_or_else(|| unreachable!("no setting has that name"), Into::into)),
    }
}

fn is_flag(word: &str) -> bool {
    let letter = word.trim_start_matches('-').chars().next();
    word.starts_with('-') && letter.is_some_and(char::is_alphabetic)
}

/// Returns the name of an environment variable that a word sets.
fn variable(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let upper =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    (!name.is_empty() && name.chars().all(upper)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    /// Settings and how many warnings there are, or part of the complaint.
    type Expected<'a> = Result<(&'a [(&'a str, &'a str)], usize), &'a str>;

    fn check(engine: &str, line: &str, expected: Expected<'_>) {
        let catalog = Catalog::builtin();
        let found = read(catalog.engine(engine).unwrap(), line);
        match (found, expected) {
            (Ok(found), Ok((settings, warnings))) => {
                let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
                let settings: Vec<_> = settings.iter().map(own).collect();
                assert_eq!(found.settings, settings, "{line}");
                assert_eq!(found.warnings.len(), warnings, "{:?}", found.warnings);
            }
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part), "{line}: {text}");
            }
            (found, expected) => panic!("{line}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn flags_are_read_as_their_servers_read_them() {
        let line = "--max-num-seqs 16 --no-enable-prefix-caching --gpu-memory-utilization=0.8";
        let settings: &[_] = &[
            ("max_num_seqs", "16"),
            ("prefix_caching", "off"),
            ("gpu_memory_utilization", "0.8"),
        ];
        check("vllm", line, Ok((settings, 0)));
        let line = "llama-server -m model.gguf -np 4 -c 65536 -fa on -ngl 99 --no-kv-unified";
        let settings: &[_] = &[
            ("parallel", "4"),
            ("ctx_size", "65536"),
            ("n_gpu_layers", "99"),
            ("kv_unified", "off"),
        ];
        check("llama.cpp", line, Ok((settings, 3)));
        let line = "OLLAMA_NUM_PARALLEL=2 OLLAMA_HOST=0.0.0.0";
        check("ollama", line, Ok((&[("num_parallel", "2")], 1)));
        let line = "--chunked-prefill-size -1 --enable-mixed-chunk --port 30000";
        let settings: &[_] = &[("chunked_prefill_size", "-1"), ("enable_mixed_chunk", "on")];
        check("sglang", line, Ok((settings, 1)));
        let line = "--disable-radix-cache --page-size '64'";
        let settings: &[_] = &[("prefix_caching", "off"), ("page_size", "64")];
        check("sglang", line, Ok((settings, 0)));
        check("vllm", "", Ok((&[], 0)));
    }

    #[test]
    fn what_would_change_times_is_never_ignored() {
        let config = "{\"method\":\"mtp\"}";
        check(
            "vllm",
            &format!("--speculative-config '{config}'"),
            Ok((&[("speculative_config", config)], 0)),
        );
        check(
            "vllm",
            "--max-num-seq 16",
            Err("did you mean `max_num_seqs`"),
        );
        check("vllm", "--max-num-seqs", Err("needs a value"));
        check("vllm", "--max-num-seqs --port 80", Err("needs a value"));
        check("vllm", "--max-num-seqs 16 32", Err("belongs to no flag"));
        check(
            "vllm",
            "--max-num-seqs sixteen",
            Err("expected a whole number"),
        );
        check("llama.cpp", "-ngl 20", Ok((&[("n_gpu_layers", "20")], 0)));
        check("llama.cpp", "--swa-full", Err("not modelled"));
        check("vllm", "--max-num-seqs '16", Err("not closed"));
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let split = words(r#"--a "b c" d\ e 'f"g' h"i"j """#).unwrap();
        assert_eq!(split, ["--a", "b c", "d e", "f\"g", "hij", ""]);
    }
}
