//! Whether earlier reasoning is sent again: the same conversations under a template that keeps it, drops it, or drops it
//! when a person speaks.
//!
//! The only habit that changes lengths: what is not sent is not read. An answer's reasoning comes first in it, so what
//! follows in the next prompt stands at another place than where it was written.

use super::HabitError;
use crate::ids::NodeId;
use crate::trace::content::{Content, ContentBuilder, ContentError};
use crate::trace::{Ending, Step, Trace, note_what_was_seen};
use crate::units::Tokens;
use std::sync::Arc;

/// What a template does with the reasoning of earlier answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reasoning {
    /// It is sent again with every prompt.
    Kept,
    /// It is never sent again.
    Dropped,
    /// It is sent again until a person has spoken, as the templates of Qwen and GLM have it.
    Turn,
}

impl Reasoning {
    /// Every choice.
    pub const ALL: [Reasoning; 3] = [Reasoning::Kept, Reasoning::Dropped, Reasoning::Turn];

    /// Returns the word used in settings.
    pub fn word(self) -> &'static str {
        match self {
            Reasoning::Kept => "kept",
            Reasoning::Dropped => "dropped",
            Reasoning::Turn => "turn",
        }
    }

    /// Returns whether a prompt carries the reasoning of an answer after which these steps, its own first, were made.
    fn keeps(self, since: &[Step]) -> bool {
        match self {
            Reasoning::Kept => true,
            Reasoning::Dropped => false,
            Reasoning::Turn => since.iter().all(|step| step.gap.after != Ending::EndOfTurn),
        }
    }
}

/// Returns the trace as it would have been with such a template.
pub(super) fn applied(how: Reasoning, mut trace: Trace) -> Result<Trace, HabitError> {
    known(&trace)?;
    let old = Arc::clone(&trace.content);
    let mut new = ContentBuilder::default();
    let threads = || trace.sessions.iter().flat_map(|one| &one.threads);
    let mut rendered = Vec::new();
    for thread in threads() {
        for place in 0..thread.steps.len() {
            rendered.push(render(how, &thread.steps, place, &old, &mut new)?);
        }
    }
    let content = new.finish();
    let mut rendered = rendered.into_iter();
    for thread in trace.sessions.iter_mut().flat_map(|one| &mut one.threads) {
        let mut known = Vec::new();
        for step in &mut thread.steps {
            let now = rendered.next().expect("every step was rendered");
            known.push(step.seen + step.again + now.inserted - now.removed);
            step.prompt = now.prompt;
            step.output = now.output;
            step.prompt_tokens = content.end(now.prompt);
        }
        note_what_was_seen(&content, &mut thread.steps);
        for (step, known) in thread.steps.iter_mut().zip(known) {
            let again = known.saturating_sub(step.seen);
            step.again = again.min(step.prompt_tokens - step.seen);
        }
    }
    trace.content = content.into();
    Ok(trace)
}

/// Checks that the trace says how much of its answers was reasoning, wherever another prompt follows.
fn known(trace: &Trace) -> Result<(), HabitError> {
    let (mut unknown, mut all, mut first) = (0, 0, None);
    for session in &trace.sessions {
        for thread in &session.threads {
            let followed = thread.steps.len().saturating_sub(1);
            for step in &thread.steps[..followed] {
                all += 1;
                if step.reasoning.is_none() && step.output_tokens > Tokens::ZERO {
                    unknown += 1;
                    first.get_or_insert_with(|| session.id.clone());
                }
            }
        }
    }
    match first {
        Some(session) => Err(HabitError::Reasoning {
            unknown,
            all,
            session: session.to_string(),
        }),
        None => Ok(()),
    }
}

/// A step in the new tree.
struct Rendered {
    prompt: NodeId,
    output: NodeId,
    /// Tokens the prompt has no longer that the conversation had computed.
    removed: Tokens,
    /// Tokens it has now beside those.
    inserted: Tokens,
}

/// An answer within a prompt, whose reasoning comes or goes.
struct Change<'s> {
    of: &'s Step,
    /// Where the answer begins.
    at: Tokens,
    /// Whether its reasoning goes, rather than comes.
    goes: bool,
}

