//! What the steps of a session have in common with those before them, noted once when a trace is complete.

use super::content::{Content, ROOT};
use super::{Session, Spawn, Step};
use crate::ids::NodeId;
use crate::units::Tokens;
use rustc_hash::FxHashSet;

/// Sub-agents of which nothing was recorded are forgotten, and nobody waits for them.
pub(super) fn drop_empty_threads(session: &mut Session) {
    let kept: Vec<Option<u32>> = session
        .threads
        .iter()
        .scan(0, |next, thread| {
            let place = (!thread.steps.is_empty()).then_some(*next);
            *next += u32::from(place.is_some());
            Some(place)
        })
        .collect();
    session.threads.retain(|thread| !thread.steps.is_empty());
    for gap in session
        .threads
        .iter_mut()
        .flat_map(|thread| &mut thread.steps)
        .map(|step| &mut step.gap)
    {
        gap.joins = gap
            .joins
            .iter()
            .filter_map(|&thread| kept[thread as usize])
            .collect();
        gap.spawns = gap
            .spawns
            .iter()
            .filter_map(|spawn| {
                Some(Spawn {
                    thread: kept[spawn.thread as usize]?,
                    ..*spawn
                })
            })
            .collect();
    }
}

/// Notes for each step how far its prompt follows what the thread sent or received before.
pub(crate) fn note_what_was_seen(content: &Content, steps: &mut [Step]) {
    let mut visited: FxHashSet<NodeId> = FxHashSet::default();
    // Nodes that end an answer, until a later prompt has gone through them: their last token was never computed.
    let mut answers: FxHashSet<NodeId> = FxHashSet::default();
    visited.insert(ROOT);
    for step in steps {
        let mut at = step.prompt;
        while !visited.contains(&at) {
            at = content.parent(at);
        }
        step.seen = content.end(at);
        step.seen_computed = if answers.contains(&at) {
            Tokens(step.seen.0 - 1)
        } else {
            step.seen
        };
        step.again = step.again.min(step.prompt_tokens - step.seen);
        if at != ROOT {
            answers.remove(&at);
        }
        let mark = |visited: &mut FxHashSet<NodeId>, tip: NodeId| {
            for node in content.upwards(tip) {
                if !visited.insert(node) {
                    break;
                }
            }
        };
        mark(&mut visited, step.prompt);
        if step.output != step.prompt && !visited.contains(&step.output) {
            mark(&mut visited, step.output);
            answers.insert(step.output);
        }
    }
}
