//! `laptime serve` as its clients see it, and against `laptime replay` of the same calls.

#![expect(
    clippy::disallowed_methods,
    reason = "what is asked lives in real time"
)]
#![expect(clippy::print_stdout, reason = "tests tell how exact they are")]

use crate::cli::Lab;
use crate::http::{Instant, Server, ask, post, send};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Read;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const FAST: [&str; 4] = [
    "serve",
    "--rig",
    "h100/vllm/qwen3.6-27b-fp8",
    "--time-scale=50",
];

fn cached(usage: &Value) -> u64 {
    usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_chat_goes_on_from_what_is_cached() {
    let server = Server::start(&FAST);
    let long = "read the file and say what is in it, ".repeat(60);
    let mut messages = vec![json!({"role": "user", "content": long})];
    let first = post(
        server.at,
        "/v1/chat/completions",
        &json!({"messages": messages, "max_tokens": 40}),
    );
    let first = first.json();
    assert_eq!(cached(&first["usage"]), 0);
    assert_eq!(first["usage"]["completion_tokens"], 40);
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    let said = first["choices"][0]["message"]["content"].clone();
    messages.push(json!({"role": "assistant", "content": said}));
    messages.push(json!({"role": "user", "content": "and then?"}));
    let body =
        json!({"messages": messages, "stream": true, "stream_options": {"include_usage": true}});
    let second = post(server.at, "/v1/chat/completions", &body);
    assert!(second.head.contains("text/event-stream") && second.whole);
    let events = second.events();
    let usage = &events.last().unwrap()["usage"];
    // All of the first prompt and answer, in whole blocks of 784 tokens: a model with recurrent layers.
    let before = first["usage"]["prompt_tokens"].as_u64().unwrap() + 39;
    assert!(cached(usage) <= before && usage["prompt_tokens"].as_u64().unwrap() > before);
    // Nothing limits the second answer but its own end, which is no word.
    assert_eq!(usage["completion_tokens"], 256);
    let words = events.iter().filter(|event| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    });
    assert_eq!(words.count(), 255);
    assert!(second.text().ends_with("data: [DONE]\n\n"));
    let metrics = ask(server.at, "GET", "/metrics", "").text();
    assert!(
        metrics.contains("vllm:num_requests_running{model_name=\"qwen3.6-27b-fp8\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics.contains("vllm:generation_tokens_total{model_name=\"qwen3.6-27b-fp8\"} 296"),
        "{metrics}"
    );
}

#[test]
fn ids_and_text_are_the_same_prompt() {
    let server = Server::start(&FAST);
    let text = "fn main() {\n    println!(\"Grüße\");\n}\n";
    let tokens = post(server.at, "/tokenize", &json!({"prompt": text})).json();
    let back = post(
        server.at,
        "/detokenize",
        &json!({"tokens": tokens["tokens"]}),
    )
    .json();
    assert_eq!(back["prompt"], text);
    let ask = |prompt: &Value| {
        let body = json!({"prompt": prompt, "max_tokens": 7, "ignore_eos": true, "return_token_ids": true});
        post(server.at, "/v1/completions", &body).json()
    };
    let (by_text, by_ids) = (ask(&json!(text)), ask(&tokens["tokens"]));
    assert_eq!(by_text["choices"], by_ids["choices"]);
    assert_eq!(by_text["usage"]["prompt_tokens"], tokens["count"]);
    assert_eq!(
        by_ids["choices"][0]["token_ids"].as_array().unwrap().len(),
        7
    );
    let models = crate::http::ask(server.at, "GET", "/v1/models", "").json();
    assert_eq!(models["data"][0]["id"], "qwen3.6-27b-fp8");
    assert_eq!(
        crate::http::ask(server.at, "GET", "/health", "").status,
        200
    );
}

#[test]
fn what_an_engine_refuses_is_refused_in_its_words() {
    let small = [
        "serve",
        "--rig",
        "h100/vllm/qwen3.6-27b-fp8",
        "--set",
        "engine.max_model_len=1000",
        "--max-body=20kB",
    ];
    let server = Server::start(&small);
    let long = json!({"prompt": "a b ".repeat(600)});
    let refused = post(server.at, "/v1/completions", &long);
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("maximum context length is 1000")
    );
    let much = json!({"prompt": "a", "max_tokens": 1000});
    assert_eq!(post(server.at, "/v1/completions", &much).status, 400);
    let other = json!({"prompt": "a", "model": "gpt-4"});
    assert_eq!(post(server.at, "/v1/completions", &other).status, 404);
    let huge = json!({"prompt": "a".repeat(30_000)});
    assert_eq!(post(server.at, "/v1/completions", &huge).status, 413);
    assert_eq!(ask(server.at, "POST", "/v1/completions", "{").status, 400);
    assert_eq!(ask(server.at, "GET", "/v1/completions", "").status, 405);
    assert_eq!(ask(server.at, "POST", "/v1/embeddings", "{}").status, 404);
    let llama = [
        "serve",
        "--rig",
        "dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0",
        "--set",
        "engine.ctx_size=1024",
        "--set",
        "engine.parallel=1",
    ];
    let server = Server::start(&llama);
    let refused = post(server.at, "/v1/completions", &long).json();
    assert_eq!(refused["error"]["type"], "exceed_context_size_error");
}

