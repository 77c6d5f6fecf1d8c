//! The catalogue's own files against what is promised of them, and names against suggestions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::known::{Known, Trust};
use crate::units::{Bytes, Tokens};

/// Writes `text` as the only file of a fresh overlay and returns what loading it says.
fn overlaid(name: &str, kind: &str, text: &str) -> Result<Catalog, CatalogError> {
    let folder =
        std::env::temp_dir().join(format!("laptime-catalog-{}-{name}", std::process::id()));
    std::fs::create_dir_all(folder.join(kind)).unwrap();
    std::fs::write(folder.join(kind).join("mine.toml"), text).unwrap();
    let catalog = Catalog::with_overlays(std::slice::from_ref(&folder));
    std::fs::remove_dir_all(&folder).unwrap();
    catalog
}

const MINE: &str = r#"name = "mine"
title = "My box"
aliases = ["box-1"]
chip = "mine"
platform = "cuda"
form = "card"
devices = 1
unified_memory = false
memory = { value = 24, unit = "GiB", source = "label", trust = "datasheet" }
usable = { value = 23, unit = "GiB", source = "nvidia-smi", trust = "measured", note = "after boot" }
bandwidth = { value = 1008, unit = "GB/s", source = "label", trust = "datasheet" }
"#;

fn check_known<T>(owner: &str, known: &Known<T>) {
    assert!(
        known.source.len() > 3,
        "{owner} has a figure without a source"
    );
    let from_memory =
        known.source.contains("general knowledge") || known.source.contains("(memory)");
    assert!(
        !from_memory || known.trust == Trust::Estimate,
        "{owner}: {} is trusted too much",
        known.source
    );
}

#[test]
fn every_file_on_disk_is_part_of_the_program() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalog/data");
    for (kind, embedded) in [
        ("hardware", load::HARDWARE),
        ("engine", load::ENGINES),
        ("model", load::MODELS),
        ("rig", load::RIGS),
    ] {
        let on_disk: BTreeSet<PathBuf> = std::fs::read_dir(data.join(kind))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let carried: BTreeSet<PathBuf> = embedded.iter().map(|(name, _)| data.join(name)).collect();
        assert_eq!(on_disk, carried, "{kind}");
    }
}

#[test]
fn a_file_is_called_what_it_describes() {
    let catalog = Catalog::builtin();
    let stem = |name: &str| {
        Path::new(name)
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_string()
    };
    for (name, _) in load::HARDWARE {
        assert!(catalog.hardware.contains_key(&stem(name)), "{name}");
    }
    for (name, _) in load::ENGINES {
        assert!(catalog.engines.contains_key(&stem(name)), "{name}");
    }
    for (name, _) in load::MODELS {
        assert!(
            catalog.all_models().any(|model| model.family == stem(name)),
            "{name}"
        );
    }
}

#[test]
fn every_figure_of_a_machine_is_sourced() {
    for machine in Catalog::builtin().all_hardware() {
        let owner = &machine.name;
        check_known(owner, &machine.memory);
        check_known(owner, &machine.usable);
        check_known(owner, &machine.bandwidth);
        let rates = [&machine.bandwidth_measured, &machine.host_link];
        let link = machine.link.iter().map(|link| &link.bandwidth);
        let rates = rates.into_iter().flatten().chain(link);
        rates.for_each(|rate| check_known(owner, rate));
        let formats = Precision::ALL.map(|precision| machine.compute.rate(precision));
        formats
            .into_iter()
            .flatten()
            .for_each(|rate| check_known(owner, rate));
        let power = &machine.power;
        let watts = [
            &power.limit,
            &power.idle,
            &power.decode,
            &power.prefill,
            &power.wall,
        ];
        watts
            .into_iter()
            .flatten()
            .for_each(|watts| check_known(owner, watts));
        machine
            .price
            .iter()
            .for_each(|price| check_known(owner, &price.amount));
        assert!(
            machine.compute.best(Precision::Fp4).is_some(),
            "{owner} computes nothing"
        );
    }
}

