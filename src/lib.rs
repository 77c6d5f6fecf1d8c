//! laptime times the agent loop: it replays recorded coding-agent sessions, N agents at a time, on a simulated rig
//! (hardware x engine x model), and says how long the loop takes and where every nanosecond of it went.
//!
//! ```text
//!  trace files ──► trace ───► Workload ──► Fleet ── Call ──► Rig    (virtual time, turned by sim)
//!  scenario  ────► scenario                  ▲ │               │
//!  catalog ──────► study::rig ──► Rig        │ └──── Event ────┼──► metrics ──► report
//!                                            └──── Reply ◄─────┘       └─────► journal
//! ```
//!
//! A *session* is what was recorded, a *run* one replay of it, a *lap* one turn of the loop: the prompt goes out, the
//! model answers, the tools run. An agent ([`agent`]) is a state machine that is told the time; N of them in lanes are a
//! [`fleet`]. A [`rig`] answers their calls with the scheduler and the cache of its engine. [`sim`] turns both in virtual
//! time, and [`metrics`] folds what happened into figures whose parts add up exactly.
//!
//! How long does one agent take to find and fix a failing test on a DGX Spark?
//!
//! ```
//! use laptime::catalog::Catalog;
//! use laptime::fleet::{Plan, Share};
//! use laptime::study::{replay::{Workload, replay}, rig};
//! use laptime::trace::read;
//!
//! let bytes = include_bytes!("../traces/test-fix-loop.jsonl");
//! let trace = read::load_bytes("test-fix-loop", bytes, &read::ReadOptions::default())?;
//! let spark = "dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0";
//! let rig = rig::build(spark, &[], &Catalog::builtin(), &trace.content)?;
//! let plan = Plan { agents: 1, runs: None, share: Share::Head, conduct: Default::default() };
//! let workload = Workload::new(&trace, plan, 0);
//! let answer = replay(&trace, &workload, rig, &mut Vec::new());
//! let run = answer.metrics.summary.run.expect("one run has ended");
//! println!("{} on {spark}, {}", run.p50, answer.point.trust); // "45.1 s on dgx-spark/..., calibrated"
//! # assert!((30.0..60.0).contains(&run.p50.secs()), "{}", run.p50);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/architecture.md` is the map of the code, `docs/accuracy.md` says how far predictions are off.
#![forbid(unsafe_code)]

pub mod agent;
pub mod call;
pub mod catalog;
pub mod cli;
pub mod error;
pub mod event;
pub mod fleet;
pub mod ids;
pub mod journal;
pub mod known;
pub mod listen;
pub mod live;
pub mod measured;
pub mod metrics;
pub mod operating_point;
pub mod proxy;
pub mod report;
pub mod rig;
pub mod rng;
pub mod scenario;
pub mod serve;
pub mod sim;
pub mod study;
pub mod trace;
pub mod units;
