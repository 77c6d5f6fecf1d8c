//! Which engine answers at an address, how it was set up, and what it counts.

use super::client::Client;
use serde_json::Value;
use std::collections::BTreeMap;

/// An engine, by the dialect it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's server.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// mlx-lm's server.
    MlxLm,
    /// TensorRT-LLM's `serve`.
    TrtLlm,
    /// LM Studio.
    LmStudio,
    /// OpenAI itself.
    OpenAi,
    /// A rig that this program serves.
    Laptime,
    /// Something else that speaks OpenAI's language and nothing more.
    Unknown,
}

impl Engine {
    /// Every engine, by its name on the command line and in documents.
    pub const NAMES: [(&'static str, Engine); 10] = [
        ("vllm", Engine::Vllm),
        ("sglang", Engine::Sglang),
        ("llama.cpp", Engine::LlamaCpp),
        ("ollama", Engine::Ollama),
        ("mlx-lm", Engine::MlxLm),
        ("trt-llm", Engine::TrtLlm),
        ("lm-studio", Engine::LmStudio),
        ("openai", Engine::OpenAi),
        ("laptime", Engine::Laptime),
        ("unknown", Engine::Unknown),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        let named = Engine::NAMES.iter().find(|(_, engine)| *engine == self);
        named.map_or("unknown", |(name, _)| name)
    }

    /// Returns whether it takes token ids as a prompt and tells the ids of what it says.
    pub fn takes_ids(self) -> bool {
        matches!(self, Engine::Vllm | Engine::LlamaCpp | Engine::Laptime)
    }
}

/// What is known of the thing at an address.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    /// The engine.
    pub engine: Engine,
    /// Its version.
    pub version: Option<String>,
    /// The model it was asked for, or its first.
    pub model: String,
    /// Its configuration, as far as it tells.
    pub settings: BTreeMap<String, String>,
}

/// Why an address cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// Nothing answers.
    Unreachable(String),
    /// It does not let us in.
    Forbidden(u16, String),
    /// It does not serve the model that was asked for; those that it does.
    NoSuchModel(Vec<String>),
    /// It serves no model, or does not say which.
    NoModels(String),
}

/// Finds out what answers.
pub async fn identify(
    client: &Client,
    named: Option<Engine>,
    model: Option<&str>,
) -> Result<Identity, Unusable> {
    let (status, text) = client
        .get("/v1/models")
        .await
        .map_err(Unusable::Unreachable)?;
    if matches!(status, 401 | 403) {
        return Err(Unusable::Forbidden(status, text));
    }
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let models: Vec<&Value> = listed["data"].as_array().into_iter().flatten().collect();
    let id = |model: &Value| model["id"].as_str().unwrap_or_default().to_string();
    let model = match (model, models.first()) {
        (Some(model), Some(_)) if !models.iter().any(|one| answers_to(one, model)) => {
            return Err(Unusable::NoSuchModel(models.into_iter().map(id).collect()));
        }
        (Some(model), _) => model.to_string(),
        (None, Some(first)) => id(first),
        (None, None) => return Err(Unusable::NoModels(format!("status {status}"))),
    };
    let entry = models.iter().find(|one| answers_to(one, &model));
    let entry = entry.map_or(Value::Null, |one| (*one).clone());
    let mut identity = Identity {
        engine: named.unwrap_or(Engine::Unknown),
        version: None,
        model,
        settings: BTreeMap::new(),
    };
    if named.is_none() {
        identity.engine = recognise(client, &entry).await;
    }
    describe(client, &entry, &mut identity).await;
    Ok(identity)
}

fn answers_to(entry: &Value, model: &str) -> bool {
    let aliases = entry["aliases"].as_array().into_iter().flatten();
    entry["id"] == model || aliases.into_iter().any(|alias| alias == model)
}

/// Tells engines apart by whom they say owns the model, then by what only they answer to.
async fn recognise(client: &Client, entry: &Value) -> Engine {
    match entry["owned_by"].as_str().unwrap_or_default() {
        "vllm" => return Engine::Vllm,
        "sglang" => return Engine::Sglang,
        "llamacpp" => return Engine::LlamaCpp,
        "tensorrt_llm" => return Engine::TrtLlm,
        "laptime" => return Engine::Laptime,
        "organization_owner" => return Engine::LmStudio,
        "openai" | "system" | "openai-internal" => return Engine::OpenAi,
        _ => {}
    }
    let tells = async |path: &str, key: &str| {
        let answer = client.json(path).await;
        answer.is_some_and(|answer| answer.get(key).is_some())
    };
    if tells("/props", "total_slots").await {
        Engine::LlamaCpp
    } else if tells("/get_server_info", "max_total_num_tokens").await {
        Engine::Sglang
    } else if tells("/api/v0/models", "data").await {
        Engine::LmStudio
    } else if tells("/api/version", "version").await {
        Engine::Ollama
    } else if client
        .json("/health")
        .await
        .is_some_and(|answer| answer["status"] == "ok")
        && entry.get("owned_by").is_none()
    {
        // mlx-lm lists models without an owner.
        Engine::MlxLm
    } else {
        Engine::Unknown
    }
}

