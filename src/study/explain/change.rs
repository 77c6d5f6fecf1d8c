//! Single changes to what is replayed, or to what it is replayed on, and which of them a rig can have.

use crate::agent::Pace;
use crate::catalog::{Catalog, Model};
use crate::fleet::Plan;
use crate::operating_point::OperatingPoint;
use crate::study::figures::{Figures, Ground, RigSpec};
use crate::study::habits::Habits;
use crate::study::rig::{RECORDED, RigError};

/// One change to what is replayed, or to what it is replayed on.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// These settings beside those in force.
    Set(Vec<(String, String)>),
    /// Another model of the catalogue.
    Model(String),
    /// Tools and the client, so many times as fast.
    FasterTools(f64),
    /// No waits at all.
    NoTools,
    /// Nothing breaks a prefix.
    KeptPrefix,
    /// All but the session in this place.
    Without(usize),
}

impl Change {
    /// Returns the change that sets `key`.
    pub fn set(key: &str, value: &str) -> Change {
        Change::Set(vec![(key.to_string(), value.to_string())])
    }

    /// Returns the rig as the change makes it.
    pub fn of(&self, (spec, settings): &RigSpec) -> RigSpec {
        let (mut spec, mut settings) = (spec.clone(), settings.clone());
        match self {
            Change::Set(new) => {
                for (key, value) in new {
                    let factor = value
                        .parse::<f64>()
                        .ok()
                        .filter(|_| key.ends_with("_scale"));
                    let had = settings.iter().rfind(|(one, _)| one == key);
                    let had = had.and_then(|(_, value)| value.parse::<f64>().ok());
                    // A factor is one upon what is in force.
                    let value = match (factor, had) {
                        (Some(factor), Some(had)) => (factor * had).to_string(),
                        _ => value.clone(),
                    };
                    settings.retain(|(one, _)| one != key);
                    settings.push((key.clone(), value));
                }
            }
            Change::Model(model) => {
                let kept = spec.rsplit_once('/').map_or("", |(kept, _)| kept);
                spec = format!("{kept}/{model}");
            }
            _ => {}
        }
        (spec, settings)
    }

    /// Replays with the change.
    pub fn evaluate(
        &self,
        ground: &Ground<'_>,
        rig: &RigSpec,
        mut plan: Plan,
    ) -> Result<Figures, RigError> {
        let rig = self.of(rig);
        match self {
            Change::FasterTools(times) => plan.conduct.pace_scale *= times,
            Change::NoTools => plan.conduct.pace = Pace::None,
            Change::KeptPrefix => {
                let kept = Habits {
                    kept: true,
                    ..Habits::default()
                };
                // The changed tree is no larger than the one it was made from.
                if let Ok(trace) = kept.applied(ground.trace.clone()) {
                    return on(ground, &trace).evaluate(&rig, plan);
                }
            }
            Change::Without(session) => {
                let mut trace = ground.trace.clone();
                let (all, runs) = (trace.sessions.len() as u32, plan.runs_of(&trace));
                let place = *session as u32;
                let gone = runs / all + u32::from(place < runs % all);
                trace.sessions.remove(*session);
                let left = (runs - gone).max(1);
                (plan.runs, plan.agents) = (Some(left), plan.agents.min(left));
                return on(ground, &trace).evaluate(&rig, plan);
            }
            Change::Set(_) | Change::Model(_) => {}
        }
        ground.evaluate(&rig, plan)
    }

    /// Returns what was changed, as it would be typed.
    pub fn told(&self) -> String {
        match self {
            Change::Set(settings) => {
                let told = settings.iter().map(|(key, value)| format!("{key}={value}"));
                told.collect::<Vec<_>>().join(" ")
            }
            Change::Model(model) => format!(".../{model}"),
            Change::FasterTools(times) => format!("--pace-scale {times}"),
            Change::NoTools => "--pace none".to_string(),
            Change::KeptPrefix => "agent.prefix=kept".to_string(),
            Change::Without(_) => "without that session".to_string(),
        }
    }
}

fn on<'g>(ground: &'g Ground<'_>, trace: &'g crate::trace::Trace) -> Ground<'g> {
    Ground {
        trace,
        habits: ground.habits.clone(),
        prices: ground.prices,
        catalog: ground.catalog,
        seed: ground.seed,
    }
}

