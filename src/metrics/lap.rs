//! Where each nanosecond of a lap went.
//!
//! A lap runs from a call's submission to the next submission of the same conversation, or to its end. Its parts are
//! those of its calls and of the gap that followed the last of them; together they are the lap, exactly.

use crate::call::CallParts;
use crate::event::GapParts;
use crate::units::Span;
use std::ops::AddAssign;

/// Where the time of one or many laps went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LapParts {
    /// The time during which a call was out.
    pub calls: CallParts,
    /// The time between the answer and the next request.
    pub gap: GapParts,
}

/// What can make a loop slow, as a person would name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bottleneck {
    /// Reading content for the first time.
    Prefill,
    /// Reading content again.
    Reread,
    /// Writing the answer.
    Decode,
    /// What neighbours in the batch add.
    Contention,
    /// Waiting for a place on the engine.
    Queue,
    /// Moving state between memory tiers.
    KvTransfer,
    /// Tools.
    Tool,
    /// People.
    Wait,
    /// Standing still for sub-agents.
    Subagent,
    /// The client.
    Client,
}

impl Bottleneck {
    /// Returns the word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Bottleneck::Prefill => "prefill",
            Bottleneck::Reread => "re-read",
            Bottleneck::Decode => "decode",
            Bottleneck::Contention => "contention",
            Bottleneck::Queue => "queue",
            Bottleneck::KvTransfer => "kv transfer",
            Bottleneck::Tool => "tools",
            Bottleneck::Wait => "people",
            Bottleneck::Subagent => "sub-agents",
            Bottleneck::Client => "client",
        }
    }
}

/// What a loop waits for most, by the rig's own accounts: a resource of the rig, or what it does beside calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binds {
    /// A resource of the rig, by its name in result documents.
    Rig(&'static str),
    /// Something else.
    Other(Bottleneck),
}

impl Binds {
    /// Returns the name used in result documents.
    pub fn name(self) -> &'static str {
        match self {
            Binds::Rig(name) => name,
            Binds::Other(Bottleneck::Tool) => "tools",
            Binds::Other(Bottleneck::Wait) => "people",
            Binds::Other(what) => what.word(),
        }
    }

    /// Returns the words used in reports.
    pub fn words(self) -> &'static str {
        match self {
            Binds::Rig("weights_bandwidth") => "weights bandwidth",
            Binds::Rig("kv_bandwidth") => "KV bandwidth",
            Binds::Rig("host_overhead") => "host overhead",
            Binds::Rig("kv_transfer") => "KV transfer",
            Binds::Rig("kv_memory") => "KV memory",
            Binds::Rig("turn") => "place in the batch",
            Binds::Rig(name) => name,
            Binds::Other(what) => what.word(),
        }
    }
}

impl LapParts {
    /// Returns the sum of all parts: the lap's duration.
    pub fn total(&self) -> Span {
        self.calls.total() + self.gap.total()
    }

    /// Returns the parts with the names they have in result documents, in their order there.
    ///
    /// The client's overhead during calls and between them is one part.
    pub fn named(&self) -> [(&'static str, Span); 12] {
        let mut named = [("", Span::ZERO); 12];
        named[..9].copy_from_slice(&self.calls.named());
        named[0].1 += self.gap.client;
        named[9] = ("tool", self.gap.tool);
        named[10] = ("wait", self.gap.wait);
        named[11] = ("subagent", self.gap.subagent);
        named
    }

    /// Returns the parts gathered by what a person could do about them.
    pub fn gathered(&self) -> [(Bottleneck, Span); 10] {
        let calls = &self.calls;
        let reread = calls.reread_evicted + calls.reread_uncached + calls.reread_broken;
        [
            (Bottleneck::Prefill, calls.prefill_new),
            (Bottleneck::Reread, reread),
            (Bottleneck::Decode, calls.decode),
            (Bottleneck::Contention, calls.contention),
            (Bottleneck::Queue, calls.queue),
            (Bottleneck::KvTransfer, calls.kv_transfer),
            (Bottleneck::Tool, self.gap.tool),
            (Bottleneck::Wait, self.gap.wait),
            (Bottleneck::Subagent, self.gap.subagent),
            (Bottleneck::Client, calls.client + self.gap.client),
        ]
    }

    /// Returns what took the most time; of equals the first. Nothing when no time passed.
    pub fn binds(&self) -> Option<Bottleneck> {
        most(&self.gathered())
    }

    /// Returns what took the most time of all that depends on the rig.
    pub fn binds_on_rig(&self) -> Option<Bottleneck> {
        most(&self.gathered()[..6])
    }
}

fn most(gathered: &[(Bottleneck, Span)]) -> Option<Bottleneck> {
    let longer = |most, next: (Bottleneck, Span)| match most {
        Some((_, span)) if span >= next.1 => most,
        _ => Some(next),
    };
    let (what, span) = gathered.iter().copied().fold(None, longer)?;
    (span > Span::ZERO).then_some(what)
}

impl AddAssign for LapParts {
    fn add_assign(&mut self, other: LapParts) {
        self.calls += other.calls;
        self.gap += other.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> LapParts {
        let calls = CallParts {
            client: Span(1),
            queue: Span(2),
            reread_evicted: Span(3),
            reread_broken: Span(4),
            decode: Span(5),
            ..CallParts::default()
        };
        let gap = GapParts {
            client: Span(10),
            tool: Span(6),
            ..GapParts::default()
        };
        LapParts { calls, gap }
    }

    #[test]
    fn named_and_gathered_parts_sum_to_the_lap() {
        let parts = some();
        assert_eq!(parts.total(), Span(31));
        let named: Span = parts.named().into_iter().map(|(_, span)| span).sum();
        assert_eq!(named, parts.total());
        let gathered: Span = parts.gathered().into_iter().map(|(_, span)| span).sum();
        assert_eq!(gathered, parts.total());
        assert_eq!(parts.named()[0], ("client", Span(11)));
    }

    #[test]
    fn the_largest_gathered_part_binds() {
        let mut parts = some();
        assert_eq!(parts.binds(), Some(Bottleneck::Client));
        parts.calls.reread_uncached = Span(9);
        assert_eq!(parts.binds(), Some(Bottleneck::Reread));
        assert_eq!(LapParts::default().binds(), None);
        parts.gap.tool = Span(100);
        assert_eq!(parts.binds(), Some(Bottleneck::Tool));
        assert_eq!(parts.binds_on_rig(), Some(Bottleneck::Reread));
    }
}
