//! What happens when the device's memory is too small: the cache's tier in host memory, and layers left on the host.

use crate::predictions::{Script, Served, hybrid, vllm};
use laptime::call::{Call, Outcome, Realms, Reply};
use laptime::catalog::Catalog;
use laptime::ids::{CallId, RunId, ThreadId};
use laptime::known::Trust;
use laptime::rig::engine::vllm::{Offload, Settings, Vllm};
use laptime::rig::fine::Fine;
use laptime::study::rig;
use laptime::trace::content::{ContentBuilder, ROOT};
use laptime::units::{Span, Time, Tokens};
use std::fmt::Write as _;
use std::sync::Arc;

const MILLI: u64 = 1_000_000;

/// A tier that takes 1 ms, and 0.125 ms for each block.
fn tier(blocks: u64) -> Offload {
    Offload {
        blocks,
        latency: Fine::at(Time(MILLI)),
        block_time: Fine::at(Time(MILLI / 8)),
        compute_time: Fine::at(Time(3 * MILLI)),
        ..Offload::default()
    }
}

/// The device holds 64 blocks of 16 tokens.
fn small(offload: Offload) -> Settings {
    Settings {
        num_gpu_blocks: 65,
        offload,
        ..vllm()
    }
}

/// Conversation 0 is pushed out by conversation 1 and comes back.
fn pushed_out(settings: Settings) -> Served<Vllm> {
    let mut script = Script::default();
    let first = script.text(ROOT, 512);
    script.ask(0, 0, first, 1);
    let second = script.text(ROOT, 800);
    script.ask(10, 1, second, 1);
    script.ask(20, 0, first, 1);
    script.last().seen = Tokens(512);
    script.last().seen_computed = Tokens(512);
    script.on_vllm(settings)
}

#[test]
fn what_the_device_lost_comes_back_from_host_memory() {
    let without = pushed_out(small(Offload::default()));
    let lost = &without.replies[2];
    assert_eq!(lost.parts.kv_transfer, Span::ZERO);
    assert!(lost.cached < Tokens(496) && lost.classes.evicted > Tokens::ZERO);

    let with = pushed_out(small(tier(100)));
    assert_eq!(
        with.replies[..2],
        without.replies[..2],
        "stores delay nobody"
    );
    let back = &with.replies[2];
    // All but the last block, which holds the token that is always computed.
    assert_eq!(back.cached, Tokens(496));
    assert_eq!(
        (back.classes.evicted, back.classes.uncached),
        (Tokens::ZERO, Tokens(16))
    );
    let blocks = (496 - lost.cached.0) / 16;
    assert_eq!(back.parts.kv_transfer, Span(MILLI + blocks * MILLI / 8));
    assert_eq!(back.parts.queue + back.parts.contention, Span::ZERO);
    assert_eq!(with.backend.engine().tier().loaded(), blocks);
}

#[test]
fn a_tier_that_is_empty_slow_or_absent_changes_nothing() {
    let without = pushed_out(small(Offload::default())).replies;
    let none = tier(0);
    let slow = Offload {
        compute_time: Fine::at(Time(MILLI / 8)),
        ..tier(100)
    };
    for offload in [none, slow] {
        assert_eq!(pushed_out(small(offload)).replies, without);
    }
}

#[test]
fn a_tier_of_a_few_blocks_holds_the_beginning_of_a_prompt() {
    let without = pushed_out(small(Offload::default()));
    let lost = without.replies[2].cached.0 / 16;
    // It held the beginning of conversation 0 until conversation 1 took all of it.
    let with = pushed_out(small(tier(lost + 3)));
    assert_eq!(with.replies, without.replies);
}

