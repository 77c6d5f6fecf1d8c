//! Replays on real engines for a question, one after the other: each is kept on disk, and taken from there the next time.

use super::edge::now_unix_us;
use super::live::{Flags, once, verdict};
use super::output::Target;
use super::results;
use crate::error::Error;
use crate::live::clock::Clock;
use crate::live::{Ending, Interrupts};
use crate::report::{document, json};
use crate::study::compare;
use crate::study::figures::Figures;
use crate::study::live::Met;
use crate::study::replay::Workload;
use crate::trace::Trace;
use crate::units::{Span, Time};
use clap::Args;
use std::fs;
use std::path::PathBuf;

/// What can be said of a question that real engines answer.
#[derive(Args, Debug)]
#[command(next_help_heading = "Live")]
#[group(id = "turns_asked")]
pub(super) struct Asked {
    #[command(flatten)]
    flags: Flags,
    /// A folder that keeps what is measured; a second call with it goes on from there.
    #[arg(long, value_name = "DIR", requires = "url")]
    out: Option<PathBuf>,
}

/// One replay that was measured.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) figures: Figures,
    /// Its result document.
    pub(super) document: String,
}

impl Taken {
    fn of(document: String) -> Result<Taken, String> {
        let figures = document::read(document.as_bytes())?.pop();
        let figures = figures.ok_or("it holds no result")?;
        Ok(Taken { figures, document })
    }
}

/// Takes turns on engines.
#[derive(Debug)]
pub(super) struct Turns<'t> {
    asked: &'t Asked,
    trace: &'t Trace,
    quiet: bool,
    interrupts: Interrupts,
    clock: Clock,
    /// The number of the next content. Engines may still have in their cache what an earlier process has sent.
    content: u32,
}

impl<'t> Turns<'t> {
    /// Returns turns that begin now, on a runtime that waits for events.
    pub(super) fn new(asked: &'t Asked, trace: &'t Trace, quiet: bool) -> Turns<'t> {
        Turns {
            asked,
            trace,
            quiet,
            interrupts: Interrupts::of_process(),
            clock: Clock::start(),
            // A thousand of them for every second.
            content: now_unix_us().map_or(0, |now| (now / 1000) as u32),
        }
    }

    /// Meets the engine at `url`.
    pub(super) async fn meet(&self, url: &str) -> Result<Met, Error> {
        self.asked.flags.met(url, self.quiet).await
    }

    /// Returns how much time has passed.
    pub(super) fn spent(&self) -> Span {
        self.clock.now() - Time::ZERO
    }

    /// Returns a number of content that no engine has seen.
    pub(super) fn fresh(&mut self) -> u32 {
        self.content = self.content.wrapping_add(1);
        self.content
    }

    /// Returns what was measured by that name before, if it was measured of the same.
    pub(super) fn kept(
        &self,
        name: &str,
        met: &Met,
        of: &Workload,
    ) -> Result<Option<Taken>, Error> {
        let Some(path) = self
            .asked
            .out
            .as_ref()
            .map(|out| out.join(name).join(RESULT))
        else {
            return Ok(None);
        };
        if !path.exists() {
            return Ok(None);
        }
        let wrong = |why: String| {
            Error::input(format!("{}: {why}", path.display()))
                .with_help("remove it, and it is measured again")
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let taken = Taken::of(text).map_err(wrong)?;
        let now = Figures {
            point: met.point().clone(),
            workload: of.clone(),
            ..taken.figures.clone()
        };
        let differences = compare::differences(&[taken.figures.clone(), now]);
        if differences.is_empty() {
            return Ok(Some(taken));
        }
        let told = results::told(&differences);
        Err(Error::usage(format!(
            "{} was measured of something else: it differs in {told}",
            path.display()
        ))
        .with_help("name another folder with --out"))
    }

    /// Replays `of` once and keeps it by that name. Nothing is returned where it did not end `within` that time.
    pub(super) async fn take(
        &mut self,
        name: &str,
        met: &Met,
        of: &Workload,
        content: u32,
        within: Option<Span>,
    ) -> Result<Option<Taken>, Error> {
        let mut workload = of.clone();
        self.asked.flags.join(&mut workload.plan.conduct);
        let folder = self.asked.out.as_ref().map(|out| out.join(name));
        let timer = within.map(|within| self.interrupts.after(within));
        let from = self.spent();
        let turn = (self.trace, &workload);
        let interrupts = &mut self.interrupts;
        let replayed = once(
            met,
            turn,
            content,
            folder.as_deref(),
            self.quiet,
            interrupts,
        )
        .await?;
        if let Some(timer) = timer {
            timer.abort();
        }
        let ending = replayed.live.as_ref().map(|live| live.ending);
        let late = within.is_some_and(|within| self.spent().saturating_sub(from) >= within);
        if ending == Some(Ending::Drained) && late {
            return Ok(None);
        }
        verdict(std::slice::from_ref(&replayed))?;
        let mut bytes = Vec::new();
        let path = folder.map(|folder| folder.join(RESULT));
        let shown = path.clone().unwrap_or_default();
        let written = json::write(&mut bytes, &[replayed], true);
        written.map_err(|source| Error::write(&shown, source))?;
        if let Some(path) = path {
            Target::open(&path)?.write(|out| out.write_all(&bytes))?;
        }
        let text = String::from_utf8_lossy(&bytes).trim_end().to_string();
        let taken = Taken::of(text);
        taken
            .map(Some)
            .map_err(|why| Error::input(format!("the result cannot be used: {why}")))
    }
}

const RESULT: &str = "result.json";
