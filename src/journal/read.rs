//! A journal read back: what a replay that ended badly had measured by then.

use super::{
    Begun, Conduct, Event, Head, History, Kind, Lap, LapKey, Line, Measured, OnRefusal,
    OperatingPoint, Pace, Plan, SCHEMA, Seen, Share,
};
use crate::call::{Call, CallParts, Outcome, Realms, Reply, TokenClasses};
use crate::event::{GapParts, RunOutcome};
use crate::ids::{CallId, LaneId, NodeId, RunId, ThreadId};
use crate::known::Trust;
use crate::live::prompt::Said;
use crate::units::{Span, Time, Tokens};
use std::collections::BTreeMap;
use std::io::BufRead;

/// What a journal holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What the replay was told to be.
    pub head: Head,
    /// What happened.
    pub events: Vec<Event>,
    /// What was seen of each call, by its name.
    pub seen: Vec<(CallId, Measured)>,
    /// Why the rest could not be used: the last line of a process that was killed is often cut.
    pub cut: Option<String>,
}

/// Reads the journal of a live replay, as far as it goes.
pub fn read(lines: impl BufRead) -> Result<Contents, String> {
    let (mut head, mut schema) = (None, false);
    let (mut events, mut seen, mut cut) = (Vec::new(), Vec::new(), None);
    let mut ledger = Ledger::default();
    for (number, line) in lines.lines().enumerate() {
        let at = |why: String| format!("line {}: {why}", number + 1);
        let parsed = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()));
        let parsed: Line = match parsed {
            Ok(parsed) => parsed,
            Err(why) if head.is_none() => return Err(at(format!("no journal: {why}"))),
            Err(why) => {
                cut = Some(at(why));
                break;
            }
        };
        match parsed {
            Line::Header { schema: found } if found == SCHEMA => schema = true,
            Line::Header { schema: found } => {
                return Err(at(format!("schema `{found}`, expected `{SCHEMA}`")));
            }
            Line::Replay(begun) => {
                let begun = head_of(*begun).map_err(at)?;
                ledger.sessions = begun.sessions.len();
                head = Some(begun);
            }
            Line::Measured(call) => {
                let id = CallId(call.call);
                seen.push((id, measured_of(*call).map_err(at)?));
            }
            line => {
                let sound = event_of(line).and_then(|event| ledger.enter(&event).map(|()| event));
                match sound {
                    Ok(event) => events.push(event),
                    Err(why) => {
                        cut = Some(at(why));
                        break;
                    }
                }
            }
        }
    }
    match head {
        Some(head) if schema => Ok(Contents {
            head,
            events,
            seen,
            cut,
        }),
        _ => Err("it does not begin as the journal of a live replay does".to_string()),
    }
}

/// A lap that has not ended: its first call's moment, and the time that its calls account for.
#[derive(Clone, Copy, Debug)]
struct Open {
    lap: LapKey,
    from: Time,
    spent: Span,
    under_way: bool,
}

/// Keeps books on events: figures rely on what holds of every journal that was written here, and not of any other.
#[derive(Debug, Default)]
struct Ledger {
    /// For each call: its lap, and when it was made until it has been answered.
    calls: Vec<(LapKey, Option<Time>)>,
    open: BTreeMap<(RunId, u32), Open>,
    runs: BTreeMap<RunId, Time>,
    sessions: usize,
}

impl Ledger {
    fn enter(&mut self, event: &Event) -> Result<(), String> {
        let sound = match event {
            Event::RunStarted {
                at, run, session, ..
            } => {
                let known = (*session as usize) < self.sessions;
                known && self.runs.insert(*run, *at).is_none()
            }
            Event::Called { at, call, lap, .. } => self.called(*at, call.id, *lap),
            Event::Answered { reply } => self.answered(reply),
            Event::LapEnded { at, lap, gap, .. } => {
                let open = self.open.remove(&(lap.run, lap.thread));
                open.is_some_and(|open| {
                    let whole = open.from + open.spent + gap.total();
                    open.lap == *lap && !open.under_way && whole == *at
                })
            }
            Event::RunEnded { at, run, .. } => self.runs.get(run).is_some_and(|from| from <= at),
        };
        sound
            .then_some(())
            .ok_or_else(|| "it does not follow from the lines before it".to_string())
    }

