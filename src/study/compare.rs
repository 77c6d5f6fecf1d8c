//! Results side by side: how they differ, in what they hold for and in their figures, and how far that may be chance.
//!
//! Results that hold for the same in every respect are repeats of each other; how far they lie apart is the spread that
//! any difference must be seen against. Results that differ in an axis that makes them unlike are compared only when that
//! axis was named.

use super::figures::Figures;
use super::sample::Pairs;
use super::target::Figure;
use crate::operating_point::Kind;
use std::collections::BTreeMap;

/// A respect in which results can differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Axis {
    /// Simulated or live.
    Kind,
    /// The machine.
    Hardware,
    /// The engine and its version.
    Engine,
    /// The model and how it is quantised.
    Model,
    /// Settings other than those that bound the context.
    Settings,
    /// How long a context the engine takes.
    Window,
    /// The recordings.
    Trace,
    /// Habits that change what is sent.
    Habits,
    /// How many agents and runs.
    Agents,
    /// What runs have in common.
    Share,
    /// Which waits are replayed.
    Pace,
}

impl Axis {
    /// Every axis, in the order in which differences are told.
    pub const ALL: [Axis; 11] = [
        Axis::Kind,
        Axis::Hardware,
        Axis::Engine,
        Axis::Model,
        Axis::Settings,
        Axis::Window,
        Axis::Trace,
        Axis::Habits,
        Axis::Agents,
        Axis::Share,
        Axis::Pace,
    ];

    /// Returns its name.
    pub fn word(self) -> &'static str {
        match self {
            Axis::Kind => "kind",
            Axis::Hardware => "hardware",
            Axis::Engine => "engine",
            Axis::Model => "model",
            Axis::Settings => "settings",
            Axis::Window => "window",
            Axis::Trace => "trace",
            Axis::Habits => "habits",
            Axis::Agents => "agents",
            Axis::Share => "share",
            Axis::Pace => "pace",
        }
    }

    /// Returns the axis of that name.
    pub fn parse(word: &str) -> Result<Axis, String> {
        let found = Axis::ALL.into_iter().find(|axis| axis.word() == word);
        let names = Axis::ALL.map(Axis::word).join(", ");
        found.ok_or_else(|| format!("`{word}` is no axis; expected one of {names}"))
    }

    /// Returns whether results that differ in it are unlike: one does not choose between them by their figures alone.
    fn unlike(self) -> bool {
        !matches!(self, Axis::Hardware | Axis::Engine | Axis::Settings)
    }

    /// Returns what a result has on this axis.
    fn of(self, one: &Figures) -> String {
        let (point, workload) = (&one.point, &one.workload);
        let conduct = &workload.plan.conduct;
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_string());
        let settings = |window: bool| {
            let these = point
                .settings
                .iter()
                .filter(|(key, _)| is_window(key) == window);
            let these = these.filter(|(key, _)| !is_worked_out(key));
            let these: Vec<String> = these.map(|(key, value)| format!("{key}={value}")).collect();
            these.join(" ")
        };
        match self {
            Axis::Kind => point.kind.word().to_string(),
            Axis::Hardware => word(&point.hardware),
            Axis::Engine => [word(&point.engine), word(&point.engine_version)].join("@"),
            Axis::Model => [word(&point.model), word(&point.quantization)].join(" "),
            Axis::Settings => settings(false),
            Axis::Window => settings(true),
            Axis::Trace => {
                let digests = workload
                    .traces
                    .iter()
                    .map(|(name, digest)| format!("{name} {digest}"));
                digests.collect::<Vec<_>>().join(" ")
            }
            Axis::Habits => {
                let habits = workload
                    .settings
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"));
                habits.collect::<Vec<_>>().join(" ")
            }
            Axis::Agents => format!("{} agents, {} runs", workload.plan.agents, workload.runs),
            Axis::Share => format!("{:?}", workload.plan.share).to_lowercase(),
            Axis::Pace => format!(
                "{:?} x{}, cap {}",
                conduct.pace, conduct.pace_scale, conduct.idle_cap
            )
            .to_lowercase(),
        }
    }
}

