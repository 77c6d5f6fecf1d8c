//! Any bytes as a trace: `cargo +nightly fuzz run trace`, with sample traces as the corpus.
//!
//! What can be read must also import, and the import must read as the same number of requests. The closer comparison,
//! with mutations that know JSON, is `tests/it/fuzz_trace.rs`.
#![no_main]

use laptime::trace::inspect::inspect;
use laptime::trace::read::{ReadOptions, import_bytes, load_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = ReadOptions::default();
    let Ok(trace) = load_bytes("fuzz.jsonl", bytes, &options) else {
        return;
    };
    let _ = inspect(&trace);
    let mut native = Vec::new();
    import_bytes("fuzz.jsonl", bytes, &options, &mut native).expect("what reads can be imported");
    let again = load_bytes("native.jsonl", &native, &options).expect("what was imported reads");
    assert_eq!(trace.calls(), again.calls());
});
