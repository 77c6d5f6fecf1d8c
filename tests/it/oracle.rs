//! Fast paths against slow twins that are too simple to be wrong.

use crate::world::{World, for_seeds};

#[test]
fn runs_of_decode_steps_equal_their_steps_walked_one_by_one() {
    for_seeds(300, |seed| {
        let world = World::new(seed);
        let (fast, slow) = (world.replay(false), world.replay(true));
        for (fast, slow) in fast.iter().zip(&slow) {
            assert_eq!(fast, slow);
        }
        assert_eq!(fast.len(), slow.len());
    });
}
