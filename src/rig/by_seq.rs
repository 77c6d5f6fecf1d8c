//! What engines note of their requests, by a request's name in the book: names are small and used again.

use super::book::SeqId;
use std::ops::Index;

/// Values by request.
#[derive(Clone, Debug)]
pub struct BySeq<T> {
    values: Vec<Option<T>>,
    len: usize,
}

impl<T> Default for BySeq<T> {
    fn default() -> BySeq<T> {
        BySeq {
            values: Vec::new(),
            len: 0,
        }
    }
}

impl<T> BySeq<T> {
    /// Returns how many requests have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no request has a value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether the request has a value.
    pub fn contains(&self, seq: SeqId) -> bool {
        matches!(self.values.get(seq), Some(Some(_)))
    }

    /// Returns the request's value, to change it.
    pub fn get_mut(&mut self, seq: SeqId) -> Option<&mut T> {
        self.values.get_mut(seq)?.as_mut()
    }

    /// Gives the request a value.
    pub fn insert(&mut self, seq: SeqId, value: T) {
        if self.values.len() <= seq {
            self.values.resize_with(seq + 1, || None);
        }
        self.len += usize::from(self.values[seq].replace(value).is_none());
    }

    /// Takes the request's value.
    pub fn remove(&mut self, seq: SeqId) -> Option<T> {
        let taken = self.values.get_mut(seq)?.take();
        self.len -= usize::from(taken.is_some());
        taken
    }

    /// Returns all values, in the order of their requests' names.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }
}

impl<T> Index<SeqId> for BySeq<T> {
    type Output = T;

    fn index(&self, seq: SeqId) -> &T {
        self.values[seq].as_ref().expect("the request has a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_names_used_again() {
        let mut held = BySeq::default();
        held.insert(3, "c");
        held.insert(0, "a");
        held.insert(3, "d");
        assert_eq!((held.len(), held[3], held.contains(1)), (2, "d", false));
        assert_eq!(
            (held.remove(3), held.remove(3), held.remove(9)),
            (Some("d"), None, None)
        );
        assert_eq!(held.values().copied().collect::<Vec<_>>(), ["a"]);
        assert!(!held.is_empty());
    }
}
