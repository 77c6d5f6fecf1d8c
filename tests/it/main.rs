//! The one integration binary: a module per subject.

mod accuracy;
mod agent;
mod bound;
mod cli;
mod documents;
mod fuzz_trace;
mod golden;
mod habits;
mod import;
mod metrics;
mod naive;
mod oracle;
mod predictions;
mod recorded_engines;
mod schema;
mod slots;
mod swarm;
mod tidy;
mod trace;
mod world;
