//! Results for people and for programs.
//!
//! A report only arranges numbers; whatever is computed is computed before. [`json`] is the contract with programs,
//! [`text`] the answer a person reads, [`csv`] the calls for a spreadsheet; [`inspection`] says what is in a trace.

pub mod catalog;
pub mod csv;
pub mod inspection;
pub mod json;
pub mod live;
pub mod selftest;
pub mod table;
pub mod text;
