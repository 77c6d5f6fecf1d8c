//! Any bytes as an opencode session: `cargo +nightly fuzz run opencode`, with logs of that kind as the corpus.
#![no_main]

use laptime::trace::read::load_bytes_as;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = load_bytes_as("opencode", "fuzz", bytes).expect("the format is known");
});
