//! What was asked and answered so far, token by token, and where each of it stands in the content tree.
//!
//! A prompt follows what is known as far as it agrees and grows the tree by the rest. Nothing that is there moves, so an
//! engine's cache goes on naming its blocks as it did.

use crate::ids::NodeId;
use crate::trace::content::{Content, ContentError, ROOT};
use crate::units::Tokens;
use rustc_hash::FxHashMap;

/// A place in what is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    stretch: u32,
    /// How many tokens lead here.
    at: u32,
}

/// The place where every prompt begins.
pub const START: Spot = Spot { stretch: 0, at: 0 };

#[derive(Clone, Debug)]
struct Stretch {
    node: NodeId,
    /// Where it leaves which other stretch.
    from: Spot,
    tokens: Vec<u32>,
    /// When a prompt last went through it.
    used: u64,
    /// How many others leave it.
    children: u32,
}

/// Everything that is known.
#[derive(Clone, Debug)]
pub struct Library {
    stretches: Vec<Option<Stretch>>,
    unused: Vec<u32>,
    /// Where a token leads off a place.
    ways: FxHashMap<(u32, u32, u32), u32>,
    /// Tokens kept, and how many may be.
    kept: u64,
    limit: u64,
    clock: u64,
}

impl Library {
    /// Returns an empty library of at most about `limit` tokens; what was used longest ago is forgotten first.
    pub fn new(limit: u64) -> Library {
        let nothing = Stretch {
            node: ROOT,
            from: START,
            tokens: Vec::new(),
            used: u64::MAX,
            children: 0,
        };
        Library {
            stretches: vec![Some(nothing)],
            unused: Vec::new(),
            ways: FxHashMap::default(),
            kept: 0,
            limit,
            clock: 0,
        }
    }

    /// Returns how many tokens are kept.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Follows `tokens` from a place, adding what is new; returns where they end, and how many were known.
    pub fn follow(
        &mut self,
        from: Spot,
        tokens: &[u32],
        content: &mut Content,
    ) -> Result<(Spot, u64), ContentError> {
        self.clock += 1;
        let (mut spot, mut rest) = (from, tokens);
        loop {
            let stretch = self.stretch(spot.stretch);
            let inside = (spot.at - stretch.from.at) as usize;
            let same = stretch.tokens[inside..].iter().zip(rest);
            let agreed = same.take_while(|(a, b)| a == b).count();
            spot.at += agreed as u32;
            rest = &rest[agreed..];
            let clock = self.clock;
            self.stretch_mut(spot.stretch).used = clock;
            let Some(&next) = rest.first() else {
                break;
            };
            let Some(&way) = self.ways.get(&(spot.stretch, spot.at, next)) else {
                break;
            };
            spot.stretch = way;
        }
        let known = (tokens.len() - rest.len()) as u64;
        if !rest.is_empty() {
            spot = self.add(spot, rest, content)?;
        }
        Ok((spot, known))
    }

    fn add(
        &mut self,
        from: Spot,
        tokens: &[u32],
        content: &mut Content,
    ) -> Result<Spot, ContentError> {
        let parent = self.stretch(from.stretch).node;
        let (at, len) = (u64::from(from.at), tokens.len() as u64);
        let node = content.branch(parent, Tokens(at), Tokens(len))?;
        self.stretch_mut(from.stretch).children += 1;
        self.kept += len;
        let stretch = Stretch {
            node,
            from,
            tokens: tokens.to_vec(),
            used: self.clock,
            children: 0,
        };
        let index = if let Some(index) = self.unused.pop() {
            self.stretches[index as usize] = Some(stretch);
            index
        } else {
            self.stretches.push(Some(stretch));
            self.stretches.len() as u32 - 1
        };
        self.ways.insert((from.stretch, from.at, tokens[0]), index);
        Ok(Spot {
            stretch: index,
            at: from.at + len as u32,
        })
    }

    /// Returns the node of the content tree that ends in a place.
    pub fn node(&self, spot: Spot, content: &mut Content) -> Result<NodeId, ContentError> {
        let node = self.stretch(spot.stretch).node;
        let at = Tokens(u64::from(spot.at));
        if content.end(node) == at {
            Ok(node)
        } else {
            content.branch(node, at, Tokens::ZERO)
        }
    }

    /// Forgets what was used longest ago, and that nothing else continues, until an eighth of the room is free.
    ///
    /// The engine may still hold it; it is found again no more. Places handed out before mean nothing afterwards.
    pub fn tidy(&mut self) {
        if self.kept <= self.limit {
            return;
        }
        let target = self.limit / 8 * 7;
        while self.kept > target {
            let ends = self.stretches.iter().enumerate().skip(1);
            let ends = ends.filter_map(|(index, stretch)| {
                let stretch = stretch.as_ref()?;
                (stretch.children == 0).then_some((stretch.used, index as u32))
            });
            let mut ends: Vec<(u64, u32)> = ends.collect();
            ends.sort_unstable();
            // What an end leaves behind may be an end itself: half of them at a time keeps the order near enough.
            for &(_, index) in &ends[..ends.len().div_ceil(2)] {
                if self.kept > target {
                    self.forget(index);
                }
            }
        }
    }

    fn forget(&mut self, index: u32) {
        let gone = self.stretches[index as usize].take();
        let gone = gone.expect("what is forgotten is known");
        self.kept -= gone.tokens.len() as u64;
        self.ways
            .remove(&(gone.from.stretch, gone.from.at, gone.tokens[0]));
        self.stretch_mut(gone.from.stretch).children -= 1;
        self.unused.push(index);
    }

    fn stretch(&self, index: u32) -> &Stretch {
        self.stretches[index as usize]
            .as_ref()
            .expect("a place is known")
    }

    fn stretch_mut(&mut self, index: u32) -> &mut Stretch {
        self.stretches[index as usize]
            .as_mut()
            .expect("a place is known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn common(a: &[u32], b: &[u32]) -> u64 {
        a.iter().zip(b).take_while(|(a, b)| a == b).count() as u64
    }

    proptest! {
        /// The tree says of any two prompts what comparing them token by token says.
        #[test]
        fn prompts_share_what_their_tokens_share(
            prompts in proptest::collection::vec(proptest::collection::vec(1..3_u32, 1..20), 1..12)
        ) {
            let (mut library, mut content) = (Library::new(1 << 20), Content::default());
            let mut nodes = Vec::new();
            for (index, prompt) in prompts.iter().enumerate() {
                let (spot, known) = library.follow(START, prompt, &mut content).unwrap();
                let before = prompts[..index].iter().map(|other| common(prompt, other));
                prop_assert_eq!(known, before.max().unwrap_or(0));
                let node = library.node(spot, &mut content).unwrap();
                prop_assert_eq!(content.end(node).0, prompt.len() as u64);
                nodes.push(node);
            }
            for (a, x) in prompts.iter().zip(&nodes) {
                for (b, y) in prompts.iter().zip(&nodes) {
                    prop_assert_eq!(content.meet(*x, *y).1.0, common(a, b));
                }
            }
        }

        #[test]
        fn what_is_forgotten_is_new_again_and_the_rest_is_not(
            prompts in proptest::collection::vec(proptest::collection::vec(1..4_u32, 1..30), 1..30)
        ) {
            let (mut library, mut content) = (Library::new(64), Content::default());
            for prompt in &prompts {
                library.follow(START, prompt, &mut content).unwrap();
                let (_, known) = library.follow(START, prompt, &mut content).unwrap();
                prop_assert_eq!(known, prompt.len() as u64);
                library.tidy();
                prop_assert!(library.kept() <= 64);
            }
        }
    }
}
