//! Results for people and for programs.
//!
//! A report only arranges numbers; whatever is computed is computed before. [`json`] is the contract with programs,
//! [`text`] the answer a person reads, [`csv`] the calls for a spreadsheet; [`inspection`] says what is in a trace.

pub mod calibration;
pub mod catalog;
pub mod claims;
pub mod csv;
mod expense;
pub mod inspection;
pub mod json;
pub mod profile;
pub mod table;
pub mod text;

use crate::agent::Pace;
use crate::fleet::Share;

/// Returns the word for what runs have in common, as on the command line.
pub fn share_word(share: Share) -> &'static str {
    match share {
        Share::Head => "head",
        Share::None => "none",
        Share::All => "all",
    }
}

/// Returns the word for which waits are replayed, as on the command line.
pub fn pace_word(pace: Pace) -> &'static str {
    match pace {
        Pace::Recorded => "recorded",
        Pace::Tools => "tools",
        Pace::None => "none",
    }
}
