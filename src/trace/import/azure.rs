//! Azure's traces of LLM inference: when each request came, and how long its prompt and its answer were.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{OutputRecord, Record, SessionRecord, StepRecord};
use super::table::Table;
use super::{Feed, growth, stamp};

/// The columns by which a file is recognised.
pub(super) const COLUMNS: [&str; 3] = ["timestamp", "contexttokens", "generatedtokens"];

/// Reads a trace: each row is a session of one request.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let stem = file_stem(&input.path);
    let mut table = Table::open(input).map_err(io)?;
    let mut origin_us = None;
    while let Some(row) = table.next(feed) {
        let place = || format!("line {}", row.line);
        let prompt = row.count("contexttokens").filter(|&tokens| tokens > 0);
        let (Some(prompt), Some(output)) = (prompt, row.count("generatedtokens")) else {
            let why =
                "`ContextTokens` and `GeneratedTokens` must be whole numbers, the first positive";
            feed.problem(&place(), why);
            continue;
        };
        let at = row.text("timestamp").and_then(stamp::text_us);
        origin_us = origin_us.or(at);
        let id = format!("{stem}-{}", row.line);
        let session = SessionRecord {
            id: id.clone(),
            arrival_us: at
                .zip(origin_us)
                .and_then(|(at, origin)| at.checked_sub(origin)),
            ..SessionRecord::default()
        };
        feed.put(place, Record::Session(Box::new(session)));
        let step = StepRecord {
            id: "1".to_string(),
            session: Some(id),
            prompt: growth::edit(None, prompt, 0),
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            ..StepRecord::default()
        };
        feed.put(place, Record::Step(Box::new(step)));
    }
    feed.losses.push(
        "only arrivals and sizes are recorded: no conversations, nothing that prompts have in common, no model times; each \
         request is a session of its own"
            .to_string(),
    );
    Ok(())
}
