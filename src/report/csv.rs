//! The calls of a replay as a table for spreadsheets and data frames.
//!
//! The columns carry the names of the result document's `calls`, with nested objects flattened. Unknown is empty.

use crate::metrics::CallRow;
use crate::study::replay::Replay;
use crate::units::Time;
use std::io::{self, Write};

const COLUMNS: [&str; 28] = [
    "call",
    "run",
    "session",
    "thread",
    "lap",
    "parent_call",
    "prompt_tokens",
    "cached_tokens",
    "computed_tokens",
    "output_tokens",
    "new_tokens",
    "reread_evicted_tokens",
    "reread_uncached_tokens",
    "reread_broken_tokens",
    "submitted_s",
    "admitted_s",
    "first_token_s",
    "finished_s",
    "outcome",
    "client_s",
    "queue_s",
    "kv_transfer_s",
    "prefill_new_s",
    "reread_evicted_s",
    "reread_uncached_s",
    "reread_broken_s",
    "decode_s",
    "contention_s",
];

/// Writes every call that ended, in the order of the result document.
pub fn write(out: impl Write, replay: &Replay<'_>) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(COLUMNS)?;
    for row in replay.metrics.calls() {
        let place = replay.metrics.session_of(row.lap.run);
        table.write_record(cells(&row, &replay.workload.sessions[place]))?;
    }
    table.flush()
}

fn cells(row: &CallRow, session: &str) -> Vec<String> {
    let secs = |at: Option<Time>| at.map_or_else(String::new, |at| at.secs().to_string());
    let mut cells = vec![
        row.call.0.to_string(),
        row.lap.run.0.to_string(),
        session.to_string(),
        row.lap.thread.to_string(),
        row.lap.lap.to_string(),
        row.parent
            .map_or_else(String::new, |call| call.0.to_string()),
    ];
    let classes = &row.classes;
    let tokens = [
        row.prompt,
        row.cached,
        row.computed(),
        row.output,
        classes.new,
        classes.evicted,
        classes.uncached,
        classes.broken,
    ];
    cells.extend(tokens.map(|tokens| tokens.0.to_string()));
    let times = [
        Some(row.submitted),
        row.admitted,
        row.first_token,
        Some(row.finished),
    ];
    cells.extend(times.map(secs));
    cells.push(row.outcome.word().to_string());
    cells.extend(row.parts.named().map(|(_, span)| span.secs().to_string()));
    cells
}
