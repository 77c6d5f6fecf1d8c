//! The one integration binary: a module per subject.

mod naive;
mod oracle;
mod swarm;
mod trace;
mod world;
