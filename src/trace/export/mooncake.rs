//! Mooncake rows, with the sessions and delays that AIPerf and Dynamo added.
//!
//! Each thread is a session. The format cannot say that a prompt holds the answer before it, what a wait was made of, or
//! that one session awaits another.

use super::super::Trace;
use super::{Blocks, count, wait};
use crate::units::Span;
use std::io::{self, Write};

/// The block size of the traces that gave the format its name.
pub const BLOCK: u32 = 512;

/// Writes a trace as rows of blocks of `block` tokens, each session's one after the other.
pub fn write(trace: &Trace, block: u32, out: &mut dyn Write) -> io::Result<()> {
    let mut blocks = Blocks::new(block, 0);
    for session in &trace.sessions {
        for (at, thread) in session.threads.iter().enumerate() {
            let name = if at == 0 {
                session.id.to_string()
            } else {
                format!("{}/{}", session.id, thread.id)
            };
            let mut waited: Option<Span> = None;
            for step in &thread.steps {
                let mut ids = blocks.ids(&trace.content, step.prompt);
                if step.prompt_tokens.0 % blocks.size > 0 {
                    // A block that is not full belongs to its prompt alone.
                    ids.push(blocks.fresh());
                }
                let mut row = serde_json::json!({
                    "session_id": name,
                    "input_length": step.prompt_tokens.0,
                    "output_length": step.output_tokens.0,
                    "hash_ids": ids,
                });
                if let Some(waited) = waited {
                    row["delay"] = millis(waited);
                } else {
                    let sent = step.recorded.sent().filter(|_| at > 0).unwrap_or_default();
                    if let Some(arrival) = session.arrival {
                        row["timestamp"] = millis(arrival + sent);
                    }
                }
                writeln!(out, "{row}")?;
                waited = Some(wait(step));
            }
        }
    }
    Ok(())
}

fn millis(span: Span) -> serde_json::Value {
    let micros = span.0 / 1_000;
    if micros.is_multiple_of(1_000) {
        (micros / 1_000).into()
    } else {
        (micros as f64 / 1e3).into()
    }
}

/// Returns what the rows do not say.
pub fn losses(trace: &Trace, block: u32) -> Vec<String> {
    let mut losses = vec![
        format!(
            "content is told in whole blocks of {block} tokens, and a prompt's last, partial block equals nothing else; an \
             answer that the next prompt repeats is read again in a replay"
        ),
        "what a wait was made of, how turns ended, and all recorded times but arrivals are left out".to_string(),
    ];
    let agents = count(trace, |_, thread, _| thread > 0);
    if agents > 0 {
        losses.push(format!(
            "{agents} calls of sub-agents are sessions of their own: nobody awaits them, and they begin by the clock"
        ));
    }
    if block != BLOCK {
        losses.push(format!("pass --block-size {block} to read the rows again"));
    }
    losses
}
