//! Speculative decoding as engines are told of it: under each one's own flags, with an acceptance that only a user can know.

use super::{Parts, RigError, Values, cost_of};
use crate::catalog::{Catalog, Model};
use crate::known::Known;
use crate::rig::cost::Speculation;
use crate::rig::speculation::{Drafter, Gain, MOST_DRAFTS};
use crate::units::Bytes;
use std::collections::BTreeSet;

/// The setting that says how many drafts are accepted; no engine has a flag for it.
const ACCEPTANCE: &str = "speculative_acceptance";

/// What an engine was asked to draft with.
struct Asked {
    /// Its own word for the method.
    method: String,
    drafter: Drafter,
    /// Whether the drafts come from layers of the model itself.
    own_layers: bool,
    drafts: Option<u64>,
    /// The flag that says how many drafts.
    drafts_flag: &'static str,
    /// The model that drafts, where one is named.
    model: Option<String>,
    /// The flag that names it.
    model_flag: &'static str,
}

/// Speculative decoding of a rig.
pub(super) struct Speculating {
    /// What passes do and cost.
    pub(super) cost: Speculation,
    /// The model as it takes memory: with what drafts.
    pub(super) sized: Model,
    /// Whether the head that drafts needs the last cached block computed anew.
    pub(super) by_head: bool,
    /// How the cost is known, in words.
    pub(super) known_by: String,
}

/// Returns how a rig drafts, if it was asked to.
pub(super) fn of(
    parts: &Parts<'_>,
    values: &Values,
    catalog: &Catalog,
) -> Result<Option<Speculating>, RigError> {
    let asked = match parts.engine.name.as_str() {
        "vllm" => vllm(values)?,
        "sglang" => sglang(values)?,
        "llama.cpp" => llama(parts, values)?,
        "mlx-lm" => mlx(values),
        _ => None,
    };
    let given = values.word(ACCEPTANCE);
    let Some(asked) = asked else {
        return if given.is_empty() {
            Ok(None)
        } else {
            Err(wrong(format!(
                "`engine.{ACCEPTANCE}={given}` has no speculative decoding to apply to; switch that on as well"
            )))
        };
    };
    let drafts = drafts(&asked)?;
    if given.is_empty() {
        return Err(wrong(format!(
            "how many drafts are accepted depends on model, drafter and text, and has no default: give \
             `engine.{ACCEPTANCE}` as the share of all drafts that a real run had accepted (0.7), as the shares by \
             position ({}), or as `each:0.8`, the chance of a draft when those before it were accepted",
            example(drafts)
        )));
    }
    let accepted = acceptance(given, drafts)?;
    let mut sized = parts.model.clone();
    let by_head = asked.drafter == Drafter::Head;
    if by_head {
        head(parts, &asked, &mut sized)?;
    }
    let mut known_by = String::new();
    let model = match asked.drafter {
        Drafter::Model => {
            let draft = drafting(parts, &asked, catalog)?;
            sized.weights = add(&sized.weights, draft.weights.value.0);
            sized.kv_bytes_per_token =
                add(&sized.kv_bytes_per_token, draft.kv_bytes_per_token.value.0);
            let cost = cost_of(&parts.with_model(draft), values, catalog, None)?;
            known_by = format!("; {} drafts: {}", draft.name, cost.known_by);
            Some(cost.coefficients)
        }
        Drafter::Head | Drafter::Ngram => None,
    };
    let gain = Gain::new(accepted);
    Ok(Some(Speculating {
        known_by: format!(
            "each pass verifies {drafts} drafts ({}) and writes {:.2} tokens on average, as \
             engine.{ACCEPTANCE} says; what that costs beside a plain pass was measured on another machine \
             (docs/model.md){known_by}",
            asked.method,
            gain.mean(),
        ),
        cost: Speculation {
            drafts,
            gain,
            drafter: asked.drafter,
            model,
        },
        sized,
        by_head,
    }))
}

fn wrong(why: String) -> RigError {
    RigError::Speculation(why)
}

fn add(to: &Known<Bytes>, more: u64) -> Known<Bytes> {
    to.clone().map(|bytes| Bytes(bytes.0 + more))
}

/// Returns shares by position that go with so many drafts, to show their form.
fn example(drafts: u64) -> String {
    let shares = ["0.8", "0.65", "0.5", "0.4", "0.3", "0.25", "0.2"];
    shares[..drafts as usize].join(",")
}

