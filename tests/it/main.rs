//! The one integration binary: a module per subject.

mod accuracy;
mod cli;
mod fuzz_trace;
mod golden;
mod import;
mod metrics;
mod naive;
mod oracle;
mod recorded_engines;
mod rigs;
mod schema;
mod swarm;
mod tidy;
mod trace;
mod world;
