//! laptime times the agent loop.
#![forbid(unsafe_code)]

pub mod agent;
pub mod call;
pub mod event;
pub mod fleet;
pub mod catalog;
pub mod ids;
pub mod known;
pub mod rig;
pub mod rng;
pub mod sim;
pub mod trace;
pub mod units;
