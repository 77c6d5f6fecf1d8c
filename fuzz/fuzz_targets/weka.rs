//! Hashed sessions: any bytes inside the list of requests.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"id":"fuzz","block_size":64,"hash_id_scope":"local","tool_tokens":64,"system_tokens":64,"requests":[{"t":0,"type":"n","model":"m","in":200,"out":10,"hash_ids":[1,2,3]}"#, "fuzz.json", bytes));