fn drafts(asked: &Asked) -> Result<u64, RigError> {
    let flag = asked.drafts_flag;
    match asked.drafts {
        Some(drafts) if (1..=MOST_DRAFTS).contains(&drafts) => Ok(drafts),
        Some(drafts) => Err(wrong(format!(
            "`{flag}` is {drafts}; what a pass costs is known for 1 to {MOST_DRAFTS} drafts (measured up to 4), so give \
             one of those"
        ))),
        None => Err(wrong(format!(
            "`{flag}` is not given; expected 1 to {MOST_DRAFTS}"
        ))),
    }
}

/// Returns how many of so many drafts are accepted on average.
fn acceptance(given: &str, drafts: u64) -> Result<f64, RigError> {
    let share = |text: &str| {
        text.trim()
            .parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
    };
    let refused = || {
        wrong(format!(
            "`engine.{ACCEPTANCE}={given}` is not known; expected a share from 0 to 1 of all drafts, {drafts} falling \
             shares by position ({}), or each:SHARE",
            example(drafts)
        ))
    };
    if let Some(each) = given.strip_prefix("each:") {
        let each: f64 = share(each).ok_or_else(refused)?;
        let mut reached = 1.0;
        let accepted = (0..drafts).map(|_| {
            reached *= each;
            reached
        });
        return Ok(accepted.sum());
    }
    let shares: Option<Vec<f64>> = given.split(',').map(share).collect();
    let shares = shares.ok_or_else(refused)?;
    if let [all] = shares[..] {
        return Ok(all * drafts as f64);
    }
    let falling = shares.windows(2).all(|pair| pair[0] >= pair[1]);
    if shares.len() as u64 != drafts || !falling {
        return Err(refused());
    }
    Ok(shares.iter().sum())
}

/// Gives the model the memory of the head that drafts, after a look at whether there is one.
fn head(parts: &Parts<'_>, asked: &Asked, sized: &mut Model) -> Result<(), RigError> {
    let layers = parts.model.shape.value.mtp_layers;
    if asked.own_layers && layers == 0 {
        return Err(wrong(format!(
            "{} needs a model with layers for multi-token prediction, and the catalogue knows of none in {}; draft with \
             another model or n-grams",
            asked.method, parts.model.name
        )));
    }
    // A head is about one layer, whose keys and values are kept as well.
    let layer = parts.model.kv_bytes_per_layer().0;
    sized.kv_bytes_per_token = add(&sized.kv_bytes_per_token, layer);
    Ok(())
}

/// Returns the model that drafts.
fn drafting<'c>(
    parts: &Parts<'_>,
    asked: &Asked,
    catalog: &'c Catalog,
) -> Result<&'c Model, RigError> {
    let Some(name) = &asked.model else {
        return Err(wrong(format!(
            "{} needs `{}`, the catalogue's name of the model that drafts",
            asked.method, asked.model_flag
        )));
    };
    let draft = catalog.model(name)?;
    let (ours, theirs) = (parts.model.shape.value.vocab, draft.shape.value.vocab);
    // llama.cpp lets vocabularies differ by a few added tokens; the others do not.
    let most = if parts.engine.name == "llama.cpp" {
        128
    } else {
        0
    };
    if ours.abs_diff(theirs) > most {
        return Err(wrong(format!(
            "{} cannot draft for {}: they have vocabularies of {theirs} and {ours} entries",
            draft.name, parts.model.name
        )));
    }
    if !parts.engine.loads(draft) {
        return Err(RigError::Format {
            engine: parts.engine.title.clone(),
            model: draft.name.clone(),
            loads: parts.engine.loads.join(", "),
        });
    }
    if draft.weights.value >= parts.model.weights.value {
        return Err(wrong(format!(
            "{} is not smaller than {}, for which it is to draft",
            draft.name, parts.model.name
        )));
    }
    Ok(draft)
}

