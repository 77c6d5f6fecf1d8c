//! What a name of a session stands for: a short list while there are few, a map once there are many.
//!
//! A trace may hold a hundred thousand sessions of one step each, and a map for each would outweigh what it maps. Names
//! are kept by their hash: two names that share it are taken for a name given twice, which is told and harmless.

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Up to so many names stand in the list.
const FEW: usize = 16;

/// Values by name.
#[derive(Clone, Debug)]
pub(super) struct Names<T> {
    few: Vec<(u64, T)>,
    // Boxed: most sessions need none, and there may be very many sessions.
    many: Option<Box<FxHashMap<u64, T>>>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            few: Vec::new(),
            many: None,
        }
    }
}

impl<T: Copy> Names<T> {
    /// Returns what the name stands for.
    pub(super) fn get(&self, name: &str) -> Option<T> {
        let hash = xxh3_64(name.as_bytes());
        if let Some(many) = &self.many {
            return many.get(&hash).copied();
        }
        let found = self.few.iter().find(|(other, _)| *other == hash);
        found.map(|&(_, value)| value)
    }

    /// Lets the name stand for `value`.
    pub(super) fn insert(&mut self, name: &str, value: T) {
        let hash = xxh3_64(name.as_bytes());
        if let Some(many) = &mut self.many {
            many.insert(hash, value);
            return;
        }
        if self.few.is_empty() {
            self.few.reserve_exact(1);
        }
        self.few.push((hash, value));
        if self.few.len() > FEW {
            let few = std::mem::take(&mut self.few);
            self.many = Some(Box::new(few.into_iter().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_while_few_and_when_many() {
        let mut names = Names::default();
        for number in 0..100_u32 {
            assert_eq!(names.get(&format!("step {number}")), None);
            names.insert(&format!("step {number}"), number);
            for earlier in 0..=number {
                assert_eq!(names.get(&format!("step {earlier}")), Some(earlier));
            }
        }
    }
}
