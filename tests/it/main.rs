//! The one integration binary: a module per subject.

mod accuracy;
mod cli;
mod engine_runs;
mod fuzz_trace;
mod golden;
mod import;
mod metrics;
mod naive;
mod oracle;
mod real_engines;
mod recorded_engines;
mod schema;
mod swarm;
mod tidy;
mod trace;
mod world;
