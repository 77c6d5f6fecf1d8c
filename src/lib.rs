//! laptime times the agent loop.
#![forbid(unsafe_code)]

pub mod agent;
pub mod call;
pub mod catalog;
pub mod cli;
pub mod error;
pub mod event;
pub mod fleet;
pub mod ids;
pub mod journal;
pub mod known;
pub mod metrics;
pub mod operating_point;
pub mod report;
pub mod rig;
pub mod rng;
pub mod scenario;
pub mod sim;
pub mod study;
pub mod trace;
pub mod units;
