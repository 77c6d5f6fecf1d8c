//! Logs that coding agents keep of their own sessions: told apart by content, read into one shape, written as records.
//!
//! Such a log holds the conversation, not the requests: what is missing is sized by what usage says, and the rebuilt
//! prefixes are held against the cached tokens that were recorded.

mod aider;
mod atif;
mod chat;
mod claude;
mod cline;
mod codex;
mod completions;
mod gemini;
mod json;
mod lists;
mod notes;
mod opencode;
mod openhands;
mod qwen;
mod recognise;
mod size;
mod swe_agent;
mod write;

use super::super::error::TraceError;
use super::super::input::Input;
use super::Feed;
use notes::Notes;
pub(super) use recognise::{document, object};
use std::path::{Path, PathBuf};

/// The formats, as the list of what can be read names them.
pub(super) const FORMATS: [&str; 11] = [
    "Claude Code sessions (JSONL, with subagents/ beside them)",
    "Codex rollouts (JSONL)",
    "Gemini CLI chats (JSON, JSONL)",
    "Qwen Code chats (JSONL)",
    "opencode sessions (export, or the session file of its storage)",
    "SWE-agent trajectories (.traj)",
    "mini-swe-agent trajectories (.traj.json)",
    "OpenHands events, output.jsonl and completion logs",
    "Cline and Roo tasks (ui_messages.json, api_conversation_history.json)",
    "aider chat history, LLM history and analytics",
    "ATIF trajectories (JSON)",
];

/// Which agent's log it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::trace) enum Log {
    Claude,
    Codex,
    Gemini,
    Qwen,
    Opencode,
    SweAgent,
    MiniSweAgent,
    OpenHands,
    Completions,
    Cline,
    Aider,
    Atif,
}

impl Log {
    /// Every format.
    pub(super) const ALL: [Log; 12] = [
        Log::Claude,
        Log::Codex,
        Log::Gemini,
        Log::Qwen,
        Log::Opencode,
        Log::SweAgent,
        Log::MiniSweAgent,
        Log::OpenHands,
        Log::Completions,
        Log::Cline,
        Log::Aider,
        Log::Atif,
    ];

    /// Returns the format's name for people and for [`crate::trace::Source::format`].
    pub(super) fn name(self) -> &'static str {
        match self {
            Log::Claude => "claude-code",
            Log::Codex => "codex",
            Log::Gemini => "gemini-cli",
            Log::Qwen => "qwen-code",
            Log::Opencode => "opencode",
            Log::SweAgent => "swe-agent",
            Log::MiniSweAgent => "mini-swe-agent",
            Log::OpenHands => "openhands",
            Log::Completions => "openhands-completions",
            Log::Cline => "cline",
            Log::Aider => "aider",
            Log::Atif => "atif",
        }
    }

    /// Returns the files that a file is read with, in the order in which they are read.
    pub(super) fn companions(self, input: &Input) -> Vec<PathBuf> {
        if input.is_memory() {
            return Vec::new();
        }
        match self {
            Log::Claude => claude::agent_files(&input.path),
            Log::Opencode => opencode::companions(&input.path),
            Log::Completions | Log::OpenHands if !input.named => siblings(&input.path),
            _ => Vec::new(),
        }
    }

    /// Says to which other file of its folder a file belongs, where it is read with that.
    pub(super) fn belongs(self, input: &Input) -> Option<String> {
        let path = input.path.as_path();
        let with = |path: &Path| format!("it is read with {}", path.display());
        if input.is_memory() {
            return None;
        }
        match self {
            Log::Opencode => json::beside(path).and_then(|value| opencode::belongs(&value, path)),
            _ if input.named => None,
            Log::Claude => claude::parent_of(path).as_deref().map(with),
            Log::Completions | Log::OpenHands => leader(path).as_deref().map(with),
            Log::Cline if super::super::compile::file_stem(path) == "api_conversation_history" => {
                let shown = path.with_file_name("ui_messages.json");
                shown.is_file().then(|| with(&shown))
            }
            _ => None,
        }
    }

    /// Reads a file and hands its records to `feed`.
    pub(super) fn read(self, input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
        let mut notes = Notes::default();
        let with = self.companions(input);
        let notes_here = &mut notes;
        match self {
            Log::Claude => claude::read(input, feed, notes_here),
            Log::Codex => codex::read(input, feed, notes_here),
            Log::Gemini => gemini::read(input, feed, notes_here),
            Log::Qwen => qwen::read(input, feed, notes_here),
            Log::Opencode => opencode::read(input, feed, notes_here),
            Log::SweAgent => swe_agent::read(input, feed, notes_here),
            Log::MiniSweAgent => swe_agent::read_mini(input, feed, notes_here),
            Log::OpenHands => openhands::read(input, &with, feed, notes_here),
            Log::Completions => completions::read(input, &with, feed, notes_here),
            Log::Cline => cline::read(input, feed, notes_here),
            Log::Aider => aider::read(input, feed, notes_here),
            Log::Atif => atif::read(input, feed, notes_here),
        }?;
        notes.report(feed);
        Ok(())
    }
}

/// Returns the name without what counts it: files of one run differ in digits only.
fn family(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let name = name.strip_suffix(".json")?;
    // Events end in an id after their number.
    if let Some(rest) = name.strip_prefix("event-") {
        return rest
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| "event-".to_string());
    }
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_'));
    (stem.len() < name.len()).then(|| stem.to_string())
}

/// Returns the files of one family beside a file, itself among them, in the order of their names.
fn kin(path: &Path) -> Vec<PathBuf> {
    let own = family(path);
    let folder = path.parent().map(std::fs::read_dir);
    let Some((own, Ok(entries))) = own.zip(folder) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| family(path).as_ref() == Some(&own))
        .collect();
    found.sort();
    found
}

fn siblings(path: &Path) -> Vec<PathBuf> {
    kin(path)
        .into_iter()
        .filter(|other| other != path)
        .collect()
}

/// Returns the first file of a file's family, unless that is the file itself.
fn leader(path: &Path) -> Option<PathBuf> {
    kin(path).into_iter().next().filter(|first| first != path)
}
