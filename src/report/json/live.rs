//! What a result document says of a live replay beside its figures.

use super::{CallOut, Spread};
use crate::live::Ending;
use crate::live::measured::Measured;
use crate::live::watch::Health;
use crate::study::live::{LiveNotes, Window};
use crate::units::{Span, Time, Tokens};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct ClientOut<'a> {
    valid: bool,
    why: &'a [String],
    allowed_lag_s: f64,
    send_lag_s: Spread,
    loop_lag_s: Spread,
    cores: Option<f64>,
    connections: u64,
}

#[derive(Serialize)]
struct WindowOut {
    from_s: f64,
    to_s: f64,
    laps: u32,
    lap_s: Spread,
    ttft_s: Spread,
    output_tokens: u64,
}

#[derive(Serialize)]
pub(super) struct LiveOut<'a> {
    ended: &'static str,
    prompts: &'a str,
    history: &'static str,
    retries: u32,
    warm_up_calls: u32,
    client: Option<ClientOut<'a>>,
    window: Option<WindowOut>,
    prompt_error: Option<ErrorOut>,
    answers_of_wrong_length: u32,
    outcomes: BTreeMap<&'static str, u32>,
    counters: BTreeMap<&'a str, CounterOut>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ErrorOut {
    largest: f64,
    overall: f64,
}

#[derive(Serialize)]
struct CounterOut {
    before: f64,
    after: f64,
    highest: f64,
}

/// Returns what is told of a live replay.
pub(super) fn live<'a>(notes: &'a LiveNotes, conduct: &crate::agent::Conduct) -> LiveOut<'a> {
    let mut outcomes = BTreeMap::new();
    for seen in notes.calls.iter().flatten() {
        *outcomes.entry(seen.outcome.word()).or_insert(0) += 1;
    }
    let counter = |[before, after, highest]: [f64; 3]| CounterOut {
        before,
        after,
        highest,
    };
    let counters = notes.counters.iter();
    LiveOut {
        ended: match notes.ending {
            Ending::Completed => "completed",
            Ending::Drained => "drained",
            Ending::Aborted => "aborted",
            Ending::Lost => "lost",
        },
        prompts: &notes.form,
        history: conduct.history.word(),
        retries: conduct.retries.limit,
        warm_up_calls: notes.warm_up,
        client: notes.health.as_ref().map(client),
        window: notes.window.as_ref().map(window),
        prompt_error: notes
            .prompt_error()
            .map(|(largest, overall)| ErrorOut { largest, overall }),
        answers_of_wrong_length: notes.wrong_lengths().0,
        outcomes,
        counters: counters
            .map(|(name, values)| (name.as_str(), counter(*values)))
            .collect(),
        notes: &notes.notes,
    }
}

fn client(health: &Health) -> ClientOut<'_> {
    ClientOut {
        valid: health.bound.is_empty(),
        why: &health.bound,
        allowed_lag_s: health.limit.secs(),
        send_lag_s: Spread(health.send_lag),
        loop_lag_s: Spread(health.loop_lag),
        cores: health.cores,
        connections: health.connections,
    }
}

fn window(window: &Window) -> WindowOut {
    WindowOut {
        from_s: window.from.secs(),
        to_s: window.to.secs(),
        laps: window.laps,
        lap_s: Spread(window.lap),
        ttft_s: Spread(window.ttft),
        output_tokens: window.output,
    }
}

/// What was seen of a call on the wire. Moments are on the clock of the replay.
#[derive(Serialize)]
pub(super) struct WireOut {
    due_s: f64,
    started_s: f64,
    connect_s: Option<f64>,
    sent_s: Option<f64>,
    first_byte_s: Option<f64>,
    last_token_s: Option<f64>,
    pieces: usize,
    planned_prompt_tokens: u64,
    planned_output_tokens: u64,
    received_tokens: u64,
    reading_s: Option<f64>,
    status: Option<u16>,
    finish_reason: Option<String>,
    error: Option<String>,
}

fn wire(seen: &Measured, (prompt, output): (Tokens, Tokens)) -> WireOut {
    WireOut {
        due_s: seen.due.secs(),
        started_s: seen.started.secs(),
        connect_s: seen.connect.map(Span::secs),
        sent_s: seen.sent.map(Time::secs),
        first_byte_s: seen.first_byte.map(Time::secs),
        last_token_s: seen.pieces.last().map(|(at, _)| at.secs()),
        pieces: seen.pieces.len(),
        planned_prompt_tokens: prompt.0,
        planned_output_tokens: output.0,
        received_tokens: seen.output_tokens().0,
        reading_s: seen.reading.map(Span::secs),
        status: seen.status,
        finish_reason: seen.finish_reason.clone(),
        error: seen.error.clone(),
    }
}

/// Adds to a call what was seen of it; what the engine does not tell becomes unknown.
pub(super) fn complete<'a>(mut call: CallOut<'a>, notes: &LiveNotes) -> CallOut<'a> {
    let place = call.call as usize;
    let Some(Some(seen)) = notes.calls.get(place) else {
        return call;
    };
    if seen.cached.is_none() && !seen.outcome.failed() {
        (call.cached_tokens, call.computed_tokens, call.tokens) = (None, None, None);
    }
    call.wire = Some(wire(seen, notes.planned[place]));
    call
}
