//! The one integration binary: a module per subject.

mod accuracy;
mod cli;
mod fuzz_trace;
mod import;
mod metrics;
mod recorded_engines;
mod schema;
mod tidy;
mod trace;
