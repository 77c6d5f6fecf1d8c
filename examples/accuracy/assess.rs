//! Fits every point and says how far it is off: on what it was fitted to, and on what was left out.

use super::points::{self, FLEET, FleetPoint, RECORDED, SECOND_ROW, shares_of_may};
use super::tables::{Cell, SharedTurn, Tables, Turn};
use laptime::catalog::Catalog;
use laptime::rig::Backend as _;
use laptime::rig::cost::{Coefficients, Graph, StepCost};
use laptime::rig::engine::vllm::Vllm;
use laptime::rig::step::StepLoop;
use laptime::study::calibrate::schedule::{Server, Size, calls, cold_batch};
use laptime::study::calibrate::{Observation, Problem, between, predict};
use laptime::units::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that was found.
pub(crate) struct Found {
    pub(crate) fleet: Vec<Fleet>,
    pub(crate) recorded: Vec<Recorded>,
    pub(crate) shared: Vec<SharedRun>,
    pub(crate) shared_turns: Vec<f64>,
}

/// A fitted point of the fleet study.
pub(crate) struct Fleet {
    pub(crate) point: &'static FleetPoint,
    pub(crate) version: String,
    pub(crate) coefficients: Coefficients,
    pub(crate) cells: Vec<CellErrors>,
}

/// Errors of one cell, as predicted / measured - 1.
pub(crate) struct CellErrors {
    pub(crate) cell: Cell,
    pub(crate) fitted: f64,
    /// The cell left out of the fit, every answer of the mean length.
    pub(crate) held_out: f64,
    /// The same with the longest answer reaching its limit.
    pub(crate) held_out_uneven: f64,
    /// Reading the prompt, and decoding, for a sequence alone.
    pub(crate) prompt: Option<f64>,
    pub(crate) decode: Option<f64>,
}

/// A model whose agents were recorded.
pub(crate) struct Recorded {
    pub(crate) model: &'static str,
    pub(crate) coefficients: Coefficients,
    /// The states of the machine, by name, where there is more than one.
    pub(crate) states: BTreeMap<String, State>,
    pub(crate) runs: Vec<RunErrors>,
}

/// The machine as it was in one month.
pub(crate) struct State {
    pub(crate) coefficients: Coefficients,
    pub(crate) runs: Vec<RunErrors>,
}

/// Errors of one run's model time and of its turns, as predicted / measured - 1.
#[derive(Clone)]
pub(crate) struct RunErrors {
    pub(crate) run: String,
    pub(crate) state: String,
    pub(crate) measured_s: f64,
    pub(crate) fitted: f64,
    pub(crate) held_out: Option<f64>,
    pub(crate) turns: Vec<f64>,
    pub(crate) held_out_turns: Vec<f64>,
}

/// A run that shared its engine, replayed together with the others.
pub(crate) struct SharedRun {
    pub(crate) run: String,
    pub(crate) measured_s: f64,
    pub(crate) error: f64,
}

/// Fits and judges everything.
pub(crate) fn assess(tables: &Tables) -> Found {
    let catalog = Catalog::builtin();
    let fleet = FLEET
        .iter()
        .map(|point| fleet(point, tables, &catalog))
        .collect();
    let recorded: Vec<Recorded> = RECORDED
        .iter()
        .map(|model| recorded(model, tables, &catalog))
        .collect();
    let dense = recorded
        .iter()
        .find(|one| one.model == "qwen3.6-27b-awq")
        .expect("it was recorded");
    let (shared, shared_turns) = replay_shared(&tables.shared, dense.coefficients);
    Found {
        fleet,
        recorded,
        shared,
        shared_turns,
    }
}

