//! The best that a cache could have given, against a twin that knows every unit by itself, and against engines.

use crate::world::{Settings, World, for_seeds, seeds};
use laptime::call::{Call, CallParts, Outcome, Reply, TokenClasses};
use laptime::event::{Event, LapKey, Sink};
use laptime::ids::RunId;
use laptime::rig::CacheShape;
use laptime::study::bound::{Best, Served};
use laptime::trace::content::Content;
use laptime::units::{Time, Tokens};
use std::collections::BTreeMap;

fn best(events: &[Event], content: &Content, shape: CacheShape) -> Best {
    let mut served = Served::default();
    for event in events {
        served.event(event.clone());
    }
    served.best(content, shape)
}

/// Calls with their replies, in the order of admission.
fn served(events: &[Event]) -> Vec<(Call, Reply)> {
    let mut calls = BTreeMap::new();
    let mut served = Vec::new();
    for event in events {
        match event {
            Event::Called { call, .. } => {
                calls.insert(call.id, *call);
            }
            Event::Answered { reply } if !reply.outcome.failed() => {
                served.push((calls[&reply.call], *reply));
            }
            _ => {}
        }
    }
    served.sort_by_key(|(call, reply)| (reply.admitted, call.id));
    served
}

/// The same calls, one after the other.
fn in_turn(events: &[Event]) -> Vec<Event> {
    let mut turned = Vec::new();
    for event in events {
        if let Event::Called { call, .. } = event {
            turned.push(Event::Called {
                at: Time::ZERO,
                call: Call {
                    warm: Tokens::ZERO,
                    ..*call
                },
                lap: LapKey {
                    run: RunId(0),
                    thread: 0,
                    lap: 0,
                },
                parent: None,
            });
        }
    }
    for (turn, (call, reply)) in served(events).into_iter().enumerate() {
        let at = |nanos: usize| Time(nanos as u64);
        let reply = Reply {
            bound: None,
            submitted: Time::ZERO,
            admitted: Some(at(2 * turn + 1)),
            finished: at(2 * turn + 2),
            cached: Tokens::ZERO,
            classes: TokenClasses::default(),
            parts: CallParts::default(),
            outcome: Outcome::Ok,
            first_token: None,
            ..reply
        };
        assert_eq!(reply.call, call.id);
        turned.push(Event::Answered { reply });
    }
    turned
}

/// The name of a unit: everything up to its end is equal where this is.
type Unit = (u32, u32, u64);

fn units(call: &Call, reply: &Reply, content: &Content, unit: u64) -> Vec<Unit> {
    let tip = if call.output_shared {
        call.output
    } else {
        call.prompt
    };
    let computed = call.prompt_tokens.0 + reply.output.0.saturating_sub(1);
    let mut path = Vec::new();
    content.path(tip, &mut path);
    let mut units = Vec::new();
    for node in path {
        let realm = if content.is_head(node) {
            call.realms.head
        } else {
            call.realms.private
        };
        while (units.len() as u64 + 1) * unit <= content.end(node).0.min(computed) {
            units.push((node.0, realm, units.len() as u64));
        }
    }
    units
}

/// Belady's rule, unit by unit, for calls that follow one another.
fn naive(events: &[Event], content: &Content, shape: CacheShape) -> u64 {
    let unit = shape.granularity.0;
    let calls = served(events);
    let paths: Vec<Vec<Unit>> = calls
        .iter()
        .map(|(call, reply)| units(call, reply, content, unit))
        .collect();
    let limit = |turn: usize| ((calls[turn].0.prompt_tokens.0 - 1) / unit) as usize;
    // The next call that needs the unit, and would otherwise have to compute it.
    let needed = |one: &Unit, after: usize| {
        let next = (after + 1..calls.len()).find(|&turn| paths[turn].contains(one))?;
        paths[next][..limit(next).min(paths[next].len())]
            .contains(one)
            .then_some(next)
    };
    let mut kept: Vec<Unit> = Vec::new();
    let mut found = 0;
    for (turn, path) in paths.iter().enumerate() {
        let warm = (calls[turn].0.warm.0 / unit) as usize;
        let hit = path
            .iter()
            .take(limit(turn))
            .enumerate()
            .take_while(|(place, one)| *place < warm || kept.contains(one))
            .count();
        found += hit as u64;
        kept.retain(|one| !path.contains(one));
        let computed = calls[turn].0.prompt_tokens.0 + calls[turn].1.output.0.saturating_sub(1);
        let room = shape.capacity.map_or(u64::MAX, |all| {
            (all.0 / unit).saturating_sub(computed / unit)
        });
        let mut by_need: Vec<(Option<usize>, u64, Unit)> = kept
            .iter()
            .filter_map(|one| Some((Some(needed(one, turn)?), one.2, *one)))
            .collect();
        by_need.sort_unstable();
        by_need.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        kept = by_need.into_iter().map(|(_, _, one)| one).collect();
        kept.extend(path);
    }
    found * unit
}

/// Returns what an engine's cache holds, where that is a number of tokens.
fn shape(settings: &Settings) -> Option<CacheShape> {
    match settings {
        Settings::Vllm(settings) => Some(settings.cache()),
        Settings::Llama(settings) | Settings::Ollama(settings, _) => Some(settings.cache()),
        Settings::Sglang(_) | Settings::Mlx(_) | Settings::TrtLlm(_) => None,
    }
}

fn cached(events: &[Event]) -> Tokens {
    let replies = served(events).into_iter();
    replies.map(|(_, reply)| reply.cached).sum()
}

#[test]
fn the_bound_equals_beladys_rule_walked_unit_by_unit() {
    let mut lost = 0;
    for seed in seeds(40) {
        let world = World::new(seed);
        let content = &world.trace.content;
        let events = in_turn(&world.replay(false));
        if served(&events).len() > 25 {
            continue;
        }
        for granularity in [7, 16] {
            for capacity in [150, 900, 2_500] {
                let shape = CacheShape {
                    granularity: Tokens(granularity),
                    capacity: Some(Tokens(capacity)),
                };
                let best = best(&events, content, shape);
                let slow = naive(&events, content, shape);
                assert_eq!(best.optimal.0, slow, "SEED={seed} {shape:?}");
                lost += best.unbounded.0 - best.optimal.0;
            }
        }
    }
    assert!(
        lost > 10_000,
        "a sample in which all fits proves nothing: {lost}"
    );
}

#[test]
fn engines_never_find_more_than_the_bound() {
    let (mut found, mut optimal, mut unbounded) = (0, 0, 0);
    for seed in seeds(300) {
        let world = World::new(seed);
        let Some(shape) = shape(&world.settings) else {
            continue;
        };
        let events = world.replay(false);
        let best = best(&events, &world.trace.content, shape);
        let cached = cached(&events);
        assert!(
            cached <= best.optimal && best.optimal <= best.unbounded,
            "SEED={seed} {cached:?} {best:?}"
        );
        found += cached.0;
        optimal += best.optimal.0;
        unbounded += best.unbounded.0;
    }
    assert!(found < optimal && optimal < unbounded);
}

#[test]
fn with_ample_memory_the_two_bounds_are_one() {
    for_seeds(100, |seed| {
        let world = World::new(seed);
        let Some(held) = shape(&world.settings) else {
            return;
        };
        let events = world.replay(false);
        for capacity in [None, Some(Tokens(1 << 40))] {
            let shape = CacheShape { capacity, ..held };
            let best = best(&events, &world.trace.content, shape);
            assert_eq!(best.optimal, best.unbounded);
        }
    });
}
