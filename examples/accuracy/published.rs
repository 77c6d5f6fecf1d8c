//! Published measurements of many machines: efficiencies learned from them, rigs fitted to them, and how far both are off.

use super::tables::{self, Tables};
use laptime::catalog::efficiency::{Learned, TERMS, WeightPath};
use laptime::catalog::{Catalog, Hardware, HeldOut, Model, Moe, Platform};
use laptime::measured::{Row, read};
use laptime::rig::cost::{FEATURES, Form, Graph};
use laptime::rig::roofline;
use laptime::study::calibrate::law::{self, Law, Sample};
use laptime::study::calibrate::passes::{self, Reading};
use laptime::study::calibrate::rig::{Fit, Setup, fit};
use laptime::study::calibrate::schedule::cold_batch;
use laptime::study::calibrate::{Errors, features, interval_80};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The half-saturations that are tried.
pub(crate) const HALVES: [f64; 7] = [0.0, 16.0, 48.0, 96.0, 192.0, 384.0, 768.0];
/// The one to begin with.
const HALF: usize = 2;
/// How much an engine's typical efficiencies, and other machines', weigh against a machine's own measurements.
const ENGINE_PRIOR: f64 = 0.3;
const CHIP_PRIOR: f64 = 0.3;
/// The least measurements of a machine and engine from which efficiencies of their own are shipped.
const LEAST_OF_CHIP: usize = 10;
/// Every how many of the recorded turns count.
const TURNS: usize = 8;
/// The least rows that a rig of its own is fitted to.
const LEAST_OF_RIG: usize = 6;
/// Builds and drivers of last year, which nobody runs now: judged, but not learned from.
const OLD: [&str; 4] = ["b5", "b60", "b67", "b69"];

/// One published measurement.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Point {
    pub(crate) id: String,
    pub(crate) hardware: String,
    pub(crate) host: String,
    pub(crate) engine: String,
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) model: String,
    pub(crate) row: Row,
}

impl Point {
    /// Returns the machine, engine and backend, with the age of the build where it matters.
    pub(crate) fn group(&self, chip: &str) -> Group {
        let aged = chip == "strix-halo" && OLD.iter().any(|old| self.version.starts_with(old));
        Group {
            chip: chip.to_string(),
            engine: self.engine.clone(),
            backend: self.backend.clone(),
            old: aged,
        }
    }
}

/// What shares efficiencies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Group {
    pub(crate) chip: String,
    pub(crate) engine: String,
    pub(crate) backend: String,
    pub(crate) old: bool,
}

/// A prediction of a measurement that was left out.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) point: usize,
    pub(crate) group: Group,
    pub(crate) error: f64,
}

/// A rig that was fitted to published points.
#[derive(Clone, Debug)]
pub(crate) struct PublishedRig {
    pub(crate) hardware: String,
    pub(crate) engine: String,
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) model: String,
    pub(crate) host: String,
    pub(crate) points: Vec<usize>,
    pub(crate) fit: Fit,
}

/// Everything that came of the published points.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) points: Vec<Point>,
    pub(crate) rigs: Vec<PublishedRig>,
    /// The rig's other points predict each.
    pub(crate) by_rig: Vec<Judged>,
    /// Other models on the same machine and engine predict each.
    pub(crate) by_models: Vec<Judged>,
    /// Other machines under the same engine predict each.
    pub(crate) by_machines: Vec<Judged>,
    pub(crate) learned: Vec<Learned>,
}

/// Returns the catalogue with what only measurements need.
pub(crate) fn catalog(root: &Path) -> Catalog {
    let folder = root.join("docs/measurements/catalog");
    Catalog::with_overlays(&[folder]).expect("the catalogue of measurements is whole")
}

/// Reads the points of a folder.
pub(crate) fn read_points(folder: &Path) -> Vec<Point> {
    let file = folder.join("published_points.csv");
    let text = std::fs::read_to_string(&file).expect("the table is there");
    let rows = read::read("published_points.csv", &text)
        .expect("the table can be read")
        .rows;
    let named = tables::texts(
        &file,
        [
            "id", "hardware", "host", "engine", "backend", "version", "model",
        ],
    );
    assert_eq!(rows.len(), named.len(), "a row for each row");
    rows.into_iter()
        .zip(named)
        .map(
            |(row, [id, hardware, host, engine, backend, version, model])| Point {
                id,
                hardware,
                host,
                engine,
                backend,
                version,
                model,
                row,
            },
        )
        .collect()
}

/// A measurement as a sample, with where it belongs.
struct Placed {
    /// Its place among the published points; none for those of the fleet study and of recorded agents.
    point: Option<usize>,
    group: Group,
    family: String,
    sample: Sample,
}

