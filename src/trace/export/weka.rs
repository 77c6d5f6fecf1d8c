//! Sessions of the kv-cache-tester: one JSON document each, as chained ids of blocks of 64 tokens.
//!
//! Moments are those of an unhurried run: each request follows the answer before it after the recorded wait. A sub-agent's
//! moment is its end when it is awaited, and its start when it is not.

use super::super::content::Content;
use super::super::{Ending, Join, Session, Step, Trace};
use super::{Blocks, count, head, wait};
use crate::units::Span;

/// The block size of the format.
pub const BLOCK: u32 = 64;

/// Returns a session as a document.
pub fn document(content: &Content, session: &Session) -> serde_json::Value {
    let mut writer = Writer {
        content,
        session,
        blocks: Blocks::new(BLOCK, 1),
    };
    let first = &session.threads[0].steps[0];
    let (requests, _) = writer.thread(0, Span::ZERO);
    let steps = session.threads.iter().flat_map(|thread| &thread.steps);
    let prompts: u64 = steps.clone().map(|step| step.prompt_tokens.0).sum();
    let answers: u64 = steps.clone().map(|step| step.output_tokens.0).sum();
    serde_json::json!({
        "id": session.id,
        "models": session.model.iter().collect::<Vec<_>>(),
        "block_size": BLOCK,
        "hash_id_scope": "local",
        "tool_tokens": 0,
        "system_tokens": head(content, first),
        "requests": requests,
        "totals": {"requests": steps.count(), "input_tokens": prompts, "output_tokens": answers},
    })
}

struct Writer<'a> {
    content: &'a Content,
    session: &'a Session,
    blocks: Blocks,
}

impl Writer<'_> {
    /// Returns a thread's requests and its end; `origin` is its start on the session's clock.
    fn thread(&mut self, at: usize, origin: Span) -> (Vec<serde_json::Value>, Span) {
        let mut entries = Vec::new();
        let mut start = origin;
        let mut end = origin;
        // When each child that was started has ended.
        let mut ends = vec![None; self.session.threads.len()];
        let mut waited = None;
        for (index, step) in self.session.threads[at].steps.iter().enumerate() {
            if let Some((wait, joins)) = waited.take() {
                let joins: &[u32] = joins;
                let joined = joins.iter().filter_map(|&child| ends[child as usize]);
                start = joined.fold(end, Span::max) + wait;
            }
            end = start + step.recorded.model().unwrap_or_default();
            entries.push(self.request(at, index, step, start, origin));
            for spawn in &step.gap.spawns {
                let child = spawn.thread as usize;
                let (entry, ended) = self.agent(child, end + spawn.offset, origin);
                ends[child] = Some(ended);
                entries.push(entry);
            }
            waited = Some((wait(step), &step.gap.joins[..]));
        }
        (entries, end)
    }

    fn request(
        &mut self,
        thread: usize,
        index: usize,
        step: &Step,
        start: Span,
        origin: Span,
    ) -> serde_json::Value {
        let recorded = &step.recorded;
        let mut entry = serde_json::json!({
            "t": secs(start - origin),
            "type": if recorded.first_token().is_some() { "s" } else { "n" },
            "in": step.prompt_tokens.0,
            "out": step.output_tokens.0,
            "hash_ids": self.blocks.ids(self.content, step.prompt),
        });
        if let Some(model) = &self.session.model {
            entry["model"] = model.as_str().into();
        }
        match step.gap.after {
            Ending::ToolCall => entry["stop"] = "tool_use".into(),
            Ending::EndOfTurn => entry["stop"] = "end_turn".into(),
            Ending::Unknown => {}
        }
        if let Some(model) = recorded.model() {
            entry["api_time"] = secs(model);
        }
        if let Some(first) = recorded.first_token() {
            entry["ttft"] = secs(first);
        }
        let before = index
            .checked_sub(1)
            .map(|last| &self.session.threads[thread].steps[last]);
        // With sub-agents the wait is what remained, and the readers of this format take it for all.
        if let Some(before) = before.filter(|before| before.gap.joins.is_empty()) {
            entry["think_time"] = secs(wait(before));
        }
        if thread == 0 && index == 0 && self.session.resumed {
            entry["input_types"] = serde_json::json!(["tool_result"]);
        }
        entry
    }

    fn agent(&mut self, at: usize, start: Span, origin: Span) -> (serde_json::Value, Span) {
        let thread = &self.session.threads[at];
        let (requests, end) = self.thread(at, start);
        let awaited = thread.join == Join::Blocking;
        let entry = serde_json::json!({
            "t": secs(if awaited { end - origin } else { start - origin }),
            "type": "subagent",
            "agent_id": thread.id,
            "status": if awaited { "completed" } else { "async_launched" },
            "duration_ms": secs(end - start).as_f64().unwrap_or(0.0) * 1e3,
            "tool_tokens": 0,
            "system_tokens": head(self.content, &thread.steps[0]),
            "models": self.session.model.iter().collect::<Vec<_>>(),
            "requests": requests,
        });
        (entry, end)
    }
}

fn secs(span: Span) -> serde_json::Value {
    (span.0 as f64 / 1e9).into()
}

/// Returns what the documents do not say.
pub fn losses(trace: &Trace) -> Vec<String> {
    let mut losses = vec![
        "content is told in whole blocks of 64 tokens and within a session; heads of one size and model are taken for the \
         same"
            .to_string(),
        "a wait is told as one: after a tool call its cause is unknown again, so --idle-cap bounds it".to_string(),
    ];
    let mut say = |number: usize, what: &str| {
        if number > 0 {
            losses.push(format!("{number} calls {what}"));
        }
    };
    say(
        count(trace, |_, _, step| step.break_estimated),
        "have breaks at an estimated place, which is told as if it were known",
    );
    say(
        count(trace, |session, _, _| {
            session.arrival.is_some_and(|at| at > Span::ZERO)
        }),
        "belong to sessions whose arrival is left out",
    );
    losses
}
