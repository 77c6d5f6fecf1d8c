//! laptime times the agent loop.
#![forbid(unsafe_code)]

pub mod call;
pub mod catalog;
pub mod ids;
pub mod known;
pub mod rig;
pub mod rng;
pub mod trace;
pub mod units;
