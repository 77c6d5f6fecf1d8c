//! What is said on the standard error: errors, warnings, notes, and progress.
//!
//! Progress is drawn only where a person watches. Nothing here reaches the standard output.

use crate::error::Error;
use crate::event::{Event, Sink};
use crate::trace::read;
use crate::units::{Span, Tokens, three_digits};
use anstyle::{AnsiColor, Style};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[expect(
    clippy::disallowed_types,
    reason = "progress is about real time, and is never part of a result"
)]
type Clock = std::time::Instant;

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Says what went wrong and what to do about it.
pub(super) fn error(error: &Error) {
    line(RED, "error", &error.to_string());
    if let Some(help) = error.help() {
        line(CYAN, "help", help);
    }
}

/// Says what a reader of the answer must know.
pub(super) fn warning(what: &str) {
    line(YELLOW, "warning", what);
}

/// Says something that may be left unsaid.
pub(super) fn note(quiet: bool, what: &str) {
    if !quiet {
        line(CYAN, "note", what);
    }
}

fn line(style: Style, kind: &str, what: &str) {
    // Nobody is left to tell when the standard error is gone.
    let _ = writeln!(anstream::stderr(), "{style}{kind}{style:#}: {what}");
}

/// How far a long piece of work has come.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    total: u64,
    done: AtomicU64,
    began: Clock,
    drawn: Mutex<Clock>,
}

const BETWEEN_LINES: Duration = Duration::from_millis(100);
const BETWEEN_LOG_LINES: Duration = Duration::from_secs(10);

impl Progress {
    /// Returns the progress of `total` calls; it draws nothing when `quiet` or when nobody watches.
    pub(super) fn new(total: u64, quiet: bool) -> Progress {
        let now = Clock::now();
        Progress {
            shown: !quiet && std::io::stderr().is_terminal(),
            total,
            done: AtomicU64::new(0),
            began: now,
            drawn: Mutex::new(now),
        }
    }

    fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        // Asking the clock at every call would cost more than the call.
        if self.shown && done.is_multiple_of(64) {
            self.draw(done);
        }
    }

    fn draw(&self, done: u64) {
        let Ok(mut drawn) = self.drawn.try_lock() else {
            return;
        };
        if drawn.elapsed() < BETWEEN_LINES {
            return;
        }
        *drawn = Clock::now();
        let rate = done as f64 / self.began.elapsed().as_secs_f64();
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{} of {} calls, {} %, {} calls/s",
            Tokens(done),
            Tokens(self.total),
            three_digits(done as f64 / self.total.max(1) as f64 * 100.0),
            Tokens(rate as u64),
        );
    }

    /// Wipes the line.
    pub(super) fn finish(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// How many replays a question has taken so far.
#[derive(Debug)]
pub(super) struct Tried {
    shown: bool,
    /// Nothing where it is not known beforehand.
    total: Option<u64>,
    done: AtomicU64,
    began: Clock,
    drawn: Mutex<Clock>,
}

impl Tried {
    /// Returns a count of replays out of `total` that draws nothing when `quiet`.
    pub(super) fn new(total: Option<u64>, quiet: bool) -> Tried {
        let now = Clock::now();
        Tried {
            shown: !quiet,
            total,
            done: AtomicU64::new(0),
            began: now,
            drawn: Mutex::new(now),
        }
    }

    /// Counts one more, and tells of it now and then: often on a terminal, in a line every ten seconds elsewhere.
    pub(super) fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let terminal = std::io::stderr().is_terminal();
        let between = if terminal {
            BETWEEN_LINES
        } else {
            BETWEEN_LOG_LINES
        };
        let Ok(mut drawn) = self.drawn.try_lock() else {
            return;
        };
        if !self.shown || drawn.elapsed() < between {
            return;
        }
        *drawn = Clock::now();
        let mut told = format!("{} replays", Tokens(done));
        if let Some(total) = self.total {
            let passed = self.began.elapsed().as_secs_f64();
            let left = passed / done as f64 * total.saturating_sub(done) as f64;
            let left = Span::try_from_secs(left).unwrap_or_default();
            told = format!("{} of {} replays, {left} left", Tokens(done), Tokens(total));
        }
        let (begin, end) = if terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let _ = write!(std::io::stderr(), "{begin}{told}{end}");
    }

    /// Wipes the line.
    pub(super) fn finish(&self) {
        if self.shown && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// How far the reading of traces has come.
#[derive(Debug)]
pub(super) struct Reading {
    shown: bool,
    drawn: Clock,
}

impl Reading {
    /// Returns a reading that draws nothing when `quiet` or when nobody watches.
    pub(super) fn new(quiet: bool) -> Reading {
        Reading {
            shown: !quiet && std::io::stderr().is_terminal(),
            drawn: Clock::now(),
        }
    }

    /// Draws where the reading is.
    pub(super) fn tell(&mut self, at: read::Progress<'_>) {
        if !self.shown || self.drawn.elapsed() < BETWEEN_LINES {
            return;
        }
        self.drawn = Clock::now();
        let name = at.file.file_name().unwrap_or(at.file.as_os_str());
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[Kreading file {} of {}, {}: {} calls",
            at.index + 1,
            at.files,
            name.to_string_lossy(),
            Tokens(at.steps),
        );
    }

    /// Wipes the line.
    pub(super) fn finish(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Counts the calls that end, and passes events on.
#[derive(Debug)]
pub(super) struct Watched<'p, S> {
    progress: &'p Progress,
    then: Option<S>,
}

impl<'p, S: Sink> Watched<'p, S> {
    /// Returns a sink that counts into `progress` and hands events to `then`.
    pub(super) fn new(progress: &'p Progress, then: Option<S>) -> Watched<'p, S> {
        Watched { progress, then }
    }

    /// Returns the sink behind it.
    pub(super) fn into_inner(self) -> Option<S> {
        self.then
    }
}

impl<S: Sink> Sink for Watched<'_, S> {
    fn event(&mut self, event: Event) {
        if matches!(event, Event::Answered { .. }) {
            self.progress.one_more();
        }
        if let Some(then) = &mut self.then {
            then.event(event);
        }
    }
}