#[test]
fn others_go_on_while_blocks_are_loaded() {
    let replay = |comes_back: bool| {
        let mut script = Script::default();
        let first = script.text(ROOT, 512);
        script.ask(0, 0, first, 1);
        let second = script.text(ROOT, 900);
        script.ask(10, 1, second, 1);
        let third = script.text(ROOT, 64);
        script.ask(20, 2, third, 40);
        if comes_back {
            script.ask(20, 0, first, 1);
        }
        let offload = Offload {
            latency: Fine::at(Time(1_000 * MILLI)),
            compute_time: Fine::at(Time(5_000 * MILLI)),
            ..tier(1_000)
        };
        script.on_vllm(small(offload)).replies
    };
    let (alone, both) = (replay(false), replay(true));
    assert_eq!(both[2], alone[2], "forty tokens take less than a second");
    assert!(both[3].parts.kv_transfer > Span(1_000 * MILLI));
    assert_eq!(both[3].cached, Tokens(496));
}

#[test]
fn loads_follow_each_other_over_the_link() {
    let mut script = Script::default();
    let prompts: Vec<_> = (0..2).map(|_| script.text(ROOT, 320)).collect();
    for (thread, &prompt) in (0..).zip(&prompts) {
        script.ask(u64::from(thread) * 5, thread, prompt, 1);
    }
    let large = script.text(ROOT, 1_000);
    script.ask(10, 9, large, 1);
    for (thread, &prompt) in (0..).zip(&prompts) {
        script.ask(20, thread, prompt, 1);
    }
    let replies = script.on_vllm(small(tier(1_000))).replies;
    let one = Span(MILLI + 19 * MILLI / 8);
    let parts = |reply: &Reply| (reply.parts.kv_transfer, reply.cached);
    assert_eq!(parts(&replies[3]), (one, Tokens(304)));
    assert_eq!(parts(&replies[4]), (one + one, Tokens(304)));
}

#[test]
fn more_host_memory_means_less_is_read_again() {
    let replay = |blocks: u64| {
        let mut script = Script::default();
        let mut tips: Vec<_> = (0..5).map(|_| script.text(ROOT, 300)).collect();
        for round in 0..6 {
            for (thread, tip) in (0..).zip(&mut tips) {
                let before = *tip;
                let answer = script.ask(round * 100 + u64::from(thread) * 10, thread, before, 8);
                let seen = script.last().prompt_tokens;
                script.last().seen_computed = if round > 0 { seen } else { Tokens::ZERO };
                script.last().seen = script.last().seen_computed;
                *tip = script.text(answer, 40);
            }
        }
        let replies = script.on_vllm(small(tier(blocks))).replies;
        replies
            .iter()
            .map(|reply| reply.classes.total().0)
            .sum::<u64>()
    };
    let computed = [0, 40, 120, 200, 1_000].map(replay);
    assert!(
        computed.is_sorted_by(|more, less| more >= less),
        "{computed:?}"
    );
    assert!(computed[4] * 2 < computed[0], "{computed:?}");
}

#[test]
fn a_recurrent_state_is_loaded_with_its_blocks() {
    let hybrid = |offload| Settings {
        num_gpu_blocks: 36,
        offload,
        ..hybrid()
    };
    let replay = |settings| {
        let mut script = Script::default();
        let first = script.text(ROOT, 8_000);
        script.ask(0, 0, first, 1);
        let second = script.text(ROOT, 17_000);
        script.ask(10, 1, second, 1);
        script.ask(20, 0, first, 1);
        script.on_vllm(settings)
    };
    let without = replay(hybrid(Offload::default()));
    assert_eq!(without.cached(), [0, 0, 0]);
    let with = replay(hybrid(tier(100)));
    assert_eq!(with.cached(), [0, 0, 10 * 784]);
    // Keys and values that are still on the device need no loading; the state does.
    let loaded = with.backend.engine().tier().loaded();
    assert!((3..=13).contains(&loaded), "{loaded}");
    assert_eq!(
        with.replies[2].parts.kv_transfer,
        Span(MILLI + loaded * MILLI / 8)
    );
}

