//! TraceLab rounds: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"input_tokens_total":0,"newly_append_tokens":0}"#, "fuzz.jsonl", bytes));
