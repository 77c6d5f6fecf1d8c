//! Named, seeded streams of random numbers.
//!
//! Every consumer has a stream of its own, named by purpose and index, so that adding agent 9 does not disturb agents
//! 1 to 8. The generator is a named, portable one: the same seed gives the same numbers on every machine and release.

use rand::SeedableRng;
pub use rand::rngs::ChaCha8Rng as Stream;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Returns the stream that belongs to `purpose` number `index` under `seed`.
pub fn stream(seed: u64, purpose: &str, index: u64) -> Stream {
    let mut generator = Stream::seed_from_u64(xxh3_64_with_seed(purpose.as_bytes(), seed));
    generator.set_stream(index);
    generator
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_are_repeatable_and_independent() {
        let first = |seed, purpose, index| stream(seed, purpose, index).next_u64();
        assert_eq!(first(1, "agent", 7), first(1, "agent", 7));
        assert_ne!(first(1, "agent", 7), first(1, "agent", 8));
        assert_ne!(first(1, "agent", 7), first(1, "arrival", 7));
        assert_ne!(first(1, "agent", 7), first(2, "agent", 7));
    }
}