/// Returns the rig's settings, how it is known, and how it answers one call of 1000 tokens with 50.
fn ask(spec: &str, settings: &[(&str, &str)]) -> (laptime::operating_point::OperatingPoint, Reply) {
    let mut tree = ContentBuilder::default();
    let prompt = tree.opaque(ROOT, Tokens(1_000)).unwrap();
    let output = tree.opaque(prompt, Tokens(50)).unwrap();
    let call = Call {
        id: CallId(0),
        run: RunId(0),
        thread: ThreadId(0),
        prompt,
        prompt_tokens: Tokens(1_000),
        output,
        output_tokens: Tokens(50),
        output_shared: true,
        realms: Realms::default(),
        seen: Tokens::ZERO,
        seen_computed: Tokens::ZERO,
        again: Tokens::ZERO,
        warm: Tokens::ZERO,
    };
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (format!("engine.{key}"), (*value).to_string()))
        .collect();
    let catalog = Catalog::builtin();
    let mut rig = rig::build(spec, &settings, &catalog, &Arc::new(tree.finish())).unwrap();
    rig.backend.submit(Time::ZERO, call);
    let mut replies = Vec::new();
    while let Some(now) = rig.backend.next_event() {
        rig.backend.advance(now, &mut replies);
    }
    (rig.point, replies[0])
}

#[test]
fn layers_that_do_not_fit_are_read_from_host_memory() {
    let fitting = "rtx-pro-6000/llama.cpp/qwen3.6-27b-q8_0";
    let (whole, fast) = ask(fitting, &[]);
    let layers: u64 = whole.settings["engine.n_gpu_layers"].parse().unwrap();
    assert!(!whole.known_by.contains("spill"));
    assert_eq!(ask(fitting, &[("n_gpu_layers", "999")]).1, fast);

    let half = (layers / 2).to_string();
    let (point, slow) = ask(fitting, &[("n_gpu_layers", &half)]);
    assert_eq!(point.settings["engine.n_gpu_layers"], half);
    assert!(point.known_by.contains("spill to host memory"));
    assert_eq!((point.trust, point.error_interval), (Trust::Estimate, None));
    assert!(slow.parts.decode.0 > 6 * fast.parts.decode.0);
    let (_, slowest) = ask(fitting, &[("n_gpu_layers", "0")]);
    assert!(slowest.parts.decode > slow.parts.decode);

    // 28 GB of weights on a card of 24: the default leaves layers on the host, all layers are refused.
    let large = "rtx-4090/llama.cpp/qwen3.6-27b-q8_0";
    let (point, reply) = ask(large, &[]);
    let on: u64 = point.settings["engine.n_gpu_layers"].parse().unwrap();
    assert!(0 < on && on < layers && point.known_by.contains("spill to host memory"));
    assert_eq!(
        (reply.outcome, point.settings["engine.ctx_size"].as_str()),
        (Outcome::Ok, "4096")
    );
    assert_eq!(
        ask(large, &[("n_gpu_layers", "999")]).1.outcome,
        Outcome::RefusedMemory
    );
    let (deeper, _) = ask(large, &[("ctx_size", "65536")]);
    let fewer: u64 = deeper.settings["engine.n_gpu_layers"].parse().unwrap();
    assert!(fewer < on);
}

#[test]
fn a_tier_needs_memory_of_its_own() {
    let catalog = Catalog::builtin();
    let content = Arc::new(ContentBuilder::default().finish());
    let build = |spec: &str| {
        let settings = [("engine.kv_offloading_size".to_string(), "64".to_string())];
        rig::build(spec, &settings, &catalog, &content).map(|rig| rig.point)
    };
    let refused = build("dgx-spark/vllm/qwen3.6-27b-awq")
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("the engine's memory is the host's"),
        "{refused}"
    );
    let point = build("rtx-pro-6000/vllm/qwen3.6-27b-awq").unwrap();
    assert_eq!(point.settings["engine.kv_offloading_size"], "64");
}

/// `LMCache`'s way: chunks of 256 tokens, loaded before the step.
fn chunks(blocks: u64, disk_blocks: u64) -> Offload {
    Offload {
        chunk: 16,
        blocking: true,
        disk_blocks,
        disk_latency: Fine::at(Time(MILLI)),
        disk_block_time: Fine::at(Time(MILLI / 2)),
        ..tier(blocks)
    }
}

