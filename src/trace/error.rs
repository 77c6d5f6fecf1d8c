//! Why a trace could not be read, and what to do about it.

use std::path::{Path, PathBuf};

/// A trace file that cannot be used at all; single bad lines are [`super::Source::problems`] instead.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried: `read`, `open`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content is none of the formats that can be read.
    #[error("{}, line 1: no trace begins here: {found}", .path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },
    /// The file was written by a later version.
    #[error("{}, line {line}: trace format version {found}, expected at most {expected}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The file's version.
        found: u64,
        /// The version this program reads.
        expected: u32,
    },
    /// The format was recognised, but nothing in the file could be used.
    #[error("{} holds no usable step ({format}){}", .path.display(), first(.problems))]
    Nothing {
        /// The file.
        path: PathBuf,
        /// The format it was read as.
        format: String,
        /// What was wrong with its lines.
        problems: Vec<String>,
    },
    /// No block size makes sense of a Mooncake file.
    #[error(
        "{}, line {line}: no power of two is the block size of every row (this one has {tokens} tokens in {blocks} blocks)",
        .path.display()
    )]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// The line that fits none of the sizes left by those before it, counted from 1.
        line: u64,
        /// Its input length.
        tokens: u64,
        /// Its number of ids.
        blocks: usize,
    },
    /// Nothing was found where traces were looked for.
    #[error("{} holds no trace{}", .path.display(), first(.skipped))]
    Empty {
        /// The folder.
        path: PathBuf,
        /// The files in it that are no trace.
        skipped: Vec<String>,
    },
}

impl TraceError {
    /// Returns what the reader of the message can do.
    pub fn help(&self) -> String {
        match self {
            TraceError::Io { action: "write", .. } => {
                "check that the folder exists, may be written to, and has room".to_string()
            }
            TraceError::Io { .. } => "check that the path exists and may be read".to_string(),
            TraceError::Unknown { .. } => format!(
                "readable are {}, each plain, .gz or .zst",
                super::import::formats().join(", ")
            ),
            TraceError::Version { .. } => "update laptime, or import the recording again".to_string(),
            TraceError::Nothing { problems, .. } if problems.is_empty() => {
                "the file may be cut short; record or download it again".to_string()
            }
            TraceError::Nothing { .. } => {
                "correct the lines that are named, or download the file again".to_string()
            }
            TraceError::BlockSize { .. } => {
                "pass --block-size N to say how many tokens a block has; ids beyond the prompt are then ignored"
                    .to_string()
            }
            TraceError::Empty { .. } => format!(
                "name the files, or a folder with files in one of these formats: {}",
                super::import::formats().join(", ")
            ),
        }
    }

    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TraceError {
        TraceError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Returns the first of several complaints, to end a message with.
fn first(complaints: &[String]) -> String {
    match complaints {
        [] => String::new(),
        [one] => format!(": {one}"),
        [one, rest @ ..] => format!(": {one} (and {} more)", rest.len()),
    }
}
