//! The kinds of sessions that given ones are: their statistics as rows, fresh and resumed sessions apart.
//!
//! What comes back from sub-agents is in the answers of those, so requests behind them tell nothing about growth.

use super::children::Children;
use super::dependence::{self, Own};
use super::preset::{Break, Compaction, Early, HeadPart, Kind, Mix, ModelTime, Turn};
use super::row::Row;
use crate::trace::content::{Content, ROOT};
use crate::trace::{Ending, Gap, Session, Step, Trace};

/// What a break loses at least to count as more than a changed tail, as `inspect` has it.
const TAIL: u64 = 1_024;
/// The waits by which the chance of a break is counted, in seconds.
const WAITS: [f64; 6] = [10.0, 60.0, 300.0, 3_600.0, 43_200.0, 1e12];

/// Returns what the sessions of a trace are like; nothing where no session can be followed.
pub fn fit(trace: &Trace) -> Option<Mix> {
    let all = trace.sessions.len();
    let mut kinds = Vec::new();
    for resumed in [false, true] {
        let sessions: Vec<&Session> = trace
            .sessions
            .iter()
            .filter(|session| session.resumed == resumed)
            .collect();
        let share = sessions.len() as f64 / all.max(1) as f64;
        let mut gathered = Gathered::default();
        for session in &sessions {
            gathered.session(&trace.content, session);
        }
        if let Some(kind) = gathered.kind(resumed, sessions.len()) {
            kinds.push((share, kind));
        }
    }
    (!kinds.is_empty()).then_some(Mix(kinds))
}

/// Values of one way to go on.
#[derive(Default)]
pub(super) struct Follow {
    pub(super) new: Vec<f64>,
    tool: Vec<f64>,
    client: Vec<f64>,
    human: Vec<f64>,
    unknown: Vec<f64>,
}

impl Follow {
    pub(super) fn waits(&mut self, gap: &Gap) {
        for (list, span) in [
            (&mut self.tool, gap.tool),
            (&mut self.client, gap.client),
            (&mut self.human, gap.human),
            (&mut self.unknown, gap.unknown),
        ] {
            list.push(span.secs());
        }
    }

    pub(super) fn turn(self, said: &str) -> Option<Turn> {
        Some(Turn {
            new: Row::of(said, self.new)?,
            tool: Row::of(said, self.tool),
            client: Row::of(said, self.client),
            human: Row::of(said, self.human),
            unknown: Row::of(said, self.unknown),
        })
    }
}

/// How many requests after a session's first one are its early ones.
const EARLY: usize = 2;

/// A break of one class: its sizes, and how often it came after which wait.
#[derive(Default)]
struct Broken {
    kept: Vec<f64>,
    lost: Vec<f64>,
    size: Vec<f64>,
    again: u64,
    after: [f64; WAITS.len()],
}

#[derive(Default)]
struct Gathered {
    turns: Vec<f64>,
    first: Vec<f64>,
    heads: Vec<f64>,
    /// Requests from one message of a person to the next; and from the last one to where the recording ends.
    runs: Vec<f64>,
    cut: Vec<f64>,
    output: Vec<f64>,
    tool: Follow,
    user: Follow,
    tail: Broken,
    rewritten: Broken,
    shrunk: Broken,
    shrunk_from: Vec<f64>,
    shrunk_wait: Vec<f64>,
    /// The largest prompts of sessions that never shrank.
    never: Vec<f64>,
    /// Requests after each of the waits.
    after: [f64; WAITS.len()],
    /// Prompt in thousands, answer, and seconds.
    model: Vec<(f64, f64, f64)>,
    own: Vec<Own>,
    children: Children,
}

