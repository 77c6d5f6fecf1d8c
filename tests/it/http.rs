//! The binary as a server, and a plain HTTP client and upstream of our own to hold against it.

#![expect(
    clippy::disallowed_methods,
    reason = "what is asked lives in real time"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The wall clock, which servers are held against.
#[expect(clippy::disallowed_types, reason = "servers live in real time")]
pub(crate) type Instant = std::time::Instant;

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The binary, serving while this lives.
pub(crate) struct Server {
    child: Child,
    pub(crate) at: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `laptime` with these words, listening on a free port.
    pub(crate) fn start(words: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_laptime"))
            .args(words)
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        let at = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {first}");
            first += &line;
            let found = line.split("http://").find_map(|rest| {
                let address = rest.split(|c: char| c == '/' || c.is_whitespace()).next()?;
                address.parse::<SocketAddr>().ok()
            });
            if let Some(at) = found {
                break at;
            }
        };
        let said = Arc::new(Mutex::new(first));
        let more = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut said = more.lock().unwrap();
                *said += &line;
                said.push('\n');
            }
        });
        Server { child, at, said }
    }

    /// Returns what it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Sends it a signal by name and waits for its end; returns its exit code.
    pub(crate) fn end(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body came as the head had promised.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the events of a stream, without its last word.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data = data.filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// Opens a connection and sends a request, without reading what comes back.
pub(crate) fn send(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> TcpStream {
    let mut link = TcpStream::connect(at).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    link.set_nodelay(true).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    link.write_all(head.as_bytes()).unwrap();
    // A server may refuse a large body before all of it is sent.
    let _ = link.write_all(body.as_bytes());
    link
}

/// Reads an answer to its end.
pub(crate) fn receive(link: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = link.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no head, {read:?}: {bytes:?}"));
    let head = String::from_utf8(bytes[..split].to_vec())
        .unwrap()
        .to_lowercase();
    let rest = &bytes[split + 4..];
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (body, whole) = if head.contains("transfer-encoding: chunked") {
        unchunk(rest)
    } else {
        let promised = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let promised = promised.map_or(rest.len(), |length| length.parse().unwrap());
        (rest.to_vec(), rest.len() == promised)
    };
    Answer {
        status,
        head,
        body,
        whole,
    }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (body, false);
        };
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// Asks and waits for the whole answer.
pub(crate) fn ask(at: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    receive(&mut send(at, method, path, "", body))
}

/// Asks for JSON with JSON.
pub(crate) fn post(at: SocketAddr, path: &str, body: &Value) -> Answer {
    ask(at, "POST", path, &body.to_string())
}

/// An upstream that does as it is told: each request, with its head and body, is handed to the function.
pub(crate) fn upstream(
    answer: impl Fn(&str, &str, &mut TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for link in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut link = link;
                link.set_nodelay(true).unwrap();
                let mut reader = BufReader::new(link.try_clone().unwrap());
                // One request for each connection is enough here.
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if let Some(number) = line.to_lowercase().strip_prefix("content-length:") {
                        length = number.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        break;
                    }
                    head += &line;
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_ok() {
                    answer(&head, &String::from_utf8(body).unwrap(), &mut link);
                }
            });
        }
    });
    at
}

/// The records of a trace on disk so far.
pub(crate) fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "a line is written whole");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until the trace holds so many records of a kind, and returns all.
pub(crate) fn wait_for(path: &Path, kind: &str, count: usize) -> Vec<Value> {
    for _ in 0..1200 {
        let all = records(path);
        if all.iter().filter(|record| record["k"] == kind).count() >= count {
            return all;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("no {count} records `{kind}` came: {:#?}", records(path));
}
