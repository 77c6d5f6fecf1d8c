//! What the best cache could have given: the same calls, on a clairvoyant engine and on one without end of memory.
//!
//! [`Served`] takes the events of a replay and [`Served::best`] says what two caches that no engine can build would
//! have found. Both keep prefixes in whole units (vLLM's blocks, llama.cpp's tokens) and find at most all of a prompt
//! but its last token. What a call computes (its prompt, and its kept answer but for the last token) is taken to be
//! there from the call's admission on.
//!
//! - **Unbounded**: of each call the longest prefix that calls admitted earlier have computed.
//! - **Optimal**: Belady's rule on the memory that the engine has. When a call ends, its own content and what is kept
//!   for later calls must fit; what is needed last goes first, and of one prompt the deepest first, so prefixes stay
//!   whole. Whatever some call in flight uses is held and costs nothing more.
//!
//! For calls that follow one another this is exactly the best that any policy can do. Where calls overlap it is an upper
//! bound on every policy at these same moments: memory is only counted when calls end, and what is still being computed
//! is found already. Recurrent states take no memory here and are found wherever keys and values are. An engine that
//! found more would have had other calls at other times, so this is a bound on tokens and says nothing of time.
//!
//! The work is done on runs of units that calls have in common, never on single units.

use crate::call::{Call, Realms, Reply};
use crate::event::{Event, Sink};
use crate::ids::NodeId;
use crate::rig::CacheShape;
use crate::trace::content::Content;
use crate::units::{Time, Tokens};
use rustc_hash::FxHashMap;
use std::collections::BinaryHeap;

/// What the best caches would have found, over all calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Best {
    /// With the engine's memory and knowledge of all that follows.
    pub optimal: Tokens,
    /// With memory without end.
    pub unbounded: Tokens,
}

/// A call as it is kept: 64 bytes.
#[derive(Clone, Copy, Debug)]
struct Kept {
    admitted: Time,
    finished: Time,
    prompt: NodeId,
    /// Where what can be found again ends: in the answer, or in the prompt where the answer is not kept.
    tip: NodeId,
    realms: Realms,
    prompt_tokens: u32,
    /// Tokens computed, the answer's last left out.
    computed: u32,
    warm: u32,
    answered: bool,
}

/// The calls of a replay, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Served {
    calls: Vec<Kept>,
}

impl Sink for Served {
    fn event(&mut self, event: Event) {
        match event {
            Event::Called { at, call, .. } => self.called(at, &call),
            Event::Answered { reply } => self.answered(&reply),
            Event::RunStarted { .. } | Event::LapEnded { .. } | Event::RunEnded { .. } => {}
        }
    }
}

impl Served {
    fn called(&mut self, at: Time, call: &Call) {
        assert_eq!(
            call.id.index(),
            self.calls.len(),
            "calls are numbered in the order in which they are made"
        );
        self.calls.push(Kept {
            admitted: at,
            finished: at,
            prompt: call.prompt,
            tip: if call.output_shared {
                call.output
            } else {
                call.prompt
            },
            realms: call.realms,
            prompt_tokens: call.prompt_tokens.0 as u32,
            computed: 0,
            warm: call.warm.0 as u32,
            answered: false,
        });
    }

    fn answered(&mut self, reply: &Reply) {
        let call = &mut self.calls[reply.call.index()];
        call.answered = !reply.outcome.failed();
        call.admitted = reply.admitted.unwrap_or(reply.submitted);
        call.finished = reply.finished;
        call.computed = call.prompt_tokens + (reply.output.0 as u32).saturating_sub(1);
    }

    /// Returns what the best caches of that shape would have found; `content` is what the calls refer to.
    pub fn best(&self, content: &Content, shape: CacheShape) -> Best {
        let unit = shape.granularity.0.max(1);
        let mut calls: Vec<Kept> = self
            .calls
            .iter()
            .filter(|one| one.answered)
            .copied()
            .collect();
        calls.sort_by_key(|call| call.admitted);
        let paths = Paths::of(&calls, content, unit);
        let timeline = Timeline::of(&calls);
        let uses = Uses::of(&paths, &timeline);
        let tokens = |units: u64| Tokens(units * unit);
        let found: u64 = uses.found.iter().map(|&units| u64::from(units)).sum();
        let lost = shape.capacity.map_or(0, |capacity| {
            let own = |call: u32| u64::from(calls[call as usize].computed) / unit;
            lost(&uses.waits, &timeline, own, capacity.0 / unit)
        });
        Best {
            optimal: tokens(found - lost),
            unbounded: tokens(found),
        }
    }
}

