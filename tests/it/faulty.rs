//! A server that speaks as engines do and fails on command: one thread for each connection, and a script for each call.

#![expect(
    clippy::disallowed_methods,
    reason = "what is asked lives in real time"
)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What is done with a call.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// It is answered in full.
    Answer,
    /// It is answered in full, but late.
    Late(Duration),
    /// A status, more lines of the head, and a text. `{key}` becomes what was sent as authorization.
    Status(u16, &'static str, &'static str),
    /// The connection is closed before the answer begins.
    Close,
    /// Nothing comes, ever.
    Silence,
    /// The answer begins, and nothing more comes.
    Stall,
    /// The answer begins, and the connection is closed.
    Half,
    /// The answer begins, and something that is no JSON follows.
    Garbage,
    /// The answer begins, and the engine tells of an error.
    Error,
    /// The server is gone, with all its connections.
    Die,
}

type Script = dyn Fn(u32) -> Act + Send + Sync;

/// The server, and what it has seen.
pub(crate) struct Faulty {
    /// Where it listens.
    pub(crate) port: u16,
    /// How many calls came in.
    pub(crate) calls: Arc<AtomicU32>,
    /// How many were answered in full.
    pub(crate) answered: Arc<AtomicU32>,
    /// The bodies of the calls.
    pub(crate) bodies: Arc<Mutex<Vec<Value>>>,
}

struct Shared {
    script: Box<Script>,
    dead: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Faulty {
    /// Starts a server that does with the n-th call what `script` says.
    pub(crate) fn start(script: impl Fn(u32) -> Act + Send + Sync + 'static) -> Faulty {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let faulty = Faulty {
            port: listener.local_addr().unwrap().port(),
            calls: Arc::default(),
            answered: Arc::default(),
            bodies: Arc::default(),
        };
        let shared = Arc::new(Shared {
            script: Box::new(script),
            dead: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let (calls, answered, bodies) = (
            Arc::clone(&faulty.calls),
            Arc::clone(&faulty.answered),
            Arc::clone(&faulty.bodies),
        );
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.dead.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                shared
                    .open
                    .lock()
                    .unwrap()
                    .push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                let counts = (
                    Arc::clone(&calls),
                    Arc::clone(&answered),
                    Arc::clone(&bodies),
                );
                let port = listener.local_addr().unwrap().port();
                thread::spawn(move || {
                    // A client that goes away has had enough.
                    let _ = serve(stream, &shared, &counts, port);
                });
            }
        });
        faulty
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }
}

type Counts = (Arc<AtomicU32>, Arc<AtomicU32>, Arc<Mutex<Vec<Value>>>);

fn serve(stream: TcpStream, shared: &Shared, counts: &Counts, port: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut length, mut key) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            match name.to_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => key = value.trim().to_string(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if first.starts_with("GET /v1/models") {
            let models = json!({"object": "list", "data": [{"id": "faulty", "owned_by": "tests"}]});
            reply(&mut stream, 200, "", &models.to_string())?;
        } else if first.starts_with("POST /v1/chat/completions") {
            let number = counts.0.fetch_add(1, Ordering::SeqCst);
            let body: Value = serde_json::from_slice(&body).unwrap();
            counts.2.lock().unwrap().push(body.clone());
            if !act(
                &mut stream,
                &(shared.script)(number),
                shared,
                &body,
                &key,
                port,
            )? {
                stream.shutdown(Shutdown::Both)?;
                return Ok(());
            }
            counts.1.fetch_add(1, Ordering::SeqCst);
        } else {
            reply(&mut stream, 404, "", "{}")?;
        }
    }
}

fn reply(stream: &mut TcpStream, status: u16, more: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{more}\r\n");
    stream.write_all((head + body).as_bytes())
}

/// Does what the script says; returns whether the call was answered in full.
fn act(
    stream: &mut TcpStream,
    act: &Act,
    shared: &Shared,
    body: &Value,
    key: &str,
    port: u16,
) -> std::io::Result<bool> {
    let tokens = body["max_tokens"].as_u64().unwrap();
    match act {
        Act::Answer => {}
        Act::Late(by) => thread::sleep(*by),
        Act::Status(status, more, text) => {
            reply(stream, *status, more, &text.replace("{key}", key))?;
            return Ok(false);
        }
        Act::Close => return Ok(false),
        Act::Silence => {
            thread::sleep(Duration::from_secs(60));
            return Ok(false);
        }
        Act::Die => {
            shared.dead.store(true, Ordering::SeqCst);
            for open in shared.open.lock().unwrap().drain(..) {
                let _ = open.shutdown(Shutdown::Both);
            }
            // Wakes the listener, which then is gone.
            let _ = TcpStream::connect(("127.0.0.1", port));
            return Ok(false);
        }
        Act::Stall | Act::Half | Act::Garbage | Act::Error => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            chunk(stream, &say(" begun"))?;
            match act {
                Act::Stall => thread::sleep(Duration::from_secs(60)),
                Act::Garbage => chunk(stream, "data: {\"choices\": [{\"del\n\n")?,
                Act::Error => chunk(
                    stream,
                    "data: {\"error\": {\"message\": \"out of luck\", \"code\": 500}}\n\n",
                )?,
                _ => {}
            }
            thread::sleep(Duration::from_millis(20));
            return Ok(false);
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..tokens {
        chunk(stream, &say(" said"))?;
    }
    chunk(
        stream,
        "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"length\"}]}\n\n",
    )?;
    let words: usize = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            4 + message["content"]
                .as_str()
                .unwrap()
                .split_whitespace()
                .count()
        })
        .sum();
    let usage =
        json!({"choices": [], "usage": {"prompt_tokens": words, "completion_tokens": tokens}});
    chunk(stream, &format!("data: {usage}\n\n"))?;
    stream.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")?;
    Ok(true)
}

fn say(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": {"content": text}}]})
    )
}

fn chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}
