//! Bailian traces: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"parent_chat_id":-1,"input_length":0}"#, "fuzz.jsonl", bytes));