#[test]
fn whole_chunks_are_kept_and_loaded_before_the_step() {
    // A prompt of 512 tokens has two chunks, and its last token is always computed: one can be found.
    let with = pushed_out(small(chunks(1_000, 0)));
    let without = pushed_out(small(Offload::default()));
    let (lost, back) = (&without.replies[2], &with.replies[2]);
    assert!(lost.cached < Tokens(256), "there is something to load");
    assert_eq!(back.cached, Tokens(256));
    let blocks = (256 - lost.cached.0) / 16;
    assert_eq!(back.parts.kv_transfer, Span(MILLI + blocks * MILLI / 8));
    assert_eq!(back.parts.queue + back.parts.contention, Span::ZERO);
}

#[test]
fn others_stand_while_a_step_waits_for_a_load() {
    let replay = |blocking: bool| {
        let mut script = Script::default();
        let first = script.text(ROOT, 512);
        script.ask(0, 0, first, 1);
        let second = script.text(ROOT, 900);
        script.ask(10, 1, second, 1);
        let third = script.text(ROOT, 64);
        script.ask(20, 2, third, 40);
        script.ask(20, 0, first, 1);
        let offload = Offload {
            blocking,
            latency: Fine::at(Time(1_000 * MILLI)),
            compute_time: Fine::at(Time(5_000 * MILLI)),
            ..tier(1_000)
        };
        script.on_vllm(small(offload)).replies
    };
    let (beside, before) = (replay(false), replay(true));
    assert!(before[2].parts.contention > beside[2].parts.contention + Span(900 * MILLI));
    assert!(before[3].parts.kv_transfer > Span(1_000 * MILLI));
}

#[test]
fn the_disk_has_what_the_host_had_no_room_for() {
    // The host has room for the second conversation only; the disk for both.
    let host = 800 / 16;
    let with = pushed_out(small(Offload {
        chunk: 1,
        ..chunks(host, 1_000)
    }));
    let lost = pushed_out(small(Offload {
        chunk: 1,
        ..chunks(host, 0)
    }));
    let (back, gone) = (&with.replies[2], &lost.replies[2]);
    assert_eq!(
        (back.cached, gone.parts.kv_transfer),
        (Tokens(496), Span::ZERO)
    );
    let blocks = (496 - gone.cached.0) / 16;
    assert_eq!(back.parts.kv_transfer, Span(2 * MILLI + blocks * MILLI / 2));
    // A disk that is slower than computing is not read.
    let slow = Offload {
        disk_block_time: Fine::at(Time(4 * MILLI)),
        ..chunks(host, 1_000)
    };
    assert_eq!(
        pushed_out(small(slow)).replies[2].parts.kv_transfer,
        Span::ZERO
    );
}