/// vLLM takes one JSON object.
fn vllm(values: &Values) -> Result<Option<Asked>, RigError> {
    let text = values.word("speculative_config");
    if text.is_empty() {
        return Ok(None);
    }
    let form = r#"{"method":"mtp","num_speculative_tokens":3}"#;
    let object = serde_json::from_str::<serde_json::Value>(text).ok();
    let Some(object) = object.as_ref().and_then(|value| value.as_object()) else {
        return Err(wrong(format!(
            "`engine.speculative_config` is `{text}`; expected a JSON object such as {form}"
        )));
    };
    let known: BTreeSet<&str> = [
        "method",
        "num_speculative_tokens",
        "model",
        "prompt_lookup_max",
        "prompt_lookup_min",
    ]
    .into();
    if let Some(key) = object.keys().find(|key| !known.contains(key.as_str())) {
        let known: Vec<&str> = known.into_iter().collect();
        return Err(wrong(format!(
            "`{key}` in `engine.speculative_config` is not modelled; known are {}",
            known.join(", ")
        )));
    }
    let word = |key: &str| object.get(key).and_then(|value| value.as_str());
    let (drafter, own_layers) = match word("method") {
        Some("mtp") => (Drafter::Head, true),
        Some("eagle" | "eagle3") => (Drafter::Head, false),
        Some("draft_model") => (Drafter::Model, false),
        Some("ngram") => (Drafter::Ngram, false),
        found => {
            return Err(wrong(format!(
                "the method of `engine.speculative_config` is {}; vLLM's mtp, eagle, eagle3, draft_model and ngram are \
                 modelled",
                found.map_or("not given".to_string(), |method| format!("`{method}`"))
            )));
        }
    };
    Ok(Some(Asked {
        method: word("method").unwrap_or_default().to_string(),
        drafter,
        own_layers,
        drafts: object
            .get("num_speculative_tokens")
            .and_then(serde_json::Value::as_u64),
        drafts_flag: "num_speculative_tokens",
        model: word("model").map(str::to_string),
        model_flag: "model",
    }))
}

/// SGLang has a flag for each.
fn sglang(values: &Values) -> Result<Option<Asked>, RigError> {
    let method = values.word("speculative_algorithm");
    let (drafter, own_layers) = match method {
        "" => return Ok(None),
        "NEXTN" => (Drafter::Head, true),
        "STANDALONE" => (Drafter::Model, false),
        "NGRAM" => (Drafter::Ngram, false),
        _ => (Drafter::Head, false),
    };
    if values.count("speculative_eagle_topk") > 1 {
        return Err(wrong(
            "`engine.speculative_eagle_topk` above 1 drafts a tree, which is not modelled; give 1"
                .to_string(),
        ));
    }
    let steps = values.int("speculative_num_steps");
    let verified = values.int("speculative_num_draft_tokens");
    if let (Some(steps), Some(verified)) = (steps, verified)
        && verified != steps + 1
    {
        return Err(wrong(format!(
            "`engine.speculative_num_draft_tokens` is {verified}; a chain of {steps} steps has {}",
            steps + 1
        )));
    }
    let model = values.word("speculative_draft_model_path");
    Ok(Some(Asked {
        method: method.to_string(),
        drafter,
        own_layers,
        drafts: steps.or(verified.map(|all| all.saturating_sub(1))),
        drafts_flag: "engine.speculative_num_steps",
        model: (!model.is_empty()).then(|| model.to_string()),
        model_flag: "engine.speculative_draft_model_path",
    }))
}

/// llama.cpp names the kind since May 2026; before, naming a model was enough.
fn llama(parts: &Parts<'_>, values: &Values) -> Result<Option<Asked>, RigError> {
    let (kind, model) = (values.word("spec_type"), values.word("model_draft"));
    let kind = if kind == "none" { "" } else { kind };
    let before = parts.version == "b9151";
    let (drafter, own_layers) = match kind {
        "" if model.is_empty() => return Ok(None),
        "" if before => (Drafter::Model, false),
        "" => {
            return Err(wrong(format!(
                "llama.cpp loads `engine.model_draft={model}` and does not use it until `engine.spec_type=draft-simple` is \
                 given as well"
            )));
        }
        "draft-simple" | "draft-mtp" | "draft-eagle3" if before => {
            return Err(wrong(format!(
                "`engine.spec_type={kind}` came after b9151; use @af6528e6d or @latest"
            )));
        }
        "draft-simple" => (Drafter::Model, false),
        "draft-mtp" => (Drafter::Head, true),
        "draft-eagle3" => (Drafter::Head, false),
        _ => (Drafter::Ngram, false),
    };
    Ok(Some(Asked {
        method: if kind.is_empty() { "draft" } else { kind }.to_string(),
        drafter,
        own_layers,
        drafts: values.int("draft_max"),
        drafts_flag: "engine.draft_max",
        model: (!model.is_empty()).then(|| model.to_string()),
        model_flag: "engine.model_draft",
    }))
}

/// mlx-lm drafts with another model, for one request at a time.
fn mlx(values: &Values) -> Option<Asked> {
    let model = values.word("draft_model");
    (!model.is_empty()).then(|| Asked {
        method: "a draft model".to_string(),
        drafter: Drafter::Model,
        own_layers: false,
        drafts: values.int("num_draft_tokens"),
        drafts_flag: "engine.num_draft_tokens",
        model: Some(model.to_string()),
        model_flag: "engine.draft_model",
    })
}
