//! The commands that turn figures into decisions, through the binary: size, compare, explain, check, sweep.

use crate::cli::{Lab, Ran, TRACE};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const RIG: &str = "h100/vllm/llama-3.1-8b-bf16";
/// A machine whose watts and price are known.
const PRICED: &str = "rtx-pro-6000/vllm/qwen3.6-27b-awq";

/// Runs the binary in the root of the repository, as the documents do.
fn laptime(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laptime"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = command
        .args(args)
        .current_dir(root)
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: ran.status.code(),
        stdout: text(ran.stdout),
        stderr: text(ran.stderr),
    }
}

#[test]
fn shipped_scenarios_answer_as_before() {
    for (name, args) in [
        (
            "size",
            [
                "size",
                "--scenario",
                "scenarios/sizing-parallel-agents.toml",
            ],
        ),
        (
            "check",
            ["check", "--scenario", "scenarios/serving-config.toml"],
        ),
        (
            "explain",
            ["explain", "--scenario", "scenarios/fan-out-agents.toml"],
        ),
    ] {
        let ran = laptime(&args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        insta::assert_snapshot!(name, ran.stdout);
    }
    let ran = laptime(&[
        "compare",
        "--scenario",
        "scenarios/pr-triage-one-card.toml",
        "--across",
        "model",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    insta::assert_snapshot!("compare", ran.stdout);
}

#[test]
fn the_size_that_is_found_is_what_a_replay_of_that_size_says() {
    let args = ["--trace", TRACE, "--rig", RIG, "-q", "--json=-"];
    let with = |more: &[&str]| {
        let all: Vec<&str> = more.iter().chain(&args).copied().collect();
        Lab::new().run(&all)
    };
    let found = with(&["size", "--target", "run_s.p50<=1.02x solo", "--max", "40"]).json();
    let rig = &found["rigs"][0];
    let best = rig["agents"].as_u64().unwrap();
    let p50 = |agents: u64| {
        let one = with(&["replay", "--agents", &agents.to_string()]).json();
        one["summary"]["run_s"]["p50"].as_f64().unwrap()
    };
    let limit = p50(1) * 1.02;
    let holding: Vec<u64> = (1..=40).filter(|&agents| p50(agents) <= limit).collect();
    assert_eq!(holding.last(), Some(&best));
}

#[test]
fn one_agent_that_fails_is_told_and_is_a_failure() {
    let ran = Lab::new().run(&[
        "size",
        "--trace",
        TRACE,
        "--rig",
        RIG,
        "--target",
        "lap_s.p50<=1ms",
        "--max=4",
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stdout
            .contains("not even one agent holds lap_s.p50<=1ms"),
        "{}",
        ran.stdout
    );
    let wrong = Lab::new().run(&[
        "size",
        "--trace",
        TRACE,
        "--rig",
        RIG,
        "--target",
        "lap.p50<=1ms",
    ]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("`lap.p50` is not a figure"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn unlike_results_are_refused_until_the_axis_is_named() {
    let lab = Lab::new();
    let write = |name: &str, more: &[&str]| {
        let json = format!("--json={name}");
        let mut args = vec!["replay", "--trace", TRACE, "--rig", RIG, "-q", &json];
        args.extend(more);
        assert_eq!(lab.run(&args).code, Some(0));
    };
    write("a.json", &["--agents=2"]);
    write("again.json", &["--agents=2"]);
    write("none.json", &["--agents=2", "--pace=none"]);
    write("small.json", &["--agents=2", "--set=engine.max_num_seqs=1"]);
    let same = lab
        .run(&["compare", "a.json", "again.json", "--json=-"])
        .json();
    assert_eq!(same["differences"], serde_json::json!([]));
    assert_eq!(same["figures"][0]["groups"][1]["ratio"], 1.0);
    let refused = lab.run(&["compare", "a.json", "none.json"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("they differ in pace") && refused.stderr.contains("--across pace"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        lab.run(&["compare", "a.json", "none.json", "--across=pace"])
            .code,
        Some(0)
    );
    // Settings are what one compares; they are told, and no reason to refuse.
    let told = lab
        .run(&["compare", "a.json", "small.json", "--json=-"])
        .json();
    assert_eq!(told["differences"][0]["axis"], "settings");
    let broken = lab.file("broken.json", "{\"schema\": \"laptime.result/1\"}");
    let ran = lab.run(&["compare", "a.json", broken.to_str().unwrap()]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("broken.json: missing field"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_result_is_explained_as_the_replay_that_made_it() {
    let lab = Lab::new();
    let args = [
        "--trace",
        TRACE,
        "--rig",
        RIG,
        "-q",
        "--agents=2",
        "--set=engine.max_num_seqs=1",
    ];
    let with = |more: &[&str]| {
        let all: Vec<&str> = more.iter().chain(&args).copied().collect();
        lab.run(&all)
    };
    assert_eq!(with(&["replay", "--json=one.json"]).code, Some(0));
    let live = with(&["explain", "--json=-"]).json();
    let read = lab
        .run(&["explain", "one.json", "--trace", TRACE, "-q", "--json=-"])
        .json();
    assert_eq!(live, read);
    let alone = lab.run(&["explain", "one.json", "--json=-"]).json();
    assert_eq!(alone["slowest_laps"], live["slowest_laps"]);
    assert_eq!(alone["changes"], serde_json::json!([]));
}

#[test]
fn a_gate_passes_what_is_unchanged_and_fails_what_got_slower() {
    let lab = Lab::new();
    lab.file(
        "gate.toml",
        "baseline = 'baseline.json'\ntarget = 'failed_calls<=0'\nexact = ['calls', 'tokens.cached']\n\
         [tolerance]\nrun_s.p50 = '5%'\n",
    );
    let args = [
        "check",
        "--gate=gate.toml",
        "--trace",
        TRACE,
        "--rig",
        RIG,
        "-q",
        "--agents=2",
    ];
    let with = |more: &[&str]| {
        let all: Vec<&str> = args.iter().chain(more).copied().collect();
        lab.run(&all)
    };
    let missing = with(&[]);
    assert_eq!(missing.code, Some(3));
    assert!(
        missing.stderr.contains("--update-baseline"),
        "{}",
        missing.stderr
    );
    assert_eq!(with(&["--update-baseline"]).code, Some(0));
    assert_eq!(with(&[]).code, Some(0));
    let files = [
        "--junit=j.xml",
        "--markdown=m.md",
        "--json=c.json",
        "--github",
    ];
    let slower = with(&[&files[..], &["--set=rig.time_scale=3"]].concat());
    assert_eq!(slower.code, Some(1), "{}", slower.stdout);
    assert!(
        slower.stdout.contains("fail  tolerance run_s.p50"),
        "{}",
        slower.stdout
    );
    assert!(
        slower.stderr.contains("::error title=gate::run_s.p50"),
        "{}",
        slower.stderr
    );
    let document: Value =
        serde_json::from_str(&fs::read_to_string(lab.path("c.json")).unwrap()).unwrap();
    assert_eq!(document["verdict"], "fail");
    let junit = fs::read_to_string(lab.path("j.xml")).unwrap();
    assert!(junit.contains("tests=\"4\" failures=\"1\""), "{junit}");
    assert_eq!(
        junit.matches("<testcase").count(),
        junit.matches("</testcase>").count()
    );
    assert!(
        fs::read_to_string(lab.path("m.md"))
            .unwrap()
            .contains("| fail | tolerance")
    );
    // Twenty per cent slower is within a tolerance that allows it.
    lab.file(
        "gate.toml",
        "baseline = 'baseline.json'\n[tolerance]\nrun_s.p50 = '30%'\n",
    );
    assert_eq!(with(&["--set=rig.time_scale=1.2"]).code, Some(0));
    // What the cache finds is a whole number that no noise touches.
    lab.file(
        "gate.toml",
        "baseline = 'baseline.json'\nexact = ['tokens.cached']\n",
    );
    assert_eq!(with(&["--set=engine.prefix_caching=off"]).code, Some(1));
    lab.file(
        "gate.toml",
        "baseline = 'baseline.json'\n\nexact = ['tokens.cashed']\n",
    );
    let wrong = with(&[]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong
            .stderr
            .contains("gate.toml:3: `tokens.cashed` is not a figure"),
        "{}",
        wrong.stderr
    );
}

fn grid(lab: &Lab) {
    lab.file(
        "grid.toml",
        &format!(
            "trace = {TRACE:?}\n[grid]\nrig = ['{RIG}', 'dgx-spark/vllm/qwen3-8b-bf16', 'recorded']\n\
             agents = [1, 2, 3]\nset.engine.max_num_seqs = [1, 8]\nseed = [0, 1]\n"
        ),
    );
}

#[test]
fn shards_in_any_order_give_the_bytes_of_one_sweep() {
    let lab = Lab::new();
    grid(&lab);
    let whole = lab.run(&["sweep", "grid.toml", "--out=whole", "-q", "--threads=2"]);
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    for shard in ["2/3", "0/3"] {
        assert_eq!(
            lab.run(&["sweep", "grid.toml", "--out=parts", "-q", "--shard", shard])
                .code,
            Some(0)
        );
    }
    let early = lab.run(&["merge", "parts"]);
    assert_eq!(early.code, Some(3));
    assert!(
        early
            .stderr
            .contains("12 of 36 cells are missing, the first is of shard 1/3"),
        "{}",
        early.stderr
    );
    assert_eq!(
        lab.run(&["sweep", "grid.toml", "--out=parts", "-q", "--shard=1/3"])
            .code,
        Some(0)
    );
    assert_eq!(lab.run(&["merge", "parts"]).code, Some(0));
    for name in ["cells.csv", "cells.parquet", "front.csv"] {
        let read = |folder: &str| fs::read(lab.path(folder).join(name)).unwrap();
        assert_eq!(read("whole"), read("parts"), "{name}");
    }
    let table = fs::read_to_string(lab.path("whole").join("cells.csv")).unwrap();
    assert_eq!(table.lines().count(), 37);
    // A rig that has no such setting is a row that says so, not the end of the sweep.
    assert!(table.contains("the rig `recorded` has no setting"));
}

#[test]
fn the_parquet_file_says_what_the_csv_says() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let lab = Lab::new();
    grid(&lab);
    assert_eq!(
        lab.run(&["sweep", "grid.toml", "--out=rows", "-q"]).code,
        Some(0)
    );
    let table = fs::read_to_string(lab.path("rows").join("cells.csv")).unwrap();
    let mut lines = csv::Reader::from_reader(table.as_bytes());
    let column = |name: &str| {
        table
            .lines()
            .next()
            .unwrap()
            .split(',')
            .position(|head| head == name)
            .unwrap()
    };
    let (agents, wall) = (column("agents"), column("wall_s"));
    let file = fs::File::open(lab.path("rows").join("cells.parquet")).unwrap();
    let packed = SerializedFileReader::new(file).unwrap();
    let rows = packed.get_row_iter(None).unwrap().map(Result::unwrap);
    let mut count = 0;
    for (row, line) in rows.zip(lines.records()) {
        let line = line.unwrap();
        assert_eq!(row.get_long(0).unwrap().to_string(), line[0]);
        assert_eq!(row.get_string(agents).unwrap(), &line[agents]);
        assert_eq!(row.get_double(wall).ok(), line[wall].parse().ok());
        count += 1;
    }
    assert_eq!(count, 36);
}

#[test]
fn a_sweep_that_was_killed_goes_on_to_the_same_bytes() {
    let lab = Lab::new();
    grid(&lab);
    assert_eq!(
        lab.run(&["sweep", "grid.toml", "--out=whole", "-q"]).code,
        Some(0)
    );
    let journal = fs::read(lab.path("whole").join("shard-0-of-1.jsonl")).unwrap();
    for kept in [
        0,
        1,
        journal.len() / 3,
        journal.len() / 2,
        journal.len() - 1,
    ] {
        let folder = format!("cut-{kept}");
        fs::create_dir(lab.path(&folder)).unwrap();
        fs::write(
            lab.path(&folder).join("shard-0-of-1.jsonl"),
            &journal[..kept],
        )
        .unwrap();
        let ran = lab.run(&["sweep", "grid.toml", "--out", &folder, "-q"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        for name in ["cells.csv", "cells.parquet"] {
            let read = |folder: &str| fs::read(lab.path(folder).join(name)).unwrap();
            assert_eq!(read("whole"), read(&folder), "{name} after {kept} bytes");
        }
    }
    fs::write(
        lab.path("grid.toml"),
        format!("trace = {TRACE:?}\nrig = '{RIG}'\n[grid]\nagents = [1, 2]\n"),
    )
    .unwrap();
    let other = lab.run(&["sweep", "grid.toml", "--out=whole", "-q"]);
    assert_eq!(other.code, Some(2));
    assert!(
        other.stderr.contains("belongs to another sweep"),
        "{}",
        other.stderr
    );
}

#[test]
fn what_binds_and_what_it_costs_are_told_in_one_way() {
    let args = ["--trace", TRACE, "--rig", PRICED, "-q", "--json=-"];
    let price = [
        "--set=cost.electricity_usd_kwh=0.4",
        "--set=cost.hardware_usd=25000",
    ];
    let with = |more: &[&str]| {
        let all: Vec<&str> = more.iter().chain(&price).chain(&args).copied().collect();
        Lab::new().run(&all).json()
    };
    let replayed = with(&["replay", "--agents=2"]);
    let explained = with(&["explain", "--agents=2"]);
    assert!(replayed["summary"]["binds"].is_string());
    for (ours, summary) in [("binds", "binds"), ("bound_s", "bound_s")] {
        assert_eq!(explained[ours], replayed["summary"][summary]);
    }
    let sized = with(&["size", "--target=failed_calls<=0", "--max=2"]);
    let two = &sized["rigs"][0]["curve"][1];
    assert_eq!(two["agents"], 2);
    let runs = replayed["summary"]["runs"].as_f64().unwrap();
    for (ours, all) in [
        ("cost_usd_per_run", "cost_usd"),
        ("energy_wh_per_run", "energy_wh"),
    ] {
        let per_run = replayed["summary"][all].as_f64().unwrap() / runs;
        let told = two[ours].as_f64().unwrap();
        assert!(
            (told - per_run).abs() < 1e-9 * per_run,
            "{ours}: {told} {per_run}"
        );
    }
}

#[test]
fn a_machine_that_nobody_has_is_an_estimate_without_watts() {
    let args = [
        "replay", "--trace", TRACE, "--rig", PRICED, "-q", "--json=-",
    ];
    let with = |more: &str| Lab::new().run(&[&args[..], &[more]].concat());
    let wrong = with("--set=rig.memory_scale=plenty");
    assert_eq!(wrong.code, Some(2));
    let told = "`rig.memory_scale` is `plenty`; expected a factor from 0.001 to 1000";
    assert!(wrong.stderr.contains(told), "{}", wrong.stderr);
    let faster = with("--set=rig.bandwidth_scale=2").json();
    assert_eq!(faster["operating_point"]["trust"], "estimate");
    assert_eq!(
        faster["operating_point"]["settings"]["rig.bandwidth_scale"],
        "2"
    );
    assert!(faster["energy"].is_null());
    let same = with("--set=rig.bandwidth_scale=1").json();
    let plain = with("--seed=0").json();
    assert!(plain["energy"].is_object());
    assert_eq!(same, plain);
}