fn fleet(point: &'static FleetPoint, tables: &Tables, catalog: &Catalog) -> Fleet {
    let cells: Vec<&Cell> = tables
        .cells
        .iter()
        .filter(|cell| {
            cell.healthy
                && point.hardware.contains(&cell.hardware.as_str())
                && cell.engine == point.engine
                && cell.model == point.model
        })
        .collect();
    let observe = |sizes: fn(&Cell) -> Vec<Size>| -> Vec<Observation> {
        let one = |(group, cell): (usize, &&Cell)| Observation {
            intake: 0,
            group,
            passes: cold_batch(&points::server_of(cell, catalog), &sizes(cell)),
            measured_s: cell.batch_wall_s,
            weight: 1.0,
            overlap: points::overlap(&cell.hardware),
        };
        cells.iter().enumerate().map(one).collect()
    };
    let (even, uneven) = (observe(points::even), observe(points::uneven));
    let mut seen = even.clone();
    seen.extend(
        cells
            .iter()
            .zip(&even)
            .filter_map(|(cell, batch)| prompt_of(cell, batch)),
    );
    let problem = Problem::new(&seen, points::fleet_freedom(point, catalog));
    let coefficients = problem.fit();
    let fitted = problem.predict(&coefficients);
    let errors =
        cells
            .iter()
            .zip(&even)
            .zip(&uneven)
            .zip(fitted)
            .map(|(((cell, even), uneven), fitted)| {
                let without = problem.fit_without(even.group);
                let without = Coefficients {
                    overlap: even.overlap,
                    ..without
                };
                let (prompt, decode) = split(cell, even, &without);
                CellErrors {
                    cell: (*cell).clone(),
                    fitted: fitted / cell.batch_wall_s - 1.0,
                    held_out: predict(&even.passes, &without) / cell.batch_wall_s - 1.0,
                    held_out_uneven: predict(&uneven.passes, &without) / cell.batch_wall_s - 1.0,
                    prompt,
                    decode,
                }
            });
    Fleet {
        point,
        version: cells[0].version.clone(),
        coefficients,
        cells: errors.collect(),
    }
}

/// Returns the reading of the prompt as an observation of its own; several sequences mix it with decoding, so only one
/// alone has it. llama.cpp's own prompt time leaves out taking in the request; vLLM's was read by the client.
fn prompt_of(cell: &Cell, batch: &Observation) -> Option<Observation> {
    let mut passes = batch.passes.clone();
    passes.retain(|(graph, _)| !graph.chunks.is_empty());
    if cell.engine != "vllm" {
        let chunks = passes.iter_mut().flat_map(|(graph, _)| &mut graph.chunks);
        chunks.for_each(|chunk| chunk.first = false);
    }
    let weight = points::PROMPT_WEIGHT;
    (cell.sequences == 1).then(|| Observation {
        intake: 0,
        passes,
        measured_s: cell.prompt_s,
        weight,
        ..batch.clone()
    })
}

/// Returns the errors of prompt and decode time of a sequence alone.
fn split(cell: &Cell, batch: &Observation, with: &Coefficients) -> (Option<f64>, Option<f64>) {
    let Some(prompt) = prompt_of(cell, batch) else {
        return (None, None);
    };
    let writes: Vec<(Graph, u64)> = batch
        .passes
        .iter()
        .filter(|(graph, _)| graph.chunks.is_empty())
        .cloned()
        .collect();
    let steps: u64 = writes.iter().map(|(_, times)| times).sum();
    let decode =
        (steps > 0).then(|| predict(&writes, with) / steps as f64 * cell.decode_per_slot_tps - 1.0);
    (
        Some(predict(&prompt.passes, with) / cell.prompt_s - 1.0),
        decode,
    )
}

