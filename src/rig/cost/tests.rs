//! What a step costs, against steps walked one by one and against physics.

use super::*;

/// Qwen3.6-27B AWQ on vLLM and an RTX PRO 6000, roughly; the kernel switch is llama.cpp's.
fn coefficients() -> Coefficients {
    Coefficients {
        weights_s: 0.0143,
        experts_s: 0.0,
        row_s: 0.0003,
        second_row_s: 0.00116,
        kv_s: 4.35e-8,
        kv_short_s: Some(1.5e-8),
        short_tokens: 1000,
        kv_imbalance: 0.5,
        token_s: 1.868e-4,
        half_tokens: 96.0,
        attention_s: 1.674e-9,
        request_s: 0.0,
        matrix_s: 0.0,
        vector_tokens: 0,
        expert_share: 0.0,
        overlap: 1.0,
        link_token_s: 0.0,
        intake_token_s: 0.0,
    }
}

fn rows(contexts: &[u64]) -> Graph {
    let mut graph = Graph::default();
    for &context in contexts {
        graph.add_row(context);
    }
    graph
}

#[test]
fn a_run_of_decode_steps_equals_its_steps_walked_one_by_one() {
    let cost = StepCost::new(coefficients(), vec![1, 2, 4, 8]);
    for contexts in [
        vec![990],
        vec![5, 70_000, 1_234],
        vec![999, 1001],
        vec![1; 7],
    ] {
        for times in [1, 2, 9, 11, 400] {
            let whole = cost.steps(&[rows(&contexts)], times);
            let walked: Fine = (0..times)
                .map(|step| {
                    cost.step(&[rows(
                        &contexts
                            .iter()
                            .map(|context| context + step)
                            .collect::<Vec<_>>(),
                    )])
                })
                .sum();
            assert_eq!(whole, walked, "{contexts:?} x {times}");
        }
    }
}

#[test]
fn features_times_coefficients_are_the_cost() {
    let cost = StepCost::new(coefficients(), Vec::new());
    for (graph, times) in [
        (rows(&[990]), 50),
        (rows(&[4_000, 9_000]), 7),
        (rows(&[2_000]), 1),
    ] {
        let features = graph.features(times, &coefficients().form());
        let secs: f64 = features
            .iter()
            .zip(coefficients().linear())
            .map(|(a, b)| a * b)
            .sum();
        let exact = cost.steps(&[graph], times).secs();
        assert!(
            (secs - exact).abs() < 1e-9 * exact.max(1.0),
            "{secs} {exact}"
        );
    }
}

#[test]
fn adding_rows_or_tokens_never_makes_a_step_cheaper() {
    let cost = StepCost::new(coefficients(), vec![1, 2, 4, 8]);
    let mut graph = Graph::default();
    let mut last = Fine::ZERO;
    for round in 0..20 {
        if round % 3 == 0 {
            graph.chunks.push(Chunk {
                tokens: 1 + 37 * round,
                depth: 500 * round,
                first: round == 0,
            });
        } else {
            graph.add_row(700 * round);
        }
        let now = cost.step(std::slice::from_ref(&graph));
        assert!(now >= last, "round {round}");
        last = now;
    }
}

#[test]
fn a_row_alone_is_a_pass_of_one_row() {
    let cost = StepCost::new(coefficients(), vec![1, 2, 4, 8]);
    for (context, times) in [
        (1, 1),
        (999, 1),
        (999, 3),
        (1000, 1),
        (70_000, 1),
        (990, 40),
    ] {
        let alone = cost.decode_alone(context, times);
        assert_eq!(alone, cost.steps(&[rows(&[context])], times), "{context}");
    }
}