/// Gives a step its place in the new tree.
fn render(
    how: Reasoning,
    steps: &[Step],
    place: usize,
    old: &Content,
    new: &mut ContentBuilder,
) -> Result<Rendered, ContentError> {
    let step = &steps[place];
    let mut path = Vec::new();
    old.path(step.prompt, &mut path);
    let (mut removed, mut inserted) = (Tokens::ZERO, Tokens::ZERO);
    let mut writer = Writer {
        old,
        new,
        tip: crate::trace::content::ROOT,
    };
    let mut at = Tokens::ZERO;
    for change in changes(how, steps, place, old, &path) {
        if change.at < at {
            continue;
        }
        writer.stretch(&path, at, change.at)?;
        let reasoning = change.of.reasoning.unwrap_or_default();
        let spoken = change.of.output_tokens - reasoning;
        if change.goes {
            writer.spoken(change.of.output, spoken)?;
            at = change.at + change.of.output_tokens;
            removed += reasoning;
        } else {
            writer.answer(change.of)?;
            at = change.at + spoken;
            inserted += reasoning;
        }
    }
    writer.stretch(&path, at, step.prompt_tokens)?;
    let prompt = writer.tip;
    writer.answer(step)?;
    let output = writer.tip;
    Ok(Rendered {
        prompt,
        output,
        removed,
        inserted,
    })
}

/// Returns the answers within a prompt whose reasoning comes or goes, in order.
fn changes<'s>(
    how: Reasoning,
    steps: &'s [Step],
    place: usize,
    old: &Content,
    path: &[NodeId],
) -> Vec<Change<'s>> {
    let on_path = |node: NodeId| {
        let end = old.end(node);
        let index = path.partition_point(|&one| old.end(one) < end);
        path.get(index) == Some(&node)
    };
    let mut changes: Vec<Change<'_>> = Vec::new();
    for (index, of) in steps[..place].iter().enumerate() {
        let reasoning = of.reasoning.unwrap_or_default();
        if reasoning == Tokens::ZERO || reasoning > of.output_tokens || !on_path(of.prompt) {
            continue;
        }
        let carried = on_path(of.output);
        let keeps = how.keeps(&steps[index..place]);
        // Reasoning was dropped where the rest of the answer was computed again right after its prompt.
        let next = &steps[index + 1];
        let spoken = of.output_tokens - reasoning;
        let was_dropped = next.seen == of.prompt_tokens && next.again >= spoken;
        if carried != keeps && (carried || was_dropped) {
            let at = of.prompt_tokens;
            // The same prompt asked twice has the later answer, if none is carried.
            changes.retain(|one| one.at != at || one.goes);
            if changes.iter().all(|one| one.at != at) {
                changes.push(Change {
                    of,
                    at,
                    goes: carried,
                });
            }
        }
    }
    changes.sort_by_key(|change| change.at);
    changes
}

/// Writes parts of the old tree to the new one, from the top; equal parts at equal places become the same nodes.
struct Writer<'w> {
    old: &'w Content,
    new: &'w mut ContentBuilder,
    tip: NodeId,
}

/// Which part of an old node a piece is.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    End,
    Spoken,
}

impl Writer<'_> {
    fn piece(&mut self, node: NodeId, part: Part, len: Tokens) -> Result<(), ContentError> {
        let key = u64::from(node.0) << 2 | part as u64;
        self.tip = self.new.piece(self.tip, key, len)?;
        Ok(())
    }

    /// Writes what a path holds from `from` on, before `to`, where a node ends.
    fn stretch(&mut self, path: &[NodeId], from: Tokens, to: Tokens) -> Result<(), ContentError> {
        for &node in path {
            let (start, end) = (self.old.start(node), self.old.end(node));
            if end <= from || start >= to {
                continue;
            }
            if start >= from {
                self.piece(node, Part::Whole, end - start)?;
                if self.old.is_head(node) {
                    self.new.mark_head(self.tip);
                }
            } else {
                self.piece(node, Part::End, end - from)?;
            }
        }
        Ok(())
    }

    /// Writes an answer as it was generated.
    fn answer(&mut self, of: &Step) -> Result<(), ContentError> {
        let mut path = Vec::new();
        self.old.path(of.output, &mut path);
        self.stretch(&path, of.prompt_tokens, self.old.end(of.output))
    }

    /// Writes what was said of an answer after its reasoning.
    fn spoken(&mut self, output: NodeId, len: Tokens) -> Result<(), ContentError> {
        self.piece(output, Part::Spoken, len)
    }
}
