//! ATIF trajectories (Harbor, Terminal-Bench): one document of steps, with the trajectories of sub-agents inside.
//!
//! A step has at most one stamp and no duration: without one in `extra`, what a tool took cannot be told from what the
//! model took.

use super::super::super::compile::file_stem;
use super::super::super::error::TraceError;
use super::super::super::input::Input;
use super::super::Feed;
use super::chat::{Call, Part, Talk, Tool, Usage};
use super::json::{at, count, documents, flag, list, name, real, stamp, text};
use super::notes::Notes;
use super::write;
use serde_json::Value;

/// Sub-agents within sub-agents beyond this depth are left out.
const MAX_DEPTH: usize = 8;

/// Reads a trajectory.
pub(super) fn read(
    input: &Input,
    feed: &mut Feed<'_>,
    notes: &mut Notes,
) -> Result<(), TraceError> {
    notes.always.push(
        "a step has one stamp, taken as the end of its answer: model and tool times are known only where `extra` holds \
         durations, and the wait between two answers is not told",
    );
    for document in documents(input, feed)? {
        let version = text(&document, "schema_version").unwrap_or("");
        if !version.starts_with("ATIF-v1.") {
            let short: String = version.chars().take(40).collect();
            feed.problem(
                "line 1",
                &format!("`schema_version` is `{short}`; this program reads ATIF-v1.x"),
            );
            continue;
        }
        let own = name(&document, "session_id").or_else(|| name(&document, "trajectory_id"));
        let mut talk = Talk::new(&own.unwrap_or_else(|| file_stem(&input.path)));
        trajectory(notes, &mut talk, 0, &document, 0);
        write::talk(feed, notes, "atif", &mut talk);
    }
    Ok(())
}

fn trajectory(notes: &mut Notes, talk: &mut Talk, thread: usize, document: &Value, depth: usize) {
    let agent = at(document, &["agent"]);
    let model = name(agent, "model_name");
    if thread == 0 {
        talk.model.clone_from(&model);
    }
    talk.threads[thread].kind = (thread > 0).then(|| name(agent, "name")).flatten();
    let tools = Part::body("tools", at(agent, &["tool_definitions"]));
    talk.threads[thread].hear(tools, None);
    if text(document, "continued_trajectory_ref").is_some() {
        notes.count("trajectories that go on in another file, which is a session of its own");
    }
    for (index, step) in list(document, "steps").iter().enumerate() {
        let at_us = stamp(step, "timestamp");
        let message = at(step, &["message"]);
        let copied = flag(step, "is_copied_context");
        match text(step, "source") {
            Some("agent") if copied => {
                let part = Part::body("assistant-text", message);
                talk.resumed |= thread == 0;
                talk.threads[thread].hear(part, None);
            }
            Some("agent") => answer(notes, talk, thread, index, step, model.as_ref()),
            Some("system") => talk.threads[thread].hear(Part::body("system", message), at_us),
            Some("user") => talk.threads[thread].hear(Part::body("user", message), at_us),
            _ => notes.count("steps of an unknown source, passed over"),
        }
        observed(notes, talk, thread, step, document, depth);
    }
}

fn answer(
    notes: &mut Notes,
    talk: &mut Talk,
    thread: usize,
    index: usize,
    step: &Value,
    model: Option<&String>,
) {
    let at_us = stamp(step, "timestamp");
    let metrics = at(step, &["metrics"]);
    let merged = count(step, "llm_call_count");
    if merged == Some(0) {
        notes.count("steps of the agent without a call, whose words are part of the next prompt");
        let part = Part::body("assistant-text", at(step, &["message"]));
        return talk.threads[thread].hear(part, None);
    }
    if merged > Some(1) {
        notes.count("steps that merge several calls of the model, each taken as one");
    }
    let mut said = Part::body("assistant-text", at(step, &["message"])).chars;
    let asked: Vec<Tool> = list(step, "tool_calls")
        .iter()
        .map(|call| {
            said += Part::body("tool-call", at(call, &["arguments"])).chars + 20;
            Tool {
                id: name(call, "tool_call_id"),
                name: name(call, "function_name").unwrap_or_else(|| "unknown".to_string()),
                measured_us: duration(at(call, &["extra"])),
                ..Tool::default()
            }
        })
        .collect();
    let reasoning = count(at(metrics, &["extra"]), "reasoning_tokens");
    talk.threads[thread].call(Call {
        line: index as u64 + 1,
        model: name(step, "model_name").or_else(|| model.cloned()),
        usage: Usage {
            prompt: count(metrics, "prompt_tokens"),
            cached: count(metrics, "cached_tokens"),
            output: count(metrics, "completion_tokens"),
            reasoning,
            cache_write: None,
        }
        .told(),
        said,
        thought: Part::body("reasoning", at(step, &["reasoning_content"])).chars,
        end_us: at_us,
        tools: asked,
        ..Call::default()
    });
}

/// Returns a duration where somebody put one.
fn duration(extra: &Value) -> Option<u64> {
    let millis = ["duration_ms", "execution_time_ms", "latency_ms"];
    let secs = [
        "duration_sec",
        "duration_s",
        "execution_time",
        "duration",
        "elapsed",
    ];
    let millis = millis
        .iter()
        .find_map(|key| real(extra, key))
        .map(|millis| millis / 1e3);
    let secs = millis.or_else(|| secs.iter().find_map(|key| real(extra, key)));
    secs.and_then(super::super::micros)
}

fn observed(
    notes: &mut Notes,
    talk: &mut Talk,
    thread: usize,
    step: &Value,
    document: &Value,
    depth: usize,
) {
    for result in list(at(step, &["observation"]), "results") {
        let id = text(result, "source_call_id");
        let part = Part::body("tool-output", at(result, &["content"]));
        talk.threads[thread].result(id, part, None);
        let took = duration(at(result, &["extra"]));
        if let Some(tool) = id.and_then(|id| talk.threads[thread].tool(id)) {
            tool.measured_us = tool.measured_us.or(took);
        }
        for reference in list(result, "subagent_trajectory_ref") {
            let wanted = name(reference, "trajectory_id").or_else(|| name(reference, "session_id"));
            let known = list(document, "subagent_trajectories")
                .iter()
                .find(|child| {
                    wanted.is_some()
                        && (name(child, "trajectory_id") == wanted
                            || name(child, "session_id") == wanted)
                });
            let Some(child) = known.filter(|_| depth < MAX_DEPTH) else {
                notes.count(
                    "sub-agents that are only referred to, whose files are sessions of their own",
                );
                continue;
            };
            let place = talk.spawn(&wanted.unwrap_or_default(), thread);
            if let Some(tool) = id.and_then(|id| talk.threads[thread].tool(id)) {
                tool.child = Some(place);
            }
            trajectory(notes, talk, place, child, depth + 1);
        }
    }
}
