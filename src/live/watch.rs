//! The client watched by itself: was it ever too slow to see what it measured?

use super::clock::Clock;
use super::measured::Measured;
use crate::metrics::stats::Quantiles;
use crate::units::{Span, Time};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the event loop is asked whether it is on time.
const EVERY: Duration = Duration::from_millis(5);

/// Takes notes while a replay runs.
#[derive(Debug)]
pub struct Watch {
    clock: Clock,
    lags: Arc<Mutex<Vec<Span>>>,
    task: JoinHandle<()>,
    began: (Time, Option<Span>),
}

/// How the client fared. Nothing stands for what this system does not tell.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Health {
    /// How late the event loop was.
    pub loop_lag: Option<Quantiles>,
    /// How late calls were given to their connection, against when they were due.
    pub send_lag: Option<Quantiles>,
    /// The processor time of this process, in cores.
    pub cores: Option<f64>,
    /// How many connections were opened.
    pub connections: u64,
    /// The lag from which on a replay is not valid.
    pub limit: Span,
    /// Why the replay is not valid; empty when it is.
    pub bound: Vec<String>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(clock: Clock) -> Watch {
        let lags = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&lags);
        let task = tokio::spawn(async move {
            loop {
                let due = tokio::time::Instant::now() + EVERY;
                tokio::time::sleep_until(due).await;
                if let Ok(mut notes) = notes.lock() {
                    notes.push(Span(due.elapsed().as_nanos() as u64));
                }
            }
        });
        Watch {
            clock,
            lags,
            task,
            began: (clock.now(), processor_time()),
        }
    }

    /// Ends watching and says how it went. `limit` is the lag that is allowed where first tokens come fast.
    pub fn finish<'m>(
        self,
        calls: impl Iterator<Item = &'m Measured> + Clone,
        ttft: Option<Span>,
        limit: Span,
    ) -> Health {
        self.task.abort();
        let mut lags = self.lags.lock().map(|mut lags| std::mem::take(&mut *lags));
        let mut lags = lags.as_mut().map(std::mem::take).unwrap_or_default();
        let mut sends: Vec<Span> = calls.clone().map(Measured::lag).collect();
        let took = self.clock.now() - self.began.0;
        let used = processor_time().zip(self.began.1);
        // One in a hundred first tokens may be as late as this without anybody being misled.
        let limit = limit.max(Span(ttft.unwrap_or_default().0 / 100));
        let mut health = Health {
            cores: used.map(|(now, then)| now.saturating_sub(then).secs() / took.secs()),
            connections: calls.filter(|call| call.connect.is_some()).count() as u64,
            limit,
            ..Health::default()
        };
        // Of less than a hundred calls one alone does not decide.
        let (few, which) = if sends.len() < 100 {
            (true, "p90")
        } else {
            (false, "p99")
        };
        health.send_lag = Quantiles::of(&mut sends);
        health.loop_lag = Quantiles::of(&mut lags);
        let sent = health
            .send_lag
            .map(|lag| if few { lag.p90 } else { lag.p99 });
        if let Some(lag) = sent.filter(|lag| *lag > limit) {
            let why = format!("calls went out late: {which} {lag}, allowed {limit}");
            health.bound.push(why);
        }
        if let Some(lag) = health
            .loop_lag
            .map(|lag| lag.p99)
            .filter(|lag| *lag > limit)
        {
            let why = format!("the event loop was late: p99 {lag}, allowed {limit}");
            health.bound.push(why);
        }
        if let Some(cores) = health.cores.filter(|cores| *cores > MOST_CORES) {
            health
                .bound
                .push(format!("the client used {cores:.2} of the one core it can"));
        }
        health
    }
}

/// The event loop is one thread; beyond this it is never idle long enough to be on time.
const MOST_CORES: f64 = 0.9;

/// Returns the processor time of this process so far, where the system tells.
pub fn processor_time() -> Option<Span> {
    #[cfg(unix)]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(Span(
            spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64,
        ))
    }
    #[cfg(not(unix))]
    None
}
