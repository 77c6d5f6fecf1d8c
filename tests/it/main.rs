//! The one integration binary: a module per subject.

mod fuzz_trace;
mod import;
mod trace;
