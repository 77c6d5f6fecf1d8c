//! The thread that reads what passed and writes the trace, line by line, as it goes.

use super::Recorded;
use super::answered::{Answered, Events};
use super::asked::{Api, Asked};
use super::forward::Upstream;
use super::recorder::{Counted, End, Privacy, Recorder, Times};
use crate::trace::format;
use crate::trace::record::Record;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

#[expect(
    clippy::disallowed_types,
    reason = "a recording is of real time, from this edge on"
)]
type Instant = std::time::Instant;

/// Bytes of an answer that is no stream which are kept to be read.
const WHOLE: usize = 64 << 20;

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closed {
    /// As it should.
    Whole,
    /// The upstream broke off.
    Broken,
    /// The client went away.
    ClientLeft,
    /// There was no upstream.
    Unreachable,
    /// The recording ended first.
    Interrupted,
}

/// What passed; times are microseconds since the recording began.
#[derive(Debug)]
pub(super) enum Note {
    Begin {
        ticket: u64,
        at: u64,
        api: Api,
        body: Bytes,
        session: Option<String>,
    },
    Head {
        ticket: u64,
        status: u16,
        streams: bool,
    },
    Piece {
        ticket: u64,
        at: u64,
        bytes: Bytes,
    },
    End {
        ticket: u64,
        at: u64,
        closed: Closed,
    },
    /// Nothing more is waited for.
    Finish,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    sender: Sender<Note>,
    start: Instant,
    tickets: Arc<AtomicU64>,
}

impl Notes {
    /// Hands over what happened just now.
    pub(super) fn note(&self, note: impl FnOnce(u64) -> Note) {
        let at = self.start.elapsed().as_micros() as u64;
        // A writer that has gone has said why; the agent goes on without it.
        let _ = self.sender.send(note(at));
    }

    /// Hands over a request and returns its number.
    pub(super) fn begin(&self, api: Api, body: Bytes, session: Option<String>) -> u64 {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.note(|at| Note::Begin {
            ticket,
            at,
            api,
            body,
            session,
        });
        ticket
    }

    /// Ends the recording with what is there.
    pub(super) fn finish(&self) {
        let _ = self.sender.send(Note::Finish);
    }
}

/// Starts the thread.
pub(super) fn start(
    file: File,
    privacy: Privacy,
    upstream: Arc<Upstream>,
    tell: impl Fn(&str) + Send + 'static,
) -> io::Result<(Notes, JoinHandle<Recorded>)> {
    let (notes, noted) = channel();
    let runtime = tokio::runtime::Handle::current();
    let mut writer = Writer {
        recorder: Recorder::new(privacy),
        under_way: FxHashMap::default(),
        upstream,
        runtime,
        file,
        written: 0,
        tell: Box::new(tell),
        done: Recorded::default(),
        no_tokenizer: false,
    };
    writer.written = writer.file.metadata()?.len();
    let thread = std::thread::Builder::new().name("writer".to_string());
    let thread = thread.spawn(move || writer.run(&noted))?;
    let notes = Notes {
        sender: notes,
        start: Instant::now(),
        tickets: Arc::default(),
    };
    Ok((notes, thread))
}

/// A request whose answer is coming.
struct UnderWay {
    api: Api,
    body: Bytes,
    answer: Answered,
    events: Events,
    /// An answer that is no stream, or that is an error.
    raw: Vec<u8>,
    status: u16,
    streams: bool,
    first: Option<u64>,
}

struct Writer {
    recorder: Recorder,
    under_way: FxHashMap<u64, UnderWay>,
    upstream: Arc<Upstream>,
    runtime: tokio::runtime::Handle,
    file: File,
    /// Bytes of whole lines.
    written: u64,
    tell: Box<dyn Fn(&str) + Send>,
    done: Recorded,
    no_tokenizer: bool,
}

impl Writer {
    fn run(mut self, noted: &Receiver<Note>) -> Recorded {
        let mut latest = 0;
        for note in noted {
            match note {
                Note::Begin {
                    ticket,
                    at,
                    api,
                    body,
                    session,
                } => {
                    latest = at;
                    self.begin(ticket, at, api, body, session.as_deref());
                }
                Note::Head {
                    ticket,
                    status,
                    streams,
                } => {
                    if let Some(one) = self.under_way.get_mut(&ticket) {
                        (one.status, one.streams) = (status, streams);
                    }
                }
                Note::Piece { ticket, at, bytes } => {
                    latest = at;
                    self.piece(ticket, at, &bytes);
                }
                Note::End { ticket, at, closed } => {
                    latest = at;
                    self.end(ticket, at, closed);
                }
                Note::Finish => break,
            }
        }
        let mut left: Vec<u64> = self.under_way.keys().copied().collect();
        left.sort_unstable();
        for ticket in left {
            self.end(ticket, latest, Closed::Interrupted);
        }
        self.done
    }

