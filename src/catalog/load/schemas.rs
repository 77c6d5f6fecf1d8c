//! The published schemas against the loader: they describe the fields that are read, and no others.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Returns the fields that a schema describes, as the loader names them: `a.b`, `[]` for items, `*` for any name.
fn described(root: &Value, rule: &Value, at: &str, fields: &mut BTreeSet<String>) {
    if let Some(target) = rule["$ref"].as_str() {
        let rule = root.pointer(target.trim_start_matches('#')).unwrap();
        described(root, rule, at, fields);
    }
    let inner = |name: &str| match at {
        "" => name.to_string(),
        _ => format!("{at}.{name}"),
    };
    for (name, rule) in rule["properties"].as_object().into_iter().flatten() {
        fields.insert(inner(name));
        described(root, rule, &inner(name), fields);
    }
    if rule["additionalProperties"].is_object() {
        fields.insert(inner("*"));
        described(root, &rule["additionalProperties"], &inner("*"), fields);
    }
    if rule["items"].is_object() {
        described(root, &rule["items"], &format!("{at}[]"), fields);
    }
}

/// Returns a field as a schema would name it: places in lists and names that may be any are left out.
fn general(field: &str) -> String {
    let words = field.split('.').enumerate().map(|(depth, word)| {
        let any =
            depth == 1 && (field.starts_with("settings.") || field.starts_with("unmodelled."));
        match word.split_once('[') {
            _ if any => "*".to_string(),
            Some((word, _)) => format!("{word}[]"),
            None => word.to_string(),
        }
    });
    words.collect::<Vec<_>>().join(".")
}

#[test]
fn the_published_schemas_describe_the_fields_that_are_read_and_no_others() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/catalog");
    let claims = [super::CLAIMS];
    for (kind, files) in [
        ("hardware", super::HARDWARE),
        ("engine", super::ENGINES),
        ("model", super::MODELS),
        ("rig", super::RIGS),
        ("claims", &claims[..]),
    ] {
        let text = std::fs::read_to_string(docs.join(format!("{kind}.schema.json"))).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        let (mut expected, mut asked) = (BTreeSet::new(), BTreeSet::new());
        described(&schema, &schema, "", &mut expected);
        for (name, text) in files {
            let fields = super::fields_asked(kind, name, text);
            asked.extend(fields.iter().map(|field| general(field)));
        }
        assert_eq!(asked, expected, "docs/catalog/{kind}.schema.json");
    }
}
