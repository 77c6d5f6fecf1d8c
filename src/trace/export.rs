//! Traces in the dialects that other tools read: Mooncake rows and kv-cache-tester sessions.
//!
//! Both know content by the ids of whole blocks. An id stands for all that a prompt holds up to the block's end, so two
//! prompts have an id in common exactly where they are the same that far.

pub mod mooncake;
pub mod weka;

use super::content::{Content, ROOT};
use super::{Session, Step, Trace};
use crate::ids::NodeId;
use crate::units::Span;
use rustc_hash::FxHashMap;

/// Numbers for blocks.
#[derive(Debug)]
struct Blocks {
    size: u64,
    next: u64,
    known: FxHashMap<(NodeId, u64), u64>,
}

impl Blocks {
    fn new(size: u32, first: u64) -> Blocks {
        Blocks {
            size: u64::from(size.max(1)),
            next: first,
            known: FxHashMap::default(),
        }
    }

    /// Returns a number that nothing else has.
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Returns the ids of a prompt's whole blocks.
    fn ids(&mut self, content: &Content, tip: NodeId) -> Vec<u64> {
        let mut path = Vec::new();
        content.path(tip, &mut path);
        let mut ids = Vec::new();
        for node in path {
            // Paths that hold a position in the same node are the same up to there.
            let mut end = (content.start(node).0 / self.size + 1) * self.size;
            while end <= content.end(node).0 {
                let next = self.next;
                let id = *self.known.entry((node, end)).or_insert(next);
                self.next += u64::from(id == next);
                ids.push(id);
                end += self.size;
            }
        }
        ids
    }
}

/// Returns everything that passes between an answer and the next request, but for sub-agents.
fn wait(step: &Step) -> Span {
    let gap = &step.gap;
    gap.tool + gap.client + gap.human + gap.unknown
}

/// Returns how much of a session's first prompt is its head.
fn head(content: &Content, step: &Step) -> u64 {
    let mut path = content.upwards(step.prompt);
    let head = path.find(|&node| content.is_head(node)).unwrap_or(ROOT);
    content.end(head).0
}

/// Returns how many steps of a trace fulfil a condition.
fn count(trace: &Trace, what: impl Fn(&Session, usize, &Step) -> bool) -> usize {
    let sessions = trace.sessions.iter();
    sessions
        .map(|session| {
            let threads = session.threads.iter().enumerate();
            threads
                .map(|(at, thread)| {
                    thread
                        .steps
                        .iter()
                        .filter(|step| what(session, at, step))
                        .count()
                })
                .sum::<usize>()
        })
        .sum()
}