/// When calls were admitted and ended, as places in one order of all these moments, from 1.
struct Timeline {
    /// For each moment the call and whether it ended then.
    moments: Vec<(u32, bool)>,
    admitted: Vec<u32>,
    ended: Vec<u32>,
}

impl Timeline {
    fn of(calls: &[Kept]) -> Timeline {
        // At one moment calls end before others are admitted, unless they took no time at all.
        let mut order: Vec<(Time, u32, u8)> = Vec::with_capacity(2 * calls.len());
        for (place, call) in calls.iter().enumerate() {
            let instant = call.admitted == call.finished;
            order.push((call.admitted, place as u32, 1));
            order.push((call.finished, place as u32, if instant { 2 } else { 0 }));
        }
        order.sort_unstable_by_key(|&(at, call, kind)| (at, kind > 0, call, kind));
        let mut timeline = Timeline {
            moments: Vec::with_capacity(order.len()),
            admitted: vec![0; calls.len()],
            ended: vec![0; calls.len()],
        };
        for (place, (_, call, kind)) in order.into_iter().enumerate() {
            let ends = kind != 1;
            timeline.moments.push((call, ends));
            let noted = if ends {
                &mut timeline.ended
            } else {
                &mut timeline.admitted
            };
            noted[call as usize] = place as u32 + 1;
        }
        timeline
    }
}

/// Where a call stands in the tree of runs.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The last run that it computes.
    tip: u32,
    /// Up to which unit it may find something.
    limit: u32,
    /// Up to which unit it was there before it came.
    warm: u32,
}

/// A tree of runs of units: every call computes a path of whole runs.
struct Paths {
    parent: Vec<u32>,
    /// The unit at which each run ends, counted from the start of the prompt.
    end: Vec<u32>,
    places: Vec<Place>,
}

/// The run before the first unit.
const START: u32 = 0;

impl Paths {
    fn of(calls: &[Kept], content: &Content, unit: u64) -> Paths {
        let cuts = cuts(calls, content, unit);
        let mut paths = Paths {
            parent: vec![START],
            end: vec![0],
            places: Vec::with_capacity(calls.len()),
        };
        let mut last_of: FxHashMap<u64, u32> = FxHashMap::default();
        let mut fresh: Vec<(u64, u32)> = Vec::new();
        let mut needed = vec![true];
        for call in calls {
            let mut at = START;
            for node in content.upwards(call.tip) {
                let (from, to) = owned(content, node, unit);
                if from == to {
                    continue;
                }
                let key = key(content, node, call.realms);
                if let Some(&last) = last_of.get(&key) {
                    at = last;
                    break;
                }
                fresh.push((key, to));
            }
            for (key, to) in fresh.drain(..).rev() {
                let first = cuts.partition_point(|cut| *cut < (key, 0));
                let inside = cuts[first..].iter().take_while(|cut| cut.0 == key);
                for end in inside.map(|cut| cut.1).chain([to]) {
                    paths.parent.push(at);
                    paths.end.push(end);
                    at = (paths.end.len() - 1) as u32;
                }
                last_of.insert(key, at);
            }
            needed.resize(paths.end.len(), false);
            let [limit, computed, warm] = call.borders(unit);
            let tip = paths.above(at, computed);
            let limit_at = paths.above(tip, limit);
            let warm_at = paths.above(tip, warm);
            for border in [tip, limit_at, warm_at] {
                needed[border as usize] = true;
            }
            paths.places.push(Place { tip, limit, warm });
        }
        paths.join(&needed);
        paths
    }

    /// Returns the run on the path to `at` that ends at `unit` or, where the path has no run there, before.
    fn above(&self, mut at: u32, unit: u32) -> u32 {
        while self.end[at as usize] > unit {
            at = self.parent[at as usize];
        }
        at
    }

    /// Joins runs that no call tells apart.
    fn join(&mut self, needed: &[bool]) {
        let mut children = vec![0_u32; self.parent.len()];
        let mut child = vec![START; self.parent.len()];
        for (run, &parent) in self.parent.iter().enumerate().skip(1) {
            children[parent as usize] += 1;
            child[parent as usize] = run as u32;
        }
        // Parents stand before their children.
        for run in 1..self.parent.len() {
            if !needed[run] && children[run] == 1 {
                self.parent[child[run] as usize] = self.parent[run];
            }
        }
    }
}

