//! Traces as people have them: recorded files are read, written as native files, and read again.

use laptime::trace::read::{ReadOptions, import, load, load_bytes};
use laptime::trace::{Session, Trace};
use std::path::{Path, PathBuf};

/// Returns a folder of recorded samples, or says that the test is skipped.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var("LAPTIME_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_string());
    let path = Path::new(&root).join("traces").join(folder);
    if path.exists() {
        Some(path)
    } else {
        eprintln!(
            "skipped: {} does not exist (set LAPTIME_SHARED)",
            path.display()
        );
        None
    }
}

fn read(path: &Path) -> Trace {
    load(&[path.to_path_buf()], &ReadOptions::default(), &mut |_| {})
        .unwrap_or_else(|error| panic!("{error}\nhelp: {}", error.help()))
}

fn sum(trace: &Trace, of: impl Fn(&laptime::trace::Step) -> u64) -> u64 {
    let threads = trace.sessions.iter().flat_map(|session| &session.threads);
    threads.flat_map(|thread| &thread.steps).map(of).sum()
}

#[test]
fn hashed_sessions_have_the_totals_of_their_files() {
    let Some(folder) = shared("claude-code-hashed") else {
        return;
    };
    let trace = read(&folder);
    assert_eq!(trace.sessions.len(), 64);
    assert_eq!(trace.calls(), 4_343);
    assert_eq!(sum(&trace, |step| step.prompt_tokens.0), 508_160_035);
    for source in &trace.sources {
        assert_eq!(source.problems, Vec::<String>::new(), "{}", source.name);
    }
    let resumed = trace
        .sessions
        .iter()
        .filter(|session| session.resumed)
        .count();
    assert_eq!(resumed, 29);
}
