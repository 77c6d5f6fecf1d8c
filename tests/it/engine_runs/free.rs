//! The simulated engine at a pace of its own: sessions think as long as recorded and then ask again.
//!
//! The engine's pace is two medians of the run itself: a step's length and a prompt token's. What the requests meet in
//! the cache is then the simulation's doing, timing included.

use super::{Run, cost};
use laptime::units::{Span, Time};

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(1e-3)
}

impl Run {
    /// Returns the run's median time of a step and of a prompt token, in seconds.
    pub(crate) fn pace(&self) -> (f64, f64) {
        let gaps = |at: &[f64]| -> Vec<f64> { at.windows(2).map(|two| two[1] - two[0]).collect() };
        let steps = self.requests.iter().flat_map(|request| gaps(&request.at));
        let reading = self.requests.iter().filter_map(|request| {
            let (tokens, secs) = request.read.unwrap_or((
                request.call.prompt_tokens.0 - request.cached,
                request.at[0] - request.sent,
            ));
            (tokens >= 64).then(|| secs / tokens as f64)
        });
        (median(steps.collect()), median(reading.collect()))
    }

    /// Returns what the simulated engine has cached of each request when it keeps its own time.
    pub(crate) fn freely(&self) -> Vec<u64> {
        let (step_s, token_s) = self.pace();
        let mut engine = self.setup.backend(&self.content, cost(step_s, token_s));
        let mut cached = vec![0; self.requests.len()];
        // Each session's requests in order, with when the next one is made.
        let sessions = self.requests.iter().map(|r| r.session).max().unwrap() + 1;
        let mut left: Vec<Vec<usize>> = vec![Vec::new(); sessions];
        for (index, request) in self.requests.iter().enumerate().rev() {
            left[request.session].push(index);
        }
        let mut wakes: Vec<(Time, usize)> = (0..sessions)
            .filter_map(|session| Some((session, *left[session].last()?)))
            .map(|(session, first)| {
                (Time::ZERO + Span::from_secs(self.requests[first].sent), session)
            })
            .collect();
        let mut replies = Vec::new();
        loop {
            let wake = wakes.iter().copied().min();
            let now = match (wake, engine.next_event()) {
                (Some((wake, _)), Some(event)) => wake.min(event),
                (Some((only, _)), None) | (None, Some(only)) => only,
                (None, None) => break,
            };
            engine.advance(now, &mut replies);
            for reply in replies.drain(..) {
                let index = reply.call.index();
                cached[index] = reply.cached.0;
                let request = &self.requests[index];
                if let Some(&next) = left[request.session].last() {
                    let think = Span::from_secs((self.requests[next].sent - request.end).max(0.0));
                    wakes.push((now + think, request.session));
                }
            }
            wakes.sort_unstable();
            while wakes.first().is_some_and(|&(wake, _)| wake <= now) {
                let (_, session) = wakes.remove(0);
                let next = left[session].pop().expect("a session that wakes asks");
                engine.submit(now, self.requests[next].call);
            }
        }
        cached
    }
}