/// Learns, fits and judges everything.
pub(crate) fn assess(points: Vec<Point>, tables: &Tables, catalog: &Catalog) -> Published {
    let mut placed: Vec<Placed> = points
        .iter()
        .enumerate()
        .map(|(index, point)| place(index, point, catalog))
        .collect();
    placed.extend(studied(tables, catalog));
    let laws = Laws::new(&placed);
    let (by_models, by_machines) = laws.judge(&placed);
    let learned = laws.learned(&placed, &by_models, &by_machines);
    let rigs = rigs(&points, &placed, catalog, &laws);
    let by_rig = rigs
        .iter()
        .flat_map(|rig| {
            rig.fit.held_out.iter().map(|held| {
                let point = rig.points[held.row];
                Judged {
                    point,
                    group: placed[point].group.clone(),
                    error: held.error,
                }
            })
        })
        .collect();
    Published {
        points,
        rigs,
        by_rig,
        by_models,
        by_machines,
        learned,
    }
}

fn place(index: usize, point: &Point, catalog: &Catalog) -> Placed {
    let hardware = catalog.hardware(&point.hardware).expect("it is named");
    let model = catalog.model(&point.model).expect("it is named");
    let passes = passes::of(&point.row, Reading::usual(&point.engine));
    Placed {
        point: Some(index),
        group: point.group(&hardware.chip),
        family: model.family.clone(),
        sample: sample(hardware, model, &passes, point.row.seconds, 1.0),
    }
}

fn sample(
    hardware: &Hardware,
    model: &Model,
    passes: &[(Graph, u64)],
    measured_s: f64,
    weight: f64,
) -> Sample {
    let basis = roofline::basis(hardware, model, 1);
    let share = |moe: &Moe| f64::from(moe.per_token) / f64::from(moe.experts);
    let terms = |&half_tokens: &f64| -> [f64; TERMS] {
        let form = Form {
            half_tokens,
            expert_share: model.moe.as_ref().map_or(0.0, share),
            kv_imbalance: 0.0,
            short_tokens: 0,
            vector_tokens: roofline::VECTOR_TOKENS,
            overlap: 1.0,
        };
        let features: [f64; FEATURES] = features(passes, &form);
        basis.map(|row| row.iter().zip(features).map(|(a, b)| a * b).sum())
    };
    Sample {
        path: WeightPath::of(model),
        sparse: model.moe.is_some(),
        reads: passes.iter().any(|(graph, _)| !graph.chunks.is_empty()),
        terms: HALVES.iter().map(terms).collect(),
        measured_s,
        weight,
    }
}

/// Returns the fleet study and a share of the recorded turns as samples.
fn studied(tables: &Tables, catalog: &Catalog) -> Vec<Placed> {
    let placed =
        |hardware: &str, engine: &str, model: &str, passes: &[(Graph, u64)], s: f64, weight| {
            let hardware = catalog.hardware(hardware).expect("it is named");
            let model = catalog.model(model).expect("it is named");
            let profile = catalog.engine(engine).expect("it is named");
            Placed {
                point: None,
                group: Group {
                    chip: hardware.chip.clone(),
                    engine: engine.to_string(),
                    backend: profile
                        .backend(hardware.platform)
                        .unwrap_or_default()
                        .to_string(),
                    old: false,
                },
                family: model.family.clone(),
                sample: sample(hardware, model, passes, s, weight),
            }
        };
    let cells = tables
        .cells
        .iter()
        .filter(|cell| cell.healthy && !cell.hardware.starts_with("2x-"))
        .map(|cell| {
            let passes = cold_batch(
                &super::points::server_of(cell, catalog),
                &super::points::even(cell),
            );
            placed(
                &cell.hardware,
                &cell.engine,
                &cell.model,
                &passes,
                cell.batch_wall_s,
                1.0,
            )
        });
    let server = super::points::recorded_server();
    let turns = tables.turns.iter().step_by(TURNS).map(|turn| {
        let passes = cold_batch(&server, &[turn.size]);
        placed(
            "rtx-pro-6000",
            "vllm",
            &turn.model,
            &passes,
            turn.wall_s,
            0.5,
        )
    });
    cells.chain(turns).collect()
}

/// The laws of every group, with and without what is to be predicted.
struct Laws {
    /// What other machines under the same engine say.
    base: BTreeMap<Group, Law>,
    whole: BTreeMap<Group, Law>,
    /// Without one family of models.
    without: BTreeMap<(Group, String), Law>,
    /// By engine and backend, of every machine.
    any: BTreeMap<(String, String), Law>,
}

