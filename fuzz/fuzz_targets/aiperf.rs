//! AIPerf inputs: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"session_id":"s","turns":[]}"#, "fuzz.jsonl", bytes));
