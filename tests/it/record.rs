//! `laptime record` between agents and an upstream that does all that upstreams do.

#![expect(clippy::print_stdout, reason = "tests tell what they measured")]
#![expect(clippy::disallowed_methods, reason = "upstreams take their time")]

use crate::cli::Lab;
use crate::http::{Instant, Server, ask, post, receive, records, send, upstream, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Odd: kept\r\nConnection: close\r\n\r\n";
const PATH: &str = "/v1/chat/completions";

fn recorder(lab: &Lab, to: SocketAddr, more: &[&str]) -> (Server, PathBuf) {
    let path = lab.path("trace.jsonl");
    let to = format!("http://{to}");
    let mut words = vec!["record", "--upstream", &to, "-o", path.to_str().unwrap()];
    words.extend(more);
    (Server::start(&words), path)
}

fn say(link: &mut TcpStream, text: &str) {
    let _ = link.write_all(text.as_bytes());
}

fn chunk(content: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"id": "c", "choices": [{"index": 0, "delta": {"content": content}}]})
    )
}

fn last(prompt: u64, output: u64) -> String {
    let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage =
        json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}});
    format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

fn hello(say: &str) -> Value {
    json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": say}]})
}

fn kinds<'r>(records: &'r [Value], kind: &str) -> Vec<&'r Value> {
    records
        .iter()
        .filter(|record| record["k"] == kind)
        .collect()
}

