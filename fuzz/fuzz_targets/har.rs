//! HAR documents: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"log":{"creator":{},"entries":["#, "fuzz.har", bytes));