#[test]
fn every_figure_of_a_model_is_sourced() {
    for model in Catalog::builtin().all_models() {
        let owner = &model.name;
        let params = [
            &model.total_params,
            &model.active_params,
            &model.lm_head_params,
        ];
        for params in params {
            check_known(owner, params);
        }
        let bytes = [
            &model.weights,
            &model.read_per_token,
            &model.read_all,
            &model.kv_bytes_per_token,
            &model.state_bytes_per_sequence,
        ];
        for bytes in bytes {
            check_known(owner, bytes);
        }
        model
            .state_page_bytes
            .iter()
            .for_each(|bytes| check_known(owner, bytes));
        model
            .moe
            .iter()
            .for_each(|moe| check_known(owner, &moe.expert_bytes));
        check_known(owner, &model.weight_bits);
        check_known(owner, &model.max_context);
        check_known(owner, &model.shape);
        assert_eq!(model.state_page_bytes.is_some(), model.hybrid(), "{owner}");
    }
}

#[test]
fn every_default_is_sourced_and_every_name_of_a_setting_is_its_own() {
    for engine in Catalog::builtin().all_engines() {
        let mut names: BTreeSet<&str> = engine.unmodelled.keys().map(String::as_str).collect();
        for setting in engine.settings.values() {
            let owner = format!("{}.{}", engine.name, setting.name);
            setting
                .defaults
                .iter()
                .for_each(|rule| check_known(&owner, &rule.value));
            assert!(names.insert(&setting.name), "{owner}");
            for alias in &setting.aliases {
                assert!(names.insert(&alias.name), "{owner}: {}", alias.name);
            }
        }
    }
}

#[test]
fn names_the_contract_promises_are_there() {
    let catalog = Catalog::builtin();
    let hardware = "rtx-pro-6000 2x-rtx-pro-6000 rtx-pro-6000-max-q m5-max-40 m5-max-32 m5-max-studio dgx-spark \
        2x-dgx-spark gx10 strix-halo-evo-x2 strix-halo-ms-s1-max strix-halo-framework rtx-5090 rtx-4090 m3-ultra \
        m4-max h100 h200 b200";
    for name in hardware.split_whitespace() {
        assert_eq!(catalog.hardware(name).unwrap().name, name);
    }
    for name in "llama.cpp vllm sglang mlx-lm lm-studio ollama trt-llm".split_whitespace() {
        assert_eq!(catalog.engine(name).unwrap().name, name);
    }
    let models = "qwen3.6-27b-q8_0 qwen3.6-27b-awq qwen3.6-27b-fp8 qwen3.6-35b-a3b-q8_0 qwen3.6-35b-a3b-fp8 \
        qwen3.6-35b-a3b-awq qwen3-coder-next-awq qwen3-coder-30b-a3b-q8_0 llama-3.1-8b-bf16 llama-3.1-70b-q4_k_m \
        gpt-oss-20b-mxfp4 gpt-oss-120b-mxfp4 qwen3-14b-q4_k_m qwen3-32b-awq qwen2.5-72b-q4_k_m deepseek-v3-fp8 \
        mistral-7b-q4_k_m phi-4-q4_k_m glm-4.5-air-q4_k_m devstral-small-24b-q4_k_m llama-3.1-70b-nvfp4 \
        qwen3.6-35b-a3b-mlx-4bit qwen3.6-27b-mlx-8bit";
    for name in models.split_whitespace() {
        assert_eq!(catalog.model(name).unwrap().name, name);
    }
    let later = catalog.model("llama-3.3-70b-q4_k_m").unwrap();
    assert_eq!(later.name, "llama-3.1-70b-q4_k_m");
}

