//! What the best cache could have given: the same calls, on a clairvoyant engine and on one without end of memory.
//!
//! [`Served`] takes the events of a replay and [`Served::best`] says what two caches that no engine can build would
//! have found. Both keep prefixes in whole units (vLLM's blocks, llama.cpp's tokens) and find at most all of a prompt
//! but its last token. What a call computes (its prompt, and its kept answer but for the last token) is taken to be
//! there from the call's admission on.
//!
//! - **Unbounded**: of each call the longest prefix that calls admitted earlier have computed.
//! - **Optimal**: Belady's rule on the memory that the engine has. Whenever a call has read its prompt, and when it ends,
//!   what calls in flight hold and what is kept for later calls must fit; what is needed last goes first, and of one
//!   prompt the deepest first, so prefixes stay whole. A call holds its prompt from its first token to its end (one that
//!   was preempted: at its end alone), and its answer at its end; what several hold is there once.
//!
//! For calls that follow one another this is exactly the best that any policy can do. Where calls overlap it is an upper
//! bound on every policy at these same moments: the memory of prompts that are still being read is not counted, and what
//! is still being computed is found already. What a warm start holds counts as computed when its call is made. Recurrent
//! states take no memory here and are found wherever keys and values are. An engine that found more would have had other
//! calls at other times, so this is a bound on tokens and says nothing of time.
//!
//! The work is done on runs of units that calls have in common, never on single units.

use crate::call::{Call, Realms, Reply};
use crate::event::{Event, Sink};
use crate::ids::NodeId;
use crate::metrics::MOST_ROOM;
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

/// A call as it is kept: 80 bytes.
#[derive(Clone, Copy, Debug)]
struct Kept {
    submitted: Time,
    admitted: Time,
    /// When all of its prompt was in memory, to stay there until the end; nothing where that is not known.
    read: Option<Time>,
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
    /// Returns a list with room for the calls that are expected.
    pub fn with_capacity(calls: usize) -> Served {
        Served {
            calls: Vec::with_capacity(calls.min(MOST_ROOM)),
        }
    }