fn recorded(model: &'static str, tables: &Tables, catalog: &Catalog) -> Recorded {
    let turns: Vec<&Turn> = tables
        .turns
        .iter()
        .filter(|turn| turn.model == model)
        .collect();
    let mut names: Vec<String> = turns.iter().map(|turn| turn.state.clone()).collect();
    names.sort();
    names.dedup();
    let mut states: BTreeMap<String, State> = names
        .iter()
        .map(|name| {
            let of_state: Vec<&Turn> = turns
                .iter()
                .copied()
                .filter(|turn| turn.state == *name)
                .collect();
            (name.clone(), state(&of_state, model, catalog))
        })
        .collect();
    if states.len() == 1 {
        let only = states.pop_first().expect("there is one").1;
        return Recorded {
            model,
            coefficients: only.coefficients,
            states: BTreeMap::new(),
            runs: only.runs,
        };
    }
    let [april, may] = ["april", "may"].map(|name| states[name].coefficients);
    let coefficients = with_second_row(between(&april, &may, &shares_of_may()));
    let runs = runs_of(&turns).into_iter().map(|(run, of_run)| {
        let rest = |state: &str| -> Option<Coefficients> {
            let rest: Vec<&Turn> = turns
                .iter()
                .copied()
                .filter(|turn| turn.state == state && turn.run != run)
                .collect();
            (!rest.is_empty()).then(|| fit(&rest, model, catalog))
        };
        let held_out = match (rest("april"), rest("may")) {
            (Some(april), Some(may)) => between(&april, &may, &shares_of_may()),
            // Nothing of this state is left: the other state is all there is.
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => unreachable!("both states were recorded"),
        };
        run_errors(&run, &of_run, &coefficients, Some(&held_out))
    });
    let runs = runs.collect();
    Recorded {
        model,
        coefficients,
        states,
        runs,
    }
}

fn state(turns: &[&Turn], model: &str, catalog: &Catalog) -> State {
    let coefficients = fit(turns, model, catalog);
    let all = runs_of(turns);
    let runs = all.iter().map(|(run, of_run)| {
        let rest: Vec<&Turn> = turns
            .iter()
            .copied()
            .filter(|turn| turn.run != *run)
            .collect();
        if !rest.is_empty() {
            let held_out = fit(&rest, model, catalog);
            return run_errors(run, of_run, &coefficients, Some(&held_out));
        }
        // A run alone: every other turn predicts those between.
        let (even, odd): (Vec<_>, Vec<_>) = of_run
            .iter()
            .copied()
            .enumerate()
            .partition(|(at, _)| at % 2 == 0);
        let strip = |part: Vec<(usize, &'_ Turn)>| {
            part.into_iter()
                .map(|(_, turn)| turn.clone())
                .collect::<Vec<_>>()
        };
        let (even, odd) = (strip(even), strip(odd));
        let half = fit(&even.iter().collect::<Vec<_>>(), model, catalog);
        let mut errors = run_errors(run, of_run, &coefficients, None);
        errors.held_out_turns = turn_errors(&odd.iter().collect::<Vec<_>>(), &half);
        errors
    });
    let runs = runs.collect();
    State { coefficients, runs }
}

/// Returns the runs in name order with their turns.
fn runs_of<'t>(turns: &[&'t Turn]) -> BTreeMap<String, Vec<&'t Turn>> {
    let mut runs: BTreeMap<String, Vec<&Turn>> = BTreeMap::new();
    for turn in turns {
        runs.entry(turn.run.clone()).or_default().push(turn);
    }
    runs
}

fn passes(turn: &Turn) -> Vec<(Graph, u64)> {
    cold_batch(&points::recorded_server(), &[turn.size])
}

/// Fits the coefficients of one state; runs weigh by the root of their turns.
fn fit(turns: &[&Turn], model: &str, catalog: &Catalog) -> Coefficients {
    let model = catalog
        .model(model)
        .expect("a measured model is in the catalogue");
    let counts = runs_of(turns);
    let observe = |turn: &&Turn| Observation {
        intake: 0,
        group: 0,
        passes: passes(turn),
        measured_s: turn.wall_s,
        weight: 1.0 / (counts[&turn.run].len() as f64).sqrt(),
        overlap: 1.0,
    };
    let seen: Vec<Observation> = turns.iter().map(observe).collect();
    with_second_row(Problem::new(&seen, points::recorded_freedom(model)).fit())
}

/// Adds the prior for a second row, which dense models need; a sparse one reads further experts instead.
fn with_second_row(fitted: Coefficients) -> Coefficients {
    let second_row_s = if fitted.expert_share > 0.0 {
        0.0
    } else {
        SECOND_ROW * (fitted.weights_s + fitted.row_s) - fitted.row_s
    };
    Coefficients {
        second_row_s,
        ..fitted
    }
}

