//! Whole sequences kept after they were served, the least recent of a class going first (mlx-lm's rule).
//!
//! A prompt goes on from a copy of the entry with which it has most in common. A model whose cache can be cut back uses
//! any beginning of an entry, another only entries that the prompt continues.

use super::slots::{Tokens, extends};
use crate::call::Call;
use crate::trace::content::Content;

/// What an entry ends with, in the order in which classes are evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// An answer.
    Answer,
    /// What a person said.
    User,
    /// The system part.
    System,
}

const CLASSES: [Class; 3] = [Class::Answer, Class::User, Class::System];

#[derive(Clone, Debug)]
struct Entry {
    tokens: Tokens,
    bytes: u64,
    class: Class,
}

/// How many sequences are kept, and how they are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Entries there may be.
    pub count: u64,
    /// Bytes they may take together; nothing where there is no limit.
    pub bytes: Option<u64>,
    /// Whether an entry can be cut back.
    pub trims: bool,
}

/// Sequences that were served, in the order in which they were stored.
#[derive(Clone, Debug)]
pub struct Sequences {
    rules: Rules,
    entries: Vec<Entry>,
}

impl Sequences {
    /// Returns an empty store.
    pub fn new(rules: Rules) -> Sequences {
        let entries = Vec::new();
        Sequences { rules, entries }
    }

    /// Returns how many sequences are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many leading tokens of a prompt the best entry serves; at least one is left to compute.
    pub fn reach(&self, call: &Call, content: &Content) -> u64 {
        let limit = call.prompt_tokens.0 - 1;
        let serves = |entry: &Entry| {
            let common = entry.tokens.common(call, content);
            if self.rules.trims {
                common.min(limit)
            } else if common == entry.tokens.len() && common <= limit {
                common
            } else {
                0
            }
        };
        self.entries.iter().map(serves).max().unwrap_or(0)
    }

    /// Stores a sequence; `live` bytes are taken by requests under way and leave less for entries.
    pub fn store(
        &mut self,
        tokens: Tokens,
        bytes: u64,
        class: Class,
        live: u64,
        content: &Content,
    ) {
        if tokens.is_empty() {
            return;
        }
        let trims = self.rules.trims;
        self.entries.retain(|entry| {
            let prefix = extends(&tokens, &entry.tokens, content);
            !(prefix && (trims || entry.tokens.len() == tokens.len()))
        });
        self.entries.push(Entry {
            tokens,
            bytes,
            class,
        });
        let limit = self.rules.bytes.map(|bytes| bytes.saturating_sub(live));
        while self.entries.len() as u64 > self.rules.count
            || limit.is_some_and(|limit| self.bytes() > limit) && !self.entries.is_empty()
        {
            self.evict();
        }
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// Drops the oldest of the first class that has at least as many entries as the next one.
    fn evict(&mut self) {
        let count = |class: Class| {
            let alike = |entry: &&Entry| entry.class == class;
            self.entries.iter().filter(alike).count()
        };
        let pairs = CLASSES.windows(2);
        let mut full = pairs.filter(|pair| count(pair[0]) > 0 && count(pair[0]) >= count(pair[1]));
        let class = full.next().map_or(Class::System, |pair| pair[0]);
        let oldest = self.entries.iter().position(|entry| entry.class == class);
        self.entries.remove(oldest.unwrap_or(0));
    }
}
