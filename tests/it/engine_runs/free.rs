//! The simulated engine at a pace of its own: sessions think as long as recorded and then ask again.
//!
//! The engine's pace is fitted to times of the run itself. What the requests meet in the cache is then the
//! simulation's doing, timing included.

use super::{Run, Setup, cost};
use laptime::units::{Span, Time};

/// How often the pace is corrected.
const FITS: usize = 16;
/// By what the pace found so is multiplied, or divided, to look for a nearer one.
const NEAR: f64 = 1.15;
/// Times below this are as good as equal.
const SMALL_S: f64 = 0.02;

/// What a simulation at some pace comes to.
struct Simulated {
    cached: Vec<u64>,
    /// By which share of the longer one the calls' times are off the recorded ones, or those off them, in the mean.
    off: f64,
    /// The median time until the first token, and from there to the end.
    first: f64,
    rest: f64,
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(1e-3)
}

impl Run {
    /// Returns what the simulated engine has cached of each request when it keeps its own time.
    ///
    /// Its two costs are those with which its times come nearest to the recorded ones: until the first token, and from
    /// there to the end.
    pub(crate) fn freely(&self) -> Vec<u64> {
        let first = median(self.requests.iter().map(|r| r.at[0] - r.sent));
        let rest = median(self.requests.iter().map(|r| r.end - r.at[0]));
        let (mut step_s, mut token_s) = self.pace();
        let mut nearest: Option<(f64, Simulated, (f64, f64))> = None;
        for _ in 0..FITS {
            let simulated = self.freely_at(step_s, token_s);
            let (a, b) = (first / simulated.first, rest / simulated.rest.max(1e-9));
            let off = (a - 1.0).abs() + (b - 1.0).abs();
            if nearest.as_ref().is_none_or(|(least, ..)| off < *least) {
                nearest = Some((off, simulated, (step_s, token_s)));
            }
            token_s *= a.sqrt();
            step_s *= b.sqrt();
        }
        let (_, mut nearest, (mut step_s, mut token_s)) = nearest.expect("a pace was tried");
        // A step of vLLM is one pass. Fitted to every call it is nearer in one run and farther in another, which would then
        // be 22.5 % off in its total where 20 % are allowed.
        if matches!(self.setup, Setup::Vllm(_)) {
            return nearest.cached;
        }
        // Steps of llama.cpp are of one to several passes, so two medians do not say how long a pass takes: from there on
        // every call counts.
        for _ in 0..FITS {
            let around = [1.0 / NEAR, 1.0, NEAR]
                .map(|step| [1.0 / NEAR, 1.0, NEAR].map(|token| (step, token)));
            let tried = around.into_iter().flatten().map(|(step, token)| {
                let pace = (step_s * step, token_s * token);
                (self.freely_at(pace.0, pace.1), pace)
            });
            let best = tried.min_by(|a, b| a.0.off.total_cmp(&b.0.off));
            let Some((best, pace)) = best.filter(|(best, _)| best.off < nearest.off) else {
                break;
            };
            (nearest, (step_s, token_s)) = (best, pace);
        }
        nearest.cached
    }

    /// Returns a first guess of the time of a step and of a prompt token, in seconds.
    fn pace(&self) -> (f64, f64) {
        let long = self.requests.iter().filter(|r| r.at.len() > 1);
        let step = long.map(|r| (r.end - r.at[0]) / (r.at.len() - 1) as f64);
        let reading = self.requests.iter().filter_map(|request| {
            let (tokens, secs) = request.read.unwrap_or((
                request.call.prompt_tokens.0 - request.cached,
                request.at[0] - request.sent,
            ));
            (tokens >= 64).then(|| secs / tokens as f64)
        });
        (median(step), median(reading))
    }

    fn freely_at(&self, step_s: f64, token_s: f64) -> Simulated {
        let (mut first, mut rest, mut off) = (Vec::new(), Vec::new(), Vec::new());
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
                (
                    Time::ZERO + Span::from_secs(self.requests[first].sent),
                    session,
                )
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
                let answered = reply.first_token.expect("it was answered");
                first.push((answered - reply.submitted).secs());
                rest.push((reply.finished - answered).secs());
                let request = &self.requests[index];
                let recorded = [request.at[0] - request.sent, request.end - request.at[0]];
                let simulated = [first[first.len() - 1], rest[rest.len() - 1]];
                for (one, other) in simulated.into_iter().zip(recorded) {
                    let ratio = (one + SMALL_S) / (other + SMALL_S);
                    off.push(1.0 - ratio.min(1.0 / ratio));
                }
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
        Simulated {
            cached,
            off: off.iter().sum::<f64>() / off.len() as f64,
            first: median(first),
            rest: median(rest),
        }
    }
}
