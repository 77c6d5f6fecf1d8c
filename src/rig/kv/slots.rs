//! Slots: a sequence's tokens kept where it was served, and copies of them in host memory (llama.cpp's rule).
//!
//! A slot holds one list of tokens. A new prompt reuses the longest common prefix with it, token by token; models that
//! cannot roll back their state reuse it only at the end of the list or at a checkpoint.

use crate::call::{Call, Realms};
use crate::ids::{CallId, NodeId};
use crate::trace::content::{Content, ROOT};

/// The tokens that a slot or a saved entry holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokens {
    tip: NodeId,
    realms: Realms,
    /// How many tokens of the path to `tip` there are.
    named: u64,
    /// Tokens after those that nothing else can equal.
    private: u64,
    /// The call that left them behind.
    left_by: CallId,
    /// Positions at which the state can be restored, ascending.
    pub checkpoints: Vec<u64>,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            tip: ROOT,
            realms: Realms::default(),
            named: 0,
            private: 0,
            left_by: CallId::default(),
            checkpoints: Vec::new(),
        }
    }
}

impl Tokens {
    /// Returns the list that serving `call` leaves behind when `len` tokens have been computed.
    pub fn of(call: &Call, len: u64, checkpoints: Vec<u64>) -> Tokens {
        let named = if call.output_shared {
            len
        } else {
            len.min(call.prompt_tokens.0)
        };
        let tip = if call.output_shared {
            call.output
        } else {
            call.prompt
        };
        Tokens {
            tip,
            realms: call.realms,
            named,
            private: len - named,
            left_by: call.id,
            checkpoints,
        }
    }

    /// Returns how many tokens there are.
    pub fn len(&self) -> u64 {
        self.named + self.private
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many leading tokens equal those of the call's prompt.
    pub fn common(&self, call: &Call, content: &Content) -> u64 {
        self.shared(call.prompt, call.realms, content)
    }

    /// Returns how many leading tokens equal those of the path to `tip` in these realms.
    fn shared(&self, tip: NodeId, realms: Realms, content: &Content) -> u64 {
        let (mut meeting, mut shared) = content.meet(self.tip, tip);
        if self.realms.private != realms.private {
            while meeting != ROOT && !content.is_head(meeting) {
                meeting = content.parent(meeting);
                shared = content.end(meeting);
            }
            if self.realms.head != realms.head {
                return 0;
            }
        }
        shared.0.min(self.named)
    }

    /// Returns how many of the `common` leading tokens can be kept to compute the rest of a prompt of `prompt` tokens.
    ///
    /// A model that `rolls_back` keeps all of them; another only the whole list or up to a checkpoint. At least one
    /// token is always computed.
    pub fn reusable(&self, common: u64, prompt: u64, rolls_back: bool) -> u64 {
        let common = common.min(prompt - 1);
        if rolls_back || common == self.len() {
            return common;
        }
        self.checkpoints
            .iter()
            .copied()
            .filter(|&at| at <= common)
            .max()
            .unwrap_or(0)
    }
}

/// Saved lists in host memory.
#[derive(Clone, Debug)]
pub struct HostCache {
    /// The most bytes it may hold; nothing where it has no limit.
    limit: Option<u64>,
    /// The most tokens it may hold.
    token_limit: u64,
    /// Whether a list larger than the limit is kept when it is the only one.
    keeps_one: bool,
    entries: Vec<Saved>,
}

#[derive(Clone, Debug)]
struct Saved {
    tokens: Tokens,
    bytes: u64,
}

impl HostCache {
    /// Returns an empty cache.
    pub fn new(limit: Option<u64>, token_limit: u64, keeps_one: bool) -> HostCache {
        HostCache {
            limit,
            token_limit,
            keeps_one,
            entries: Vec::new(),
        }
    }

    /// Returns the bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// Saves a copy of a list unless one is there already; returns whether it was copied.
    ///
    /// Entries that the list extends are dropped; the oldest make room.
    pub fn save(&mut self, tokens: &Tokens, bytes: u64, content: &Content) -> bool {
        if tokens.is_empty() || self.limit == Some(0) {
            return false;
        }
        if self
            .entries
            .iter()
            .any(|entry| extends(&entry.tokens, tokens, content))
        {
            return false;
        }
        self.entries
            .retain(|entry| !extends(tokens, &entry.tokens, content));
        if !self.keeps_one && self.limit.is_some_and(|limit| bytes > limit) {
            return false;
        }
        self.entries.push(Saved {
            tokens: tokens.clone(),
            bytes,
        });
        let full = |cache: &HostCache| {
            cache.limit.is_some_and(|limit| cache.bytes() > limit)
                || cache
                    .entries
                    .iter()
                    .map(|entry| entry.tokens.len())
                    .sum::<u64>()
                    > cache.token_limit
        };
        while self.entries.len() > 1 && full(self) {
            self.entries.remove(0);
        }
        true
    }

    /// Takes out the list that serves a prompt best, if it beats what the slot at hand has.
    ///
    /// It must keep a quarter of itself, and a larger share both of itself and of the prompt than the slot would; one
    /// of more than `room` tokens cannot be loaded and stays.
    pub fn take_better(
        &mut self,
        call: &Call,
        slot: &Tokens,
        room: u64,
        content: &Content,
    ) -> Option<(Tokens, u64)> {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let prompt = call.prompt_tokens.0;
        let here = slot.common(call, content);
        let (mut most, mut best_share) = (share(here, slot.len()), share(here, prompt));
        let mut best = None;
        for (index, entry) in self.entries.iter().enumerate() {
            let common = entry.tokens.common(call, content);
            let (keeps, serves) = (share(common, entry.tokens.len()), share(common, prompt));
            if keeps >= 0.25 && keeps > most && serves > best_share {
                (most, best_share) = (keeps, serves);
                best = Some(index);
            }
        }
        best.filter(|&index| self.entries[index].tokens.len() <= room)
            .map(|index| self.entries.remove(index))
            .map(|entry| (entry.tokens, entry.bytes))
    }
}

/// Returns whether `longer` begins with all of `shorter`.
pub(super) fn extends(longer: &Tokens, shorter: &Tokens, content: &Content) -> bool {
    if shorter.private > 0 {
        return (longer.left_by, longer.len()) == (shorter.left_by, shorter.len());
    }
    longer.shared(shorter.tip, shorter.realms, content) >= shorter.named
}