impl Gathered {
    fn session(&mut self, content: &Content, session: &Session) {
        let Some(main) = session.threads.first() else {
            return;
        };
        let steps = &main.steps;
        let Some(first) = steps.first() else {
            return;
        };
        self.turns.push(steps.len() as f64);
        self.first.push(first.prompt_tokens.as_f64());
        let head = content
            .upwards(first.prompt)
            .find(|&node| content.is_head(node))
            .unwrap_or(ROOT);
        self.heads.push(content.end(head).as_f64());
        self.children.session(content, session);
        self.own.push(Own {
            turns: steps.len() as f64,
            first: first.prompt_tokens.as_f64(),
            pairs: Vec::new(),
        });
        let (mut run, mut shrank) = (0.0, false);
        for (at, step) in steps.iter().enumerate() {
            run += 1.0;
            let last = at + 1 == steps.len();
            if step.gap.after == Ending::EndOfTurn && !last {
                self.runs.push(run);
                run = 0.0;
            }
            self.output.push(step.output_tokens.as_f64());
            if let Some(model) = step.recorded.model() {
                self.model.push((
                    step.prompt_tokens.as_f64() / 1e3,
                    step.output_tokens.as_f64(),
                    model.secs(),
                ));
            }
            if let Some(next) = steps.get(at + 1) {
                shrank |= self.pair(content, step, next);
            }
        }
        // Whether a last answer ended a run is not always recorded; that the session ended says nothing about its run.
        self.cut.push(run);
        if !shrank {
            let largest = steps.iter().map(|step| step.prompt_tokens.0).max();
            self.never.push(largest.unwrap_or(0) as f64);
        }
    }

    /// Takes two requests that follow each other; returns whether the prompt shrank.
    fn pair(&mut self, content: &Content, step: &Step, next: &Step) -> bool {
        let gap = &step.gap;
        let secs = (gap.tool + gap.client + gap.human + gap.unknown).secs();
        let joined = !gap.joins.is_empty();
        let class = WAITS
            .iter()
            .position(|below| secs < *below)
            .unwrap_or(WAITS.len() - 1);
        let (before, now) = (step.prompt_tokens.0, next.prompt_tokens.0);
        let kept = content
            .end(content.meeting(step.output, next.prompt))
            .0
            .min(before);
        let lost = before - kept;
        let shrunk = lost > 0 && now * 10 < before * 9;
        if !shrunk {
            self.after[class] += 1.0;
        }
        let follow = if gap.after == Ending::EndOfTurn {
            &mut self.user
        } else {
            &mut self.tool
        };
        if !shrunk && !joined {
            follow.waits(gap);
        }
        if lost == 0 {
            if !joined {
                let new = (now - before) as f64;
                follow.new.push(new);
                if let Some(own) = self.own.last_mut().filter(|_| new > 0.0) {
                    let answer = step.output_tokens.as_f64().max(1.0);
                    own.pairs.push((libm::log(answer), libm::log(new)));
                }
            }
            return false;
        }
        let broken = match (shrunk, lost <= TAIL) {
            (true, _) => &mut self.shrunk,
            (false, true) => &mut self.tail,
            (false, false) => &mut self.rewritten,
        };
        broken.kept.push(kept.max(1) as f64);
        broken.lost.push(lost as f64);
        broken.size.push(now as f64 / before as f64);
        broken.again += u64::from(next.again.0 > 0);
        broken.after[class] += 1.0;
        if shrunk {
            self.shrunk_from.push(before as f64);
            self.shrunk_wait.push(secs);
        }
        shrunk
    }

    fn kind(self, resumed: bool, sessions: usize) -> Option<Kind> {
        let name = if resumed { "like-resumed" } else { "like" };
        let requests = self.output.len();
        let said = format!("{sessions} sessions of {requests} requests");
        let row = |values: Vec<f64>| Row::of(&said, values);
        let compaction = compaction(
            &said,
            &self.shrunk_from,
            self.shrunk_wait,
            self.shrunk,
            &self.never,
        );
        let breaks = [("tail", self.tail), ("rewritten", self.rewritten)];
        let breaks = breaks
            .into_iter()
            .filter_map(|(name, broken)| hazard(&said, name, broken, &self.after));
        let head = row(self.heads).map(|tokens| HeadPart {
            kind: "system".to_string(),
            tokens,
            versions: 8,
        });
        let user_turn = self.user.turn(&said);
        let early = dependence::early(&self.own, EARLY).filter(|_| !resumed);
        Some(Kind {
            name: name.to_string(),
            about: format!("fitted to {said}"),
            model: None,
            resumed,
            turns: row(self.turns)?,
            first: row(self.first)?,
            window: None,
            run: row(dependence::lasting(&self.runs, &self.cut)),
            output: row(self.output)?,
            // A session of one request goes on in no way; any will do.
            tool_turn: self.tool.turn(&said).or_else(|| user_turn.clone())?,
            user_turn,
            alike: dependence::alike(&said, &self.own),
            early: early.map(|more| Early {
                source: said.clone(),
                requests: EARLY as u64,
                more,
            }),
            model_time: model_time(&said, &self.model),
            head: head.into_iter().collect(),
            breaks: breaks.collect(),
            compaction,
            agents: self.children.agents(&said),
        })
    }
}

