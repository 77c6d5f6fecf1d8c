//! A figure together with its source and how far it can be trusted.
//!
//! Nothing in the catalogue is a bare number: whoever reads a prediction can ask where each input came from.

use std::fmt;

/// How a figure is known, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trust {
    /// Read off a real system, at the operating point it is used for.
    Measured,
    /// Fitted to measurements, with a held-out error.
    Calibrated,
    /// Published by the maker.
    Datasheet,
    /// Derived from physics, or from a similar system.
    Estimate,
}

impl Trust {
    /// Every level, best first.
    pub const ALL: [Trust; 4] = [
        Trust::Measured,
        Trust::Calibrated,
        Trust::Datasheet,
        Trust::Estimate,
    ];

    /// Returns the word used in files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Trust::Measured => "measured",
            Trust::Calibrated => "calibrated",
            Trust::Datasheet => "datasheet",
            Trust::Estimate => "estimate",
        }
    }

    /// Returns the level that `word` names.
    pub fn from_word(word: &str) -> Option<Trust> {
        Trust::ALL.into_iter().find(|trust| trust.word() == word)
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A value, where it comes from, and how far it can be trusted.
#[derive(Clone, PartialEq, Debug)]
pub struct Known<T> {
    /// The figure itself.
    pub value: T,
    /// Who says so: a document, a measurement, a derivation.
    pub source: String,
    /// How it is known.
    pub trust: Trust,
}

impl<T> Known<T> {
    /// Returns the same knowledge about a derived value.
    pub fn map<U>(self, derive: impl FnOnce(T) -> U) -> Known<U> {
        Known {
            value: derive(self.value),
            source: self.source,
            trust: self.trust,
        }
    }
}