#[test]
fn names_and_aliases_are_unique() {
    fn check<'a, T: Named + 'a>(entries: impl Iterator<Item = &'a T>) {
        let mut seen = BTreeSet::new();
        for entry in entries {
            assert!(seen.insert(entry.name().to_string()), "{}", entry.name());
            for alias in entry.aliases() {
                assert!(seen.insert(alias.clone()), "{alias}");
            }
        }
    }
    let catalog = Catalog::builtin();
    check(catalog.all_hardware());
    check(catalog.all_models());
    check(catalog.all_engines());
}

#[test]
fn an_unknown_name_is_answered_with_what_may_be_meant() {
    let catalog = Catalog::builtin();
    let unknown = catalog.hardware("rtx-pro-600").unwrap_err();
    assert_eq!(unknown.suggestions[0], "rtx-pro-6000");
    let text = catalog.model("qwen3.6-27b-q8").unwrap_err().to_string();
    assert!(
        text.starts_with("unknown model `qwen3.6-27b-q8`; did you mean `qwen3.6-27b-"),
        "{text}"
    );
    assert!(catalog.engine("vLLM").is_ok());
    let version = catalog
        .engine("vllm")
        .unwrap()
        .version(Some("9"))
        .unwrap_err();
    assert!(
        version
            .to_string()
            .starts_with("unknown engine version `9`; did you mean `0.33.0`")
    );
}

#[test]
fn shapes_agree_with_the_bytes_they_imply() {
    for model in Catalog::builtin().all_models() {
        let shape = &model.shape.value;
        let implied = model.kv_bytes_per_layer().0 * u64::from(shape.kv_layers);
        assert_eq!(implied, model.kv_bytes_per_token.value.0, "{}", model.name);
        let keeps_state = shape.state_layers + shape.window_layers > 0;
        assert_eq!(
            keeps_state,
            model.state_bytes_per_sequence.value.0 > 0,
            "{}",
            model.name
        );
        assert!(
            model.read_per_token.value <= model.read_all.value,
            "{}",
            model.name
        );
        let ratio = model.weights.value.as_f64() / model.read_all.value.as_f64();
        assert!((0.9..1.4).contains(&ratio), "{}: {ratio}", model.name);
        let head = f64::from(shape.hidden) * f64::from(shape.vocab);
        assert!(
            (model.lm_head_params.value / head - 1.0).abs() < 0.01,
            "{}",
            model.name
        );
        if let Some(moe) = &model.moe {
            let routed = moe.expert_params.value * f64::from(moe.experts);
            assert!(routed < model.total_params.value, "{}", model.name);
            assert!(routed > 0.8 * model.total_params.value, "{}", model.name);
        }
    }
}

#[test]
fn a_hybrid_block_of_vllm_follows_from_the_state_it_must_hold() {
    let catalog = Catalog::builtin();
    for (name, block) in [("qwen3.6-27b-fp8", 784), ("qwen3.6-35b-a3b-fp8", 1056)] {
        let model = catalog.model(name).unwrap();
        let page = model.state_page_bytes.as_ref().unwrap().value.0;
        let alignment = 16 * model.kv_bytes_per_layer().0;
        assert_eq!(page.div_ceil(alignment) * 16, block, "{name}");
    }
}

#[test]
fn defaults_follow_version_device_and_model() {
    let catalog = Catalog::builtin();
    let vllm = catalog.engine("vllm").unwrap();
    let default = |version, machine, model, key| {
        let point = Point {
            version,
            hardware: catalog.hardware(machine).unwrap(),
            model: catalog.model(model).unwrap(),
        };
        vllm.defaults(point)[key].value.clone()
    };
    let (hybrid, plain) = ("qwen3.6-27b-awq", "llama-3.1-8b-bf16");
    let budget = "max_num_batched_tokens";
    assert_eq!(
        default("0.33.0", "rtx-pro-6000", plain, budget),
        SettingValue::Int(8192)
    );
    assert_eq!(
        default("0.33.0", "dgx-spark", plain, budget),
        SettingValue::Int(2048)
    );
    let share = "gpu_memory_utilization";
    assert_eq!(
        default("0.19.1", "h100", plain, share),
        SettingValue::Float(0.9)
    );
    assert_eq!(
        default("0.33.0", "h100", plain, share),
        SettingValue::Float(0.92)
    );
    let caching = "prefix_caching";
    assert_eq!(
        default("0.19.1", "h100", hybrid, caching),
        SettingValue::Bool(false)
    );
    assert_eq!(
        default("0.19.1", "h100", plain, caching),
        SettingValue::Bool(true)
    );
    assert_eq!(
        default("0.33.0", "h100", hybrid, caching),
        SettingValue::Bool(true)
    );
}