    fn called(&mut self, at: Time, call: &Call) {
        assert_eq!(
            call.id.index(),
            self.calls.len(),
            "calls are numbered in the order in which they are made"
        );
        self.calls.push(Kept {
            submitted: at,
            admitted: at,
            read: None,
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
        // Who waited after admission was preempted, and held nothing meanwhile.
        let preempted = reply.parts.queue > call.admitted.since(reply.submitted);
        let read = reply.first_token.filter(|&at| at > call.admitted);
        call.read = if preempted { None } else { read };
        call.computed = call.prompt_tokens + (reply.output.0 as u32).saturating_sub(1);
    }

    /// Returns what the best caches of that shape would have found; `content` is what the calls refer to.
    pub fn best(self, content: &Content, shape: CacheShape) -> Best {
        let unit = shape.granularity.0.max(1);
        let warm = self.calls.iter().filter(|one| one.warm > 0);
        let warm: Vec<Kept> = warm.map(Kept::warming).collect();
        let mut calls = self.calls;
        calls.retain(|one| one.answered);
        calls.splice(..0, warm);
        calls.sort_by_key(|call| call.admitted);
        let shared = shared(&calls, content);
        if !shared.contains(&true) {
            // Nobody comes upon what another has computed.
            return Best::default();
        }
        let paths = Paths::of(&calls, content, unit, &shared);
        let timeline = Timeline::of(&calls);
        let uses = Uses::of(&paths, &timeline);
        let tokens = |units: u64| Tokens(units * unit);
        let found: u64 = uses.found.iter().map(|&units| u64::from(units)).sum();
        let lost = shape.capacity.map_or(0, |capacity| {
            let own = |call: u32| {
                let call = &calls[call as usize];
                call.answered.then_some(u64::from(call.computed) / unit)
            };
            lost(&uses.waits, &paths, &timeline, own, capacity.0 / unit)
        });
        Best {
            optimal: tokens(found - lost),
            unbounded: tokens(found),
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    /// All of its prompt is in memory.
    Read,
    /// It ends, and lets go.
    Ended,
    /// It comes in.
    Admitted,
    /// It ends at the moment at which it came in.
    EndedAtOnce,
}

/// What happens to calls, as places in one order of all these moments, from 1.
struct Timeline {
    moments: Vec<(u32, Moment)>,
    admitted: Vec<u32>,
    ended: Vec<u32>,
}

impl Timeline {
    fn of(calls: &[Kept]) -> Timeline {
        let mut order: Vec<(Time, u32, Moment)> = Vec::with_capacity(3 * calls.len());
        for (place, call) in calls.iter().enumerate() {
            let end = if call.admitted == call.finished {
                Moment::EndedAtOnce
            } else {
                Moment::Ended
            };
            let place = place as u32;
            order.extend(call.read.map(|at| (at, place, Moment::Read)));
            order.push((call.admitted, place, Moment::Admitted));
            order.push((call.finished, place, end));
        }
        // A step that ends has all it worked on in memory; then calls end, and then others are admitted.
        order
            .sort_unstable_by_key(|&(at, call, what)| (at, what.min(Moment::Admitted), call, what));
        let mut timeline = Timeline {
            moments: Vec::with_capacity(order.len()),
            admitted: vec![0; calls.len()],
            ended: vec![0; calls.len()],
        };
        for (place, (_, call, what)) in order.into_iter().enumerate() {
            timeline.moments.push((call, what));
            let place = place as u32 + 1;
            match what {
                Moment::Read => {}
                Moment::Admitted => timeline.admitted[call as usize] = place,
                Moment::Ended | Moment::EndedAtOnce => timeline.ended[call as usize] = place,
            }
        }
        timeline
    }
}

/// Where a call stands in the tree of runs.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The last run that it computes.
    tip: u32,
    /// The last run of its prompt in which it may find something: what it is known to hold while it runs.
    prompt: u32,
    /// Up to which unit it may find something.
    limit: u32,
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
    fn of(calls: &[Kept], content: &Content, unit: u64, shared: &[bool]) -> Paths {
        let cuts = cuts(calls, content, unit);
        let mut paths = Paths {
            parent: vec![START],
            end: vec![0],
            places: Vec::with_capacity(calls.len()),
        };
        let mut last_of: FxHashMap<u64, u32> = FxHashMap::default();
        let mut fresh: Vec<(NodeId, u64, u32)> = Vec::new();
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
                fresh.push((node, key, to));
            }
            for (node, key, to) in fresh.drain(..).rev() {
                let first = cuts.partition_point(|cut| *cut < (key, 0));
                let inside = cuts[first..].iter().take_while(|cut| cut.0 == key);
                for end in inside.map(|cut| cut.1).chain([to]) {
                    paths.parent.push(at);
                    paths.end.push(end);
                    at = (paths.end.len() - 1) as u32;
                }
                // What no other call passes is not looked for again.
                if shared[node.index()] {
                    last_of.insert(key, at);
                }
            }
            needed.resize(paths.end.len(), false);
            let [limit, computed] = call.borders(unit);
            let tip = paths.above(at, computed);
            let limit_at = paths.above(tip, limit);
            for border in [tip, limit_at] {
                needed[border as usize] = true;
            }
            paths.places.push(Place {
                tip,
                prompt: limit_at,
                limit,
            });
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

    /// Returns the runs from `at` up to, but without, `stop`, and how many units each has.
    fn upwards(&self, mut at: u32, stop: u32) -> impl Iterator<Item = (usize, u64)> + '_ {
        std::iter::from_fn(move || {
            (at != stop).then(|| {
                let run = at as usize;
                at = self.parent[run];
                (run, u64::from(self.end[run] - self.end[at as usize]))
            })
        })
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
    /// Returns what stands for the beginning that was there before the call came: no call, but content.
    fn warming(&self) -> Kept {
        Kept {
            admitted: self.submitted,
            read: None,
            finished: self.submitted,
            tip: self.prompt,
            prompt_tokens: 0,
            computed: self.warm,
            warm: 0,
            answered: false,
            ..*self
        }
    }

    /// Returns up to where it may find something, and what it computes, in units.
    fn borders(&self, unit: u64) -> [u32; 2] {
        let units = |tokens: u32| (u64::from(tokens) / unit) as u32;
        let limit = units(self.prompt_tokens.saturating_sub(1));
        [limit, units(self.computed)]
    }
}

/// Returns where calls end, or stop to find anything, inside of what one node owns; in order.
fn cuts(calls: &[Kept], content: &Content, unit: u64) -> Vec<(u64, u32)> {
    let mut cuts = Vec::new();
    for call in calls {
        let [limit, computed] = call.borders(unit);
        for (tip, border) in [(call.prompt, limit), (call.tip, computed)] {
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

/// Returns for each node whether the paths of several calls go through it, whosever content it is.
fn shared(calls: &[Kept], content: &Content) -> Vec<bool> {
    let mut passed = vec![false; content.len()];
    let mut shared = vec![false; content.len()];
    let is = |marks: &[bool], node: NodeId| marks[node.index()];
    for call in calls {
        let mut above = content.upwards(call.tip).skip_while(|&node| {
            let first = !is(&passed, node);
            passed[node.index()] = true;
            first
        });
        // Whatever lies above was passed by the same calls, and marked with the first of them.
        while let Some(node) = above.next()
            && !is(&shared, node)
        {
            shared[node.index()] = true;
        }
    }
    shared
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
                if end <= place.limit && held[run] > 0 {
                    found += units;
                    if held[run] < admitted {
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

/// Memory of a fixed size.
struct Memory {
    capacity: u64,
    /// Units kept for each call to come, and for all of them.
    kept_for: Vec<u64>,
    kept: u64,
    /// The calls for which something is kept, the last to come first.
    furthest: BinaryHeap<u32>,
    /// How many calls that are known to hold their prompts hold each run, and how many units they hold together.
    holders: Vec<u32>,
    held: u64,
    lost: u64,
}

impl Memory {
    fn keep(&mut self, wait: Wait) {
        self.kept_for[wait.call as usize] += u64::from(wait.units);
        self.kept += u64::from(wait.units);
        self.furthest.push(wait.call);
    }

    /// A call takes up what was kept for it.
    fn admit(&mut self, call: u32) {
        self.kept -= std::mem::take(&mut self.kept_for[call as usize]);
    }

    /// Loses what is needed last until all that is kept fits beside what is held, and `more`.
    fn shrink(&mut self, more: u64) {
        let room = self.capacity.saturating_sub(self.held + more);
        while self.kept > room {
            let &last = self
                .furthest
                .peek()
                .expect("what is kept is kept for a call");
            let units = &mut self.kept_for[last as usize];
            let gone = (self.kept - room).min(*units);
            *units -= gone;
            if *units == 0 {
                self.furthest.pop();
            }
            self.kept -= gone;
            self.lost += gone;
        }
    }

    fn hold(&mut self, paths: &Paths, tip: u32) {
        for (run, units) in paths.upwards(tip, START) {
            self.held += if self.holders[run] == 0 { units } else { 0 };
            self.holders[run] += 1;
        }
    }

    fn let_go(&mut self, paths: &Paths, tip: u32) {
        for (run, units) in paths.upwards(tip, START) {
            self.holders[run] -= 1;
            self.held -= if self.holders[run] == 0 { units } else { 0 };
        }
    }
}

/// Returns how many units are lost when no more than `capacity` fit; `own` says how many a call computes in all,
/// and nothing for what was there before its call came.
fn lost(
    waits: &[Wait],
    paths: &Paths,
    timeline: &Timeline,
    own: impl Fn(u32) -> Option<u64>,
    capacity: u64,
) -> u64 {
    let mut memory = Memory {
        capacity,
        kept_for: vec![0; paths.places.len()],
        kept: 0,
        furthest: BinaryHeap::new(),
        holders: vec![0; paths.end.len()],
        held: 0,
        lost: 0,
    };
    let mut holds = vec![false; paths.places.len()];
    let mut coming = waits.iter().peekable();
    for (at, &(call, what)) in timeline.moments.iter().enumerate() {
        let place = paths.places[call as usize];
        match what {
            Moment::Admitted => memory.admit(call),
            Moment::Read => {
                memory.hold(paths, place.prompt);
                holds[call as usize] = true;
                memory.shrink(0);
            }
            Moment::Ended | Moment::EndedAtOnce => {
                let held = holds[call as usize];
                let stop = if held { place.prompt } else { START };
                let rest = paths.upwards(place.tip, stop);
                let alone = rest.filter(|(run, _)| memory.holders[*run] == 0);
                let named: u64 = alone.map(|(_, units)| units).sum();
                if let Some(own) = own(call) {
                    let unnamed = own - u64::from(paths.end[place.tip as usize]);
                    memory.shrink(named + unnamed);
                }
                if held {
                    memory.let_go(paths, place.prompt);
                }
            }
        }
        while let Some(&wait) = coming.next_if(|wait| wait.from <= at as u32 + 1) {
            memory.keep(wait);
        }
    }
    memory.lost
}
