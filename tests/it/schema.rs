//! The published JSON Schema against real documents, with the part of JSON Schema that it uses.
//!
//! Besides validity it is checked that every field a document has is described, so that the schema cannot fall behind.

use crate::cli::{Lab, TRACE};
use crate::faulty::{Act, Faulty};
use serde_json::Value;
use std::time::Duration;

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/result.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns every way in which `value` departs from `rule`.
fn check(root: &Value, rule: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(target) = rule["$ref"].as_str() {
        let rule = root
            .pointer(target.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{target} is missing"));
        wrong.extend(check(root, rule, value, at));
    }
    if let Some(any) = rule["anyOf"].as_array() {
        let tries: Vec<_> = any
            .iter()
            .map(|rule| check(root, rule, value, at))
            .collect();
        if !tries.iter().any(Vec::is_empty) {
            wrong.extend(tries.into_iter().min_by_key(Vec::len).unwrap());
        }
    }
    let types: Vec<&str> = match &rule["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(value, name)) {
        wrong.push(format!("{at} is {value}, expected {types:?}"));
    }
    if rule.get("const").is_some_and(|only| only != value) {
        wrong.push(format!("{at} is {value}"));
    }
    if rule["enum"]
        .as_array()
        .is_some_and(|all| !all.contains(value))
    {
        wrong.push(format!("{at} is {value}"));
    }
    if let (Some(least), Some(number)) = (rule["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        wrong.push(format!("{at} is {value}, below {least}"));
    }
    wrong.extend(check_inside(root, rule, value, at));
    wrong
}

fn check_inside(root: &Value, rule: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in rule["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            wrong.push(format!("{at} lacks {name}"));
        }
    }
    if let (Some(known), Some(fields)) = (rule["properties"].as_object(), value.as_object()) {
        for (name, field) in fields {
            match known.get(name) {
                Some(rule) => wrong.extend(check(root, rule, field, &format!("{at}.{name}"))),
                None => wrong.push(format!("{at}.{name} is not described")),
            }
        }
    } else if let (Some(rule), Some(fields)) = (
        rule.get("additionalProperties")
            .filter(|rule| rule.is_object()),
        value.as_object(),
    ) {
        for (name, field) in fields {
            wrong.extend(check(root, rule, field, &format!("{at}.{name}")));
        }
    }
    if let (Some(rule), Some(items)) = (rule.get("items"), value.as_array()) {
        for (place, item) in items.iter().enumerate() {
            wrong.extend(check(root, rule, item, &format!("{at}[{place}]")));
        }
    }
    wrong
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the schema uses the type {other}"),
    }
}

fn valid(args: &[&str]) {
    let mut all = vec!["replay", "--trace", TRACE, "--json", "-"];
    all.extend(args);
    let document = Lab::new().run(&all).json();
    let schema = schema();
    assert_eq!(
        check(&schema, &schema, &document, "result"),
        Vec::<String>::new()
    );
}

#[test]
fn results_are_as_the_schema_describes_them() {
    valid(&["--rig", "recorded"]);
    valid(&["--rig", "recorded", "--agents", "3", "--no-calls"]);
    valid(&["--rig", "recorded", "--rig", "recorded"]);
    valid(&["--rig", "dgx-spark/llama.cpp/qwen3.6-27b-q8_0"]);
    let with_api = ["cost.api_usd_mtok_in=3", "cost.api_usd_mtok_out=15"];
    let [input, output] = with_api;
    valid(&[
        "--rig",
        "h100/vllm/qwen3-8b-bf16",
        "--set",
        input,
        "--set",
        output,
    ]);
}

#[test]
fn live_results_are_as_the_schema_describes_them() {
    let faulty = Faulty::start(|number| match number {
        9 => Act::Half,
        10 => Act::Close,
        // An engine that answers at once leaves the client no time to rest.
        _ => Act::Late(Duration::from_millis(10)),
    });
    let url = faulty.url();
    valid(&["--url", &url, "--pace", "none", "--max-client-lag", "60s"]);
    valid(&[
        "--url",
        &url,
        "--rig",
        "recorded",
        "--pace",
        "none",
        "--max-client-lag",
        "60s",
    ]);
}

#[test]
fn the_schema_rejects_what_is_wrong() {
    let schema = schema();
    let mut document = Lab::new()
        .run(&[
            "replay", "--trace", TRACE, "--rig", "recorded", "--json", "-",
        ])
        .json();
    document["summary"]["wall_s"] = "long".into();
    document["calls"][0]["outcome"] = "fine".into();
    document["runs"][0].as_object_mut().unwrap().remove("lane");
    let wrong = check(&schema, &schema["$defs"]["result"], &document, "result");
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}

/// Returns a catalogue file as JSON.
fn as_json(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn every_file_of_the_catalogue_is_as_its_schema_describes() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = |kind: &str| -> Value {
        let path = root.join(format!("docs/catalog/{kind}.schema.json"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let data = root.join("src/catalog/data");
    let mut files = vec![("claims", data.join("claims.toml"))];
    for kind in ["hardware", "engine", "model", "rig"] {
        let folder = std::fs::read_dir(data.join(kind)).unwrap();
        files.extend(folder.map(|entry| (kind, entry.unwrap().path())));
    }
    assert!(files.len() > 60, "{}", files.len());
    for (kind, path) in &files {
        let schema = schema(kind);
        let document = as_json(&std::fs::read_to_string(path).unwrap());
        let wrong = check(&schema, &schema, &document, &path.display().to_string());
        assert_eq!(wrong, Vec::<String>::new());
    }
    let mut broken = as_json(&std::fs::read_to_string(data.join("hardware/h100.toml")).unwrap());
    broken["memory"]["unit"] = "furlongs".into();
    broken["colour"] = "green".into();
    broken.as_object_mut().unwrap().remove("chip");
    let schema = schema("hardware");
    assert_eq!(check(&schema, &schema, &broken, "h100").len(), 3);
}
