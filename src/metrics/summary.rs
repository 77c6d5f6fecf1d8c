//! The figures over a whole replay, and what binds it.

use super::lap::{Binds, Bottleneck, LapParts};
use super::stats::Quantiles;
use crate::call::{BoundBy, FAILURES, TokenClasses};
use crate::units::{Joules, Money, Span, Tokens};

/// Sums of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TokenTotals {
    /// Prompt tokens.
    pub prompt: Tokens,
    /// Those taken from a cache.
    pub cached: Tokens,
    /// Those that a clairvoyant cache of the same size would have given, where known; no event says.
    pub cached_optimal: Option<Tokens>,
    /// Those that a cache without end would have given, where known; no event says.
    pub cached_unbounded: Option<Tokens>,
    /// Those that were not.
    pub computed: Tokens,
    /// Tokens of answers.
    pub output: Tokens,
}

/// The figures over a whole replay. Quantiles are nothing where no value is known.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// From the first submission to the last end.
    pub wall: Span,
    /// The time in which calls were out, summed over all conversations.
    pub model: Span,
    /// The time of tools, summed over all conversations.
    pub tool: Span,
    /// How many runs began.
    pub runs: u32,
    /// How many laps ended, those of sub-agents included.
    pub laps: u32,
    /// How many calls ended, failed ones included.
    pub calls: u32,
    /// How many of them were not answered.
    pub failed_calls: u32,
    /// Those by how they ended, in the order of [`FAILURES`].
    pub failures: [u32; FAILURES.len()],
    /// Runs, from start to end.
    pub run: Option<Quantiles>,
    /// Laps, those of sub-agents included.
    pub lap: Option<Quantiles>,
    /// Time to first token of the calls that have one.
    pub ttft: Option<Quantiles>,
    /// Mean time between tokens of each call with two or more of them.
    pub itl: Option<Quantiles>,
    /// Tokens of all calls.
    pub tokens: TokenTotals,
    /// Computed prompt tokens, by why.
    pub classes: TokenClasses,
    /// Where the time of the main threads' laps went.
    pub parts: LapParts,
    /// What bound the calls of all threads, where the rig keeps such accounts of every one.
    pub bound: Option<BoundBy>,
    /// The waits that the idle cap cut off.
    pub idle_cut: Span,
    /// The energy it took, where known.
    pub energy: Option<Joules>,
    /// What it cost, where known.
    pub cost: Option<Money>,
}

/// Returns what took the most time; of equals the first. Nothing when no time passed.
fn longest(spans: impl Iterator<Item = (Binds, Span)>) -> Option<Binds> {
    let most = spans.fold(None, |most: Option<(Binds, Span)>, next| match most {
        Some((_, span)) if span >= next.1 => most,
        _ => Some(next),
    });
    most.filter(|(_, span)| *span > Span::ZERO)
        .map(|(what, _)| what)
}

impl Summary {
    /// Returns what took most of the time of all threads; nothing where the rig keeps no such accounts.
    ///
    /// Standing still for sub-agents is what these wait for.
    pub fn binds(&self) -> Option<Binds> {
        let others = [
            (Binds::Other(Bottleneck::Tool), self.tool),
            (Binds::Other(Bottleneck::Wait), self.parts.gap.wait),
        ];
        longest(self.bounds()?.into_iter().chain(others))
    }

    /// Returns what took most of the time of calls; nothing where the rig keeps no such accounts.
    pub fn binds_on_rig(&self) -> Option<Binds> {
        longest(self.bounds()?.into_iter())
    }

    /// Returns what binds: by the rig's own accounts, or by the parts of laps where it keeps none, as one that is not
    /// simulated.
    pub fn mostly(&self) -> Option<Binds> {
        let by_parts = || self.parts.binds().map(Binds::Other);
        self.binds().or_else(by_parts)
    }

    /// Returns the same of what depends on the rig alone.
    pub fn mostly_on_rig(&self) -> Option<Binds> {
        let by_parts = || self.parts.binds_on_rig().map(Binds::Other);
        self.binds_on_rig().or_else(by_parts)
    }

    fn bounds(&self) -> Option<[(Binds, Span); 8]> {
        let bound = self.bound?;
        Some(bound.named().map(|(name, span)| (Binds::Rig(name), span)))
    }

    pub(super) fn empty() -> Summary {
        Summary {
            wall: Span::ZERO,
            model: Span::ZERO,
            tool: Span::ZERO,
            runs: 0,
            laps: 0,
            calls: 0,
            failed_calls: 0,
            failures: [0; FAILURES.len()],
            run: None,
            lap: None,
            ttft: None,
            itl: None,
            tokens: TokenTotals::default(),
            classes: TokenClasses::default(),
            parts: LapParts::default(),
            bound: None,
            idle_cut: Span::ZERO,
            energy: None,
            cost: None,
        }
    }
}