impl Laws {
    fn new(placed: &[Placed]) -> Laws {
        let groups: BTreeSet<&Group> = placed.iter().map(|one| &one.group).collect();
        let mut laws = Laws {
            base: BTreeMap::new(),
            whole: BTreeMap::new(),
            without: BTreeMap::new(),
            any: BTreeMap::new(),
        };
        for group in groups {
            let base = of_engine(placed, &group.engine, &group.backend, Some(&group.chip));
            let own: Vec<&Placed> = placed.iter().filter(|one| one.group == *group).collect();
            let samples: Vec<&Sample> = own.iter().map(|one| &one.sample).collect();
            let mut start = base.clone();
            start.half = law::choose_half(&samples, &base, CHIP_PRIOR);
            let families: BTreeSet<&String> = own.iter().map(|one| &one.family).collect();
            for family in families {
                let rest: Vec<&Sample> = own
                    .iter()
                    .filter(|one| one.family != *family)
                    .map(|one| &one.sample)
                    .collect();
                // Nothing else was measured there: other machines are all there is.
                let law = if rest.is_empty() {
                    base.clone()
                } else {
                    law::fit(&rest, &start, CHIP_PRIOR)
                };
                laws.without.insert((group.clone(), family.clone()), law);
            }
            laws.whole
                .insert(group.clone(), law::fit(&samples, &start, CHIP_PRIOR));
            laws.base.insert(group.clone(), base);
            let key = (group.engine.clone(), group.backend.clone());
            laws.any
                .entry(key)
                .or_insert_with(|| of_engine(placed, &group.engine, &group.backend, None));
        }
        laws
    }

    /// Predicts every published point without its model, and without its machine.
    fn judge(&self, placed: &[Placed]) -> (Vec<Judged>, Vec<Judged>) {
        let judged = |law: &dyn Fn(&Placed) -> Option<Law>| -> Vec<Judged> {
            let one = |one: &Placed| {
                let law = law(one)?;
                Some(Judged {
                    point: one.point?,
                    group: one.group.clone(),
                    error: law.predict(&one.sample) / one.sample.measured_s - 1.0,
                })
            };
            placed.iter().filter_map(one).collect()
        };
        let alone = |one: &Placed| {
            let mut others = placed.iter().filter(|other| other.group == one.group);
            others.all(|other| other.family == one.family)
        };
        let by_models = judged(&|one| {
            let key = (one.group.clone(), one.family.clone());
            (!alone(one)).then(|| self.without[&key].clone())
        });
        let by_machines = judged(&|one| Some(self.base[&one.group].clone()));
        (by_models, by_machines)
    }

    /// Returns the table of efficiencies: of every machine that was measured enough, and of any under each engine.
    fn learned(&self, placed: &[Placed], models: &[Judged], machines: &[Judged]) -> Vec<Learned> {
        let mut table = Vec::new();
        for ((engine, backend), law) in &self.any {
            let of = |one: &&Placed| {
                one.group.engine == *engine && one.group.backend == *backend && !one.group.old
            };
            let seen: Vec<&Placed> = placed.iter().filter(of).collect();
            let combos: BTreeSet<(bool, WeightPath)> = seen
                .iter()
                .map(|one| (one.sample.sparse, one.sample.path))
                .collect();
            let chips: BTreeSet<&str> = seen.iter().map(|one| one.group.chip.as_str()).collect();
            let mut entry = |chip: Option<&str>,
                             law: &Law,
                             count: usize,
                             error: &dyn Fn(bool) -> Option<HeldOut>| {
                for &(sparse, path) in &combos {
                    table.push(Learned {
                        chip: chip.map(ToString::to_string),
                        engine: engine.clone(),
                        backend: backend.clone(),
                        path,
                        sparse,
                        efficiency: law.efficiency(path, sparse, &HALVES),
                        points: count as u32,
                        error: error(sparse),
                    });
                }
            };
            let of_kind = |all: &[Judged], sparse: bool, chip: Option<&str>| -> Vec<f64> {
                let fits = |one: &&Judged| {
                    let here = chip.is_none_or(|chip| one.group.chip == chip);
                    here && !one.group.old
                        && one.group.engine == *engine
                        && one.group.backend == *backend
                        && placed[one.point].sample.sparse == sparse
                };
                all.iter().filter(fits).map(|one| one.error).collect()
            };
            entry(None, law, seen.len(), &|sparse| {
                let errors = of_kind(machines, sparse, None);
                let what = "points of machines that were left out";
                held_out(what, &errors, machines)
            });
            for chip in chips {
                let own = seen.iter().filter(|one| one.group.chip == chip).count();
                if own < LEAST_OF_CHIP {
                    continue;
                }
                let group = seen
                    .iter()
                    .find(|one| one.group.chip == chip)
                    .map(|one| &one.group);
                let law = &self.whole[group.expect("it was seen")];
                entry(Some(chip), law, own, &|sparse| {
                    let errors = of_kind(models, sparse, Some(chip));
                    let what = "points of models that were left out";
                    held_out(what, &errors, models)
                });
            }
        }
        table
    }
}

