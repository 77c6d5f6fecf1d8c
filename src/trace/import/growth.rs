//! Prompts of which only the sizes are known: what a conversation kept, judged by how it grew.
//!
//! A prompt that grew by at least the answer before it holds that answer; one that grew by less dropped reasoning; one
//! that shrank was written anew behind a head of unknown size. Only the first is sure, so the others say `estimated`.

use super::super::record::{Piece, PromptEdit};

/// The request before, by its sizes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Before {
    /// Its prompt.
    pub(super) prompt: u64,
    /// Its answer.
    pub(super) output: u64,
    /// How much of the answer was said aloud, where a part of it may have been reasoning.
    pub(super) visible: u64,
}

/// Returns a prompt of `tokens` as an edit of the one before; at least `shared` tokens of the two are the same.
pub(super) fn edit(before: Option<Before>, tokens: u64, shared: u64) -> PromptEdit {
    let make = |keep: u64, again: u64, class: Option<&str>| PromptEdit {
        tokens,
        keep,
        append: [plain(again, true), plain(tokens - keep - again, false)]
            .into_iter()
            .flatten()
            .collect(),
        break_at: class.map(|_| "estimated".to_string()),
        break_class: class.map(str::to_string),
        ..PromptEdit::default()
    };
    match before {
        None => make(0, 0, None),
        // All of the prompt had been computed before, but nobody says where.
        Some(last) if tokens < last.prompt => {
            let keep = shared.min(tokens);
            make(keep, tokens - keep, Some("shrunk"))
        }
        Some(last) if tokens - last.prompt >= last.output => {
            make(last.prompt.saturating_add(last.output), 0, None)
        }
        Some(last) => {
            let again = last.visible.min(tokens - last.prompt).min(last.output);
            make(last.prompt, again, Some("reasoning-dropped"))
        }
    }
}

/// Returns a piece that equals nothing else, where it holds anything.
pub(super) fn plain(tokens: u64, again: bool) -> Option<Piece> {
    (tokens > 0).then(|| Piece {
        tokens: Some(tokens),
        again,
        ..Piece::default()
    })
}
