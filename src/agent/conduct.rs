//! How agents behave: everything about a replay that is neither recorded nor the rig's doing.

use crate::event::GapParts;
use crate::trace::{Ending, Gap, Spawn};
use crate::units::Span;

/// Which recorded waits are replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// All of them; sessions also start when they were recorded to start.
    Recorded,
    /// Tools and the client's overhead; people answer at once.
    Tools,
    /// None.
    None,
}

impl Pace {
    /// Every one, in the order of their words.
    pub const ALL: [Pace; 3] = [Pace::Recorded, Pace::Tools, Pace::None];

    /// Returns the word for it, as on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            Pace::Recorded => "recorded",
            Pace::Tools => "tools",
            Pace::None => "none",
        }
    }
}

/// What a run does when a call is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnRefusal {
    /// It goes on with its next recorded step.
    Continue,
    /// It ends.
    Stop,
}

impl OnRefusal {
    /// Every one, in the order of their words.
    pub const ALL: [OnRefusal; 2] = [OnRefusal::Continue, OnRefusal::Stop];

    /// Returns the word for it, as on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            OnRefusal::Continue => "continue",
            OnRefusal::Stop => "stop",
        }
    }
}

/// Which answer the next prompt carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum History {
    /// What the model said now, so that its generated prefix stays in the engine's cache.
    Said,
    /// What was recorded, which the engine did not generate.
    Recorded,
}

impl History {
    /// Every one, in the order of their words.
    pub const ALL: [History; 2] = [History::Said, History::Recorded];

    /// Returns the word for it, as on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            History::Said => "said",
            History::Recorded => "recorded",
        }
    }
}

/// How often a call that failed for now is made again, and after what pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retries {
    /// How many times at most.
    pub limit: u32,
    /// The first pause; each further one is twice as long.
    pub pause: Span,
    /// The longest pause that an engine may ask for.
    pub longest: Span,
}

/// How agents behave: everything about a replay that is neither recorded nor the rig's doing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Conduct {
    /// Which waits are replayed.
    pub pace: Pace,
    /// How many times faster than recorded the waits pass.
    pub pace_scale: f64,
    /// The longest single wait of a person or of unknown cause.
    pub idle_cap: Span,
    /// What a refused call does to its run.
    pub on_refusal: OnRefusal,
    /// Which answer the next prompt carries.
    pub history: History,
    /// Whether a resumed session finds the beginning of its first prompt in the engine's cache.
    pub warm_start: bool,
    /// What to do about calls that fail for now.
    pub retries: Retries,
    /// How long what is cached lives after it was last used; nothing where no lifetime ends it.
    pub cache_lifetime: Option<Span>,
}

impl Default for Conduct {
    fn default() -> Conduct {
        Conduct {
            pace: Pace::Tools,
            pace_scale: 1.0,
            idle_cap: Span(60_000_000_000),
            on_refusal: OnRefusal::Continue,
            history: History::Said,
            warm_start: false,
            retries: Retries {
                limit: 3,
                pause: Span(1_000_000_000),
                longest: Span(60_000_000_000),
            },
            cache_lifetime: None,
        }
    }
}

impl Conduct {
    /// Returns how long after the answer a child starts, and how much of the recorded offset the idle cap cut off.
    ///
    /// What passed before the child started was not recorded as a tool's doing, so it is a wait of unknown cause.
    pub(super) fn offset(&self, spawn: &Spawn) -> (Span, Span) {
        if self.pace == Pace::None {
            return (Span::ZERO, Span::ZERO);
        }
        let offset = spawn.offset.min(self.idle_cap);
        (
            offset.scaled_down(self.pace_scale),
            spawn.offset.saturating_sub(self.idle_cap),
        )
    }

    /// Returns the waits of a gap that are replayed, and how much of them the idle cap cut off.
    pub(super) fn waits(&self, gap: &Gap) -> (GapParts, Span) {
        if self.pace == Pace::None {
            return (GapParts::default(), Span::ZERO);
        }
        let people_answer = self.pace == Pace::Recorded;
        let unknown_is_tool = gap.after != Ending::EndOfTurn;
        let mut cut: Span = gap.spawns.iter().map(|spawn| self.offset(spawn).1).sum();
        let mut capped = |wait: Span| {
            cut += wait.saturating_sub(self.idle_cap);
            wait.min(self.idle_cap)
        };
        let unknown = if unknown_is_tool || people_answer {
            capped(gap.unknown)
        } else {
            Span::ZERO
        };
        let human = if people_answer {
            capped(gap.human)
        } else {
            Span::ZERO
        };
        let scaled = |wait: Span| wait.scaled_down(self.pace_scale);
        let (as_tool, as_wait) = if unknown_is_tool {
            (unknown, Span::ZERO)
        } else {
            (Span::ZERO, unknown)
        };
        let parts = GapParts {
            client: scaled(gap.client),
            tool: scaled(gap.tool + as_tool),
            wait: scaled(human + as_wait),
            subagent: Span::ZERO,
        };
        (parts, cut)
    }
}
