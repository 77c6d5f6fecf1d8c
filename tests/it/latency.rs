//! What a recorder adds to requests and to the pieces of their answers, with many agents at once.

#![expect(clippy::print_stdout, reason = "tests tell what they measured")]
#![expect(clippy::disallowed_methods, reason = "upstreams take their time")]

use crate::cli::Lab;
use crate::http::{Instant, Server, send, upstream};
use serde_json::json;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PATH: &str = "/v1/chat/completions";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
/// An answer: so many pieces, fifty in a second.
const PIECES: usize = 50;
const EVERY: Duration = Duration::from_millis(20);
const TURNS: usize = 8;

/// Microseconds on the way: of requests to the upstream, and of pieces of answers back.
#[derive(Default)]
struct Ways {
    there: Vec<u64>,
    back: Vec<u64>,
}

/// Returns the numbers between `@`s, and what is left of the text.
fn stamps(text: &mut String) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some((_, after)) = text.split_once('@')
        && let Some((stamp, rest)) = after.split_once('@')
    {
        found.push(stamp.parse().unwrap());
        *text = rest.to_string();
    }
    found
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap()
}

/// Has so many agents talk to an address at once; returns how long everything took on its way.
fn talk(agents: usize, at: SocketAddr, start: Instant, there: &Mutex<Vec<u64>>) -> Ways {
    there.lock().unwrap().clear();
    let talks: Vec<_> = (0..agents)
        .map(|agent| {
            thread::spawn(move || {
                // Their pieces fall between each other's.
                thread::sleep(EVERY * u32::try_from(agent).unwrap() / 7);
                let mut back = Vec::new();
                let mut messages = vec![json!({"role": "system", "content": "x".repeat(40_000)})];
                for _ in 0..TURNS {
                    let said = format!("agent {agent} at @{}@", micros(start));
                    messages.push(json!({"role": "user", "content": said}));
                    let body = json!({"model": "m", "stream": true, "messages": messages});
                    let mut link = send(at, "POST", PATH, "", &body.to_string());
                    let (mut text, mut buffer) = (String::new(), [0; 4096]);
                    while let Ok(read @ 1..) = link.read(&mut buffer) {
                        let now = micros(start);
                        text += &String::from_utf8_lossy(&buffer[..read]);
                        back.extend(stamps(&mut text).iter().map(|sent| now - sent));
                    }
                    messages.pop();
                }
                assert_eq!(back.len(), TURNS * PIECES);
                back
            })
        })
        .collect();
    let back = talks.into_iter().flat_map(|talk| talk.join().unwrap());
    let back = back.collect();
    let there = std::mem::take(&mut *there.lock().unwrap());
    Ways { there, back }
}

/// Returns the median and the 99th percentile in milliseconds.
fn figures(mut values: Vec<u64>) -> [f64; 2] {
    values.sort_unstable();
    [values.len() / 2, values.len() * 99 / 100].map(|at| values[at] as f64 / 1e3)
}

#[test]
#[ignore = "wants a release build and a machine that does nothing else; docs/record.md says how to run it"]
fn a_recorder_adds_less_than_two_milliseconds_to_ninety_nine_of_a_hundred_pieces() {
    let start = Instant::now();
    let there = Arc::new(Mutex::new(Vec::new()));
    let arrived = Arc::clone(&there);
    let engine = upstream(move |_, body, link| {
        let sent = stamps(&mut body.to_string()).last().copied().unwrap();
        arrived.lock().unwrap().push(micros(start) - sent);
        let _ = link.write_all(HEAD.as_bytes());
        for _ in 0..PIECES {
            thread::sleep(EVERY);
            let delta = json!({"content": format!("@{}@", micros(start))});
            let piece = json!({"choices": [{"index": 0, "delta": delta}]});
            let _ = link.write_all(format!("data: {piece}\n\n").as_bytes());
        }
        let usage = json!({"prompt_tokens": 10_000, "completion_tokens": PIECES});
        let last = json!({"choices": [], "usage": usage});
        let _ = link.write_all(format!("data: {last}\n\ndata: [DONE]\n\n").as_bytes());
    });
    println!("| agents | request, direct | recorded | piece, direct | recorded |");
    for agents in [1, 8, 32, 64] {
        let lab = Lab::new();
        let path = lab.path("trace.jsonl");
        let to = format!("http://{engine}");
        let words = ["record", "--upstream", &to, "-o", path.to_str().unwrap()];
        let recorder = Server::start(&words);
        let [direct, recorded] = [engine, recorder.at].map(|at| {
            let ways = talk(agents, at, start, &there);
            (figures(ways.there), figures(ways.back))
        });
        let show = |[p50, p99]: [f64; 2]| format!("{p50:.2}, {p99:.2}");
        println!(
            "| {agents} | {} | {} | {} | {} |",
            show(direct.0),
            show(recorded.0),
            show(direct.1),
            show(recorded.1)
        );
        let added = recorded.1[1] - direct.1[1];
        assert!(added < 2.0, "{added} ms added to pieces of {agents} agents");
    }
}