fn compaction(
    said: &str,
    from: &[f64],
    wait: Vec<f64>,
    shrunk: Broken,
    never: &[f64],
) -> Option<Compaction> {
    let mut sorted = from.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let usual = *sorted.get(sorted.len() / 2)?;
    let beyond = never.iter().filter(|largest| **largest > usual).count() as f64;
    let largest = never.iter().copied().fold(usual, f64::max);
    Some(Compaction {
        full: Row::of(said, sorted.clone())?,
        source: said.to_string(),
        large: beyond / (never.len() + sorted.len()) as f64,
        large_full: 2.0 * largest,
        kept: Row::of(said, shrunk.kept)?,
        size: Row::of(said, shrunk.size)?,
        wait: Row::of(said, wait)?,
    })
}

fn hazard(said: &str, name: &str, broken: Broken, after: &[f64; WAITS.len()]) -> Option<Break> {
    let count = broken.lost.len();
    let chances = WAITS.iter().zip(broken.after).zip(after);
    let chance =
        chances.map(|((below, broken), all)| (*below, if *all > 0.0 { broken / all } else { 0.0 }));
    let tail = name == "tail";
    Some(Break {
        name: name.to_string(),
        source: said.to_string(),
        chance: chance.collect(),
        lost: Some(Row::of(said, broken.lost)?).filter(|_| tail),
        kept: Row::of(said, broken.kept).filter(|_| !tail),
        size: Row::of(said, broken.size).filter(|_| !tail),
        again: broken.again as usize * 2 > count,
    })
}

/// Fits seconds to a constant, the prompt and the answer, by least relative squares; the rest is spread.
fn model_time(said: &str, points: &[(f64, f64, f64)]) -> Option<ModelTime> {
    let points: Vec<(f64, f64, f64)> = points
        .iter()
        .copied()
        .filter(|point| point.2 > 0.0)
        .collect();
    if points.is_empty() {
        return None;
    }
    let mut sums = [[0.0; 4]; 3];
    for &(prompt, answer, secs) in &points {
        let terms = [1.0 / secs, prompt / secs, answer / secs];
        for (row, left) in sums.iter_mut().zip(terms) {
            for (sum, right) in row.iter_mut().zip(terms.into_iter().chain([1.0])) {
                *sum += left * right;
            }
        }
    }
    let found = solve(sums).filter(|found| found.iter().all(|term| *term >= 0.0));
    // Where the terms cannot be told apart, the mean time of a token of an answer stands for all.
    let mean = points.iter().map(|point| point.2).sum::<f64>()
        / points.iter().map(|point| point.1 + 1.0).sum::<f64>();
    let [base, prompt, output] = found.unwrap_or([mean, 0.0, mean]);
    let spread = points
        .iter()
        .map(|&(k, answer, secs)| secs / (base + prompt * k + output * answer).max(1e-9));
    Some(ModelTime {
        source: said.to_string(),
        base,
        prompt,
        prompt_squared: 0.0,
        output,
        output_prompt: 0.0,
        spread: Row::of(said, spread.collect()),
    })
}

/// Solves three equations by elimination; nothing where they do not determine their unknowns.
fn solve(mut rows: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for at in 0..3 {
        let pivot = rows[at][at];
        if pivot.abs() < 1e-12 {
            return None;
        }
        let own = rows[at].map(|value| value / pivot);
        for row in &mut rows {
            let factor = row[at];
            for (value, mine) in row.iter_mut().zip(own) {
                *value -= factor * mine;
            }
        }
        rows[at] = own;
    }
    Some([rows[0][3], rows[1][3], rows[2][3]])
}
