//! One connection pool to one server: plain questions, and calls whose answers are read as they come.
//!
//! Address, credentials and message types are async-openai's. The stream is read here rather than by its client: it ends
//! a broken stream and a whole one alike, keeps neither status nor headers of a refusal, and stamps an event only after a
//! task and a channel. Nothing is ever sent twice unless the fleet says so.

use super::clock::Clock;
use super::connect::{CONNECTED, TimedLayer};
use super::engine::Engine;
use super::measured::Measured;
use super::prompt::Prompt;
use super::read::{Reader, Said};
use super::wire::{self, Extra};
use super::words::beginning;
use crate::call::Outcome;
use crate::units::{Span, Time};
use async_openai::config::{Config, OpenAIConfig};
use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Address {
    /// As it was typed.
    pub url: String,
    /// The key, where one is needed.
    pub key: Option<String>,
    /// Headers beside it.
    pub headers: Vec<(String, String)>,
    /// How long a connection may take.
    pub connect: Span,
    /// How long a server may say nothing.
    pub stall: Span,
}

/// A way to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The server's address, without `/v1`.
    root: String,
    headers: HeaderMap,
    secrets: Vec<String>,
    stall: Duration,
    /// The engine, once it is known.
    pub engine: Engine,
    /// The model that is asked for.
    pub model: String,
    /// Fields that the user adds to every request.
    pub extra: Extra,
}

/// From this size on, building a request takes long enough to keep other answers waiting.
const LONG: usize = 64 << 10;
/// How long a plain question may take.
const PLAIN: Duration = Duration::from_secs(20);