/// The trace on disk is one that every command reads without a complaint.
fn assert_valid(path: &Path, calls: usize) {
    let ran = Lab::new().run(&["inspect", path.to_str().unwrap(), "--json", "-"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let ran = Lab::new().run(&[
        "replay",
        "--trace",
        path.to_str().unwrap(),
        "--rig",
        "recorded",
        "--json",
        "-",
    ]);
    assert_eq!(ran.json()["calls"].as_array().unwrap().len(), calls);
}

#[test]
fn everything_passes_byte_for_byte_and_secrets_stay_out() {
    let lab = Lab::new();
    // Odd spacing, a comment, a carriage return: all of it is the agent's.
    let body = format!(": hi\r\n\r\nevent: x\n{}{}", chunk("Hallo"), last(11, 3));
    let sent = body.clone();
    let at = upstream(move |head, _, link| {
        let head = head.to_lowercase();
        assert!(
            head.contains("authorization: bearer key-of-mine")
                && head.contains("accept-encoding: identity")
        );
        say(link, &format!("{STREAM}{sent}"));
    });
    let (server, path) = recorder(&lab, at, &[]);
    let secrets = "Authorization: Bearer key-of-mine\r\nX-Api-Key: key-of-mine\r\nCookie: key-of-mine\r\nAccept-Encoding: gzip\r\n";
    let answer = receive(&mut send(
        server.at,
        "POST",
        PATH,
        secrets,
        &hello("the words").to_string(),
    ));
    assert_eq!((answer.status, answer.text()), (200, body));
    assert!(answer.head.contains("x-odd: kept"));
    let all = wait_for(&path, "step", 1);
    let step = kinds(&all, "step")[0];
    assert_eq!(
        (&step["prompt"]["tokens"], &step["output"]["tokens"]),
        (&json!(11), &json!(3))
    );
    assert_eq!(
        (&step["tokens_how"], &step["finish"]),
        (&json!("usage"), &json!("end-of-turn"))
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("the words") && !text.contains("key-of-mine"));
    assert_valid(&path, 1);
}

#[test]
fn hashed_recordings_hold_no_text() {
    let lab = Lab::new();
    let at = upstream(|_, _, link| {
        let call = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "call-7",
            "function": {"name": "secret_tool", "arguments": "{\"path\":\"secret\"}"}}]}}]});
        say(link, &format!("{STREAM}data: {call}\n\n{}", last(20, 9)));
    });
    let (server, path) = recorder(&lab, at, &["--hashed"]);
    let mut body = hello("a secret question");
    post(server.at, PATH, &body);
    let call = json!({"role": "assistant", "tool_calls": [{"id": "call-7", "function": {"name": "secret_tool", "arguments": "{\"path\":\"secret\"}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "call-7", "content": "secret result"});
    body["messages"]
        .as_array_mut()
        .unwrap()
        .extend([call, result]);
    post(server.at, PATH, &body);
    let all = wait_for(&path, "step", 2);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("secret") && !text.contains("call-7"),
        "{text}"
    );
    assert_eq!(kinds(&all, "tool").len(), 1);
    assert_eq!(kinds(&all, "tool")[0]["result_chars"], 13);
    assert_eq!(all[0]["privacy"], "hashed");
    assert_valid(&path, 2);
}

#[test]
fn an_upstream_that_dies_is_seen_by_the_agent_and_told_by_the_trace() {
    let lab = Lab::new();
    let at = upstream(|_, body, link| {
        let head = STREAM.replace("Connection: close", "Transfer-Encoding: chunked");
        let part = chunk("half an ans");
        say(link, &format!("{head}{:x}\r\n{part}\r\n", part.len()));
        if body.contains("wait") {
            thread::sleep(Duration::from_secs(1));
        }
        // The connection ends here, and the chunks do not.
    });
    let (server, path) = recorder(&lab, at, &[]);
    let answer = post(server.at, PATH, &hello("go, then wait"));
    assert!(!answer.whole, "the agent took a broken answer for whole");
    assert!(answer.text().contains("half an ans"));
    let all = wait_for(&path, "event", 1);
    assert_eq!(kinds(&all, "event")[0]["what"], "upstream-broke-off");
    let step = kinds(&all, "step")[0];
    assert_eq!(
        (&step["finish"], &step["tokens_how"]),
        (&json!("error"), &json!("estimated"))
    );
    assert_valid(&path, 1);
}

#[test]
fn errors_pass_as_they_are_and_are_events() {
    let lab = Lab::new();
    let at = upstream(|_, body, link| {
        if body.contains("slow down") {
            let text = "{\"error\":{\"message\":\"wait a bit\"}}";
            say(
                link,
                &format!(
                    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                ),
            );
        } else {
            say(link, &format!("{STREAM}{}{}", chunk("ok"), last(5, 1)));
        }
    });
    let (server, path) = recorder(&lab, at, &["--max-body", "4kB"]);
    let answer = post(server.at, PATH, &hello("slow down"));
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (429, "{\"error\":{\"message\":\"wait a bit\"}}")
    );
    assert!(answer.head.contains("retry-after: 7"));
    let large = post(server.at, PATH, &hello(&"a".repeat(9_000)));
    assert_eq!(large.status, 413);
    assert!(
        large.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("--max-body")
    );
    assert_eq!(post(server.at, PATH, &hello("fine")).status, 200);
    let all = wait_for(&path, "step", 1);
    let event = kinds(&all, "event")[0];
    assert_eq!(
        (&event["what"], &event["status"]),
        (&json!("rate-limit"), &json!(429))
    );
    assert_valid(&path, 1);
}

#[test]
fn without_an_upstream_the_agent_is_told_which() {
    let lab = Lab::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (server, path) = recorder(&lab, nobody, &[]);
    let answer = post(server.at, PATH, &hello("anybody?"));
    assert_eq!(answer.status, 502);
    let says = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(
        says.contains(&nobody.to_string()) && says.contains("refused"),
        "{says}"
    );
    let all = wait_for(&path, "event", 1);
    assert_eq!(kinds(&all, "event")[0]["what"], "upstream-unreachable");
}

#[test]
fn half_a_request_and_a_slow_reader_hold_nobody_up() {
    let lab = Lab::new();
    let at = upstream(|_, body, link| {
        let many = match body {
            _ if body.contains("much more") => 300_000,
            _ if body.contains("much") => 20_000,
            _ => 1,
        };
        say(link, STREAM);
        for _ in 0..many {
            say(link, &chunk("a long word or two, again and again"));
        }
        say(link, &last(5, many));
    });
    let (server, path) = recorder(&lab, at, &[]);
    let mut half = TcpStream::connect(server.at).unwrap();
    half.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{\"mess")
        .unwrap();
    let mut slow = send(server.at, "POST", PATH, "", &hello("much").to_string());
    for text in ["one", "two", "three"] {
        assert_eq!(post(server.at, PATH, &hello(text)).status, 200);
    }
    drop(half);
    let answer = receive(&mut slow);
    assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"));
    let all = wait_for(&path, "step", 4);
    let steps = kinds(&all, "step");
    let short = steps.iter().filter(|step| step["output"]["tokens"] == 1);
    assert_eq!(short.count(), 3);
    // Somebody who leaves in the middle has what came so far recorded.
    let mut gone = send(server.at, "POST", PATH, "", &hello("much more").to_string());
    gone.read_exact(&mut [0; 1000]).unwrap();
    drop(gone);
    let all = wait_for(&path, "event", 1);
    assert_eq!(kinds(&all, "event")[0]["what"], "client-left");
    assert_valid(&path, 5);
}

#[test]
#[cfg(unix)]
fn a_recorder_that_is_killed_loses_what_was_under_way_and_no_more() {
    let lab = Lab::new();
    let at = upstream(|_, body, link| {
        say(link, &format!("{STREAM}{}", chunk("word")));
        if body.contains("never ends") {
            thread::sleep(Duration::from_secs(60));
        }
        say(link, &last(5, 1));
    });
    let (mut server, path) = recorder(&lab, at, &[]);
    for text in ["one", "two"] {
        assert_eq!(post(server.at, PATH, &hello(text)).status, 200);
    }
    wait_for(&path, "step", 2);
    let mut link = send(
        server.at,
        "POST",
        PATH,
        "",
        &hello("never ends").to_string(),
    );
    link.read_exact(&mut [0; 100]).unwrap();
    assert_eq!(server.end("-KILL"), None);
    assert_eq!(kinds(&records(&path), "step").len(), 2);
    assert_valid(&path, 2);
}

#[test]
#[cfg(unix)]
fn an_interrupt_keeps_what_is_there() {
    let lab = Lab::new();
    let at = upstream(|_, _, link| {
        say(link, &format!("{STREAM}{}", chunk("word")));
        thread::sleep(Duration::from_secs(60));
    });
    let (mut server, path) = recorder(&lab, at, &[]);
    let mut link = send(server.at, "POST", PATH, "", &hello("go").to_string());
    link.read_exact(&mut [0; 200]).unwrap();
    assert_eq!(server.end("-INT"), Some(130));
    assert_valid(&path, 1);
    let again = lab.run(&[
        "record",
        "--upstream",
        "http://127.0.0.1:1",
        "-o",
        path.to_str().unwrap(),
        "--listen",
        "0",
    ]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
}

#[test]
fn what_is_no_call_passes_unrecorded() {
    let lab = Lab::new();
    let at = upstream(|head, _, link| {
        let line = head.lines().next().unwrap();
        say(
            link,
            &format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
                line.len()
            ),
        );
    });
    let (server, path) = recorder(&lab, at, &[]);
    let answer = ask(server.at, "GET", "/v1/models?all=1", "");
    assert_eq!(answer.text(), "GET /v1/models?all=1 HTTP/1.1");
    assert_eq!(records(&path).len(), 1);
}

#[test]
fn thirty_two_agents_at_once_are_thirty_two_sessions_with_the_engines_own_counts() {
    const AGENTS: usize = 32;
    let engine = Server::start(&[
        "serve",
        "--rig",
        "h100/vllm/qwen3.6-27b-fp8",
        "--time-scale",
        "20",
    ]);
    let lab = Lab::new();
    let (server, path) = recorder(&lab, engine.at, &[]);
    let (start, at) = (Arc::new(Barrier::new(AGENTS)), server.at);
    let agents: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                converse(at, agent)
            })
        })
        .collect();
    let mut seen: Vec<(u64, u64, u64)> = agents
        .into_iter()
        .flat_map(|agent| agent.join().unwrap())
        .collect();
    let all = wait_for(&path, "step", AGENTS * 3);
    assert_eq!(kinds(&all, "session").len(), AGENTS);
    assert!(kinds(&all, "agent").is_empty());
    let count = |step: &Value, name: &str| step["usage"][name].as_u64().unwrap();
    let steps = kinds(&all, "step");
    let mut recorded: Vec<_> = steps
        .iter()
        .map(|step| {
            assert_eq!(step["prompt"]["tokens"], step["usage"]["prompt"]);
            (
                count(step, "prompt"),
                count(step, "cached"),
                count(step, "output"),
            )
        })
        .collect();
    seen.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(recorded, seen);
    assert_valid(&path, AGENTS * 3);
    let rig = "h100/vllm/qwen3.6-27b-fp8";
    let words = [
        "replay",
        "--trace",
        path.to_str().unwrap(),
        "--rig",
        rig,
        "--agents",
        "32",
        "--json",
        "-",
    ];
    let document = lab.run(&words).json();
    let total: u64 = seen.iter().map(|(prompt, ..)| prompt).sum();
    assert_eq!(document["summary"]["tokens"]["prompt"], total);
}

