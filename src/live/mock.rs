//! An engine of known timing, against which the client measures its own error.
//!
//! It computes nothing: every answer begins a set time after its request and has a token every so often, by deadlines that
//! do not drift. It keeps what it really did, token by token, which is the truth that a client's figures are held to.

use super::clock::Clock;
use crate::metrics::stats::Quantiles;
use crate::units::{Span, Time};
use serde_json::{Value, json};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How the engine answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// From the last byte of a request to the first token.
    pub first: Span,
    /// From token to token.
    pub between: Span,
}

/// What it did.
#[derive(Debug, Default)]
struct Truth {
    firsts: Vec<Span>,
    tokens: u64,
    /// When the first token of all and the last of all went out.
    from: Option<Time>,
    to: Time,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, timing: Timing) -> io::Result<()> {
    let (clock, truth) = (Clock::start(), Arc::new(Mutex::new(Truth::default())));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let truth = Arc::clone(&truth);
        // A client that goes away has had enough.
        tokio::spawn(async move {
            let _ = converse(stream, clock, timing, &truth).await;
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    clock: Clock,
    timing: Timing,
    truth: &Mutex<Truth>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some((head, body)) = request(&mut stream, &mut buffer).await? {
        let received = clock.now();
        if head.starts_with("POST /v1/chat/completions") {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            answer(&mut stream, clock, timing, truth, received, &body).await?;
        } else if head.starts_with("GET /v1/models") {
            plain(
                &mut stream,
                200,
                &json!({"object": "list", "data": [{"id": "clockwork"}]}),
            )
            .await?;
        } else if head.starts_with("GET /truth") {
            let told = truth
                .lock()
                .map(|mut truth| truth.told())
                .unwrap_or_default();
            plain(&mut stream, 200, &told).await?;
        } else {
            plain(&mut stream, 404, &json!({"error": "nothing here"})).await?;
        }
    }
    Ok(())
}

impl Truth {
    /// Returns what it did, and forgets it.
    fn told(&mut self) -> Value {
        let nanos = |quantiles: Quantiles| json!({"p50": quantiles.p50.0, "p99": quantiles.p99.0});
        let told = json!({
            "first_ns": Quantiles::of(&mut self.firsts).map(nanos),
            "tokens": self.tokens,
            "span_ns": self.from.map_or(0, |from| self.to.since(from).0),
        });
        *self = Truth::default();
        told
    }
}

/// Reads a request; nothing when the client has closed the connection.
async fn request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(String, Vec<u8>)>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let named = name.eq_ignore_ascii_case("content-length");
                named.then(|| value.trim().parse::<usize>().ok())?
            });
            let whole = end + 4 + length.unwrap_or(0);
            while buffer.len() < whole {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let body = buffer[end + 4..whole].to_vec();
            buffer.drain(..whole);
            return Ok(Some((head, body)));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn plain(stream: &mut TcpStream, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).await
}

async fn answer(
    stream: &mut TcpStream,
    clock: Clock,
    timing: Timing,
    truth: &Mutex<Truth>,
    received: Time,
    body: &Value,
) -> io::Result<()> {
    let tokens = body["max_tokens"].as_u64().unwrap_or(16);
    let words: usize = body["messages"].as_array().map_or(0, |messages| {
        let text = |message: &Value| {
            message["content"]
                .as_str()
                .map_or(0, |text| text.split(' ').count())
        };
        messages.iter().map(text).sum()
    });
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let token = event(
        &json!({"id": "c", "object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": {"content": " tick"}, "finish_reason": null}]}),
    );
    for place in 0..tokens {
        let due = received + timing.first + Span(timing.between.0 * place);
        tokio::time::sleep_until(clock.instant(due)).await;
        // The truth is when a token leaves, not when it should have.
        let now = clock.now();
        if place == 0 {
            // In one piece: many requests at once would otherwise wait for each other's heads, which is no part of the truth.
            stream
                .write_all(&[head.as_bytes(), &token].concat())
                .await?;
        } else {
            stream.write_all(&token).await?;
        }
        if let Ok(mut truth) = truth.lock() {
            if place == 0 {
                truth.firsts.push(now - received);
            }
            truth.tokens += 1;
            truth.from.get_or_insert(now);
            truth.to = truth.to.max(now);
        }
    }
    let mut end =
        event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}));
    end.extend(event(
        &json!({"choices": [], "usage": {"prompt_tokens": words,
        "completion_tokens": tokens, "total_tokens": words as u64 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0}}}),
    ));
    end.extend(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    stream.write_all(&end).await
}

/// Returns an event in the framing of a body whose length is not known.
fn event(value: &Value) -> Vec<u8> {
    let event = format!("data: {value}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}