impl Client {
    /// Returns a way to `address`, or what is wrong with it.
    pub fn new(address: &Address) -> Result<Client, String> {
        // Others may have chosen a provider before; one is as good as another.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = address.url.trim_end_matches('/');
        let root = base.strip_suffix("/v1").unwrap_or(base).to_string();
        let form = "it must begin with http:// or https://, and name a host";
        let parsed = match reqwest::Url::parse(&root) {
            Ok(parsed) => parsed,
            // `localhost:8000` reads as a scheme, and `127.0.0.1:8000` as nothing at all.
            Err(_) if !root.contains("://") => return Err(form.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(form.to_string());
        }
        let config = OpenAIConfig::new()
            .with_api_base(&root)
            .with_api_key(address.key.as_deref().unwrap_or_default());
        let mut headers = config.headers();
        if address.key.is_none() {
            headers.remove(AUTHORIZATION);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &address.headers {
            let name =
                HeaderName::try_from(name).map_err(|error| format!("header {name}: {error}"))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| format!("header {name}: a value that cannot be sent"))?;
            headers.insert(name, value);
        }
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            // Tools may run for minutes; the connection stays, as an agent's does.
            .pool_idle_timeout(None)
            .pool_max_idle_per_host(usize::MAX)
            .connect_timeout(Duration::from_nanos(address.connect.0))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connector_layer(TimedLayer)
            .build()
            .map_err(|error| error.to_string())?;
        let mut secrets: Vec<String> = address.key.iter().cloned().collect();
        secrets.extend(address.headers.iter().map(|(_, value)| value.clone()));
        secrets.extend(parsed.password().map(str::to_string));
        secrets.retain(|secret| secret.len() > 3);
        Ok(Client {
            http,
            root,
            headers,
            secrets,
            stall: Duration::from_nanos(address.stall.0),
            engine: Engine::Unknown,
            model: String::new(),
            extra: Extra::new(),
        })
    }

    /// Returns the server's address as it may be shown.
    pub fn shown(&self) -> String {
        let Ok(mut url) = reqwest::Url::parse(&self.root) else {
            return self.clean(&self.root);
        };
        // Neither can fail for an address that has a host.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        self.clean(url.as_str().trim_end_matches('/'))
    }

    /// Returns `text` without anything secret in it, and not longer than a person reads.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_string();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "[secret]");
        }
        beginning(&text, 500).to_string()
    }

    /// Asks a plain question; returns status and text.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let request = self.http.get(format!("{}{path}", self.root));
        self.plain(request).await
    }

    /// Asks a plain question with a body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, String), String> {
        let request = self.http.post(format!("{}{path}", self.root));
        self.plain(request.body(body.to_string())).await
    }

    async fn plain(&self, request: reqwest::RequestBuilder) -> Result<(u16, String), String> {
        let request = request.headers(self.headers.clone()).timeout(PLAIN);
        let wrong = |error: reqwest::Error| self.clean(&chain(&error));
        let answer = request.send().await.map_err(wrong)?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(wrong)?))
    }

    /// Returns what `path` answers, where that is JSON.
    pub async fn json(&self, path: &str) -> Option<Value> {
        match self.get(path).await {
            Ok((200, text)) => serde_json::from_str(&text).ok(),
            _ => None,
        }
    }

    /// Returns what `path` answers; nothing where it does not.
    pub async fn text(&self, path: &str) -> String {
        match self.get(path).await {
            Ok((200, text)) => text,
            _ => String::new(),
        }
    }

    /// Returns how many tokens `text` is, where the engine counts for us.
    pub async fn tokenize(&self, text: &str) -> Option<Vec<u32>> {
        let body = match self.engine {
            Engine::LlamaCpp => serde_json::json!({"content": text, "add_special": false}),
            Engine::Vllm | Engine::Sglang | Engine::Laptime => {
                serde_json::json!({"model": self.model, "prompt": text, "add_special_tokens": false})
            }
            _ => return None,
        };
        let (status, answer) = self.post("/tokenize", &body).await.ok()?;
        let answer: Value = serde_json::from_str(&answer)
            .ok()
            .filter(|_| status == 200)?;
        let ids = answer["tokens"].as_array()?.iter();
        ids.map(|id| Some(id.as_u64()? as u32)).collect()
    }

    /// Makes a call and reads its answer; returns what was seen, and what is left of the connection.
    pub async fn ask(
        &self,
        clock: Clock,
        mut seen: Measured,
        prompt: Prompt,
        most: u64,
    ) -> (Measured, Option<Response>) {
        let (path, body) = self.body(prompt, most).await;
        let sent = Arc::new(AtomicU64::new(0));
        let body = Stamped {
            left: body.into(),
            clock,
            sent: Arc::clone(&sent),
        };
        seen.started = clock.now();
        let request = self.http.post(format!("{}{path}", self.root));
        let mut request = request.headers(self.headers.clone());
        if self.engine == Engine::LlamaCpp {
            // It closes the connection after a streamed answer although it said that it would not; a call that is sent
            // in between would be lost.
            request = request.header(CONNECTION, "close");
        }
        let request = request.body(reqwest::Body::wrap(body)).send();
        let connected = Cell::new(None);
        let answer = CONNECTED.scope(connected, async {
            let answer = tokio::time::timeout(self.stall, request).await;
            (answer, CONNECTED.with(Cell::get))
        });
        let (answer, connected) = answer.await;
        let now = clock.now();
        seen.connect = connected.map(|took| Span(took.as_nanos() as u64));
        seen.sent = Some(sent.load(Ordering::Relaxed))
            .filter(|at| *at > 0)
            .map(Time);
        let answer = match answer {
            Err(_) => {
                return (
                    self.failed(seen, now, Outcome::Stalled, "no answer began"),
                    None,
                );
            }
            Ok(Err(error)) => {
                let outcome = if error.is_connect() {
                    Outcome::Unreachable
                } else {
                    Outcome::Reset
                };
                return (self.failed(seen, now, outcome, &chain(&error)), None);
            }
            Ok(Ok(answer)) => answer,
        };
        seen.first_byte = Some(now);
        seen.status = Some(answer.status().as_u16());
        if answer.status() != StatusCode::OK {
            return (self.refused(clock, seen, answer).await, None);
        }
        self.listen(clock, seen, answer).await
    }

    /// Builds a request; a long one where it keeps nothing else waiting.
    async fn body(&self, prompt: Prompt, most: u64) -> (&'static str, Vec<u8>) {
        if prompt.size() < LONG {
            return wire::request(self.engine, &self.model, prompt, most, &self.extra);
        }
        let (engine, model, extra) = (self.engine, self.model.clone(), self.extra.clone());
        let build = move || wire::request(engine, &model, prompt, most, &extra);
        let built = tokio::task::spawn_blocking(build).await;
        built.expect("building a request does not fail")
    }

    fn failed(&self, mut seen: Measured, at: Time, outcome: Outcome, why: &str) -> Measured {
        seen.finished = at;
        seen.outcome = outcome;
        seen.error = Some(self.clean(why));
        seen
    }

    /// Reads why a call was turned away.
    async fn refused(&self, clock: Clock, mut seen: Measured, answer: Response) -> Measured {
        let status = answer.status();
        seen.retry_after = retry_after(answer.headers());
        let text = tokio::time::timeout(self.stall.min(PLAIN), answer.text()).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        let outcome = refusal(status.as_u16(), &text);
        let why = format!("status {status}: {}", text.trim());
        self.failed(seen, clock.now(), outcome, &why)
    }

    /// Reads an answer as it comes.
    async fn listen(
        &self,
        clock: Clock,
        seen: Measured,
        mut answer: Response,
    ) -> (Measured, Option<Response>) {
        let mut reader = Reader::new(seen);
        loop {
            let bytes = match tokio::time::timeout(self.stall, answer.chunk()).await {
                Err(_) => {
                    let why = format!("nothing for {} s in mid-answer", self.stall.as_secs_f64());
                    return (
                        self.failed(reader.seen, clock.now(), Outcome::Stalled, &why),
                        None,
                    );
                }
                Ok(Err(error)) => {
                    let now = clock.now();
                    return (
                        self.failed(reader.seen, now, Outcome::Cut, &chain(&error)),
                        None,
                    );
                }
                Ok(Ok(bytes)) => bytes,
            };
            let now = clock.now();
            let said = match &bytes {
                Some(bytes) => reader.read(bytes, now),
                None => reader.ended(),
            };
            match said {
                Said::More => {}
                Said::All => {
                    reader.seen.finished = now;
                    return (reader.seen, bytes.map(|_| answer));
                }
                Said::Wrong(outcome, why) => {
                    return (self.failed(reader.seen, now, outcome, &why), None);
                }
            }
        }
    }
}

