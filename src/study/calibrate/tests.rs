//! Fits on synthetic times, where the truth is known.

use super::schedule::{Server, Size, cold_batch};
use super::*;
use crate::rig::engine::vllm;

fn server() -> Server {
    Server::Vllm(vllm::Settings {
        max_num_seqs: 1024,
        max_num_batched_tokens: 8192,
        long_prefill_token_threshold: 0,
        block_size: 16,
        num_gpu_blocks: 100_000,
        max_model_len: 262_144,
        enable_prefix_caching: false,
        enable_chunked_prefill: true,
        scheduler_reserve_full_isl: true,
        async_scheduling: true,
        state_blocks: 0,
        offload: vllm::Offload::default(),
        drafts: 0,
        drops_last_block: false,
    })
}

const TRUE: [f64; FEATURES] = [
    0.014, 0.0, 3e-4, 1.2e-3, 4.2e-8, 0.0, 1.9e-4, 1.7e-9, 0.02, 0.0, 0.0,
];

fn freedom() -> Freedom {
    Freedom {
        form: Form {
            half_tokens: 0.0,
            expert_share: 0.0,
            kv_imbalance: 0.0,
            short_tokens: 0,
            vector_tokens: 0,
            overlap: 1.0,
        },
        half_tokens: vec![16.0, 64.0, 96.0],
        free: [
            true, false, true, true, true, false, true, true, true, false, false,
        ],
        least: [0.0; FEATURES],
        slack_s: 0.0,
        prior: None,
    }
}

/// Cells whose times follow the equation exactly, but for one.
fn observations(outlier: f64) -> Vec<Observation> {
    let truth = Coefficients::from_linear(
        TRUE,
        Form {
            half_tokens: 64.0,
            ..freedom().form
        },
    );
    let mut all = Vec::new();
    for prompt in [985, 3_911, 15_603, 31_186] {
        for output in [1, 128, 512] {
            for count in [1, 2, 4] {
                let passes = cold_batch(&server(), &vec![Size { prompt, output }; count]);
                let measured_s = predict(&passes, &truth);
                all.push(Observation {
                    intake: 0,
                    group: all.len(),
                    passes,
                    measured_s,
                    weight: 1.0,
                    overlap: 1.0,
                });
            }
        }
    }
    all[7].measured_s *= outlier;
    all
}

#[test]
fn a_fit_finds_the_coefficients_again() {
    for outlier in [1.0, 1.4] {
        let found = Problem::new(&observations(outlier), freedom()).fit();
        assert!((found.half_tokens - 64.0).abs() < 1e-12);
        for (at, (found, truth)) in found.linear().into_iter().zip(TRUE).enumerate() {
            let off = (found - truth).abs() / truth.max(1e-12);
            assert!(
                off < 1e-3,
                "coefficient {at}: {found} {truth}, outlier {outlier}"
            );
        }
    }
}

#[test]
fn what_is_left_out_is_predicted_by_the_rest() {
    let all = observations(1.4);
    let predicted = Problem::new(&all, freedom()).held_out();
    for (at, (one, predicted)) in all.iter().zip(predicted).enumerate() {
        let expected = if at == 7 { 1.0 / 1.4 } else { 1.0 };
        let ratio = predicted / one.measured_s;
        assert!((ratio - expected).abs() < 2e-3, "cell {at}: {ratio}");
    }
}

#[test]
fn a_coefficient_never_falls_below_its_floor() {
    let mut freedom = freedom();
    freedom.least[2] = 1e-3;
    let found = Problem::new(&observations(1.0), freedom).fit();
    assert!(found.row_s >= 1e-3);
}

#[test]
fn the_interval_reaches_to_the_rank_that_covers() {
    let errors: Vec<f64> = (1..=9).map(|percent| f64::from(percent) / 100.0).collect();
    let (from, to) = interval_80(&errors);
    assert!((to - 1.08).abs() < 1e-12 && (from - 1.0 / 1.08).abs() < 1e-12);
    assert!((interval_80(&[]).1 - 1.0).abs() < 1e-12);
    assert!((interval_80(&[0.1, -0.5]).1 - 2.0).abs() < 1e-12);
}

#[test]
fn errors_are_summed_up_by_size() {
    let errors = Errors::of(&[0.01, -0.03, 0.02]).expect("there are three");
    assert_eq!(errors.count, 3);
    assert!((errors.median - 0.02).abs() < 1e-12 && (errors.max - 0.03).abs() < 1e-12);
    assert_eq!(Errors::of(&[]), None);
}

#[test]
fn four_in_five_of_further_errors_fall_into_the_interval() {
    let mut random = crate::rng::stream(7, "coverage", 0);
    // The sum of twelve uniform numbers is normal enough.
    let mut error = || -> f64 {
        let sum: f64 = (0..12)
            .map(|_| rand::Rng::next_u64(&mut random) as f64 / 2f64.powi(64))
            .sum();
        (sum - 6.0) * 0.05
    };
    for count in [5, 8, 13, 24, 100] {
        let trials = 4000;
        let mut inside = 0;
        for _ in 0..trials {
            let errors: Vec<f64> = (0..count).map(|_| error()).collect();
            let (low, high) = interval_80(&errors);
            inside += u32::from((low..=high).contains(&(1.0 / (1.0 + error()))));
        }
        let share = f64::from(inside) / f64::from(trials);
        assert!((0.75..=0.85).contains(&share), "{count}: {share}");
    }
}
