//! From a request to the rig and back: which path does what, and how an answer leaves as it is written.

use super::api::answer::{self, Piece, Usage, Voice};
use super::api::{self, Form, Prompt, Wrong};
use super::clock::{Desk, Instant, Told};
use super::{Manner, Server, tokens, words};
use crate::call::{Outcome, Reply as Ended};
use crate::ids::CallId;
use crate::listen::{self, BodyError, Pipe, Reply};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Answers are no longer than this, whatever is asked for.
const LONGEST: u64 = 1 << 17;
/// What a completion is limited to where it says nothing, as with OpenAI and vLLM.
const COMPLETION: u64 = 16;
/// Events that wait for a slow reader.
const ROOM: usize = 1024;

const JSON: &str = "application/json";

/// Answers any request.
pub(super) async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().trim_end_matches('/').to_string();
    let ok = |text: Vec<u8>| listen::whole(StatusCode::OK, JSON, text);
    let known = matches!(
        path.as_str(),
        "/v1/chat/completions"
            | "/v1/completions"
            | "/tokenize"
            | "/detokenize"
            | "/v1/models"
            | "/health"
            | "/metrics"
    );
    match (request.method(), path.as_str()) {
        (&Method::GET, "/health") => ok(Vec::new()),
        (&Method::GET, "/v1/models") => {
            let (model, setup) = (&server.model, &server.setup);
            ok(answer::models(model, now_unix(), server.context, setup))
        }
        (&Method::GET, "/metrics") => {
            let load = server.desk.load().await;
            let text = server.counters.text(&server.model, load);
            listen::whole(StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        (
            &Method::POST,
            "/v1/chat/completions" | "/v1/completions" | "/tokenize" | "/detokenize",
        ) => {
            let bound = server.settings.bounds.body;
            match listen::body(request.into_body(), bound).await {
                Ok(body) => match post(server, &path, &body).await {
                    Ok(reply) => reply,
                    Err(wrong) => told(&wrong),
                },
                Err(BodyError::TooLarge) => told(&Wrong {
                    status: 413,
                    kind: "BadRequestError",
                    message: format!("the request is longer than {bound} bytes"),
                }),
                Err(BodyError::Broken) => told(&Wrong::bad("the request broke off")),
            }
        }
        (method, _) if known => told(&Wrong {
            status: 405,
            kind: "BadRequestError",
            message: format!("{method} is not answered here"),
        }),
        _ => told(&Wrong {
            status: 404,
            kind: "NotFoundError",
            message: format!("there is nothing at {path}"),
        }),
    }
}

fn told(wrong: &Wrong) -> Reply {
    let status = StatusCode::from_u16(wrong.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    listen::whole(status, JSON, wrong.body().to_string())
}

#[expect(
    clippy::disallowed_types,
    reason = "an answer carries the date; nothing is measured by it"
)]
fn now_unix() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

async fn post(server: Arc<Server>, path: &str, body: &[u8]) -> Result<Reply, Wrong> {
    // The call is made when its request is complete; reading it is the server's own time.
    let at = Instant::now();
    match path {
        "/tokenize" => {
            let ids = api::to_tokenize(body)?;
            let text = answer::tokenized(&ids, server.context);
            Ok(listen::whole(StatusCode::OK, JSON, text))
        }
        "/detokenize" => {
            let mut text = Vec::new();
            for id in api::to_detokenize(body)? {
                if !tokens::decode(id, &mut text) {
                    return Err(Wrong::bad(format!("token id {id} is out of vocabulary")));
                }
            }
            let text = answer::detokenized(&String::from_utf8_lossy(&text));
            Ok(listen::whole(StatusCode::OK, JSON, text))
        }
        _ => {
            let chat = path == "/v1/chat/completions";
            let (form, prompt) = api::request(body, chat)?;
            complete(server, at, form, prompt, chat).await
        }
    }
}

/// What will be said, and whether it ends by itself.
struct Plan {
    ids: Vec<u32>,
    ends: bool,
}