/// Three turns of an agent; returns what the engine told it of each: tokens of the prompt, cached ones, of the answer.
fn converse(at: SocketAddr, agent: usize) -> Vec<(u64, u64, u64)> {
    let system = "You are an agent. ".repeat(50);
    let mut body = hello(&format!(
        "task {agent}: {}",
        "look at this. ".repeat(30 + agent)
    ));
    let messages = body["messages"].as_array_mut().unwrap();
    messages.insert(0, json!({"role": "system", "content": system}));
    body["model"] = json!("qwen3.6-27b-fp8");
    body["max_tokens"] = json!(20 + agent % 7);
    let mut counts = Vec::new();
    for turn in 0..3 {
        let answer = post(at, PATH, &body);
        assert!(answer.status == 200 && answer.whole, "{}", answer.text());
        let events = answer.events();
        let usage = &events.last().unwrap()["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        counts.push((
            usage["prompt_tokens"].as_u64().unwrap(),
            cached,
            usage["completion_tokens"].as_u64().unwrap(),
        ));
        let said: String = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        let next = json!({"role": "user", "content": format!("turn {turn}, go on")});
        let said = json!({"role": "assistant", "content": said});
        body["messages"]
            .as_array_mut()
            .unwrap()
            .extend([said, next]);
    }
    counts
}

