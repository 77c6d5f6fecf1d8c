//! What SGLang's source says, as numbers.

use super::{SGLANG, Script, sglang, turns};
use laptime::call::{Outcome, Reply};
use laptime::ids::NodeId;
use laptime::rig::cost::Graph;
use laptime::trace::content::ROOT;

#[test]
fn sglang_finds_all_but_the_last_token_again() {
    let mut script = Script::default();
    let prompt = script.grow(ROOT, 1009);
    script.call(0, prompt, 10);
    script.call(10_000, prompt, 10);
    assert_eq!(script.play(sglang(SGLANG)).cached(), [0, 1008]);
}

#[test]
fn sglang_pages_round_a_shared_prefix_down() {
    let mut script = Script::default();
    let shared = script.grow(ROOT, 1000);
    for at in [0, 10_000] {
        let prompt = script.grow(shared, 500);
        script.call(at, prompt, 10);
    }
    let paged = sglang::Settings {
        page_size: 64,
        ..SGLANG
    };
    assert_eq!(script.play(sglang(paged)).cached(), [0, 960]);
}

/// One answer under way while a prompt of eight chunks comes in; returns its decode rows within passes with prompts.
fn rows_beside_prompts(settings: sglang::Settings) -> Vec<u64> {
    let mut script = Script::default();
    let short = script.grow(ROOT, 100);
    script.call(0, short, 500);
    let long = script.grow(ROOT, 8 * 8192 - 8);
    script.call(50, long, 10);
    let played = script.play(sglang(settings));
    let reads = |(graph, _): &&(Graph, u64)| {
        let tokens: u64 = graph.chunks.iter().map(|chunk| chunk.tokens).sum();
        tokens > 1000
    };
    let reading: Vec<_> = played.passes.iter().filter(reads).collect();
    // Nobody writes between two pieces either.
    let first = played.passes.iter().position(|pass| reads(&pass)).unwrap();
    assert!(
        played.passes[first..first + reading.len()]
            .iter()
            .all(|pass| reads(&pass))
    );
    reading.iter().map(|(graph, _)| graph.rows).collect()
}

#[test]
fn sglang_stops_answers_while_it_reads_unless_told_to_mix() {
    assert_eq!(rows_beside_prompts(SGLANG), [0; 8]);
    let mixed = sglang::Settings {
        enable_mixed_chunk: true,
        ..SGLANG
    };
    assert_eq!(rows_beside_prompts(mixed), [1; 8]);
}

#[test]
fn sglang_reserves_at_most_4096_tokens_for_an_answer() {
    let admitted = |pages| {
        let mut script = Script::default();
        for _ in 0..2 {
            let prompt = script.grow(ROOT, 1000);
            script.call(0, prompt, 100);
        }
        let settings = sglang::Settings {
            pages,
            max_tokens: Some(100_000),
            ..SGLANG
        };
        let played = script.play(sglang(settings));
        let at = |reply: &Reply| reply.admitted.unwrap();
        at(&played.replies[0]) == at(&played.replies[1])
    };
    // Each needs 1000 + 4096 + 1 tokens; the first one's prompt has been taken by the time of the second.
    assert!(admitted(2 * 5097 + 1));
    assert!(!admitted(2 * 5097 - 1));
}

#[test]
fn sglang_puts_back_who_wrote_least() {
    let mut script = Script::default();
    let early = script.grow(ROOT, 400);
    script.call(0, early, 800);
    let late = script.grow(ROOT, 200);
    script.call(300, late, 350);
    let settings = sglang::Settings {
        pages: 1300,
        schedule_conservativeness: 0.0,
        ..SGLANG
    };
    let played = script.play(sglang(settings));
    assert!(played.server.engine().retractions() > 0);
    let queued: Vec<bool> = played
        .replies
        .iter()
        .map(|reply| reply.parts.queue.0 > 10_000_000)
        .collect();
    assert_eq!(queued, [false, true], "the one that wrote less waits again");
    assert!(
        played
            .replies
            .iter()
            .all(|reply| reply.outcome == Outcome::Ok)
    );
}

#[test]
fn sglang_twins_in_one_batch_do_not_find_each_other() {
    let twins = |policy, chunk| {
        let mut script = Script::default();
        let prompt = script.grow(ROOT, 4000);
        script.call(0, prompt, 10);
        script.call(0, prompt, 10);
        let settings = sglang::Settings {
            schedule_policy: policy,
            chunked_prefill_size: Some(chunk),
            ..SGLANG
        };
        script.play(sglang(settings)).cached()
    };
    assert_eq!(twins(sglang::Policy::Fcfs, 8192), [0, 0]);
    assert_eq!(twins(sglang::Policy::Lpm, 8192), [0, 0]);
    assert_eq!(twins(sglang::Policy::Lpm, 4000), [0, 3999]);
}

#[test]
fn sglang_hybrids_go_on_from_a_grid() {
    let states = Some(sglang::States {
        room: 100,
        track_interval: 256,
    });
    let settings = sglang::Settings { states, ..SGLANG };
    // The last multiple of 256 of the answer; 5030 lies behind the last multiple of 64 of the prompt.
    let played = turns(5000, 300, 5030).play(sglang(settings));
    assert_eq!(played.cached(), [0, 5120, 4992]);
    let mut script = Script::default();
    let prompt = script.grow(ROOT, 5000);
    for at in [0, 10_000] {
        script.call(at, prompt, 10);
    }
    // Two others that part where no state is kept: the first meets the branch, the second goes on from it.
    let branch = script.cut(prompt, 3000);
    for at in [20_000, 30_000] {
        let other = script.grow(branch, 2000);
        script.call(at, other, 10);
    }
    assert_eq!(script.play(sglang(settings)).cached(), [0, 4992, 0, 2944]);
}

#[test]
fn sglang_evicts_whole_leaves_used_longest_ago() {
    let mut script = Script::default();
    let prompts: Vec<NodeId> = (0..3).map(|_| script.grow(ROOT, 1000)).collect();
    for (turn, &index) in [0, 1, 0, 2, 0, 1].iter().enumerate() {
        script.call(10_000 * turn as u64, prompts[index], 1);
    }
    let settings = sglang::Settings {
        pages: 2500,
        ..SGLANG
    };
    assert_eq!(
        script.play(sglang(settings)).cached(),
        [0, 0, 999, 0, 999, 0]
    );
}