fn plan(server: &Server, form: &Form, prompt: &[u32], chat: bool) -> Result<Plan, Wrong> {
    let asked = form.max_completion_tokens.or(form.max_tokens);
    let length = prompt.len() as u64;
    let mut room = LONGEST;
    if let (Manner::Vllm, Some(context)) = (server.manner, server.context) {
        let wanted = asked.unwrap_or(0);
        if length >= context || length + wanted > context {
            return Err(Wrong::bad(format!(
                "This model's maximum context length is {context} tokens. However, you requested {} tokens \
                 ({length} in the prompt, {wanted} in the completion). Please reduce the length of the messages or completion.",
                length + wanted
            )));
        }
        room = room.min(context - length);
    }
    let default = if chat { room } else { COMPLETION };
    let most = asked.unwrap_or(default).min(room);
    let natural = server.settings.answer_tokens.max(form.min_tokens);
    let ends = !form.ignore_eos && natural <= most;
    let len = if ends { natural } else { most };
    let seed = form.seed.unwrap_or(0) as u64;
    let mut ids = Vec::new();
    words::answer(prompt, seed, len, ends, &mut ids);
    Ok(Plan { ids, ends })
}

/// Tells the rig that a caller has gone, unless its call has ended.
struct Presence {
    desk: Desk,
    call: Option<CallId>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.desk.give_up(call);
        }
    }
}

/// A call that the rig has taken in.
struct Served {
    server: Arc<Server>,
    form: Form,
    voice: Voice,
    prompt: Vec<u32>,
    plan: Plan,
    told: mpsc::UnboundedReceiver<Told>,
    presence: Presence,
}

async fn complete(
    server: Arc<Server>,
    at: Instant,
    form: Form,
    prompt: Prompt,
    chat: bool,
) -> Result<Reply, Wrong> {
    if let (Manner::Vllm, Some(asked)) = (server.manner, &form.model)
        && *asked != server.model
    {
        return Err(Wrong {
            status: 404,
            kind: "NotFoundError",
            message: format!(
                "The model `{asked}` does not exist; this is `{}`.",
                server.model
            ),
        });
    }
    let plan = plan(&server, &form, &prompt.ids, chat)?;
    let said = plan.ids.clone();
    let mut told = server
        .desk
        .call(at, prompt.ids.clone(), said, prompt.by_person);
    let Some(Told::Taken(Some(call))) = told.recv().await else {
        return Err(Wrong {
            status: 500,
            kind: "InternalServerError",
            message: "the prompt is too long to be kept".to_string(),
        });
    };
    let presence = Presence {
        desk: server.desk.clone(),
        call: Some(call),
    };
    let kind = if chat { "chatcmpl" } else { "cmpl" };
    let number = server.counters.next();
    let voice = Voice {
        id: format!("{kind}-{number:016x}"),
        model: server.model.clone(),
        created: now_unix(),
        chat,
        token_ids: form.return_token_ids,
        timings: server.manner == Manner::LlamaCpp,
    };
    let served = Served {
        server,
        form,
        voice,
        prompt: prompt.ids,
        plan,
        told,
        presence,
    };
    if served.form.stream {
        served.stream().await
    } else {
        served.whole().await
    }
}

impl Served {
    /// Returns the answer once it is complete.
    async fn whole(mut self) -> Result<Reply, Wrong> {
        let ended = loop {
            match self.told.recv().await {
                Some(Told::Ended(ended)) => break ended,
                Some(_) => {}
                None => return Err(lost()),
            }
        };
        self.presence.call = None;
        if ended.outcome.failed() {
            return Err(self.refusal(ended.outcome));
        }
        let ids = &self.plan.ids[..ended.output.0 as usize];
        let piece = Piece {
            text: &text(ids),
            ids,
            prompt: Some(&self.prompt),
            finish: Some(self.finish(&ended)),
            usage: None,
        };
        let document = self.voice.whole(piece, self.usage(&ended), &ended);
        Ok(listen::whole(StatusCode::OK, JSON, document))
    }

