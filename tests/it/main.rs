//! The one integration binary: a module per subject.

mod accuracy;
mod agent;
mod bound;
mod calibrate;
mod cli;
mod documents;
mod engine_runs;
mod fuzz_trace;
mod golden;
mod habits;
mod import;
mod metrics;
mod naive;
mod oracle;
mod predictions;
mod real_engines;
mod recorded_engines;
mod rigs;
mod schema;
mod slots;
mod swarm;
mod tidy;
mod tiers;
mod trace;
mod unverified;
mod world;
