//! Fast paths against slow twins that are too simple to be wrong.

use crate::naive::NaivePool;
use crate::world::{Settings, World, for_seeds, seeds};
use laptime::rig::kv::blocks::BlockPool;
use laptime::rig::kv::pool::Pool;

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

#[test]
fn the_block_pool_equals_one_that_keeps_every_block_on_its_own() {
    let (mut evicted, mut preempted) = (0, 0);
    for seed in seeds(300) {
        let world = World::new(seed);
        let Settings::Vllm(mut settings) = world.settings else {
            continue;
        };
        settings.num_gpu_blocks = settings.num_gpu_blocks.min(2_000);
        let (fast, engine) = world.replay_until_rest(world.vllm::<BlockPool>(settings), false);
        let (slow, naive) = world.replay_until_rest(world.vllm::<NaivePool>(settings), true);
        for (fast, slow) in fast.iter().zip(&slow) {
            assert_eq!(fast, slow, "SEED={seed}");
        }
        let (engine, naive) = (engine.engine(), naive.engine());
        assert_eq!(
            engine.pool().evicted(),
            naive.pool().evicted(),
            "SEED={seed}"
        );
        assert_eq!(engine.preemptions(), naive.preemptions());
        evicted += engine.pool().evicted();
        preempted += engine.preemptions();
    }
    // A sample in which nothing is ever lost would prove nothing.
    assert!(evicted > 1_000 && preempted > 10, "{evicted} {preempted}");
}