    fn called(&mut self, at: Time, call: CallId, lap: LapKey) -> bool {
        let began = Open {
            lap,
            from: at,
            spent: Span::ZERO,
            under_way: true,
        };
        let open = self.open.entry((lap.run, lap.thread)).or_insert(began);
        // Between the calls of a lap lie pauses, which its gap accounts for.
        let sound = open.lap == lap && (open.from == at || !open.under_way);
        open.under_way = true;
        let known = self.runs.contains_key(&lap.run) && call.index() == self.calls.len();
        self.calls.push((lap, Some(at)));
        sound && known
    }

    fn answered(&mut self, reply: &Reply) -> bool {
        let Some((lap, made)) = self.calls.get_mut(reply.call.index()) else {
            return false;
        };
        let Some(open) = self.open.get_mut(&(lap.run, lap.thread)) else {
            return false;
        };
        open.under_way = false;
        open.spent += reply.parts.total();
        let tokens = reply.cached <= reply.prompt;
        tokens && made.take() == Some(reply.submitted)
    }
}

fn unknown(what: &str, word: &str) -> String {
    format!("unknown {what} `{word}`")
}

fn head_of(begun: Begun) -> Result<Head, String> {
    fn find<T: Copy>(
        all: &[T],
        word: impl Fn(T) -> &'static str,
        found: &str,
    ) -> Result<T, String> {
        let one = all.iter().copied().find(|&one| word(one) == found);
        one.ok_or_else(|| unknown("word", found))
    }
    let mut conduct = Conduct {
        pace: find(&Pace::ALL, Pace::word, &begun.pace)?,
        pace_scale: begun.pace_scale,
        idle_cap: Span(begun.idle_cap_ns),
        on_refusal: find(&OnRefusal::ALL, OnRefusal::word, &begun.on_refusal)?,
        history: find(&History::ALL, History::word, &begun.history)?,
        warm_start: begun.warm_start,
        ..Conduct::default()
    };
    conduct.retries.limit = begun.retries;
    Ok(Head {
        traces: begun.traces,
        sessions: begun.sessions,
        plan: Plan {
            agents: begun.agents,
            runs: Some(begun.runs),
            share: find(&Share::ALL, Share::word, &begun.share)?,
            conduct,
        },
        runs: begun.runs,
        calls: begun.calls,
        seed: begun.seed,
        settings: begun.settings,
        prices: begun.prices,
        point: OperatingPoint {
            name: begun.rig,
            kind: Kind::Live,
            hardware: None,
            engine: begun.engine,
            engine_version: begun.engine_version,
            model: begun.model,
            quantization: None,
            settings: begun.engine_settings,
            trust: Trust::Measured,
            error_interval: None,
            known_by: begun.known_by,
        },
        form: begun.form,
    })
}

fn measured_of(call: Seen) -> Result<Measured, String> {
    let outcome = Outcome::from_word(&call.outcome);
    let held = |place: usize| {
        call.piece_tokens
            .as_ref()
            .and_then(|held| held.get(place).copied())
    };
    let made = Time(call.made_ns);
    let pieces = call.pieces_ns.iter().enumerate();
    Ok(Measured {
        due: Time(call.due_ns),
        made,
        started: Time(call.started_ns),
        connect: call.connect_ns.map(Span),
        sent: call.sent_ns.map(Time),
        first_byte: call.first_byte_ns.map(Time),
        pieces: pieces
            .map(|(place, after)| (made + Span(*after), held(place)))
            .collect(),
        finished: Time(call.finished_ns),
        outcome: outcome.ok_or_else(|| unknown("outcome", &call.outcome))?,
        status: call.status,
        finish_reason: call.finish_reason,
        error: call.error,
        retry_after: call.retry_after_ns.map(Span),
        prompt: call.prompt_tokens,
        output: call.output_tokens,
        cached: call.cached_tokens,
        reading: call.reading_ns.map(Span),
        said: Said::default(),
    })
}

fn key(lap: &Lap) -> LapKey {
    LapKey {
        run: RunId(lap.run),
        thread: lap.thread,
        lap: lap.lap,
    }
}