    fn begin(&mut self, ticket: u64, at: u64, api: Api, body: Bytes, session: Option<&str>) {
        let Some(asked) = Asked::read(api, &body, session) else {
            (self.tell)(
                "a request was passed on that is not understood; it is not in the recording",
            );
            return;
        };
        self.recorder.arrived(ticket, asked, at);
        let one = UnderWay {
            api,
            body,
            answer: Answered::default(),
            events: Events::default(),
            raw: Vec::new(),
            status: 0,
            streams: false,
            first: None,
        };
        self.under_way.insert(ticket, one);
    }

    fn piece(&mut self, ticket: u64, at: u64, bytes: &[u8]) {
        let Some(one) = self.under_way.get_mut(&ticket) else {
            return;
        };
        if !one.streams {
            if one.raw.len() + bytes.len() <= WHOLE {
                one.raw.extend_from_slice(bytes);
            }
            return;
        }
        let mut held = false;
        let (answer, api) = (&mut one.answer, one.api);
        one.events
            .feed(bytes, |data| held |= answer.event(api, data));
        if held {
            one.first.get_or_insert(at);
        }
        if one.answer.complete {
            // The agent may ask again before the connection says that this was all.
            self.end(ticket, at, Closed::Whole);
        }
    }

    fn end(&mut self, ticket: u64, at: u64, closed: Closed) {
        let Some(mut one) = self.under_way.remove(&ticket) else {
            return;
        };
        let refused = one.status >= 400;
        if !one.streams && !refused && closed == Closed::Whole {
            match serde_json::from_slice(&one.raw) {
                Ok(document) => one.answer.document(one.api, &document),
                Err(_) => (self.tell)(
                    "an answer is not understood; the recording says that there was one",
                ),
            }
        }
        let cut = match closed {
            Closed::Whole if one.answer.error.is_some() => Some("error"),
            Closed::Whole if one.streams && !one.answer.complete && one.answer.finish.is_none() => {
                Some("upstream-broke-off")
            }
            Closed::Whole => None,
            Closed::ClientLeft => Some("client-left"),
            Closed::Interrupted => Some("interrupted"),
            Closed::Broken | Closed::Unreachable => Some("upstream-broke-off"),
        };
        let end = if refused {
            let what = if one.status == 429 {
                "rate-limit"
            } else {
                "error"
            };
            End::Failed {
                status: Some(one.status),
                what,
            }
        } else if closed == Closed::Unreachable {
            End::Failed {
                status: None,
                what: "upstream-unreachable",
            }
        } else {
            let counted = self.counted(&one);
            let answer = Box::new(one.answer);
            End::Answered {
                answer,
                cut,
                counted,
            }
        };
        let times = Times {
            first: one.first,
            ended: at,
        };
        let mut records = Vec::new();
        self.recorder.ended(ticket, times, end, &mut records);
        self.write(&records);
    }

    /// Asks the engine's tokenizer where the answer brought no counts.
    fn counted(&mut self, one: &UnderWay) -> Option<Counted> {
        let counts = one.answer.counts;
        if self.no_tokenizer
            || one.api != Api::Chat
            || counts.prompt.is_some() && counts.output.is_some()
        {
            return None;
        }
        let body: Value = serde_json::from_slice(&one.body).ok()?;
        let mut prompt = json!({"messages": body.get("messages"), "add_generation_prompt": true});
        let mut output = json!({"prompt": one.answer.item().text, "add_special_tokens": false});
        for field in ["model", "tools", "chat_template_kwargs"] {
            if let Some(value) = body.get(field) {
                prompt[field] = value.clone();
            }
        }
        if let Some(model) = body.get("model") {
            output["model"] = model.clone();
        }
        let upstream = Arc::clone(&self.upstream);
        let ask = |body: Value| {
            let answer = self
                .runtime
                .block_on(upstream.count("/tokenize", body.to_string()))?;
            let answer: Value = serde_json::from_slice(&answer).ok()?;
            answer.get("count").and_then(Value::as_u64)
        };
        let prompt = ask(prompt);
        if prompt.is_none() {
            // Most providers have none; once is enough to know.
            self.no_tokenizer = true;
            return None;
        }
        let output = ask(output);
        Some(Counted { prompt, output })
    }

    /// Writes whole lines; after a failure what is there stays as it is, and nothing more is written.
    fn write(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Step(_) => self.done.steps += 1,
                Record::Session(_) => self.done.sessions += 1,
                _ => {}
            }
            if self.done.failed.is_some() {
                continue;
            }
            let mut line = Vec::new();
            let written =
                format::write(&mut line, record).and_then(|()| self.file.write_all(&line));
            match written {
                Ok(()) => self.written += line.len() as u64,
                Err(error) => {
                    // Half a line would be a complaint to every reader.
                    let _ = self.file.set_len(self.written);
                    (self.tell)(&format!(
                        "the recording ends here: {error}; what was recorded so far is whole, and requests are still passed on"
                    ));
                    self.done.failed = Some(error);
                }
            }
        }
    }
}

/// Returns an error as OpenAI's and Anthropic's clients read it.
pub(super) fn error_document(kind: &str, what: &str) -> String {
    let message = format!("laptime record: {what}");
    json!({"type": "error", "error": {"type": kind, "message": message, "code": null, "param": null}}).to_string()
}
