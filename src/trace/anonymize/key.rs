//! The secret with which names and content are hashed: without it nobody can try out what a hash may stand for.
//!
//! A hash is a block of the `ChaCha20` key stream under the secret key, with what is hashed as its nonce: a function that
//! cannot be told from a random one, nor turned back.

use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// A secret key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// Returns the key that these 32 bytes are.
    pub fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// Returns a key made of any secret of at least 16 bytes, such as the content of a file.
    pub fn from_secret(secret: &[u8]) -> Option<Key> {
        if secret.len() < 16 {
            return None;
        }
        let mut state = [0; 32];
        for part in secret.chunks(32) {
            state
                .iter_mut()
                .zip(part)
                .for_each(|(byte, more)| *byte ^= more);
            let mut stream = ChaCha20Rng::from_seed(state);
            stream.set_stream(secret.len() as u64);
            stream.fill_bytes(&mut state);
        }
        Some(Key(state))
    }

    /// Returns what stands for a number.
    pub(super) fn number(&self, number: u64) -> u64 {
        let mut stream = ChaCha20Rng::from_seed(self.0);
        stream.set_stream(number);
        stream.next_u64()
    }

    /// Returns what stands for a text; texts and numbers do not meet.
    pub(super) fn text(&self, text: &str) -> u64 {
        let whole = xxh3_128(text.as_bytes());
        self.number(whole as u64 ^ self.number((whole >> 64) as u64).rotate_left(1))
    }
}

/// Returns a number for a path: what stands for the one before it, and what its last stretch holds.
///
/// A stretch that equals nothing else is told apart by its place among all.
pub(super) fn chain(before: u64, print: Option<u64>, place: u64) -> u64 {
    match print {
        Some(print) => xxh3_64_with_seed(&print.to_le_bytes(), before),
        None => xxh3_64_with_seed(&[1, 0, 0, 0, 0, 0, 0, 0, 0], before ^ place.rotate_left(32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_hashes_alike_and_another_one_differently() {
        let (one, other) = (Key::new([1; 32]), Key::new([2; 32]));
        assert_eq!(one.text("fix-login"), one.clone().text("fix-login"));
        assert_ne!(one.text("fix-login"), one.text("fix-logim"));
        assert_ne!(one.text("fix-login"), other.text("fix-login"));
        assert_ne!(one.number(7), other.number(7));
        assert!(Key::from_secret(b"short").is_none());
        let secret = Key::from_secret(b"at least sixteen bytes").unwrap();
        assert_ne!(secret.number(7), one.number(7));
        assert!(!format!("{secret:?}").contains("116"));
    }
}
