//! What came of a replay as plain rows and sums, be it just made or read from a result document.
//!
//! Every question that is asked of results is asked of these, so a live result answers wherever a simulated one does.

use super::economy::Prices;
use super::replay::{Replay, Workload};
use super::rig::{self, RigError};
use crate::catalog::Catalog;
use crate::fleet::Plan;
use crate::ids::{CallId, RunId};
use crate::metrics::lap::LapParts;
use crate::metrics::{CallRow, RunRow, Summary};
use crate::operating_point::OperatingPoint;
use crate::trace::Trace;
use crate::units::{Span, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lap {
    /// Which.
    pub lap: crate::event::LapKey,
    /// Its first call.
    pub call: CallId,
    /// The submission of its first call.
    pub start: Time,
    /// Where its time went.
    pub parts: LapParts,
}

/// The rows behind a summary.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    /// Laps, by start.
    pub laps: Vec<Lap>,
    /// Calls, by submission.
    pub calls: Vec<CallRow>,
}

/// A result: what it holds for, what was replayed, and what came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Figures {
    /// What the figures hold for.
    pub point: OperatingPoint,
    /// What was replayed.
    pub workload: Workload,
    /// The figures over all rows.
    pub summary: Summary,
    /// The runs, by name.
    pub runs: Vec<RunRow>,
    /// The rows; nothing where a document left them out.
    pub rows: Option<Rows>,
    /// Whether what came from the cache is known; some engines do not tell, and then it counts as nothing above.
    pub tells_cached: bool,
}

/// Names the same run of the same session in every replay of a trace: the session, and which of its copies.
pub type RunKey = (Arc<str>, u32);

impl Figures {
    /// Returns the figures of a replay that has just been made.
    pub fn of(replay: &Replay<'_>) -> Figures {
        let metrics = &replay.metrics;
        let lap = |row: crate::metrics::LapRow<'_>| Lap {
            lap: row.lap,
            call: row.call,
            start: row.start,
            parts: row.parts,
        };
        Figures {
            point: replay.point.clone(),
            workload: replay.workload.clone(),
            summary: metrics.summary.clone(),
            runs: metrics.runs.clone(),
            rows: Some(Rows {
                laps: metrics.laps().map(lap).collect(),
                calls: metrics.calls().collect(),
            }),
            tells_cached: replay.live.as_ref().is_none_or(|live| live.tells_cached()),
        }
    }

    /// Returns the name of the session that a run replays.
    pub fn session(&self, run: RunId) -> &str {
        let row = self.runs.iter().find(|row| row.run == run);
        let name = row.and_then(|row| self.workload.sessions.get(row.session as usize));
        name.map_or("", |name| name)
    }

    /// Returns what each run is called in every replay of the same trace.
    pub fn run_keys(&self) -> BTreeMap<RunId, RunKey> {
        let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
        let key = |row: &RunRow| {
            let copy = copies.entry(row.session).or_default();
            *copy += 1;
            let name = self.workload.sessions.get(row.session as usize);
            (row.run, (name.cloned().unwrap_or_default(), *copy - 1))
        };
        self.runs.iter().map(key).collect()
    }

    /// Returns how long each run took that has ended.
    pub fn run_spans(&self) -> BTreeMap<RunKey, Span> {
        let keys = self.run_keys();
        let ended = self.runs.iter().filter_map(|row| Some((row, row.end?.0)));
        ended
            .map(|(row, end)| (keys[&row.run].clone(), end - row.start))
            .collect()
    }

    /// Returns whether the figures would come out the same again.
    pub fn exact(&self) -> bool {
        self.point.kind == crate::operating_point::Kind::Simulated
    }
}

/// What stays the same while a question is asked of many rigs and plans.
#[derive(Debug)]
pub struct Ground<'g> {
    /// What is replayed, with the habits of the agent applied.
    pub trace: &'g Trace,
    /// The habits that were applied, by their full keys.
    pub habits: BTreeMap<String, String>,
    /// What electricity, machines and APIs cost.
    pub prices: Prices,
    /// Where rigs are looked up.
    pub catalog: &'g Catalog,
    /// Where random choices begin.
    pub seed: u64,
}

/// A rig by its name, with its settings.
pub type RigSpec = (String, Vec<(String, String)>);

impl Ground<'_> {
    /// Replays on the rig that `spec` names: the one evaluation that every question asks for.
    pub fn evaluate(&self, (spec, settings): &RigSpec, plan: Plan) -> Result<Figures, RigError> {
        let rig = rig::build_for(spec, settings, self.catalog, self.trace)?;
        let mut workload = Workload::new(self.trace, plan, self.seed);
        workload.settings.clone_from(&self.habits);
        workload.prices = self.prices;
        let replay = super::replay::replay(self.trace, &workload, rig, &mut Vec::new());
        Ok(Figures::of(&replay))
    }
}
