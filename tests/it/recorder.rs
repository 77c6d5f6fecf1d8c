//! How conversations are told apart and written down, without any server: requests in, records out.

use laptime::proxy::answered::{Answered, Counts};
use laptime::proxy::asked::{Api, Asked, ToolCall};
use laptime::proxy::recorder::{End, Privacy, Recorder, Times};
use laptime::trace::Trace;
use laptime::trace::format;
use laptime::trace::read;
use laptime::trace::record::{Record, StepRecord};
use serde_json::{Value, json};

/// A recorder under test, with a clock that moves by a second a request.
struct Bench {
    recorder: Recorder,
    records: Vec<Record>,
    now: u64,
    tickets: u64,
}

const SECOND: u64 = 1_000_000;

impl Bench {
    fn new() -> Bench {
        Bench {
            recorder: Recorder::new(Privacy::Full),
            records: Vec::new(),
            now: 0,
            tickets: 0,
        }
    }

    fn arrive(&mut self, body: &Value) -> u64 {
        self.tickets += 1;
        let asked = Asked::read(Api::Chat, body.to_string().as_bytes(), None).unwrap();
        self.recorder.arrived(self.tickets, asked, self.now);
        self.tickets
    }

    fn end(&mut self, ticket: u64, answer: Answered) {
        self.now += SECOND;
        let times = Times {
            first: Some(self.now - SECOND / 2),
            ended: self.now,
        };
        let answer = Box::new(answer);
        let end = End::Answered {
            answer,
            cut: None,
            counted: None,
        };
        self.recorder.ended(ticket, times, end, &mut self.records);
    }

    /// Asks and is answered a second later.
    fn ask(&mut self, body: &Value, answer: Answered) {
        let ticket = self.arrive(body);
        self.end(ticket, answer);
    }

    fn steps(&self) -> Vec<&StepRecord> {
        let step = |record: &'_ Record| matches!(record, Record::Step(_));
        let steps = self.records.iter().filter(|record| step(record));
        steps
            .map(|record| match record {
                Record::Step(step) => step.as_ref(),
                _ => unreachable!(),
            })
            .collect()
    }

    fn count(&self, which: impl Fn(&Record) -> bool) -> usize {
        self.records.iter().filter(|record| which(record)).count()
    }

    fn sessions(&self) -> usize {
        self.count(|record| matches!(record, Record::Session(_)))
    }

    /// The records as a trace, which must be read without a complaint.
    fn trace(&self) -> Trace {
        let mut bytes = b"{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n".to_vec();
        for record in &self.records {
            format::write(&mut bytes, record).unwrap();
        }
        let trace = read::load_bytes("t", &bytes, &read::ReadOptions::default()).unwrap();
        assert_eq!(trace.sources[0].problems, Vec::<String>::new());
        trace
    }
}

fn answer(text: &str, prompt: u64, output: u64) -> Answered {
    Answered {
        text: text.to_string(),
        counts: Counts {
            prompt: Some(prompt),
            output: Some(output),
            ..Counts::default()
        },
        complete: true,
        ..Answered::default()
    }
}

fn calling(id: &str, name: &str, arguments: &Value, prompt: u64, output: u64) -> Answered {
    let call = ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.to_string(),
    };
    Answered {
        calls: vec![call],
        ..answer("", prompt, output)
    }
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn called(id: &str, name: &str, arguments: &Value) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}}]})
}

fn result(id: &str, content: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": content})
}

fn body(system: &str, tools: &[&str], messages: &[Value]) -> Value {
    let tools: Vec<Value> = tools
        .iter()
        .map(|name| json!({"type": "function", "function": {"name": name}}))
        .collect();
    let mut all = vec![message("system", system)];
    all.extend_from_slice(messages);
    json!({"model": "m", "tools": tools, "messages": all})
}

