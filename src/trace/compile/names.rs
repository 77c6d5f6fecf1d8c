//! What a name of a session stands for: one stands by itself, several in a map.
//!
//! A trace may hold a hundred thousand sessions of one step each, and a map for each would outweigh what it maps. Names
//! are kept by their hash: two names that share it are taken for a name given twice, which is told and harmless.

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Values by name.
#[derive(Clone, Debug)]
pub(super) struct Names<T> {
    first: Option<(u64, T)>,
    // Boxed: most sessions need none, and there may be very many sessions.
    others: Option<Box<FxHashMap<u64, T>>>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            first: None,
            others: None,
        }
    }
}

impl<T: Copy> Names<T> {
    /// Returns what the name stands for.
    pub(super) fn get(&self, name: &str) -> Option<T> {
        let hash = xxh3_64(name.as_bytes());
        match self.first {
            Some((first, value)) if first == hash => Some(value),
            _ => self.others.as_ref()?.get(&hash).copied(),
        }
    }

    /// Lets the name stand for `value`.
    pub(super) fn insert(&mut self, name: &str, value: T) {
        let hash = xxh3_64(name.as_bytes());
        match self.first {
            Some((first, _)) if first != hash => {
                self.others.get_or_insert_default().insert(hash, value);
            }
            _ => self.first = Some((hash, value)),
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
