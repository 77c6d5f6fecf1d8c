//! SWE-agent trajectories, and those of mini-swe-agent: one document for a run.
//!
//! A SWE-agent step may hold its whole prompt (`query`, or the messages after it); else the history is taken as it
//! stands. Only a run's totals are counted: prompts and answers share them out in proportion to their text.
//! mini-swe-agent keeps the raw reply of every call with its usage, and stamps that mark ends.

use super::super::super::compile::file_stem;
use super::super::super::error::TraceError;
use super::super::super::input::Input;
use super::super::Feed;
use super::chat::{Body, Call, HEAD, Part, Talk, Thread, Tool};
use super::json::{at, count, documents, flag, list, moment, name, real, stamp, text};
use super::lists::{self, Path};
use super::notes::Notes;
use super::size::share;
use super::write;
use serde_json::Value;

/// Reads trajectories of SWE-agent.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "tool times are measured from version 1 on; model times and what passes between steps are not recorded, and counts \
         are those of the whole run",
    );
    for document in documents(input, feed)? {
        let mut talk = Talk::new(&file_stem(&input.path));
        talk.model = name(at(&document, &["replay_config", "agent", "model"]), "name");
        let main = talk.main();
        main.complete = true;
        let steps = list(&document, "trajectory");
        let whole = steps.iter().all(|step| prompt_of(step).is_some());
        if whole && !steps.is_empty() {
            queries(main, steps);
        } else if list(&document, "history").is_empty() {
            notes.count(
                "trajectories without a history, whose prompts begin with the first observation",
            );
            observations(main, steps, 0);
        } else {
            notes.count(
                "trajectories without prompts, rebuilt from the history as if nothing was elided",
            );
            history(main, list(&document, "history"), steps);
        }
        let stats = at(&document, &["info", "model_stats"]);
        totals(notes, main, stats);
        write::talk(feed, notes, "swe-agent", &mut talk);
    }
    Ok(())
}

/// Returns the messages that a step's call was asked with.
fn prompt_of(step: &Value) -> Option<&[Value]> {
    let query = list(step, "query");
    if !query.is_empty() {
        return Some(query);
    }
    let messages = list(step, "messages");
    let assistant = |message: &Value| text(message, "role") == Some("assistant");
    let last = messages.iter().rposition(assistant)?;
    Some(&messages[..last])
}

fn queries(main: &mut Thread, steps: &[Value]) {
    let mut path = Path::default();
    for (index, step) in steps.iter().enumerate() {
        let messages = prompt_of(step).unwrap_or(&[]);
        let parts: Vec<(Part, bool)> = messages
            .iter()
            .map(|message| {
                let demo = flag(message, "is_demo");
                let assistant = text(message, "role") == Some("assistant");
                (lists::part(message), assistant && !demo)
            })
            .collect();
        path.prompt(main, &parts, None);
        let said = Part::body("assistant-text", at(step, &["response"])).chars;
        main.call(call(index, said, Some(step)));
        path.answered(main);
    }
}

fn history(main: &mut Thread, messages: &[Value], steps: &[Value]) {
    let mut answers = 0;
    for message in messages {
        let part = lists::part(message);
        if text(message, "role") == Some("assistant") && !flag(message, "is_demo") {
            let step = steps.get(answers);
            answers += 1;
            let mut own = call(answers - 1, part.chars, step);
            if step.is_none() {
                let action = text(message, "action").unwrap_or("");
                own.tools = tool(action, None).into_iter().collect();
            }
            main.call(own);
        } else {
            main.hear(part, None);
        }
    }
    // The history may end before the run: what was submitted last is in the steps alone.
    observations(main, steps.get(answers..).unwrap_or(&[]), answers);
}

/// Takes steps as they stand, numbered from `first`.
fn observations(main: &mut Thread, steps: &[Value], first: usize) {
    for (index, step) in steps.iter().enumerate() {
        let said = Part::body("assistant-text", at(step, &["response"])).chars;
        main.call(call(first + index, said, Some(step)));
        main.hear(Part::body("tool-output", at(step, &["observation"])), None);
    }
}

fn call(index: usize, said: u64, step: Option<&Value>) -> Call {
    let action = step.and_then(|step| text(step, "action")).unwrap_or("");
    let secs = step.and_then(|step| real(step, "execution_time"));
    Call {
        line: index as u64 + 1,
        said,
        tools: tool(action, secs).into_iter().collect(),
        ..Call::default()
    }
}

/// Returns the tool that an action runs, by its first word.
fn tool(action: &str, secs: Option<f64>) -> Option<Tool> {
    let word = action.split_whitespace().next()?;
    Some(Tool {
        name: word.chars().take(40).collect(),
        measured_us: secs.and_then(super::super::micros),
        ..Tool::default()
    })
}

