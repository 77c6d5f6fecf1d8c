//! The one integration binary: a module per subject.

mod oracle;
mod swarm;
mod trace;
mod world;