/// A change that one could make.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lever {
    /// Places for calls.
    Slots,
    /// Memory, and with it the cache.
    Memory,
    /// Arithmetic.
    Compute,
    /// Memory bandwidth.
    Bandwidth,
    /// Tokens in a batch.
    Batch,
    /// What the cache keeps, or who comes first to profit from it.
    Policy,
    /// Host memory behind the cache.
    Tier,
    /// Nothing breaks the prefix.
    Prefix,
    /// Tools.
    Tools,
    /// A mixture of experts for a dense model.
    Experts,
    /// Fewer bits a weight.
    Bits,
    /// A second device.
    Device,
}

impl Lever {
    /// Every lever.
    pub const ALL: [Lever; 12] = [
        Lever::Slots,
        Lever::Memory,
        Lever::Compute,
        Lever::Bandwidth,
        Lever::Batch,
        Lever::Policy,
        Lever::Tier,
        Lever::Prefix,
        Lever::Tools,
        Lever::Experts,
        Lever::Bits,
        Lever::Device,
    ];
    /// Those that one would turn where a rig carries no more agents.
    pub const ON_RIG: [Lever; 5] = [
        Lever::Slots,
        Lever::Memory,
        Lever::Compute,
        Lever::Bandwidth,
        Lever::Batch,
    ];

    /// Returns what is doubled or replaced.
    pub fn word(self) -> &'static str {
        match self {
            Lever::Slots => "slots x2",
            Lever::Memory => "memory x2",
            Lever::Compute => "compute x2",
            Lever::Bandwidth => "bandwidth x2",
            Lever::Batch => "batch budget x2",
            Lever::Policy => "cache policy",
            Lever::Tier => "cache tier in host memory",
            Lever::Prefix => "prefix never broken",
            Lever::Tools => "tools x2 faster",
            Lever::Experts => "experts instead of dense",
            Lever::Bits => "fewer bits a weight",
            Lever::Device => "second device",
        }
    }

    /// Returns the change it is on the rig of `base`; nothing where there is none.
    pub fn change(self, base: &Figures, catalog: &Catalog) -> Option<Change> {
        let point = &base.point;
        if point.name == RECORDED && !matches!(self, Lever::Tools) {
            return None;
        }
        let doubled = |key: &str| Some(Change::set(key, &(2 * whole(point, key)?).to_string()));
        match self {
            Lever::Bandwidth => Some(Change::set("rig.bandwidth_scale", "2")),
            Lever::Compute => Some(Change::set("rig.compute_scale", "2")),
            Lever::Memory => Some(Change::set("rig.memory_scale", "2")),
            Lever::Slots => more_slots(point, 2),
            Lever::Batch => match engine(point) {
                "llama.cpp" => {
                    let ubatch = 2 * whole(point, "engine.ubatch_size")?;
                    let batch = whole(point, "engine.batch_size")?.max(ubatch);
                    Some(Change::Set(vec![
                        ("engine.ubatch_size".to_string(), ubatch.to_string()),
                        ("engine.batch_size".to_string(), batch.to_string()),
                    ]))
                }
                name => doubled(setting_of(&BUDGETS, name)?),
            },
            Lever::Policy => policy(point),
            Lever::Tier => tier(point),
            Lever::Prefix => Some(Change::KeptPrefix),
            Lever::Tools => {
                let tools = base.summary.tool.secs() > 0.0;
                tools.then_some(Change::FasterTools(2.0))
            }
            Lever::Experts => counterpart(point, catalog),
            Lever::Bits => fewer_bits(point, catalog),
            Lever::Device => {
                let hardware = catalog.hardware(point.hardware.as_deref()?).ok()?;
                let single = hardware.devices == 1 && !hardware.unified_memory;
                single.then(|| Change::set("rig.devices", "2"))
            }
        }
    }
}

