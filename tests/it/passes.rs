//! How llama.cpp splits its steps into passes where each slot has a stream of its own.

use crate::predictions::{Script, llama};
use laptime::rig::cost::Graph;
use laptime::rig::engine::llama_cpp;
use laptime::trace::content::ROOT;

/// Three conversations in slots 3, 2 and 1, of which the middle one ends early: the passes after that.
fn passes_around_a_gap(settings: llama_cpp::Settings) -> Vec<Graph> {
    let mut script = Script::default();
    for (thread, output) in [(0, 40), (1, 5), (2, 40)] {
        let prompt = script.text(ROOT, 100);
        script.ask(0, thread, prompt, output);
    }
    let passes = script.on_llama(settings).passes;
    let late = passes.len() - 10;
    passes[late..].to_vec()
}

#[test]
fn llama_rows_of_one_pass_are_from_slots_that_follow_each_other() {
    // As `tests/engines/run --passes` shows on a real server.
    let apart = llama_cpp::Settings {
        pool: None,
        ..llama()
    };
    assert!(passes_around_a_gap(apart).iter().all(|pass| pass.rows == 1));
    let pooled = passes_around_a_gap(llama());
    assert!(pooled.iter().any(|pass| pass.rows == 2));
}

#[test]
fn llama_prompts_of_slots_apart_are_read_in_equal_parts() {
    let both = |pool| {
        let mut script = Script::default();
        for thread in 0..2 {
            let prompt = script.text(ROOT, 600);
            script.ask(0, thread, prompt, 1);
        }
        let passes = script
            .on_llama(llama_cpp::Settings { pool, ..llama() })
            .passes;
        let tokens = |pass: &Graph| pass.chunks.iter().map(|chunk| chunk.tokens).collect();
        passes.iter().map(tokens).collect::<Vec<Vec<u64>>>()
    };
    assert_eq!(both(None), [[256, 256], [256, 256], [88, 88]]);
    assert_eq!(both(Some(262_144)), [vec![512], vec![88, 424], vec![176]]);
}
