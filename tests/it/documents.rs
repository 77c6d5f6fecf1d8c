//! Documents against what they speak of: the map names every file, the README's output and commands are real.

use std::fs;
use std::path::{Path, PathBuf};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    // A checkout on Windows may have other ends of lines.
    fs::read_to_string(root(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .replace("\r\n", "\n")
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root("src")).unwrap();
            found.push(name.to_string_lossy().replace('\\', "/"));
        }
    }
}

#[test]
fn the_map_has_a_line_for_every_file_and_none_for_files_that_are_gone() {
    let map = text("docs/files.md");
    let mut files = Vec::new();
    sources(&root("src"), &mut files);
    let mapped: Vec<String> = map
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| {
            Path::new(word)
                .extension()
                .is_some_and(|extension| extension == "rs")
        })
        .map(ToString::to_string)
        .collect();
    let missing: Vec<&String> = files.iter().filter(|file| !mapped.contains(file)).collect();
    let gone: Vec<&String> = mapped.iter().filter(|file| !files.contains(file)).collect();
    assert!(missing.is_empty(), "docs/files.md lacks {missing:?}");
    assert!(gone.is_empty(), "docs/files.md still names {gone:?}");
    assert!(text("docs/architecture.md").lines().count() <= 300);
}

#[test]
fn the_sample_output_of_the_readme_is_what_the_scenario_answers() {
    let readme = text("README.md");
    let sample = readme.split("```text\n").nth(1).unwrap();
    let sample = sample.split("```").next().unwrap();
    let snapshot = text("tests/it/snapshots/it__golden__pr-triage-four-boxes.text.snap");
    assert!(
        snapshot.contains(sample.trim_end()),
        "the sample in README.md is not in the scenario's snapshot; copy the first table over"
    );
    let card = text("tests/it/snapshots/it__golden__pr-triage-one-card.text.snap");
    let quoted = "4m 16s";
    assert!(readme.contains(quoted) && card.contains(quoted));
}

#[test]
fn the_checks_run_the_commands_of_the_readme() {
    let (readme, checks) = (text("README.md"), text(".ci/run"));
    for command in [
        "replay --scenario scenarios/pr-triage-four-boxes.toml",
        "cargo test",
    ] {
        assert!(readme.contains(command) && checks.contains(command));
    }
}

#[test]
fn files_that_documents_name_exist() {
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/catalogue.md",
        "docs/claims.md",
        "docs/economy.md",
        "docs/scenario-format.md",
        "traces/README.md",
    ] {
        let text = text(document);
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.trim_end_matches('/');
            let ours = [
                "docs/",
                "scenarios/",
                "traces/",
                "tests/",
                "src/",
                "examples/",
            ]
            .iter()
            .any(|folder| path.starts_with(folder));
            if ours && !path.contains([' ', '*', '{']) {
                assert!(root(path).exists(), "{document} names {path}");
            }
        }
    }
}