/// Sums up errors; where there are too few, those of everything stand for them.
fn held_out(what: &str, own: &[f64], all: &[Judged]) -> Option<HeldOut> {
    let pooled: Vec<f64> = all
        .iter()
        .filter(|one| !one.group.old)
        .map(|one| one.error)
        .collect();
    let (errors, from) = if own.len() >= LEAST_OF_CHIP {
        (own.to_vec(), "errors on the same machine and engine")
    } else {
        (
            pooled,
            "errors over all machines and engines: too few of this one",
        )
    };
    let sum = Errors::of(&errors)?;
    Some(HeldOut {
        what: what.to_string(),
        count: sum.count as u32,
        median: sum.median,
        p90: sum.p90,
        interval: interval_80(&errors),
        interval_from: format!("{from}: the rank that covers 80 %, symmetric as a ratio"),
    })
}

/// Returns what an engine shows on all machines, or on all but one: first over all backends, then on this one.
fn of_engine(placed: &[Placed], engine: &str, backend: &str, without: Option<&str>) -> Law {
    let platform = match backend {
        "cuda" => Platform::Cuda,
        "metal" | "mlx" => Platform::Metal,
        _ => Platform::Rocm,
    };
    let typical = roofline::typical(engine, platform);
    let start = Law::of(&typical, &typical, [HALF; 2]);
    let known = |one: &&Placed| {
        one.group.engine == engine
            && !one.group.old
            && without.is_none_or(|chip| one.group.chip != chip)
    };
    let of_engine = even(placed.iter().filter(known));
    let of_backend = even(
        placed
            .iter()
            .filter(known)
            .filter(|one| one.group.backend == backend),
    );
    let of_engine: Vec<&Sample> = of_engine.iter().collect();
    let of_backend: Vec<&Sample> = of_backend.iter().collect();
    let mut law = start;
    for samples in [of_engine, of_backend] {
        if samples.is_empty() {
            continue;
        }
        law.half = law::choose_half(&samples, &law, ENGINE_PRIOR);
        law = law::fit(&samples, &law, ENGINE_PRIOR);
    }
    law
}

/// Returns samples that weigh alike by machine, however many there are of each.
fn even<'p>(placed: impl Iterator<Item = &'p Placed> + Clone) -> Vec<Sample> {
    let mut counts: BTreeMap<&Group, f64> = BTreeMap::new();
    for one in placed.clone() {
        *counts.entry(&one.group).or_default() += 1.0;
    }
    placed
        .map(|one| Sample {
            weight: one.sample.weight / counts[&one.group].sqrt(),
            ..one.sample.clone()
        })
        .collect()
}

/// Fits every rig of which there are enough points, with what other models show there as expectation.
fn rigs(points: &[Point], placed: &[Placed], catalog: &Catalog, laws: &Laws) -> Vec<PublishedRig> {
    let mut by_rig: BTreeMap<[&str; 6], Vec<usize>> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        let key = [
            &point.hardware,
            &point.host,
            &point.engine,
            &point.backend,
            &point.version,
            &point.model,
        ];
        by_rig
            .entry(key.map(String::as_str))
            .or_default()
            .push(index);
    }
    let mut rigs = Vec::new();
    for ([hardware, host, engine, backend, version, model], of) in by_rig {
        if of.len() < LEAST_OF_RIG {
            continue;
        }
        let one = &placed[of[0]];
        let law = &laws.without[&(one.group.clone(), one.family.clone())];
        let expected = law.efficiency(one.sample.path, one.sample.sparse, &HALVES);
        let setup = Setup {
            hardware: catalog.hardware(hardware).expect("it is named"),
            engine,
            model: catalog.model(model).expect("it is named"),
            expected: &expected,
            devices: 1,
        };
        let rows: Vec<Row> = of.iter().map(|&index| points[index].row.clone()).collect();
        let Ok(fit) = fit(&setup, &rows) else {
            continue;
        };
        rigs.push(PublishedRig {
            hardware: hardware.to_string(),
            engine: engine.to_string(),
            backend: backend.to_string(),
            version: version.to_string(),
            model: model.to_string(),
            host: host.to_string(),
            points: of,
            fit,
        });
    }
    rigs
}