#[test]
fn answers_that_bring_no_usage_are_counted_by_the_engine_all_the_same() {
    for (rig, how) in [
        ("h100/vllm/qwen3.6-27b-fp8", "tokenize"),
        ("dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0", "timings"),
    ] {
        let engine = Server::start(&["serve", "--rig", rig, "--time-scale", "20"]);
        let lab = Lab::new();
        let (server, path) = recorder(&lab, engine.at, &[]);
        let messages = json!([{"role": "user", "content": "count what this takes"}]);
        let body = json!({"messages": messages, "max_tokens": 12, "stream": true});
        assert_eq!(post(server.at, PATH, &body).status, 200);
        let told = post(
            engine.at,
            PATH,
            &json!({"messages": messages, "max_tokens": 12}),
        );
        let told = &told.json()["usage"];
        let all = wait_for(&path, "step", 1);
        let step = kinds(&all, "step")[0];
        assert_eq!(step["tokens_how"], how);
        assert_eq!(step["prompt"]["tokens"], told["prompt_tokens"], "{rig}");
        assert_eq!(step["output"]["tokens"], told["completion_tokens"], "{rig}");
    }
}

/// What the way through the recorder adds to each piece of a stream. The bound is wide: the machine does other work.
#[test]
fn pieces_of_a_stream_arrive_as_if_nobody_were_between() {
    const PIECES: u64 = 200;
    let start = Instant::now();
    let at = upstream(move |_, _, link| {
        say(link, STREAM);
        for _ in 0..PIECES {
            thread::sleep(Duration::from_millis(5));
            say(link, &chunk(&format!("@{}@", start.elapsed().as_micros())));
        }
        say(link, &last(5, PIECES));
    });
    let lab = Lab::new();
    let (server, _) = recorder(&lab, at, &[]);
    let late = |to: SocketAddr| {
        let mut link = send(to, "POST", PATH, "", &hello("tick").to_string());
        let (mut late, mut text, mut buffer) = (Vec::new(), String::new(), [0; 4096]);
        while let Ok(read @ 1..) = link.read(&mut buffer) {
            let now = start.elapsed().as_micros() as u64;
            text += &String::from_utf8_lossy(&buffer[..read]);
            while let Some((_, after)) = text.split_once('@') {
                let Some((sent, rest)) = after.split_once('@') else {
                    break;
                };
                late.push(now - sent.parse::<u64>().unwrap());
                text = rest.to_string();
            }
        }
        assert_eq!(late.len() as u64, PIECES);
        late.sort_unstable();
        late
    };
    let (direct, through) = (late(at), late(server.at));
    let show = |late: &[u64]| (late[late.len() / 2], late[late.len() * 99 / 100]);
    let ((direct_p50, direct_p99), (p50, p99)) = (show(&direct), show(&through));
    println!(
        "microseconds late, p50 and p99: direct {direct_p50} {direct_p99}, recorded {p50} {p99}"
    );
    assert!(p50 < direct_p50 + 2_000, "{p50} after {direct_p50}");
}