/// Shares a run's totals out among its calls, so that prompts and answers sum to them.
fn totals(notes: &mut Notes, main: &mut Thread, stats: &Value) {
    let told = |key| count(stats, key).filter(|&tokens| tokens > 0);
    let (Some(sent), Some(received)) = (told("tokens_sent"), told("tokens_received")) else {
        return;
    };
    let calls = main.calls.len();
    if count(stats, "api_calls").is_some_and(|told| told != calls as u64) {
        notes.count("runs that count other calls than their steps (retries, or steps without a call), whose totals are shared out among the steps");
    }
    let said: Vec<u64> = main.calls.iter().map(|call| call.said.max(1)).collect();
    let outputs = share(received, &said);
    // Characters of others that each prompt holds, and tokens of earlier answers.
    let mut lengths = Vec::with_capacity(calls);
    let mut chars = vec![(0_u64, 0_u64); main.nodes.len()];
    for (index, node) in main.nodes.iter().enumerate().skip(1) {
        let (heard, answered) = chars[node.parent];
        chars[index] = match node.body {
            Body::Input(part) => (heard + part.chars, answered),
            Body::Answer(call) => (heard, answered + outputs[call]),
            Body::Head => (heard, answered),
        };
    }
    lengths.extend(main.calls.iter().map(|call| chars[call.prompt]));
    let heard: u128 = lengths.iter().map(|&(heard, _)| u128::from(heard)).sum();
    let answered: u64 = lengths.iter().map(|&(_, answered)| answered).sum();
    let Some(left) = sent.checked_sub(answered).filter(|_| heard > 0) else {
        notes.count(
            "runs that were sent less than their answers alone would make, whose sizes are estimated",
        );
        return;
    };
    let mut given = 0;
    let mut upto = 0_u128;
    for (call, (&(heard_here, answered), &output)) in
        main.calls.iter_mut().zip(lengths.iter().zip(&outputs))
    {
        upto += u128::from(heard_here);
        let end = (u128::from(left) * upto / heard) as u64;
        call.shares = Some((end - given + answered, output));
        given = end;
    }
    notes.count("runs that tell totals only, shared out among their calls in proportion to text");
}

/// Reads trajectories of mini-swe-agent.
pub(super) fn read_mini(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "prompts are whole and only grow; stamps mark ends, so a tool took the time between an answer and its observation, \
         and the model the rest; older files have neither stamps nor counts",
    );
    for document in documents(input, feed)? {
        let messages = match document.as_array() {
            Some(messages) => messages.as_slice(),
            None => list(&document, "messages"),
        };
        let mut talk = Talk::new(file_stem(&input.path).trim_end_matches(".traj"));
        let config = at(&document, &["info", "config", "model"]);
        talk.model = name(config, "model_name");
        talk.main().complete = true;
        for (index, message) in messages.iter().enumerate() {
            mini_message(&mut talk, index, message);
        }
        write::talk(feed, notes, "mini-swe-agent", &mut talk);
    }
    Ok(())
}

fn mini_message(talk: &mut Talk, index: usize, message: &Value) {
    let extra = at(message, &["extra"]);
    let at_us = stamp(extra, "timestamp").or_else(|| moment(at(message, &["timestamp"])));
    let part = lists::part(message);
    let main = talk.main();
    if text(message, "role") == Some("assistant") {
        let response = at(extra, &["response"]);
        let actions = list(extra, "actions").len().max(1);
        let tool = Tool {
            name: "bash".to_string(),
            start_us: at_us,
            meaning: Some("wall"),
            ..Tool::default()
        };
        let model = name(response, "model");
        main.call(Call {
            line: index as u64 + 1,
            usage: lists::usage(at(response, &["usage"])).told(),
            model: model.clone(),
            said: part.chars,
            end_us: at_us,
            tools: vec![tool; actions],
            ..Call::default()
        });
        talk.model = talk.model.take().or(model);
        return;
    }
    let role = text(message, "role").unwrap_or("");
    if role == "exit" || (main.calls.is_empty() && main.place() == HEAD && part.is_empty()) {
        return;
    }
    let Some(last) = main.calls.last_mut() else {
        return main.hear(part, None);
    };
    // A reply to an answer is what its command said, whatever role it has.
    let part = Part {
        kind: "tool-output",
        ..part
    };
    if let Some(tool) = last
        .tools
        .iter_mut()
        .find(|tool| tool.result_chars.is_none())
    {
        tool.end_us = at_us;
        tool.result_chars = Some(part.chars);
        tool.exit_status = extra.get("returncode").and_then(Value::as_i64);
    }
    main.hear(part, at_us);
}
