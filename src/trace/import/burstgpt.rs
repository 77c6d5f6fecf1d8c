//! BurstGPT: requests to ChatGPT and GPT-4 by their sizes, in releases with and without conversations.

use super::super::error::TraceError;
use super::super::input::{Input, file_stem};
use super::super::record::{
    GapRecord, OutputRecord, Record, SessionRecord, StepRecord, TimingRecord, UsageRecord,
};
use super::growth::{self, Before};
use super::table::{Row, Table};
use super::{Feed, micros};
use rustc_hash::FxHashMap;

/// The columns by which a file is recognised.
pub(super) const COLUMNS: [&str; 3] = ["timestamp", "request tokens", "response tokens"];

/// A conversation whose next request may still come.
struct Open {
    pending: Box<StepRecord>,
    line: u64,
    before: Before,
    steps: u64,
    start_us: u64,
    end_us: u64,
}

/// Reads a trace.
pub(super) fn read(input: &Input, feed: &mut Feed<'_>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", &input.path, error);
    let mut importer = Importer {
        stem: file_stem(&input.path),
        origin_us: None,
        open: FxHashMap::default(),
        order: Vec::new(),
        failed: 0,
        empty: 0,
    };
    let mut table = Table::open(input).map_err(io)?;
    while let Some(row) = table.next(feed) {
        if let Err(why) = importer.row(feed, &row) {
            feed.problem(&format!("line {}", row.line), &why);
        }
    }
    importer.finish(feed);
    Ok(())
}

struct Importer {
    stem: String,
    origin_us: Option<u64>,
    open: FxHashMap<String, Open>,
    order: Vec<String>,
    failed: u64,
    empty: u64,
}

impl Importer {
    fn row(&mut self, feed: &mut Feed<'_>, row: &Row<'_>) -> Result<(), String> {
        let prompt = row.count("request tokens");
        let prompt = prompt.ok_or("`Request tokens` must be a whole number")?;
        let output = row.count("response tokens");
        let output = output.ok_or("`Response tokens` must be a whole number")?;
        if prompt == 0 {
            self.empty += 1;
            return Ok(());
        }
        let at = row.real("timestamp").and_then(micros);
        let start_us = at.ok_or("`Timestamp` must be a number of seconds")?;
        let origin_us = *self.origin_us.get_or_insert(start_us);
        let took_us = row.real("elapsed time").and_then(micros);
        let named = row.text("session id").map(str::to_string);
        let id = named
            .clone()
            .unwrap_or_else(|| format!("{}-{}", self.stem, row.line));
        let failed = output == 0;
        self.failed += u64::from(failed);
        let mut last = named.as_ref().and_then(|name| self.open.get_mut(name));
        let (steps, first_us) = last
            .as_ref()
            .map_or((0, start_us), |last| (last.steps, last.start_us));
        let step = Box::new(StepRecord {
            id: (steps + 1).to_string(),
            session: Some(id.clone()),
            prompt: growth::edit(last.as_ref().map(|last| last.before), prompt, 0),
            output: OutputRecord {
                tokens: output,
                ..OutputRecord::default()
            },
            timing: Some(TimingRecord {
                sent_us: Some(start_us.saturating_sub(first_us)),
                model_us: took_us,
                how: Some("measured".to_string()),
                ..TimingRecord::default()
            }),
            usage: Some(UsageRecord {
                prompt: Some(prompt),
                output: Some(output),
                ..UsageRecord::default()
            }),
            finish: Some(if failed { "error" } else { "end-of-turn" }.to_string()),
            model: row.text("model").map(str::to_string),
            ..StepRecord::default()
        });
        let before = Before {
            prompt,
            output,
            visible: output,
        };
        let end_us = start_us.saturating_add(took_us.unwrap_or(0));
        if let Some(open) = &mut last {
            let mut done = std::mem::replace(&mut open.pending, step);
            done.gap = Some(GapRecord {
                human_us: Some(start_us.saturating_sub(open.end_us)),
                ..GapRecord::default()
            });
            let line = std::mem::replace(&mut open.line, row.line);
            (open.before, open.steps, open.end_us) = (before, steps + 1, end_us);
            feed.put(|| format!("line {line}"), Record::Step(done));
            return Ok(());
        }
        let session = SessionRecord {
            id: id.clone(),
            arrival_us: Some(start_us.saturating_sub(origin_us)),
            model: step.model.clone(),
            ..SessionRecord::default()
        };
        let place = || format!("line {}", row.line);
        feed.put(place, Record::Session(Box::new(session)));
        if named.is_none() {
            feed.put(place, Record::Step(step));
            return Ok(());
        }
        self.order.push(id.clone());
        let open = Open {
            pending: step,
            line: row.line,
            before,
            steps: 1,
            start_us,
            end_us,
        };
        self.open.insert(id, open);
        Ok(())
    }

    fn finish(mut self, feed: &mut Feed<'_>) {
        for id in &self.order {
            if let Some(open) = self.open.remove(id) {
                let line = open.line;
                feed.put(|| format!("line {line}"), Record::Step(open.pending));
            }
        }
        feed.losses.push(
            "only sizes are recorded: within a conversation, a prompt that grew by at least the answer keeps it, and the place \
             of every break is estimated; rows without a session are sessions of their own"
                .to_string(),
        );
        if self.failed > 0 {
            feed.losses.push(format!(
                "{} requests failed when they were recorded: they have no answer, and none is written in a replay",
                self.failed
            ));
        }
        if self.empty > 0 {
            feed.losses.push(format!(
                "{} requests are empty and were left out",
                self.empty
            ));
        }
    }
}