#[test]
fn settings_are_read_by_their_type() {
    let catalog = Catalog::builtin();
    let llama = catalog.engine("llama.cpp").unwrap();
    let assign = |key, text| llama.assign(key, text);
    assert_eq!(
        assign("ubatch-size", "1024"),
        Ok(("ubatch_size", SettingValue::Int(1024)))
    );
    assert_eq!(assign("-np", "4"), Ok(("parallel", SettingValue::Int(4))));
    assert_eq!(
        assign("no_cache_prompt", "on"),
        Ok(("prefix_caching", SettingValue::Bool(false)))
    );
    assert_eq!(
        assign("kv_unified", "auto"),
        Ok(("kv_unified", SettingValue::Unset))
    );
    let message = |key, text| assign(key, text).unwrap_err().to_string();
    assert_eq!(
        message("ubatch", "1"),
        "llama.cpp has no setting `ubatch`; did you mean `ubatch_size`?"
    );
    assert!(message("cache_type_k", "q8_0").contains("is not modelled: keys are counted"));
    assert_eq!(
        message("batch_size", "big"),
        "`batch_size` of llama.cpp is `big`; expected a whole number from 1"
    );
}

#[test]
fn the_last_choice_of_a_user_wins_over_the_default() {
    let catalog = Catalog::builtin();
    let llama = catalog.engine("llama.cpp").unwrap();
    let point = Point {
        version: &llama.default_version,
        hardware: catalog.hardware("dgx-spark").unwrap(),
        model: catalog.model("qwen3.6-27b-q8_0").unwrap(),
    };
    let chosen = [("b", "512"), ("batch_size", "4096")];
    let settings = llama.settings_at(point, chosen).unwrap();
    assert_eq!(settings["batch_size"].as_int(), Some(4096));
    assert_eq!(settings["slot_prompt_similarity"].as_f64(), Some(0.1));
    assert_eq!(settings["checkpoint_min_step"].as_int(), Some(8192));
    assert_eq!(settings["reasoning_preserve"].as_bool(), Some(false));
    assert_eq!(settings["split_mode"].as_text(), Some("layer"));
    assert!(llama.settings_at(point, [("bath_size", "1")]).is_err());
}

#[test]
fn every_engine_can_switch_prefix_caching() {
    for engine in Catalog::builtin().all_engines() {
        assert!(
            engine.assign("prefix_caching", "off").is_ok(),
            "{}",
            engine.name
        );
        assert!(engine.version(None).is_ok(), "{}", engine.name);
        for (flag, why) in &engine.unmodelled {
            assert!(!engine.settings.contains_key(flag), "{flag}");
            assert!(why.len() > 5, "{flag}");
        }
    }
}

#[test]
fn a_later_file_wins() {
    let text = MINE.replace("\"mine\"\ntitle", "\"h100\"\ntitle");
    let catalog = overlaid("wins", "hardware", &text).unwrap();
    let machine = catalog.hardware("h100").unwrap();
    assert_eq!(machine.memory.value, Bytes(24 << 30));
    assert_eq!(machine.notes["usable"], "after boot");
    assert_eq!(catalog.hardware("box-1").unwrap().title, "My box");
    let context = catalog
        .model("llama-3.1-8b-bf16")
        .unwrap()
        .max_context
        .value;
    assert_eq!(context, Tokens(131_072));
}