const WINDOWS: [&str; 7] = [
    "engine.max_model_len",
    "engine.ctx_size",
    "engine.slot_context",
    "engine.slot_ctx_size",
    "engine.context_length",
    "engine.max_seq_len",
    "engine.num_ctx",
];

fn is_window(key: &str) -> bool {
    WINDOWS.contains(&key)
}

/// Settings that follow from the machine's memory, and are no choice of anybody's.
fn is_worked_out(key: &str) -> bool {
    matches!(
        key,
        "engine.num_gpu_blocks"
            | "engine.blocks"
            | "engine.max_total_num_tokens"
            | "engine.n_gpu_layers"
    )
}

/// A respect in which results differ, and what each has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The respect.
    pub axis: Axis,
    /// What each result has, in their order.
    pub values: Vec<String>,
    /// Whether it makes them unlike.
    pub unlike: bool,
}

/// Returns the respects in which results differ.
pub fn differences(all: &[Figures]) -> Vec<Difference> {
    let cut_short = |one: &Figures| {
        let calls = one.rows.iter().flat_map(|rows| &rows.calls);
        one.summary.failed_calls > 0
            || calls
                .clone()
                .any(|row| row.outcome == crate::call::Outcome::Truncated)
    };
    let windows_bind = all.iter().any(cut_short);
    let engines = all
        .windows(2)
        .any(|pair| pair[0].point.engine != pair[1].point.engine);
    let found = Axis::ALL.into_iter().filter_map(|axis| {
        let mut values: Vec<String> = all.iter().map(|one| axis.of(one)).collect();
        if axis == Axis::Trace {
            // A file may have another name and be the same.
            let digests = |one: &Figures| {
                one.workload
                    .traces
                    .iter()
                    .map(|(_, digest)| digest.clone())
                    .collect::<Vec<_>>()
            };
            if all
                .windows(2)
                .all(|pair| digests(&pair[0]) == digests(&pair[1]))
            {
                return None;
            }
        }
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            return None;
        }
        // Other engines have other settings; that is one difference, not two.
        if engines && axis == Axis::Settings {
            return None;
        }
        if matches!(axis, Axis::Settings | Axis::Window) {
            values = only_what_differs(&values);
        }
        // A context that no call has reached is no difference to anyone.
        let unlike = axis.unlike() && (axis != Axis::Window || windows_bind);
        Some(Difference {
            axis,
            values,
            unlike,
        })
    });
    found.collect()
}

/// Leaves out of each list of words the words that all of them have.
fn only_what_differs(values: &[String]) -> Vec<String> {
    let in_all = |word: &&str| {
        values
            .iter()
            .all(|value| value.split(' ').any(|one| one == *word))
    };
    let own = |value: &String| {
        let words: Vec<&str> = value.split(' ').filter(|word| !in_all(word)).collect();
        words.join(" ")
    };
    values.iter().map(own).collect()
}

/// One figure of a result against the same figure of the first.
#[derive(Clone, PartialEq, Debug)]
pub struct Against {
    /// The mean over repeats; nothing where it is not known.
    pub value: Option<f64>,
    /// The ratio to the first group's value.
    pub ratio: Option<f64>,
    /// Where that ratio lies in 95 of 100 draws; nothing where rows cannot be paired.
    pub interval: Option<(f64, f64)>,
    /// The share of paired rows that are lower here, an effect size that no unit distorts.
    pub lower: Option<f64>,
    /// How far apart repeats of the same lie, relative to their mean; nothing without repeats.
    pub spread: Option<f64>,
}

/// One figure of all groups.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The figure.
    pub figure: Figure,
    /// The groups, in order; the first is what the others are compared with.
    pub groups: Vec<Against>,
}

/// The answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Compared {
    /// The results, repeats of the same together, by their place in the input.
    pub groups: Vec<Vec<usize>>,
    /// In what they differ.
    pub differences: Vec<Difference>,
    /// Their figures.
    pub rows: Vec<Row>,
    /// Whether all of it is simulated: then repeats have no spread.
    pub exact: bool,
}

