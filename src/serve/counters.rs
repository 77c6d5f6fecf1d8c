//! What `/metrics` tells, under the names that clients of vLLM look for.

use crate::call::Reply;
use crate::rig::Load;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the start.
#[derive(Default, Debug)]
pub(super) struct Counters {
    /// Calls made so far, to number them.
    calls: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    output: AtomicU64,
    stopped: AtomicU64,
    cut: AtomicU64,
    /// Nanoseconds of the rig's time, and answers they were summed over.
    first_token: AtomicU64,
    whole: AtomicU64,
    answers: AtomicU64,
}

impl Counters {
    /// Returns the number of the next call.
    pub(super) fn next(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts an answer; `ended` by itself, or at a limit.
    pub(super) fn count(&self, prompt: u64, reply: &Reply, ended: bool) {
        let add = |counter: &AtomicU64, number: u64| {
            counter.fetch_add(number, Ordering::Relaxed);
        };
        add(&self.prompt, prompt);
        add(&self.cached, reply.cached.0);
        add(&self.output, reply.output.0);
        add(if ended { &self.stopped } else { &self.cut }, 1);
        let first = reply.first_token.unwrap_or(reply.finished);
        add(&self.first_token, (first - reply.submitted).0);
        add(&self.whole, (reply.finished - reply.submitted).0);
        add(&self.answers, 1);
    }

    /// Returns the text that Prometheus reads.
    pub(super) fn text(&self, model: &str, load: Load) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let nanos = |counter: &AtomicU64| of(counter) / 1e9;
        let escaped = model.replace('\\', "\\\\").replace('"', "\\\"");
        let label = format!("model_name=\"{escaped}\"");
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, lines: &[(&str, &str, f64)]| {
            let _ = writeln!(text, "# TYPE vllm:{name} {kind}");
            for (suffix, more, value) in lines {
                let _ = writeln!(text, "vllm:{name}{suffix}{{{label}{more}}} {value}");
            }
        };
        let gauge = |value| [("", "", value)];
        family("num_requests_running", "gauge", &gauge(load.running as f64));
        family("num_requests_waiting", "gauge", &gauge(load.waiting as f64));
        if let Some(used) = load.used {
            family("kv_cache_usage_perc", "gauge", &gauge(used));
        }
        let counter = |value| [("_total", "", value)];
        family("prompt_tokens", "counter", &counter(of(&self.prompt)));
        family("generation_tokens", "counter", &counter(of(&self.output)));
        family(
            "prefix_cache_queries",
            "counter",
            &counter(of(&self.prompt)),
        );
        family("prefix_cache_hits", "counter", &counter(of(&self.cached)));
        let ends = [
            ("_total", ",finished_reason=\"stop\"", of(&self.stopped)),
            ("_total", ",finished_reason=\"length\"", of(&self.cut)),
        ];
        family("request_success", "counter", &ends);
        let answers = of(&self.answers);
        for (name, sum) in [
            ("time_to_first_token_seconds", nanos(&self.first_token)),
            ("e2e_request_latency_seconds", nanos(&self.whole)),
        ] {
            family(
                name,
                "summary",
                &[("_sum", "", sum), ("_count", "", answers)],
            );
        }
        text
    }
}