fn event_of(line: Line) -> Result<Event, String> {
    Ok(match line {
        Line::Header { .. } | Line::Replay(_) | Line::Measured(_) => {
            return Err("a line where none of its kind belongs".to_string());
        }
        Line::RunStarted {
            at_ns,
            run,
            session,
            lane,
        } => Event::RunStarted {
            at: Time(at_ns),
            run: RunId(run),
            session,
            lane: LaneId(lane),
        },
        Line::Called {
            at_ns,
            call,
            ref lap,
            parent_call,
            prompt_tokens,
            output_tokens,
            seen_tokens,
            again_tokens,
        } => Event::Called {
            at: Time(at_ns),
            lap: key(lap),
            parent: parent_call.map(CallId),
            // A journal keeps sizes; where content stands in a tree means nothing without the trace.
            call: Call {
                id: CallId(call),
                run: RunId(lap.run),
                thread: ThreadId(lap.thread),
                prompt: NodeId::default(),
                prompt_tokens: Tokens(prompt_tokens),
                output: NodeId::default(),
                output_tokens: Tokens(output_tokens),
                output_shared: false,
                realms: Realms::default(),
                seen: Tokens(seen_tokens),
                seen_computed: Tokens(seen_tokens),
                again: Tokens(again_tokens),
                warm: Tokens::ZERO,
            },
        },
        answered @ Line::Answered { .. } => Event::Answered {
            reply: reply_of(answered)?,
        },
        Line::LapEnded {
            at_ns,
            ref lap,
            client_ns,
            tool_ns,
            wait_ns,
            subagent_ns,
            cut_ns,
        } => Event::LapEnded {
            at: Time(at_ns),
            lap: key(lap),
            gap: GapParts {
                client: Span(client_ns),
                tool: Span(tool_ns),
                wait: Span(wait_ns),
                subagent: Span(subagent_ns),
            },
            cut: Span(cut_ns),
        },
        Line::RunEnded {
            at_ns,
            run,
            outcome,
        } => {
            let found = RunOutcome::ALL
                .into_iter()
                .find(|one| one.word() == outcome);
            Event::RunEnded {
                at: Time(at_ns),
                run: RunId(run),
                outcome: found.ok_or_else(|| unknown("outcome", &outcome))?,
            }
        }
    })
}

fn reply_of(line: Line) -> Result<Reply, String> {
    let Line::Answered {
        at_ns,
        call,
        outcome,
        submitted_ns,
        admitted_ns,
        first_token_ns,
        prompt_tokens,
        cached_tokens,
        output_tokens,
        computed,
        parts_ns,
    } = line
    else {
        return Err("no answer".to_string());
    };
    let part = |name: &str| Span(parts_ns.get(name).copied().unwrap_or_default());
    let classes = TokenClasses {
        new: Tokens(computed.new),
        evicted: Tokens(computed.evicted),
        uncached: Tokens(computed.uncached),
        broken: Tokens(computed.broken),
    };
    let served = Tokens(cached_tokens) + classes.total();
    let parts = CallParts {
        client: part("client"),
        queue: part("queue"),
        kv_transfer: part("kv_transfer"),
        prefill_new: part("prefill_new"),
        reread_evicted: part("reread_evicted"),
        reread_uncached: part("reread_uncached"),
        reread_broken: part("reread_broken"),
        decode: part("decode"),
        contention: part("contention"),
    };
    if parts.total() != Time(at_ns).since(Time(submitted_ns)) {
        return Err(format!("the parts of call {call} do not sum to it"));
    }
    Ok(Reply {
        call: CallId(call),
        outcome: Outcome::from_word(&outcome).ok_or_else(|| unknown("outcome", &outcome))?,
        submitted: Time(submitted_ns),
        admitted: admitted_ns.map(Time),
        first_token: first_token_ns.map(Time),
        finished: Time(at_ns),
        retry_after: None,
        prompt: prompt_tokens.map_or(served, Tokens),
        cached: Tokens(cached_tokens),
        output: Tokens(output_tokens),
        classes,
        parts,
        bound: None,
    })
}
