//! What can go wrong at the edge, what to do about it, and the exit code that says so.
//!
//! Every error is one lower-case sentence and, where there is a remedy, a `help:` line. Exit codes are part of the
//! contract with scripts; see [`Exit`].

use std::io;
use std::path::Path;

/// What the process's exit code says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done, and gates passed.
    Done = 0,
    /// A gate failed.
    Gate = 1,
    /// The command line or a scenario is wrong.
    Usage = 2,
    /// An input file is wrong.
    Input = 3,
    /// No call succeeded, or a live engine could not be reached or was lost.
    NoSuccess = 4,
    /// Something went wrong that the command line and the inputs are not to blame for.
    Internal = 5,
    /// A live run is invalid because the client was the bottleneck.
    ClientBound = 6,
    /// Interrupted; what was measured is kept.
    Interrupted = 130,
}

/// Why a command did not do what it was asked.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The command line or a scenario is wrong.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// The remedy.
        help: Option<String>,
    },
    /// An input file is wrong.
    #[error("{what}")]
    Input {
        /// Where and what is wrong.
        what: String,
        /// The remedy.
        help: Option<String>,
    },
    /// A replay against a real engine did not come to a valid end.
    #[error("{what}")]
    Live {
        /// What happened.
        what: String,
        /// The remedy.
        help: Option<String>,
        /// The exit code that says so.
        exit: Exit,
    },
    /// A result could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where to.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Returns the error for a wrong command line or scenario.
    pub fn usage(what: impl Into<String>) -> Error {
        Error::Usage {
            what: what.into(),
            help: None,
        }
    }

    /// Returns the error for a wrong input file.
    pub fn input(what: impl Into<String>) -> Error {
        Error::Input {
            what: what.into(),
            help: None,
        }
    }

    /// Returns the error for a live replay without a valid end.
    pub fn live(exit: Exit, what: impl Into<String>) -> Error {
        Error::Live {
            what: what.into(),
            help: None,
            exit,
        }
    }

    /// Returns the error for a result that could not be written to `path`.
    pub fn write(path: &Path, source: io::Error) -> Error {
        Error::Write {
            path: path.display().to_string(),
            source,
        }
    }

    /// Returns the error for an answer that could not be written to the standard output.
    pub fn stdout(source: io::Error) -> Error {
        Error::Write {
            path: "the standard output".to_string(),
            source,
        }
    }

    /// Returns the same error with a remedy.
    #[must_use]
    pub fn with_help(mut self, remedy: impl Into<String>) -> Error {
        if let Error::Usage { help, .. } | Error::Input { help, .. } | Error::Live { help, .. } =
            &mut self
        {
            *help = Some(remedy.into());
        }
        self
    }

    /// Returns the remedy, where there is one.
    pub fn help(&self) -> Option<&str> {
        match self {
            Error::Usage { help, .. } | Error::Input { help, .. } | Error::Live { help, .. } => {
                help.as_deref()
            }
            Error::Write { .. } => None,
        }
    }

    /// Returns the exit code that says so. A reader that went away has had enough: that is success.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage { .. } => Exit::Usage,
            Error::Input { .. } => Exit::Input,
            Error::Live { exit, .. } => *exit,
            Error::Write { source, .. } => match source.kind() {
                io::ErrorKind::BrokenPipe => Exit::Done,
                // The path that was asked for is not one that can be written.
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory => Exit::Usage,
                _ => Exit::Internal,
            },
        }
    }
}