#[test]
fn a_conversation_grows_by_what_is_new() {
    let mut bench = Bench::new();
    let arguments = json!({"command": "ls"});
    let mut messages = vec![message("user", "fix the login")];
    bench.ask(
        &body("be good", &["bash"], &messages),
        calling("c1", "bash", &arguments, 1_000, 50),
    );
    bench.now += 3 * SECOND;
    messages.extend([called("c1", "bash", &arguments), result("c1", "a b c")]);
    bench.ask(
        &body("be good", &["bash"], &messages),
        answer("done", 1_080, 20),
    );
    let trace = bench.trace();
    let steps = &trace.sessions[0].threads[0].steps;
    assert_eq!(steps.len(), 2);
    // All of the first prompt and answer stays, and the rest is new.
    assert_eq!(
        (steps[1].prompt_tokens.0, steps[1].seen.0, steps[1].again.0),
        (1_080, 1_050, 0)
    );
    assert_eq!(steps[0].gap.unknown.0, 3 * SECOND * 1_000);
    let second = bench.steps()[1];
    assert_eq!(
        (second.prompt.keep, second.finish.as_deref()),
        (1_050, Some("end-of-turn"))
    );
    assert_eq!(second.timing.as_ref().unwrap().model_us, Some(SECOND));
    assert_eq!(
        second.timing.as_ref().unwrap().first_token_us,
        Some(SECOND / 2)
    );
    let tool = bench.records.iter().find_map(|record| match record {
        Record::Tool(tool) => Some(tool),
        _ => None,
    });
    let tool = tool.unwrap();
    assert_eq!(
        (tool.name.as_str(), tool.duration_us, tool.result_chars),
        ("bash", Some(3 * SECOND), Some(5))
    );
    assert_eq!(tool.extra["how"], "derived");
}

#[test]
fn thoughts_that_are_not_sent_again_break_the_prefix_where_they_began() {
    let mut bench = Bench::new();
    let mut messages = vec![message("user", "think")];
    let mut thought = answer("yes", 500, 100);
    thought.counts.reasoning = Some(90);
    bench.ask(&body("s", &[], &messages), thought);
    messages.extend([message("assistant", "yes"), message("user", "why?")]);
    bench.ask(&body("s", &[], &messages), answer("because", 530, 5));
    let trace = bench.trace();
    let step = &trace.sessions[0].threads[0].steps[1];
    assert_eq!((step.seen.0, step.again.0), (500, 10));
    assert_eq!(
        bench.steps()[1].prompt.break_class.as_deref(),
        Some("reasoning-dropped")
    );
}

#[test]
fn a_sub_agent_is_known_by_what_its_parent_told_the_tool() {
    let mut bench = Bench::new();
    let order =
        json!({"prompt": "find every caller of the function `open_session`", "kind": "explore"});
    let main = [message("user", "rename open_session")];
    // Somebody else is at work at the same time, with the same tools.
    bench.ask(
        &body("main", &["task", "bash"], &[message("user", "write docs")]),
        answer("ok", 900, 9),
    );
    bench.ask(
        &body("main", &["task", "bash"], &main),
        calling("c1", "task", &order, 1_000, 60),
    );
    bench.now += SECOND;
    let child = [message(
        "user",
        "Your task: find every caller of the function `open_session`. Be brief.",
    )];
    bench.ask(
        &body("explorer", &["bash"], &child),
        answer("there are two", 400, 30),
    );
    bench.now += 2 * SECOND;
    let back = [
        main[0].clone(),
        called("c1", "task", &order),
        result("c1", "there are two"),
    ];
    bench.ask(
        &body("main", &["task", "bash"], &back),
        answer("renamed", 1_100, 40),
    );
    let trace = bench.trace();
    assert_eq!(trace.sessions.len(), 2);
    let session = &trace.sessions[1];
    assert_eq!(session.threads.len(), 2);
    let gap = &session.threads[0].steps[0].gap;
    assert_eq!(
        (gap.joins.as_slice(), gap.spawns[0].offset.0),
        (&[1][..], SECOND * 1_000)
    );
    // What remained once the sub-agent had ended, and no more.
    assert_eq!(gap.unknown.0, 2 * SECOND * 1_000);
}

#[test]
fn without_such_words_a_lone_agent_with_some_of_the_tools_is_a_sub_agent() {
    let mut bench = Bench::new();
    let order = json!({"kind": "x"});
    let main = [message("user", "go")];
    bench.ask(
        &body("main", &["task", "bash"], &main),
        calling("c1", "task", &order, 100, 6),
    );
    bench.ask(
        &body("helper", &["bash"], &[message("user", "help")]),
        answer("ok", 50, 3),
    );
    // The same head is nobody's helper: it is somebody else who begins.
    bench.ask(
        &body(
            "main",
            &["task", "bash"],
            &[message("user", "another task")],
        ),
        answer("ok", 100, 3),
    );
    let trace = bench.trace();
    assert_eq!(trace.sessions.len(), 2);
    assert_eq!(trace.sessions[0].threads.len(), 2);
}

