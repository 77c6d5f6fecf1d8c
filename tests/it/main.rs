//! The one integration binary: a module per subject.

mod cli;
mod fuzz_trace;
mod golden;
mod metrics;
mod recorded_engines;
mod schema;
mod tidy;
mod trace;