impl Kept {
    /// Returns up to where it may find something, what it computes, and what was there before it came, in units.
    fn borders(&self, unit: u64) -> [u32; 3] {
        let units = |tokens: u32| (u64::from(tokens) / unit) as u32;
        let limit = units(self.prompt_tokens.saturating_sub(1));
        [limit, units(self.computed), units(self.warm).min(limit)]
    }
}

/// Returns where calls end, or stop to find anything, inside of what one node owns; in order.
fn cuts(calls: &[Kept], content: &Content, unit: u64) -> Vec<(u64, u32)> {
    let mut cuts = Vec::new();
    for call in calls {
        let [limit, computed, warm] = call.borders(unit);
        for (tip, border) in [
            (call.prompt, limit),
            (call.tip, computed),
            (call.prompt, warm),
        ] {
            if border == 0 {
                continue;
            }
            let holder = content
                .upwards(tip)
                .map(|node| (node, owned(content, node, unit)))
                .find(|(_, (from, _))| *from < border);
            if let Some((node, (_, to))) = holder
                && border < to
            {
                cuts.push((key(content, node, call.realms), border));
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Returns the units whose last token lies in the node.
fn owned(content: &Content, node: NodeId, unit: u64) -> (u32, u32) {
    let units = |tokens: Tokens| (tokens.0 / unit) as u32;
    (units(content.start(node)), units(content.end(node)))
}

fn key(content: &Content, node: NodeId, realms: Realms) -> u64 {
    let realm = if content.is_head(node) {
        realms.head
    } else {
        realms.private
    };
    u64::from(node.0) << 32 | u64::from(realm)
}

/// Units that nobody uses between two moments, and that a call would find again.
#[derive(Clone, Copy, Debug)]
struct Wait {
    from: u32,
    call: u32,
    units: u32,
}

/// What calls find, and what has to be kept for it.
struct Uses {
    found: Vec<u32>,
    /// By the moment from which they are kept.
    waits: Vec<Wait>,
}

impl Uses {
    fn of(paths: &Paths, timeline: &Timeline) -> Uses {
        // Until which moment some call holds a run, 0 where none ever computed it.
        let mut held = vec![0_u32; paths.end.len()];
        let mut uses = Uses {
            found: Vec::with_capacity(paths.places.len()),
            waits: Vec::new(),
        };
        for (call, place) in paths.places.iter().enumerate() {
            let (admitted, ended) = (timeline.admitted[call], timeline.ended[call]);
            let first = uses.waits.len();
            let (mut at, mut found) = (place.tip, 0);
            while at != START {
                let run = at as usize;
                let (end, parent) = (paths.end[run], paths.parent[run]);
                let units = end - paths.end[parent as usize];
                let warm = end <= place.warm;
                if end <= place.limit && (warm || held[run] > 0) {
                    found += units;
                    if !warm && held[run] < admitted {
                        uses.wait(first, held[run], call as u32, units);
                    }
                }
                held[run] = held[run].max(ended);
                at = parent;
            }
            uses.found.push(found);
        }
        uses.waits.sort_by_key(|wait| wait.from);
        uses
    }

    /// Notes that `units` are kept for `call`, whose waits begin at `first`.
    fn wait(&mut self, first: usize, from: u32, call: u32, units: u32) {
        match self.waits[first..].last_mut() {
            Some(last) if last.from == from => last.units += units,
            _ => self.waits.push(Wait { from, call, units }),
        }
    }
}

/// Returns how many units are lost when no more than `capacity` fit, those needed last going first.
fn lost(waits: &[Wait], timeline: &Timeline, own: impl Fn(u32) -> u64, capacity: u64) -> u64 {
    let mut kept_for = vec![0_u64; timeline.admitted.len()];
    let mut furthest: BinaryHeap<u32> = BinaryHeap::new();
    let (mut kept, mut lost) = (0, 0);
    let mut coming = waits.iter().peekable();
    for (place, &(call, ends)) in timeline.moments.iter().enumerate() {
        if !ends {
            kept -= std::mem::take(&mut kept_for[call as usize]);
            continue;
        }
        let room = capacity.saturating_sub(own(call));
        while kept > room {
            let &last = furthest.peek().expect("what is kept is kept for a call");
            let units = &mut kept_for[last as usize];
            let gone = (kept - room).min(*units);
            *units -= gone;
            if *units == 0 {
                furthest.pop();
            }
            kept -= gone;
            lost += gone;
        }
        while let Some(wait) = coming.next_if(|wait| wait.from <= place as u32 + 1) {
            kept_for[wait.call as usize] += u64::from(wait.units);
            kept += u64::from(wait.units);
            furthest.push(wait.call);
        }
    }
    lost
}