    /// Returns the answer as it is written. A refusal that comes before the first token is an error of HTTP.
    async fn stream(mut self) -> Result<Reply, Wrong> {
        let first = match self.told.recv().await {
            Some(Told::Ended(ended)) if ended.outcome.failed() => {
                self.presence.call = None;
                return Err(self.refusal(ended.outcome));
            }
            Some(first) => first,
            None => return Err(lost()),
        };
        let (fill, pipe) = Pipe::new(ROOM);
        tokio::spawn(self.write(first, fill));
        let mut reply = Response::new(pipe.boxed());
        let kind = hyper::header::HeaderValue::from_static("text/event-stream; charset=utf-8");
        reply
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, kind);
        Ok(reply)
    }

    async fn write(mut self, first: Told, fill: mpsc::Sender<std::io::Result<Bytes>>) {
        let mut done = 0;
        let mut next = Some(first);
        // A reader that has gone away ends it; the rig is told as the call is dropped.
        if let Some(opening) = self.voice.opening()
            && fill.send(Ok(opening)).await.is_err()
        {
            return;
        }
        loop {
            let told = tokio::select! {
                biased;
                told = async { match next.take() { Some(told) => Some(told), None => self.told.recv().await } } => told,
                () = fill.closed() => return,
            };
            match told {
                Some(Told::Written(tokens)) => {
                    let to = (tokens as usize).min(self.plan.ids.len());
                    while done < to {
                        let event = self.token(done);
                        if fill.send(Ok(event)).await.is_err() {
                            return;
                        }
                        done += 1;
                    }
                }
                Some(Told::Ended(ended)) => {
                    self.presence.call = None;
                    for event in self.end(done, &ended) {
                        if fill.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
                Some(Told::Taken(_)) => {}
                None => {
                    let _ = fill.send(Ok(answer::broken(&lost()))).await;
                    return;
                }
            }
        }
    }

    /// Returns the event of one token.
    fn token(&self, place: usize) -> Bytes {
        let ids = &self.plan.ids[place..=place];
        let options = self.form.stream_options.unwrap_or_default();
        let usage = options.continuous_usage_stats.then(|| Usage {
            prompt: self.prompt.len() as u64,
            output: place as u64 + 1,
            cached: None,
        });
        self.voice.chunk(Piece {
            text: &text(ids),
            ids,
            prompt: (place == 0).then_some(&self.prompt),
            finish: None,
            usage,
        })
    }

    /// Returns the events that end a stream.
    fn end(&self, done: usize, ended: &Ended) -> Vec<Bytes> {
        let done_event = Bytes::from_static(b"data: [DONE]\n\n");
        if ended.outcome.failed() {
            return vec![answer::broken(&self.refusal(ended.outcome)), done_event];
        }
        let to = (ended.output.0 as usize).max(done);
        let mut events: Vec<Bytes> = (done..to).map(|place| self.token(place)).collect();
        events.push(self.voice.chunk(Piece {
            text: "",
            ids: &[],
            prompt: None,
            finish: Some(self.finish(ended)),
            usage: None,
        }));
        events.extend(self.voice.closing(self.usage(ended), &self.form, ended));
        events.push(done_event);
        events
    }

    fn finish(&self, ended: &Ended) -> &'static str {
        let whole = ended.output.0 as usize == self.plan.ids.len();
        let stopped = whole && self.plan.ends;
        let prompt = self.prompt.len() as u64;
        self.server.counters.count(prompt, ended, stopped);
        if stopped { "stop" } else { "length" }
    }

    fn usage(&self, ended: &Ended) -> Usage {
        Usage {
            prompt: self.prompt.len() as u64,
            output: ended.output.0,
            cached: Some(ended.cached.0),
        }
    }

    /// Returns what the real engine would say.
    fn refusal(&self, outcome: Outcome) -> Wrong {
        let length = self.prompt.len();
        let context = self.server.context.unwrap_or(0);
        match (outcome, self.server.manner) {
            (Outcome::RefusedContext, Manner::LlamaCpp) => Wrong {
                status: 400,
                kind: "exceed_context_size_error",
                message: format!(
                    "request ({length} tokens) exceeds the available context size ({context} tokens), try increasing it"
                ),
            },
            (Outcome::RefusedContext, Manner::Vllm) => Wrong::bad(format!(
                "This model's maximum context length is {context} tokens. However, your prompt has {length} tokens."
            )),
            (Outcome::Unavailable, _) => Wrong {
                status: 503,
                kind: "unavailable_error",
                message: "server busy, please try again.  maximum pending requests exceeded"
                    .to_string(),
            },
            _ => Wrong {
                status: 500,
                kind: "server_error",
                message: format!(
                    "the rig has no memory for a prompt of {length} tokens; Context size has been exceeded."
                ),
            },
        }
    }
}

fn lost() -> Wrong {
    Wrong {
        status: 500,
        kind: "InternalServerError",
        message: "the rig has stopped".to_string(),
    }
}

/// Returns what ids say; the end of a message says nothing.
fn text(ids: &[u32]) -> String {
    let mut text = Vec::new();
    for &id in ids.iter().filter(|&&id| id != tokens::END) {
        tokens::decode(id, &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
