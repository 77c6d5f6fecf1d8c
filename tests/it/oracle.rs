//! Fast paths against slow twins that are too simple to be wrong.

use crate::naive::NaivePool;
use crate::world::{Dice, Settings, World, for_seeds, seeds};
use laptime::rig::cost::{Coefficients, Graph, StepCost};
use laptime::rig::fine::Fine;
use laptime::rig::kv::blocks::BlockPool;
use laptime::rig::kv::pool::Pool;
use laptime::rig::speculation::Gain;

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

/// Costs of a world's rig with everything switched on that depends on the shape of a batch.
fn random_cost(dice: &mut Dice, world: &World) -> StepCost {
    let coefficients = Coefficients {
        kv_short_s: dice.percent(50).then_some(0.4e-7),
        short_tokens: dice.between(1, 2000),
        ..world.coefficients
    };
    let cost = StepCost::new(coefficients, world.captured.clone());
    match world.speculation {
        Some(speculation) => cost.speculating(speculation),
        None => cost,
    }
}

#[test]
fn the_cost_of_a_run_equals_its_steps_summed() {
    for_seeds(2_000, |seed| {
        let mut dice = Dice::new(seed, "cost");
        let cost = random_cost(&mut dice, &World::new(seed % 50));
        let contexts: Vec<u64> = (0..dice.between(1, 9))
            .map(|_| dice.between(1, 3000))
            .collect();
        let fractions: Vec<u64> = contexts.iter().map(|_| dice.below(1 << 32)).collect();
        let shared = dice.percent(50);
        let gain = cost.gain();
        let graph = |step: u64| {
            let mut graph = Graph::default();
            for (context, &fraction) in contexts.iter().zip(&fractions) {
                if gain == Gain::default() {
                    graph.add_row(context + step);
                } else {
                    let context = context + gain.tokens(fraction, step);
                    graph.add_row_at(context, Some(gain.fraction(fraction, step)));
                }
            }
            if shared {
                // One stream: every row reads the tokens of all, which grow for all.
                graph.longest = graph.contexts;
                graph.contexts *= graph.rows;
                graph.growth = graph.rows * graph.rows;
            }
            graph
        };
        let times = dice.between(1, 300);
        let walked: Fine = (0..times).map(|step| cost.step(&[graph(step)])).sum();
        assert_eq!(cost.steps(&[graph(0)], times), walked);
    });
}