/// Returns how a refusal counts. Engines agree on no code for a prompt that is too long, only on the word for it.
pub(super) fn refusal(status: u16, text: &str) -> Outcome {
    let text = text.to_lowercase();
    let long = ["length", "exceed", "longer", "maximum", "too long", "size"];
    match status {
        400 | 413 | 422
            if text.contains("context") && long.iter().any(|word| text.contains(word)) =>
        {
            Outcome::RefusedContext
        }
        // llama.cpp and others answer 500 where they mean 400.
        500 if text.contains("exceed") && text.contains("context") => Outcome::RefusedContext,
        408 | 425 | 429 => Outcome::Busy,
        500.. => Outcome::ServerError,
        _ => Outcome::Rejected,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Span> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    Span::try_from_secs(text.trim().parse().ok()?)
}

/// Returns an error with its causes, which alone say what happened.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        causes.push(one.to_string());
        cause = one.source();
    }
    causes.pop().unwrap_or_else(|| error.to_string())
}

/// A body that notes when its last byte was taken.
struct Stamped {
    left: Bytes,
    clock: Clock,
    sent: Arc<AtomicU64>,
}

/// A body goes out in pieces of this size, so that the last of them is taken when the others are gone.
const FRAME: usize = 64 << 10;

impl http_body::Body for Stamped {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(FRAME);
        let frame = self.left.split_to(length);
        if self.left.is_empty() {
            self.sent.store(self.clock.now().0, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left.len() as u64)
    }
}
