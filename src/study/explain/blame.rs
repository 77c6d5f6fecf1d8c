//! Why a lap was slow, and at whose hands: from the rows of one result alone.

use crate::ids::RunId;
use crate::metrics::CallRow;
use crate::metrics::lap::Bottleneck;
use crate::study::figures::{Figures, Lap, Rows};
use crate::units::{Span, Time, Tokens};
use std::collections::BTreeMap;

/// A slow lap, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct SlowLap {
    /// Which.
    pub lap: Lap,
    /// The session it is of.
    pub session: String,
    /// What took the most of it, and how long.
    pub mostly: Option<(Bottleneck, Span)>,
    /// In words.
    pub why: String,
}

/// Returns the longest laps, longest first, what they stood still for sub-agents aside; none where a document left the rows out.
pub fn slowest(of: &Figures, count: usize) -> Vec<SlowLap> {
    let Some(rows) = &of.rows else {
        return Vec::new();
    };
    let mut laps: Vec<&Lap> = rows.laps.iter().collect();
    let own = |lap: &Lap| lap.parts.total() - lap.parts.gap.subagent;
    laps.sort_by_key(|lap| (std::cmp::Reverse(own(lap)), lap.start, lap.lap));
    let told = laps.into_iter().take(count).map(|lap| {
        let mut gathered = lap.parts.gathered();
        // What a lap waited for shows in the laps of who it waited for.
        for (what, span) in &mut gathered {
            if *what == Bottleneck::Subagent {
                *span = Span::ZERO;
            }
        }
        let most = gathered.into_iter().rev().max_by_key(|(_, span)| *span);
        let mostly = most.filter(|(_, span)| *span > Span::ZERO);
        let why = mostly.map_or(String::new(), |(what, _)| why(of, rows, lap, what));
        SlowLap {
            lap: *lap,
            session: of.session(lap.lap.run).to_string(),
            mostly,
            why,
        }
    });
    told.collect()
}

/// A run is greedy from so many times what the median of the others takes of the engine.
const GREEDY: u64 = 2;

/// Returns the place in the trace of the session whose run keeps the engine busy far longer than others do, if any does.
pub(super) fn greediest(of: &Figures) -> Option<usize> {
    let rows = of.rows.as_ref()?;
    let mut busy: BTreeMap<RunId, Span> = BTreeMap::new();
    for call in &rows.calls {
        let parts = &call.parts;
        let own = [
            parts.prefill_new,
            parts.reread_evicted,
            parts.reread_uncached,
            parts.reread_broken,
            parts.decode,
        ];
        *busy.entry(call.lap.run).or_default() += own.into_iter().sum();
    }
    let mut order: Vec<(Span, std::cmp::Reverse<RunId>)> = busy
        .into_iter()
        .map(|(run, span)| (span, std::cmp::Reverse(run)))
        .collect();
    order.sort_unstable();
    let (longest, std::cmp::Reverse(run)) = order.pop()?;
    let usual = order.get(order.len() / 2)?.0;
    let row = of.runs.iter().find(|row| row.run == run)?;
    (longest.0 >= usual.0.saturating_mul(GREEDY)).then_some(row.session as usize)
}

fn why(of: &Figures, rows: &Rows, lap: &Lap, mostly: Bottleneck) -> String {
    let Some(call) = rows.calls.iter().find(|row| row.call == lap.call) else {
        return String::new();
    };
    let classes = &call.classes;
    let begin = call.submitted;
    let admitted = call.admitted.unwrap_or(call.finished);
    match mostly {
        Bottleneck::Queue => {
            let ahead = busiest(of, rows, call, begin, admitted);
            format!("waited for a place{}", by(ahead, "while", "was served"))
        }
        Bottleneck::Contention => {
            let beside = busiest(of, rows, call, admitted, call.finished);
            format!("shared its steps{}", by(beside, "mostly with", ""))
        }
        Bottleneck::Reread if classes.evicted >= classes.broken.max(classes.uncached) => {
            let before = previous_end(rows, call);
            let who = busiest(of, rows, call, before, admitted);
            format!(
                "{} tokens were evicted{}",
                classes.evicted,
                by(who, "meanwhile", "used the memory")
            )
        }
        Bottleneck::Reread if classes.broken >= classes.uncached => {
            format!(
                "{} tokens re-read: the prompt no longer continues what was computed",
                classes.broken
            )
        }
        Bottleneck::Reread => format!(
            "{} tokens re-read: the engine keeps no state there",
            classes.uncached
        ),
        Bottleneck::Prefill => format!("{} new tokens to read", classes.new),
        Bottleneck::Decode => format!(
            "{} tokens written at a depth of {}",
            call.output, call.prompt
        ),
        Bottleneck::Tool => "its tools".to_string(),
        Bottleneck::Wait => "a person".to_string(),
        Bottleneck::Subagent => "stood still for sub-agents".to_string(),
        Bottleneck::KvTransfer => "its cache came from host memory".to_string(),
        Bottleneck::Client => "the client's own overhead".to_string(),
    }
}

fn by(who: Option<String>, before: &str, after: &str) -> String {
    let gap = if after.is_empty() { "" } else { " " };
    who.map_or(String::new(), |who| format!(", {before} {who}{gap}{after}"))
}

/// Returns when the call before this one of the same conversation ended.
fn previous_end(rows: &Rows, call: &CallRow) -> Time {
    let same = |row: &&CallRow| {
        (row.lap.run, row.lap.thread) == (call.lap.run, call.lap.thread)
            && row.finished <= call.submitted
    };
    let before = rows.calls.iter().filter(same).map(|row| row.finished);
    before.max().unwrap_or(Time::ZERO)
}

/// Returns the run that was on the engine the longest between two moments, other than the call's own conversation.
fn busiest(of: &Figures, rows: &Rows, call: &CallRow, from: Time, to: Time) -> Option<String> {
    let mut there: BTreeMap<RunId, (Span, Tokens)> = BTreeMap::new();
    for row in &rows.calls {
        let own = (row.lap.run, row.lap.thread) == (call.lap.run, call.lap.thread);
        let Some(admitted) = row.admitted.filter(|_| !own) else {
            continue;
        };
        let shared = row.finished.min(to).since(admitted.max(from));
        if shared > Span::ZERO {
            let entry = there.entry(row.lap.run).or_default();
            entry.0 += shared;
            entry.1 += row.computed();
        }
    }
    let (run, (_, computed)) = there
        .into_iter()
        .max_by_key(|(run, found)| (*found, std::cmp::Reverse(*run)))?;
    Some(format!(
        "run {} ({}, {} tokens computed)",
        run.0,
        of.session(run),
        computed
    ))
}