#[test]
fn who_goes_away_no_longer_takes_part() {
    let server = Server::start(&["serve", "--rig", "dgx-spark/vllm/qwen3.6-27b-fp8"]);
    let body = json!({"prompt": "a b c", "max_tokens": 4000, "ignore_eos": true, "stream": true});
    let mut link = send(server.at, "POST", "/v1/completions", "", &body.to_string());
    let mut some = [0; 400];
    link.read_exact(&mut some).unwrap();
    let running = || {
        let text = ask(server.at, "GET", "/metrics", "").text();
        text.contains("num_requests_running{model_name=\"qwen3.6-27b-fp8\"} 1")
    };
    assert!(running());
    drop(link);
    let gone = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        !running()
    });
    assert!(gone, "the call went on without its caller");
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_it_at_once() {
    let mut server = Server::start(&["serve", "--rig", "dgx-spark/vllm/qwen3.6-27b-fp8"]);
    let body = json!({"prompt": "a b c", "max_tokens": 4000, "ignore_eos": true, "stream": true});
    let link = send(server.at, "POST", "/v1/completions", "", &body.to_string());
    let began = Instant::now();
    assert_eq!(server.end("-INT"), Some(130), "{}", server.said());
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(link);
}

#[test]
fn wrong_words_are_told() {
    let lab = Lab::new();
    for (words, says) in [
        (
            vec!["serve", "--rig", "recorded"],
            "takes no calls from outside",
        ),
        (vec!["serve", "--rig", "nowhere/vllm/x"], "nowhere"),
        (
            vec![
                "serve",
                "--rig",
                "h100/vllm/qwen3.6-27b-fp8",
                "--listen",
                "here",
            ],
            "ADDRESS:PORT",
        ),
        (
            vec![
                "serve",
                "--rig",
                "h100/vllm/qwen3.6-27b-fp8",
                "--time-scale",
                "0",
            ],
            "above 0",
        ),
    ] {
        let ran = lab.run(&words);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
}

/// One agent's calls: the ids that each prompt adds to what came before, and the length of each answer.
struct Script {
    added: Vec<Vec<u32>>,
    output: u64,
}

const TOOL_MS: u64 = 120;

fn script(agent: u32, steps: u32) -> Script {
    let added = |step: u32| {
        let length = if step == 0 { 3_000 } else { 400 + 37 * step };
        (0..length)
            .map(|place| 1_000 + agent * 1_000_000 + step * 10_000 + place)
            .collect()
    };
    Script {
        added: (0..steps).map(added).collect(),
        output: 10,
    }
}

/// The same calls as a trace.
fn trace(scripts: &[Script]) -> String {
    let mut text = String::from("{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n");
    for (agent, script) in scripts.iter().enumerate() {
        writeln!(text, "{}", json!({"k": "session", "id": agent.to_string()})).unwrap();
        let mut before = 0;
        for (step, added) in script.added.iter().enumerate() {
            let tokens = before + added.len() as u64;
            let line = json!({"k": "step", "id": step.to_string(), "session": agent.to_string(),
                "prompt": {"tokens": tokens, "keep": before, "append": [{"tokens": added.len()}]},
                "output": {"tokens": script.output}, "gap": {"tool_us": TOOL_MS * 1000}, "finish": "tool-call"});
            writeln!(text, "{line}").unwrap();
            before = tokens + script.output;
        }
    }
    text
}

/// What a client saw of a call.
#[derive(Debug)]
struct Seen {
    cached: u64,
    prompt: u64,
    output: u64,
    secs: f64,
}

fn live(server: &Server, script: &Script) -> Vec<Seen> {
    let mut prompt: Vec<u64> = Vec::new();
    let mut all = Vec::new();
    for added in &script.added {
        prompt.extend(added.iter().map(|&id| u64::from(id)));
        let body = json!({"prompt": prompt, "max_tokens": script.output, "ignore_eos": true, "return_token_ids": true});
        let body = body.to_string();
        let began = Instant::now();
        let answer = ask(server.at, "POST", "/v1/completions", &body);
        let secs = began.elapsed().as_secs_f64();
        let answer = answer.json();
        let count = |name: &str| answer["usage"][name].as_u64().unwrap();
        all.push(Seen {
            cached: cached(&answer["usage"]),
            prompt: count("prompt_tokens"),
            output: count("completion_tokens"),
            secs,
        });
        let ids = answer["choices"][0]["token_ids"].as_array().unwrap();
        prompt.extend(ids.iter().map(|id| id.as_u64().unwrap()));
        thread::sleep(Duration::from_millis(TOOL_MS));
    }
    all
}

fn simulated(rig: &str, scripts: &[Script]) -> Vec<Vec<Seen>> {
    let lab = Lab::new();
    let path = lab.file("calls.jsonl", &trace(scripts));
    let agents = scripts.len().to_string();
    let words = [
        "replay",
        "--trace",
        path.to_str().unwrap(),
        "--rig",
        rig,
        "--agents",
        &agents,
        "--json",
        "-",
    ];
    let document = lab.run(&words).json();
    let mut all: Vec<Vec<Seen>> = scripts.iter().map(|_| Vec::new()).collect();
    for call in document["calls"].as_array().unwrap() {
        let count = |name: &str| call[name].as_u64().unwrap();
        let secs = |name: &str| call[name].as_f64().unwrap();
        let session: usize = call["session"].as_str().unwrap().parse().unwrap();
        all[session].push(Seen {
            cached: count("cached_tokens"),
            prompt: count("prompt_tokens"),
            output: count("output_tokens"),
            secs: secs("finished_s") - secs("submitted_s"),
        });
    }
    all
}

fn tokens(seen: &[Seen]) -> Vec<(u64, u64, u64)> {
    seen.iter()
        .map(|one| (one.prompt, one.cached, one.output))
        .collect()
}

#[test]
fn one_agent_lives_as_its_replay_says() {
    for rig in [
        "dgx-spark/vllm/qwen3.6-27b-fp8",
        "dgx-spark/llama.cpp/qwen3.6-27b-q8_0",
    ] {
        let scripts = [script(0, 3)];
        let server = Server::start(&["serve", "--rig", rig]);
        let (live, said) = (live(&server, &scripts[0]), &simulated(rig, &scripts)[0]);
        assert_eq!(tokens(&live), tokens(said), "{rig}");
        let sum = |seen: &[Seen]| seen.iter().map(|one| one.secs).sum::<f64>();
        let (live, said) = (sum(&live), sum(said));
        let off = live / said - 1.0;
        println!(
            "{rig}: {live:.3} s lived, {said:.3} s simulated, {:+.2} %",
            off * 100.0
        );
        // A client is never ahead of the rig; how far behind depends on what else the machine does.
        assert!((-0.001..0.01).contains(&off), "{rig}: {off}");
    }
}

#[test]
fn several_agents_find_in_the_cache_what_their_replay_says() {
    let rig = "rtx-pro-6000/vllm/qwen3.6-27b-awq";
    let scripts: Arc<Vec<Script>> = Arc::new((0..4).map(|agent| script(agent, 3)).collect());
    let server = Arc::new(Server::start(&["serve", "--rig", rig]));
    let start = Arc::new(Barrier::new(scripts.len()));
    let agents: Vec<_> = (0..scripts.len())
        .map(|agent| {
            let (scripts, server, start) = (
                Arc::clone(&scripts),
                Arc::clone(&server),
                Arc::clone(&start),
            );
            thread::spawn(move || {
                start.wait();
                live(&server, &scripts[agent])
            })
        })
        .collect();
    let said = simulated(rig, &scripts);
    for (agent, said) in agents.into_iter().zip(&said) {
        assert_eq!(tokens(&agent.join().unwrap()), tokens(said));
    }
}
