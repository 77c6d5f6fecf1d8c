//! Passing requests on and answers back, byte for byte, and handing a copy of each to the writer first.

use super::asked::Api;
use super::writer::{Closed, Note, Notes};
use crate::listen::{self, BodyError, Pipe, Reply};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use reqwest::Url;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Pieces that wait for a slow reader before the upstream has to.
const ROOM: usize = 4096;
/// An answer that is no stream is held back until it is whole, up to this size.
const WHOLE: usize = 64 << 20;

/// Headers that concern one connection alone.
const OWN: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Headers by which clients name their session. They are compared, and never stored.
const SESSION: [&str; 3] = ["x-session-id", "x-claude-code-session-id", "session_id"];

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Upstream {
    base: Url,
    client: reqwest::Client,
}

impl Upstream {
    /// Returns the way to an engine or provider.
    pub fn new(url: &str) -> Result<Upstream, String> {
        let base: Url = url.parse().map_err(|error| format!("{error}"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err("expected http://HOST:PORT or https://HOST".to_string());
        }
        // Whoever came first has installed it; they are all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(10))
            // An engine close by drops idle connections after some seconds, now and then just as the next request is on
            // its way; a new one costs nothing there. Far away it costs a handshake, so those are kept a while.
            .pool_max_idle_per_host(if base.scheme() == "http" { 0 } else { 1024 })
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Upstream { base, client })
    }

    /// Returns where a path of ours is there: a path that repeats the end of the base is not said twice.
    pub fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.base.clone();
        let base = self.base.path().trim_end_matches('/');
        let whole = if !base.is_empty() && path.starts_with(base) {
            path.to_string()
        } else if base.ends_with("/v1") && path.starts_with("/v1/") {
            format!("{base}{}", &path[3..])
        } else {
            format!("{base}{path}")
        };
        url.set_path(&whole);
        url.set_query(query);
        url
    }

    /// Asks the engine's own tokenizer; nothing when there is none.
    pub(super) async fn count(&self, path: &str, body: String) -> Option<Bytes> {
        let request = self
            .client
            .post(self.url(path, None))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .timeout(Duration::from_secs(2));
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        answer.bytes().await.ok()
    }
}

/// Tells the writer of a request's end, whatever happens to it.
struct Ticket {
    notes: Notes,
    number: Option<u64>,
}

impl Ticket {
    fn note(&self, note: impl FnOnce(u64, u64) -> Note) {
        if let Some(number) = self.number {
            self.notes.note(|at| note(number, at));
        }
    }

    fn close(&mut self, closed: Closed) {
        self.note(|ticket, at| Note::End { ticket, at, closed });
        self.number = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.close(Closed::ClientLeft);
    }
}

/// Passes a request on, and its answer back.
pub(super) async fn answer(
    upstream: Arc<Upstream>,
    notes: Notes,
    most: u64,
    request: Request<Incoming>,
) -> Reply {
    let (head, body) = request.into_parts();
    let body = match listen::body(body, most).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => {
            let what = format!("the request is longer than {most} bytes; --max-body allows more");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &what);
        }
        Err(BodyError::Broken) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "the request broke off",
            );
        }
    };
    let api = Api::of_path(head.uri.path()).filter(|_| head.method == Method::POST);
    let number = api.map(|api| {
        let said = |name: &&str| {
            head.headers
                .get(*name)
                .and_then(|value| value.to_str().ok())
        };
        let session = SESSION.iter().find_map(said).map(ToString::to_string);
        notes.begin(api, body.clone(), session)
    });
    let ticket = Ticket { notes, number };
    let url = upstream.url(head.uri.path(), head.uri.query());
    let mut headers = passed_on(&head.headers);
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    // What is packed could not be read on the way.
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    let request = upstream.client.request(head.method, url);
    let sent = request.headers(headers).body(body).send().await;
    match sent {
        Ok(answer) => back(answer, ticket).await,
        Err(error) => {
            let mut ticket = ticket;
            ticket.close(Closed::Unreachable);
            let what = format!("cannot reach {}: {}", upstream.base, innermost(&error));
            problem(StatusCode::BAD_GATEWAY, "upstream_unreachable", &what)
        }
    }
}

async fn back(answer: reqwest::Response, ticket: Ticket) -> Reply {
    let status = answer.status();
    let headers = passed_on(answer.headers());
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let streams = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    ticket.note(|ticket, _| Note::Head {
        ticket,
        status: status.as_u16(),
        streams,
    });
    let body = if streams || ticket.number.is_none() {
        let (fill, pipe) = Pipe::new(ROOM);
        tokio::spawn(pump(answer, ticket, fill));
        pipe.boxed()
    } else {
        whole(answer, ticket).await
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    reply
}

type Fill = tokio::sync::mpsc::Sender<io::Result<Bytes>>;

/// Passes an answer on as it comes. The writer has each piece before the client does.
async fn pump(mut answer: reqwest::Response, mut ticket: Ticket, fill: Fill) {
    loop {
        let piece = tokio::select! {
            piece = answer.chunk() => piece,
            () = fill.closed() => return,
        };
        match piece {
            Ok(Some(bytes)) => {
                let copy = bytes.clone();
                ticket.note(|ticket, at| Note::Piece {
                    ticket,
                    at,
                    bytes: copy,
                });
                if fill.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return ticket.close(Closed::Whole),
            Err(error) => {
                ticket.close(Closed::Broken);
                // What came before goes out first; then the client must not take for whole what is not.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = fill.send(Err(io::Error::other(error))).await;
                return;
            }
        }
    }
}

/// Holds an answer back until it is whole, so that the writer has seen its end before the agent goes on.
async fn whole(
    mut answer: reqwest::Response,
    mut ticket: Ticket,
) -> http_body_util::combinators::BoxBody<Bytes, io::Error> {
    let mut held = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(bytes)) => {
                let copy = bytes.clone();
                ticket.note(|ticket, at| Note::Piece {
                    ticket,
                    at,
                    bytes: copy,
                });
                held.extend_from_slice(&bytes);
            }
            Ok(None) => {
                ticket.close(Closed::Whole);
                let full = http_body_util::Full::new(held.freeze());
                return full.map_err(|never| match never {}).boxed();
            }
            Err(error) => {
                ticket.close(Closed::Broken);
                let (fill, pipe) = Pipe::new(2);
                let _ = fill.send(Ok(held.freeze())).await;
                let _ = fill.send(Err(io::Error::other(error))).await;
                return pipe.boxed();
            }
        }
        if held.len() > WHOLE {
            let (fill, pipe) = Pipe::new(ROOM);
            let _ = fill.send(Ok(held.freeze())).await;
            tokio::spawn(pump(answer, ticket, fill));
            return pipe.boxed();
        }
    }
}

/// Returns the headers that are meant for the other end.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = headers
        .get(header::CONNECTION)
        .and_then(|named| named.to_str().ok());
    let named: Vec<String> = named
        .into_iter()
        .flat_map(|named| named.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut passed = headers.clone();
    for own in OWN {
        passed.remove(own);
    }
    for own in named {
        passed.remove(own.as_str());
    }
    passed
}

/// Returns the error of the recorder itself, in a form that OpenAI's and Anthropic's clients can show.
fn problem(status: StatusCode, kind: &str, what: &str) -> Reply {
    let text = super::writer::error_document(kind, what);
    listen::whole(status, "application/json", text)
}

/// Returns the last cause of an error, which says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
