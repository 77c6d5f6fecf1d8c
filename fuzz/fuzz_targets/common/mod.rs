//! What every importer must hold to: what reads also imports, and the import reads as the same number of requests.

use laptime::trace::inspect::inspect;
use laptime::trace::read::{ReadOptions, import_bytes, load_bytes};

/// Tries any bytes behind a first line that decides the format.
pub fn behind(first: &str, name: &str, bytes: &[u8]) {
    let mut whole = first.as_bytes().to_vec();
    whole.push(b'\n');
    whole.extend_from_slice(bytes);
    let options = ReadOptions::default();
    let Ok(trace) = load_bytes(name, &whole, &options) else {
        return;
    };
    let _ = inspect(&trace);
    let mut native = Vec::new();
    import_bytes(name, &whole, &options, &mut native).expect("what reads can be imported");
    let again = load_bytes("native.jsonl", &native, &options).expect("what was imported reads");
    assert_eq!(trace.calls(), again.calls());
}
