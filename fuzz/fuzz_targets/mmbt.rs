//! Transcripts of the MMBT harness: any bytes behind a line that tells the format.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::behind(r#"{"t":"2026-01-01T00:00:00.000000Z","iter":1,"type":"model","wall_s":1.5,"prompt_tokens":1200,"completion_tokens":40,"finish_reason":"tool_calls","tool_calls":[{"name":"bash","args_len":20}]}"#, "transcript.jsonl", bytes));
