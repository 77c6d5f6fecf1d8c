//! Mooncake rows: any bytes behind a row that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"timestamp":0,"input_length":1100,"output_length":20,"hash_ids":[1,2,3]}"#, "fuzz.jsonl", bytes));