#[test]
fn a_wrong_file_is_answered_with_place_and_remedy() {
    let message = |name, from: &str, to: &str| {
        let error = overlaid(name, "hardware", &MINE.replace(from, to)).unwrap_err();
        assert!(!error.help().is_empty());
        let text = error.to_string();
        text.split_once("mine.toml")
            .map_or(text.clone(), |(_, rest)| rest.to_string())
    };
    let unit = message("unit", "1008, unit = \"GB/s\"", "1008, unit = \"GB\"");
    assert_eq!(
        unit,
        ":11: the unit of `bandwidth` is `GB`; expected B/s, MB/s, GB/s, TB/s, Gbit/s"
    );
    let bare = message("bare", "devices = 1", "devices = \"one\"");
    assert_eq!(bare, ":7: `devices` is \"one\"; expected a whole number");
    let unsourced = message(
        "unsourced",
        ", source = \"label\", trust = \"datasheet\" }\nusable",
        " }\nusable",
    );
    assert_eq!(
        unsourced,
        ":9: `memory.source` is missing; expected a string"
    );
    let trust = message("trust", "measured", "certain");
    assert!(
        trust.starts_with(":10: `usable.trust` is `certain`; expected measured,"),
        "{trust}"
    );
    let slip = message("slip", "\nform =", "\nfromm =");
    assert!(slip.contains("`form` is missing"), "{slip}");
    let extra = message("extra", "devices = 1", "devices = 1\nalias = \"b\"");
    assert_eq!(extra, ":8: unknown field `alias`; did you mean `aliases`?");
    let more = message("more", "value = 23", "value = 25");
    assert_eq!(more, ":10: `usable` is 25.0 GiB; expected at most 24.0 GiB");
    let broken = message("broken", "\nform = \"card\"", "\nform = card");
    assert!(broken.starts_with(":6: not valid TOML"), "{broken}");
}

#[test]
fn an_empty_or_absent_overlay_is_an_error() {
    let absent = Catalog::with_overlays(&[PathBuf::from("/nowhere/at/all")]).unwrap_err();
    assert!(matches!(absent, CatalogError::Read { .. }));
    let empty = Catalog::with_overlays(&[std::env::temp_dir().join(".")]);
    assert!(matches!(empty, Err(CatalogError::Empty { .. })));
}

#[test]
fn every_calibrated_point_is_made_of_known_parts() {
    let catalog = Catalog::builtin();
    assert!(catalog.all_rig_profiles().count() >= 12);
    for profile in catalog.all_rig_profiles() {
        let name = profile.name();
        let hardware = catalog.hardware(&profile.hardware).expect(&name);
        let model = catalog.model(&profile.model).expect(&name);
        let engine = catalog.engine(&profile.engine).expect(&name);
        engine.version(Some(&profile.engine_version)).expect(&name);
        let found = catalog.rig_profile(&hardware.name, &engine.name, &model.name);
        assert_eq!(found, Some(profile), "{name}");
        let share = model
            .moe
            .as_ref()
            .map_or(0.0, |moe| f64::from(moe.per_token) / f64::from(moe.experts));
        for calibration in profile.variants.values().chain([&profile.default]) {
            let off = (calibration.coefficients.expert_share - share).abs();
            assert!(off < 1e-12, "{name}");
        }
    }
}

#[test]
fn a_variant_is_found_by_name_and_a_slip_gets_a_suggestion() {
    let catalog = Catalog::builtin();
    let profile = catalog.rig_profile("rtx-pro-6000", "vllm", "qwen3.6-27b-awq");
    let profile = profile.expect("it is calibrated");
    assert_eq!(profile.calibration(None), Ok(&profile.default));
    assert_eq!(
        profile.calibration(Some("may")),
        Ok(&profile.variants["may"])
    );
    let unknown = profile.calibration(Some("mai")).expect_err("no such state");
    assert_eq!(
        unknown.to_string(),
        "unknown rig variant `mai`; did you mean `may`?"
    );
}
