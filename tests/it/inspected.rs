//! What `laptime inspect` says, against figures worked out by hand from a trace of two sessions.

use crate::cli::{Lab, TRACE};
use serde_json::json;

/// Two sessions with a head of 1,000 tokens; the second is sent again after 30 s, 4 minutes and 2 hours.
const WAITS: &str = r#"{"k":"header","format":"laptime-trace","version":1}
{"k":"segment","id":"head","kind":"system","tokens":1000,"hash":"00000000000000aa"}
{"k":"session","id":"a"}
{"k":"step","id":"1","prompt":{"tokens":1500,"append":[{"seg":"head"},{"tokens":500}]},"output":{"tokens":10},"timing":{"sent_us":0}}
{"k":"session","id":"b"}
{"k":"step","id":"1","session":"b","prompt":{"tokens":3000,"append":[{"seg":"head"},{"tokens":2000}]},"output":{"tokens":10},"timing":{"sent_us":0}}
{"k":"step","id":"2","session":"b","prompt":{"tokens":4000,"keep":3010,"append":[{"tokens":990}]},"output":{"tokens":10},"timing":{"sent_us":30000000}}
{"k":"step","id":"3","session":"b","prompt":{"tokens":4100,"keep":4010,"append":[{"tokens":90}]},"output":{"tokens":10},"timing":{"sent_us":270000000}}
{"k":"step","id":"4","session":"b","prompt":{"tokens":2000,"keep":1000,"append":[{"tokens":1000}]},"output":{"tokens":10},"timing":{"sent_us":7470000000}}
"#;

#[test]
fn figures_are_those_that_a_pencil_gives() {
    let lab = Lab::new();
    lab.file("waits.jsonl", WAITS);
    let found = lab.run(&["inspect", "waits.jsonl", "--json", "-"]).json();
    let total = &found["total"];
    // Of 4,000 + 4,100 + 2,000 that follow: 3,000 after half a minute, 4,000 more after four, 1,000 never.
    let hits: Vec<f64> = total["hit_by_lifetime"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["hit"].as_f64().unwrap())
        .collect();
    assert_eq!(
        hits,
        [3_000.0 / 10_100.0, 7_000.0 / 10_100.0, 7_000.0 / 10_100.0]
    );
    assert_eq!(total["shared_with_previous"], 8_000.0 / 10_100.0);
    // The second session finds the head that the first one sent.
    assert_eq!(total["elsewhere_tokens"], 1_000);
    // The last prompt keeps 1,000 of 4,100, and has 1,000 to compute.
    let shrunk = &total["breaks"]["shrunk"];
    assert_eq!(
        shrunk,
        &json!({"count": 1, "lost_tokens": 3_100, "cost_tokens": 1_000})
    );
    let sizes = total["prompt_sizes"].as_array().unwrap();
    let calls = |place: usize| sizes[place]["calls"].as_u64().unwrap();
    assert_eq!((calls(0), calls(1), calls(2)), (2, 2, 1));
    assert_eq!(
        total["distinct_tokens"],
        1_000 + 510 + 2_010 + 1_000 + 100 + 1_010
    );
}

#[test]
fn a_working_set_is_tokens_times_what_the_model_keeps_of_each() {
    let lab = Lab::new();
    lab.file("waits.jsonl", WAITS);
    let model = "llama-3.1-8b-bf16";
    let found = lab
        .run(&["inspect", "waits.jsonl", "--model", model, "--json", "-"])
        .json();
    // 32 layers, 8 heads of 128, keys and values of two bytes.
    let per_token = 32 * 8 * 128 * 2 * 2;
    assert_eq!(found["working_set"]["bytes_per_token"], per_token);
    assert_eq!(found["working_set"]["distinct_bytes"], 5_630 * per_token);
    assert_eq!(
        found["working_set"]["largest_prompt_bytes"],
        4_100 * per_token
    );
    let shown = lab
        .run(&["inspect", "waits.jsonl", "--model", model])
        .stdout;
    assert!(
        shown.contains("working set with llama-3.1-8b-bf16"),
        "{shown}"
    );
    let wrong = lab.run(&["inspect", TRACE, "--model", "llama-3.1-8b-bf61"]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("llama-3.1-8b-bf16"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn people_see_a_chart_and_what_caches_could_save() {
    let lab = Lab::new();
    lab.file("waits.jsonl", WAITS);
    let shown = lab.run(&["inspect", "waits.jsonl"]).stdout;
    for part in [
        "calls by the size of their prompt",
        "what a cache could save",
        "kept for 5m",
        "####",
    ] {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
}