#[test]
fn agents_that_say_the_same_are_sessions_of_their_own() {
    let mut bench = Bench::new();
    let first = body("s", &["bash"], &[message("user", "the same task")]);
    let tickets: Vec<u64> = (0..4).map(|_| bench.arrive(&first)).collect();
    for ticket in tickets {
        bench.end(ticket, answer("the same answer", 100, 4));
    }
    let next = [
        message("user", "the same task"),
        message("assistant", "the same answer"),
        message("user", "on"),
    ];
    let tickets: Vec<u64> = (0..4)
        .map(|_| bench.arrive(&body("s", &["bash"], &next)))
        .collect();
    for ticket in tickets {
        bench.end(ticket, answer("done", 120, 2));
    }
    let trace = bench.trace();
    assert_eq!(trace.sessions.len(), 4);
    assert!(
        trace
            .sessions
            .iter()
            .all(|session| session.threads[0].steps.len() == 2)
    );
}

#[test]
fn agents_that_say_the_same_at_their_own_pace_stay_apart() {
    let mut bench = Bench::new();
    let first = [message("user", "the same task")];
    let next = [
        first[0].clone(),
        message("assistant", "the same answer"),
        message("user", "on"),
    ];
    for _ in 0..2 {
        bench.ask(&body("s", &[], &first), answer("the same answer", 100, 4));
    }
    for _ in 0..2 {
        bench.ask(&body("s", &[], &next), answer("done", 120, 2));
    }
    let trace = bench.trace();
    assert_eq!(trace.sessions.len(), 2);
    assert!(
        trace
            .sessions
            .iter()
            .all(|session| session.threads[0].steps.len() == 2)
    );
}

#[test]
fn a_history_written_anew_stays_in_its_session() {
    let mut bench = Bench::new();
    let mut messages = vec![
        message("user", "start"),
        message("assistant", "a"),
        message("user", "b"),
    ];
    bench.ask(&body("s", &["bash"], &messages), answer("c", 1_000, 10));
    messages.extend([message("assistant", "c"), message("user", "keep this tail")]);
    bench.ask(&body("s", &["bash"], &messages), answer("d", 1_100, 10));
    let short = [
        message("user", "summary of all"),
        message("user", "keep this tail"),
        message("assistant", "d"),
        message("user", "go on"),
    ];
    bench.ask(&body("s", &["bash"], &short), answer("e", 900, 10));
    let trace = bench.trace();
    assert_eq!(bench.sessions(), 1);
    let steps = &trace.sessions[0].threads[0].steps;
    assert_eq!(steps.len(), 3);
    assert_eq!(
        bench.steps()[2].prompt.break_class.as_deref(),
        Some("compaction")
    );
    assert!(steps[2].break_estimated && steps[2].again.0 > 0);
    assert_eq!(steps[2].prompt_tokens.0, 900);
}

#[test]
fn a_head_that_sessions_share_is_the_same_content() {
    let mut bench = Bench::new();
    let system = "a long system prompt, ".repeat(100);
    for (task, prompt) in [("one", 1_000), ("two, which is longer", 1_010)] {
        bench.ask(
            &body(&system, &["bash"], &[message("user", task)]),
            answer("ok", prompt, 2),
        );
    }
    let trace = bench.trace();
    let tip = |session: usize| trace.sessions[session].threads[0].steps[0].prompt;
    let head = trace.content.meeting(tip(0), tip(1));
    assert!(trace.content.is_head(head) && trace.content.end(head).0 > 900);
}

#[test]
fn a_response_that_names_the_one_before_goes_on_from_it() {
    let mut recorder = Recorder::new(Privacy::Full);
    let mut records = Vec::new();
    let bodies = [
        json!({"model": "m", "instructions": "s", "input": "hello"}),
        json!({"model": "m", "instructions": "s", "previous_response_id": "r1", "input": "again"}),
    ];
    for (ticket, (body, prompt)) in bodies.iter().zip([100, 120]).enumerate() {
        let asked = Asked::read(Api::Responses, body.to_string().as_bytes(), None).unwrap();
        recorder.arrived(ticket as u64, asked, ticket as u64 * SECOND);
        let id = Some(format!("r{}", ticket + 1));
        let answer = Box::new(Answered {
            id,
            ..answer("hi", prompt, 5)
        });
        let times = Times {
            first: None,
            ended: ticket as u64 * SECOND + 1,
        };
        recorder.ended(
            ticket as u64,
            times,
            End::Answered {
                answer,
                cut: None,
                counted: None,
            },
            &mut records,
        );
    }
    let bench = Bench {
        recorder,
        records,
        now: 0,
        tickets: 0,
    };
    let trace = bench.trace();
    assert_eq!(trace.sessions.len(), 1);
    assert_eq!(trace.sessions[0].threads[0].steps[1].seen.0, 105);
}
