//! Where a prompt stands in the tree: an edit of an earlier one, applied piece by piece.

use super::super::blocks::parse_blocks;
use super::super::content::{ContentError, ROOT};
use super::super::record::{Piece, PromptEdit, StepRecord};
use super::{Compiler, Known};
use crate::ids::NodeId;
use crate::units::Tokens;

impl Compiler {
    /// Places the prompt in the tree. Also returns how much of it is content the thread had before, and a complaint
    /// when the edit does not fit its base; the prompt then has its recorded length all the same.
    pub(super) fn prompt(
        &mut self,
        at: usize,
        thread: usize,
        record: &StepRecord,
    ) -> Result<(NodeId, u64, Option<String>), String> {
        let edit = &record.prompt;
        let too_big = |error: ContentError| format!("step `{}` has {error}", record.id);
        let base = self.base_of(at, thread, edit)?;
        let kept = edit.keep.min(self.content.end(base).0).min(edit.tokens);
        let mut complaint = (kept < edit.keep).then(|| {
            format!("step `{}` keeps {} tokens, but there are only {kept} to keep; the rest was taken as new", record.id, edit.keep)
        });
        let mut tip = self.content.cut(base, Tokens(kept)).map_err(too_big)?;
        let mut again = 0;
        let mut in_head = kept == 0;
        for piece in &edit.append {
            let left = edit.tokens - self.content.end(tip).0;
            match self.append(tip, piece, left, at, thread) {
                Ok((next, repeated, head)) => {
                    again += repeated;
                    in_head &= head;
                    tip = next;
                    if in_head {
                        self.content.mark_head(tip);
                    }
                }
                Err(why) => {
                    complaint.get_or_insert(format!(
                        "step `{}`: {why}; the rest of the prompt was taken as new",
                        record.id
                    ));
                    break;
                }
            }
        }
        let left = edit.tokens - self.content.end(tip).0;
        if left > 0 && complaint.is_none() {
            let listed = edit.tokens - left;
            complaint = Some(format!(
                "step `{}` says {} prompt tokens, but keeps and appends only {listed}; the rest was taken as new",
                record.id, edit.tokens
            ));
        }
        let tip = self.content.opaque(tip, Tokens(left)).map_err(too_big)?;
        Ok((tip, again, complaint))
    }

    fn base_of(&self, at: usize, thread: usize, edit: &PromptEdit) -> Result<NodeId, String> {
        let growing = &self.sessions[at];
        match &edit.base {
            Some(name) => growing
                .places
                .get(name)
                .map(|(thread, place)| {
                    growing.session.threads[thread as usize].steps[place as usize].output
                })
                .ok_or_else(|| {
                    format!("the prompt edits step `{name}`, which is not above this line")
                }),
            None => Ok(growing.session.threads[thread]
                .steps
                .last()
                .map_or(ROOT, |step| step.output)),
        }
    }

    /// Appends one piece; returns the new end, how much of it the thread had before, and whether it is head content.
    fn append(
        &mut self,
        tip: NodeId,
        piece: &Piece,
        left: u64,
        at: usize,
        thread: usize,
    ) -> Result<(NodeId, u64, bool), String> {
        let fits = |tokens: u64| {
            if tokens <= left {
                Ok(())
            } else {
                Err(format!("appends {tokens} tokens where {left} are left"))
            }
        };
        let told = |tokens: u64| if piece.again { tokens } else { 0 };
        if let Some(name) = &piece.seg {
            let known = self
                .segments
                .get(name)
                .cloned()
                .ok_or_else(|| format!("segment `{name}` is not defined above this line"))?;
            fits(known.tokens)?;
            let before = !self.sessions[at].had(thread, known.key);
            let next = self.known(tip, &known).map_err(|error| error.to_string())?;
            return Ok((
                next,
                if before || piece.again {
                    known.tokens
                } else {
                    0
                },
                known.head,
            ));
        }
        if let Some(blocks) = &piece.blocks {
            let size = piece
                .block_size
                .filter(|&size| size > 0)
                .ok_or("`blocks` needs a positive `block_size`")?;
            let salt = self.sessions[at].salt;
            let mut keys = parse_blocks(blocks, left / u64::from(size))?;
            for key in &mut keys {
                *key ^= salt;
            }
            let next = self
                .content
                .units(tip, size, &keys)
                .map_err(|error| error.to_string())?;
            return Ok((next, told(keys.len() as u64 * u64::from(size)), false));
        }
        let tokens = piece
            .tokens
            .ok_or("a piece needs one of `seg`, `blocks` or `tokens`")?;
        fits(tokens)?;
        let next = self
            .content
            .opaque(tip, Tokens(tokens))
            .map_err(|error| error.to_string())?;
        Ok((next, told(tokens), false))
    }

    pub(super) fn known(&mut self, tip: NodeId, known: &Known) -> Result<NodeId, ContentError> {
        match &known.token_ids {
            Some(ids) => self.content.units(tip, 1, ids),
            None => self.content.piece(tip, known.key, Tokens(known.tokens)),
        }
    }
}