/// Gathers repeats: results that hold for the same in every respect.
pub fn groups(all: &[Figures]) -> Vec<Vec<usize>> {
    let mut places: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
    for (place, one) in all.iter().enumerate() {
        let own: Vec<String> = Axis::ALL.into_iter().map(|axis| axis.of(one)).collect();
        let seed = one.workload.seed;
        let key = own.into_iter().chain([seed.to_string()]).collect();
        match places.iter_mut().find(|(other, _)| *other == key) {
            // What is simulated comes out the same; whoever gives it twice wants to see that.
            Some((_, group)) if one.point.kind == Kind::Live => group.push(place),
            _ => places.push((key, vec![place])),
        }
    }
    places.into_iter().map(|(_, group)| group).collect()
}

/// Compares results that [`differences`] allows to be compared.
pub fn compare(all: &[Figures], figures: &[Figure], seed: u64) -> Compared {
    let groups = groups(all);
    let row = |figure: &Figure| {
        let first = &all[groups[0][0]];
        let base = mean(all, &groups[0], figure);
        let against = groups.iter().enumerate().map(|(place, group)| {
            let value = mean(all, group, figure);
            let pairs = (place > 0)
                .then(|| Pairs::of(first, &all[group[0]], figure))
                .flatten();
            Against {
                value,
                ratio: value
                    .zip(base)
                    .filter(|(_, base)| *base != 0.0 && place > 0)
                    .map(|(value, base)| value / base),
                interval: pairs
                    .as_ref()
                    .and_then(|pairs| pairs.interval(figure, seed)),
                lower: pairs.as_ref().map(Pairs::lower),
                spread: spread(all, group, figure),
            }
        });
        Row {
            figure: figure.clone(),
            groups: against.collect(),
        }
    };
    Compared {
        rows: figures.iter().map(row).collect(),
        differences: differences(all),
        exact: all.iter().all(Figures::exact),
        groups,
    }
}

fn values(all: &[Figures], group: &[usize], figure: &Figure) -> Option<Vec<f64>> {
    group
        .iter()
        .map(|&place| figure.value(&all[place]))
        .collect()
}

fn mean(all: &[Figures], group: &[usize], figure: &Figure) -> Option<f64> {
    let values = values(all, group, figure)?;
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// Returns the standard deviation of repeats, relative to their mean.
fn spread(all: &[Figures], group: &[usize], figure: &Figure) -> Option<f64> {
    let values = values(all, group, figure).filter(|values| values.len() > 1)?;
    relative_spread(&values)
}

/// Returns the standard deviation of values relative to their mean; nothing for fewer than two.
pub(super) fn relative_spread(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 || mean == 0.0 {
        return None;
    }
    let squares = values.iter().map(|value| (value - mean) * (value - mean));
    Some((squares.sum::<f64>() / (count - 1.0)).sqrt() / mean.abs())
}

/// Returns the figures that are compared unless others are asked for: those that at least one result has.
pub fn usual(all: &[Figures]) -> Vec<Figure> {
    const NAMES: [&str; 15] = [
        "run_s.p50",
        "run_s.p90",
        "lap_s.p50",
        "lap_s.p95",
        "ttft_s.p50",
        "ttft_s.p95",
        "itl_s.p50",
        "wall_s",
        "runs_per_h",
        "tokens.cached",
        "tokens.computed",
        "tokens.reread",
        "failed_calls",
        "energy_wh_per_run",
        "cost_usd_per_run",
    ];
    let figures = NAMES.iter().filter_map(|name| Figure::parse(name).ok());
    figures
        .filter(|figure| all.iter().any(|one| figure.value(one).is_some()))
        .collect()
}

/// Returns the names, with a number behind those that come again, so that they tell results apart.
pub fn told_apart(names: &[String]) -> Vec<String> {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let one = |name: &'_ String| name.clone();
    let mut told = Vec::new();
    for name in names {
        let count = seen.entry(name.as_str()).or_default();
        *count += 1;
        told.push(if *count == 1 {
            one(name)
        } else {
            format!("{name} ({count})")
        });
    }
    told
}
