//! Any bytes as an OpenHands completion log: `cargo +nightly fuzz run openhands_completions`, with logs of that kind as the corpus.
#![no_main]

use laptime::trace::read::load_bytes_as;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = load_bytes_as("openhands-completions", "fuzz", bytes).expect("the format is known");
});
