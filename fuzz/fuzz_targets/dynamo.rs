//! Dynamo traces: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"schema":"dynamo.request.trace.v1","event_type":"none"}"#, "fuzz.jsonl", bytes));
