//! Results for people and for programs.
//!
//! A report only arranges numbers; whatever is computed is computed before. [`json`] is the contract with programs,
//! [`text`] the answer a person reads, [`csv`] the calls for a spreadsheet; [`inspection`] says what is in a trace.

pub mod answers;
pub mod calibration;
pub mod catalog;
pub mod claims;
pub mod csv;
pub mod document;
mod expense;
pub mod html;
pub mod inspection;
pub mod json;
pub mod live;
pub mod profile;
pub mod rows;
pub mod selftest;
pub mod shown;
pub mod table;
pub mod text;