const SLOTS: [(&str, &str); 7] = [
    ("vllm", "engine.max_num_seqs"),
    ("llama.cpp", "engine.parallel"),
    ("sglang", "engine.max_running_requests"),
    ("trt-llm", "engine.max_batch_size"),
    ("mlx-lm", "engine.decode_concurrency"),
    ("lm-studio", "engine.max_concurrent_predictions"),
    ("ollama", "engine.num_parallel"),
];
const BUDGETS: [(&str, &str); 6] = [
    ("vllm", "engine.max_num_batched_tokens"),
    ("sglang", "engine.chunked_prefill_size"),
    ("trt-llm", "engine.max_num_tokens"),
    ("mlx-lm", "engine.prefill_step_size"),
    ("lm-studio", "engine.prefill_step_size"),
    ("ollama", "engine.num_batch"),
];

fn engine(point: &OperatingPoint) -> &str {
    point.engine.as_deref().unwrap_or_default()
}

fn setting_of(table: &'static [(&str, &str)], engine: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(name, _)| *name == engine)
        .map(|(_, key)| *key)
}

pub(super) fn whole(point: &OperatingPoint, key: &str) -> Option<u64> {
    point.settings.get(key)?.parse().ok()
}

/// Returns how many calls a rig serves at the same time, where a setting says so.
pub fn slots(point: &OperatingPoint) -> Option<u32> {
    let slots = whole(point, setting_of(&SLOTS, engine(point))?)?;
    u32::try_from(slots).ok()
}

pub(super) fn more_slots(point: &OperatingPoint, times: u64) -> Option<Change> {
    let key = setting_of(&SLOTS, engine(point))?;
    let more = (key.to_string(), (whole(point, key)? * times).to_string());
    // Slots that share one pool leave each as much context as it had.
    let shared = ("engine.kv_unified".to_string(), "on".to_string());
    let llama = engine(point) == "llama.cpp";
    Some(Change::Set(if llama {
        vec![more, shared]
    } else {
        vec![more]
    }))
}

fn policy(point: &OperatingPoint) -> Option<Change> {
    let is = |key: &str, value: &str| point.settings.get(key).is_some_and(|one| one == value);
    if is("engine.prefix_caching", "off") {
        return Some(Change::set("engine.prefix_caching", "on"));
    }
    let key = "engine.schedule_policy";
    let found = point.settings.get(key)?;
    Some(Change::set(
        key,
        if found == "lpm" { "fcfs" } else { "lpm" },
    ))
}

fn tier(point: &OperatingPoint) -> Option<Change> {
    match engine(point) {
        "vllm" => Some(Change::set("engine.kv_offloading_size", "64")),
        "llama.cpp" | "ollama" => {
            let megabytes = whole(point, "engine.cache_ram")?;
            Some(Change::set(
                "engine.cache_ram",
                &(megabytes * 4).to_string(),
            ))
        }
        _ => None,
    }
}

fn model_of<'c>(point: &OperatingPoint, catalog: &'c Catalog) -> Option<&'c Model> {
    catalog.model(point.name.rsplit('/').next()?).ok()
}

/// Returns models the engine loads that are not this one, nearest in what they read of memory first.
fn others<'c>(point: &OperatingPoint, model: &Model, catalog: &'c Catalog) -> Vec<&'c Model> {
    let Ok(engine) = catalog.engine(engine(point)) else {
        return Vec::new();
    };
    let mut others: Vec<&Model> = catalog
        .all_models()
        .filter(|one| one.name != model.name && engine.loads(one))
        .collect();
    others.sort_by_key(|one| one.weights.value.0.abs_diff(model.weights.value.0));
    others
}

fn counterpart(point: &OperatingPoint, catalog: &Catalog) -> Option<Change> {
    let model = model_of(point, catalog)?;
    if model.moe.is_some() {
        return None;
    }
    let generation = model.family.split('-').next().unwrap_or_default();
    let alike = |one: &&Model| {
        let same = one.family.split('-').next() == Some(generation);
        same && one.moe.is_some() && one.quantization == model.quantization
    };
    let found = others(point, model, catalog)
        .into_iter()
        .find(|one| alike(one))?;
    Some(Change::Model(found.name.clone()))
}

fn fewer_bits(point: &OperatingPoint, catalog: &Catalog) -> Option<Change> {
    let model = model_of(point, catalog)?;
    let smaller =
        |one: &&Model| one.family == model.family && one.weights.value.0 < model.weights.value.0;
    let found = others(point, model, catalog)
        .into_iter()
        .find(|one| smaller(one))?;
    Some(Change::Model(found.name.clone()))
}