#[test]
fn tiers_are_asked_for_by_the_engines_own_names() {
    let catalog = Catalog::builtin();
    let content = Arc::new(ContentBuilder::default().finish());
    let build = |spec: &str, settings: &[(&str, &str)]| {
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        let built = rig::build(spec, &settings, &catalog, &content);
        built
            .map(|rig| rig.cache.map(|cache| cache.capacity.unwrap().0))
            .map_err(|error| error.to_string())
    };
    let plain = "rtx-pro-6000/vllm/llama-3.1-8b-bf16";
    let device = build(plain, &[]).unwrap().unwrap();
    let connector = (
        "engine.kv_transfer_config",
        r#"{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}"#,
    );
    // 5 GiB of 128 KiB a token, in whole blocks.
    assert_eq!(
        build(plain, &[connector]).unwrap().unwrap(),
        device + 5 * 8192
    );
    let disk = [
        connector,
        ("engine.lmcache_local_disk", "/cache"),
        ("engine.lmcache_max_local_disk_size", "100"),
        ("rig.disk_bandwidth", "7"),
    ];
    assert_eq!(build(plain, &disk).unwrap().unwrap(), device + 100 * 8192);
    let backend = [
        ("engine.kv_offloading_backend", "lmcache"),
        ("engine.kv_offloading_size", "20"),
    ];
    assert_eq!(build(plain, &backend).unwrap().unwrap(), device + 20 * 8192);

    let refused = |spec: &str, settings: &[(&str, &str)], part: &str| {
        let error = build(spec, settings).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    refused(
        plain,
        &[("engine.lmcache_chunk_size", "128")],
        "LMCache is not switched on",
    );
    refused(
        plain,
        &[connector, ("engine.lmcache_chunk_size", "100")],
        "blocks of 16 tokens",
    );
    refused(
        plain,
        &[(
            "engine.kv_transfer_config",
            r#"{"kv_connector":"NixlConnector"}"#,
        )],
        "only LMCacheConnectorV1",
    );
    refused(
        "rtx-pro-6000/vllm/qwen3.6-27b-awq",
        &[connector],
        "recurrent states",
    );
    refused(
        "dgx-spark/vllm/llama-3.1-8b-bf16",
        &[connector],
        "the engine's memory is the host's",
    );
    let sglang = "rtx-pro-6000/sglang/llama-3.1-8b-bf16";
    refused(
        sglang,
        &[("engine.hicache_ratio", "3")],
        "engine.enable_hierarchical_cache=on",
    );
    refused(plain, &[("rig.disk_bandwidth", "fast")], "expected GB/s");
}

#[test]
fn hicache_brings_back_what_the_tree_lost() {
    use laptime::agent::Conduct;
    use laptime::fleet::{Plan, Share};
    use laptime::study::replay::{Workload, replay};
    use laptime::trace::read::{ReadOptions, load_bytes};
    let mut text = String::from(r#"{"k":"header","format":"laptime-trace","version":1}"#);
    for session in ["a", "b", "c"] {
        writeln!(text, "\n{{\"k\":\"session\",\"id\":\"{session}\"}}").unwrap();
        for step in 0..3 {
            let prompt = 12_000 + 500 * step;
            let keep = if step == 0 {
                String::new()
            } else {
                format!("\"keep\":{},", prompt - 400)
            };
            let new = if step == 0 { prompt } else { 400 };
            writeln!(text,
                "{{\"k\":\"step\",\"id\":\"{session}{step}\",\"session\":\"{session}\",\"prompt\":{{\"tokens\":{prompt},{keep}\
                 \"append\":[{{\"tokens\":{new}}}]}},\"output\":{{\"tokens\":100}},\"finish\":\"tool-call\"}}"
            ).unwrap();
        }
    }
    let trace = load_bytes("three", text.as_bytes(), &ReadOptions::default()).unwrap();
    let spent = |settings: &[(&str, &str)]| {
        let all = [
            ("mem_fraction_static", "0.74"),
            ("max_running_requests", "1"),
        ];
        let settings: Vec<_> = all
            .iter()
            .chain(settings)
            .map(|(key, value)| (format!("engine.{key}"), (*value).to_string()))
            .collect();
        let spec = "rtx-4090/sglang/llama-3.1-8b-bf16";
        let rig = rig::build(spec, &settings, &Catalog::builtin(), &trace.content).unwrap();
        let plan = Plan {
            agents: 3,
            runs: None,
            share: Share::Head,
            conduct: Conduct::default(),
        };
        let workload = Workload::new(&trace, plan, 0);
        let replayed = replay(&trace, &workload, rig, &mut Vec::new());
        let (mut evicted, mut moved) = (0, Span::ZERO);
        for call in replayed.metrics.calls() {
            assert_eq!(call.outcome, Outcome::Ok);
            evicted += call.classes.evicted.0;
            moved += call.parts.kv_transfer;
        }
        (evicted, moved)
    };
    let (lost, none) = spent(&[]);
    assert!(lost > 20_000 && none == Span::ZERO, "{lost}");
    let switch = ("enable_hierarchical_cache", "on");
    let (kept, moved) = spent(&[switch, ("hicache_ratio", "8")]);
    assert!(kept == 0 && moved > Span::ZERO, "{kept} {moved}");
    let (on_disk, slower) = spent(&[
        switch,
        ("hicache_ratio", "0.01"),
        ("hicache_storage_backend", "file"),
    ]);
    assert!(on_disk == 0 && slower > moved, "{on_disk} {slower}");
}