fn turn_errors(turns: &[&Turn], with: &Coefficients) -> Vec<f64> {
    turns
        .iter()
        .map(|turn| predict(&passes(turn), with) / turn.wall_s - 1.0)
        .collect()
}

fn run_errors(
    run: &str,
    turns: &[&Turn],
    with: &Coefficients,
    without: Option<&Coefficients>,
) -> RunErrors {
    let measured_s: f64 = turns.iter().map(|turn| turn.wall_s).sum();
    let all: Vec<(Graph, u64)> = turns.iter().flat_map(|turn| passes(turn)).collect();
    RunErrors {
        run: run.to_string(),
        state: turns[0].state.clone(),
        measured_s,
        fitted: predict(&all, with) / measured_s - 1.0,
        held_out: without.map(|without| predict(&all, without) / measured_s - 1.0),
        turns: turn_errors(turns, with),
        held_out_turns: without.map_or(Vec::new(), |without| turn_errors(turns, without)),
    }
}

/// Replays runs that shared an engine: each starts when it was recorded to, and waits as long between its calls.
pub(crate) fn replay_shared(
    turns: &[SharedTurn],
    with: Coefficients,
) -> (Vec<SharedRun>, Vec<f64>) {
    let sizes: Vec<Size> = turns.iter().map(|turn| turn.size).collect();
    let (calls, content) = calls(&sizes);
    let Server::Vllm(settings) = points::recorded_server() else {
        unreachable!("the recorded engine is vLLM")
    };
    let sizes = points::captured("vllm").sizes();
    let mut engine = StepLoop::new(<Vllm>::new(settings, content), StepCost::new(with, sizes));
    let after = |from: Time, secs: f64| Time(from.0 + Span::from_secs(secs).0);
    // When the next call of each run is made, and which it is.
    let firsts = turns.iter().enumerate().filter(|(_, turn)| turn.turn == 1);
    let mut due: BTreeSet<(Time, usize)> = firsts
        .map(|(index, turn)| (after(Time::ZERO, turn.start_s), index))
        .collect();
    let mut took = vec![0.0; turns.len()];
    let mut replies = Vec::new();
    while let Some(now) = due
        .first()
        .map(|&(time, _)| time)
        .into_iter()
        .chain(engine.next_event())
        .min()
    {
        engine.advance(now, &mut replies);
        for reply in replies.drain(..) {
            let index = reply.call.0 as usize;
            took[index] = (reply.finished - reply.submitted).secs();
            let same = |next: &&SharedTurn| next.run == turns[index].run;
            if let Some(next) = turns.get(index + 1).filter(same) {
                due.insert((after(reply.finished, next.wait_s), index + 1));
            }
        }
        while due.first().is_some_and(|&(time, _)| time <= now) {
            let (_, index) = due.pop_first().expect("a call is due");
            engine.submit(now, calls[index]);
        }
    }
    sum_up(turns, &took)
}

/// Returns the errors of runs and of turns, given how long each turn took in the replay.
fn sum_up(turns: &[SharedTurn], took: &[f64]) -> (Vec<SharedRun>, Vec<f64>) {
    let mut runs: Vec<SharedRun> = Vec::new();
    let mut errors = Vec::new();
    let mut predicted = 0.0;
    for (index, turn) in turns.iter().enumerate() {
        if turn.turn == 1 {
            runs.push(SharedRun {
                run: turn.run.clone(),
                measured_s: 0.0,
                error: 0.0,
            });
            predicted = 0.0;
        }
        let run = runs.last_mut().expect("turns begin with a run's first");
        predicted += took[index];
        run.measured_s += turn.wall_s;
        run.error = predicted / run.measured_s - 1.0;
        errors.push(took[index] / turn.wall_s - 1.0);
    }
    (runs, errors)
}

/// Returns the cost of decoding one token with this many short rows.
pub(crate) fn decode_step_s(with: &Coefficients, rows: u64) -> f64 {
    let mut graph = Graph::default();
    (0..rows).for_each(|_| graph.add_row(1));
    predict(&[(graph, 1)], with)
}