/// Adds version and configuration, each from where the engine tells it.
async fn describe(client: &Client, entry: &Value, identity: &mut Identity) {
    let settings = &mut identity.settings;
    let mut put = |key: &str, value: &Value| {
        let text = match value {
            Value::Null | Value::Object(_) | Value::Array(_) => return,
            Value::String(text) => text.clone(),
            Value::Bool(true) => "on".to_string(),
            Value::Bool(false) => "off".to_string(),
            number @ Value::Number(_) => number.to_string(),
        };
        // A rig that is served tells whose setting it is.
        let owned = key.contains('.');
        let key = if owned {
            key.to_string()
        } else {
            format!("engine.{key}")
        };
        settings.insert(key, text);
    };
    put("max_model_len", &entry["max_model_len"]);
    put("ctx_train", &entry["meta"]["n_ctx_train"]);
    match identity.engine {
        Engine::LlamaCpp => {
            let props = client.json("/props").await.unwrap_or_default();
            identity.version = props["build_info"].as_str().map(str::to_string);
            put("parallel", &props["total_slots"]);
            put(
                "slot_ctx_size",
                &props["default_generation_settings"]["n_ctx"],
            );
            put("model_ftype", &props["model_ftype"]);
        }
        Engine::Vllm | Engine::TrtLlm => {
            let version = client.json("/version").await.unwrap_or_default();
            identity.version = version["version"].as_str().map(str::to_string);
            for (key, value) in labels(&client.text("/metrics").await, "vllm:cache_config_info") {
                let switch = match value.as_str() {
                    "True" => "on",
                    "False" => "off",
                    "None" => continue,
                    other => other,
                };
                put(&key, &Value::from(switch));
            }
        }
        Engine::Sglang => {
            let info = client.json("/get_server_info").await.unwrap_or_default();
            identity.version = info["version"].as_str().map(str::to_string);
            for (key, value) in info.as_object().into_iter().flatten() {
                // What is secret or about somebody's machine is nobody's business.
                if !key.contains("key") && !key.contains("path") && !key.contains("host") {
                    put(key, value);
                }
            }
        }
        Engine::Ollama => {
            let version = client.json("/api/version").await.unwrap_or_default();
            identity.version = version["version"].as_str().map(str::to_string);
        }
        Engine::Laptime => {
            for (key, value) in entry["settings"].as_object().into_iter().flatten() {
                put(key, value);
            }
        }
        Engine::LmStudio | Engine::MlxLm | Engine::OpenAi | Engine::Unknown => {}
    }
}

/// Returns how many tokens a call may hold, as far as the engine tells.
pub fn context(settings: &BTreeMap<String, String>) -> Option<u64> {
    let known = [
        "engine.slot_ctx_size",
        "engine.max_model_len",
        "engine.context_length",
    ];
    let found = known
        .iter()
        .filter_map(|key| settings.get(*key)?.parse().ok());
    found.min()
}

/// Returns how many calls the engine serves at the same time, as far as it tells.
pub fn slots(settings: &BTreeMap<String, String>) -> Option<u64> {
    let known = [
        "engine.parallel",
        "engine.max_num_seqs",
        "engine.max_running_requests",
    ];
    let mut found = known
        .iter()
        .filter_map(|key| settings.get(*key)?.parse().ok());
    found.next()
}

/// Returns the labels of a metric in Prometheus' text.
fn labels(text: &str, name: &str) -> Vec<(String, String)> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let inside = line
        .and_then(|line| line.rsplit_once('}'))
        .map_or("", |(inside, _)| inside);
    let pairs = inside.split("\",").filter_map(|pair| {
        let (key, value) = pair.split_once("=\"")?;
        Some((
            key.trim().to_string(),
            value.trim_end_matches('"').to_string(),
        ))
    });
    pairs.collect()
}

/// Returns the counters and gauges in Prometheus' text, summed over their labels; buckets of histograms are left out.
pub fn counters(text: &str) -> BTreeMap<String, f64> {
    let mut counters = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or_default();
        let known = ["vllm:", "sglang:", "llamacpp:", "trtllm", "nv_"];
        let wanted = known.iter().any(|begin| name.starts_with(begin));
        let part = ["_bucket", "_created", "_info"]
            .iter()
            .any(|end| name.ends_with(end));
        if let (true, false, Ok(value)) = (wanted, part, value.parse::<f64>())
            && value.is_finite()
        {
            *counters.entry(name.to_string()).or_insert(0.0) += value;
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP vllm:cache_config_info Information\n\
        vllm:cache_config_info{block_size=\"16\",enable_prefix_caching=\"True\",num_gpu_blocks=\"1024\"} 1.0\n\
        vllm:prompt_tokens_total{model=\"m\",engine=\"0\"} 12.0\n\
        vllm:prompt_tokens_total{model=\"m\",engine=\"1\"} 30.0\n\
        vllm:ttft_seconds_bucket{le=\"0.1\"} 3.0\nprocess_open_fds 9\n";

    #[test]
    fn a_configuration_is_read_from_labels() {
        let found = labels(METRICS, "vllm:cache_config_info");
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(found[0], pair("block_size", "16"));
        assert_eq!(found[1], pair("enable_prefix_caching", "True"));
        assert_eq!(found[2], pair("num_gpu_blocks", "1024"));
    }

    #[test]
    fn counters_are_summed_over_labels() {
        let found = counters(METRICS);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!((found["vllm:prompt_tokens_total"] - 42.0).abs() < 1e-9);
    }
}
