//! Prompts whose content is known: cut into pieces, each with a hash for its identity and a share of the counted tokens.
//!
//! Providers count whole prompts, not messages. The first time a piece is seen it gets a share of the tokens that are
//! not accounted for yet, in proportion to its bytes; from then on it keeps that size. So every prompt has exactly the
//! length that was counted, and two prompts share exactly the pieces with which both begin.

use super::super::record::{OutputRecord, Piece, PromptEdit, Record, Segment};
use super::Feed;
use super::growth::plain;
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Longer texts are cut, so that two that begin alike share what they begin with.
const PIECE_BYTES: usize = 1024;
/// Bytes per token where nobody counted.
const BYTES_PER_TOKEN: f64 = 3.6;

/// A piece of a prompt or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    /// What it is, as a number: equal content has equal keys.
    pub(super) key: u64,
    pub(super) bytes: u64,
    /// Its kind, as segments have it.
    pub(super) kind: &'static str,
}

/// Cuts a text into pieces; `voice` is whatever else makes it differ, such as a role.
pub(super) fn cut(voice: &str, text: &str, kind: &'static str, into: &mut Vec<Said>) {
    let seed = xxh3_64(voice.as_bytes());
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, after) = rest.split_at(end);
        into.push(Said {
            key: xxh3_64_with_seed(piece.as_bytes(), seed),
            bytes: piece.len() as u64,
            kind,
        });
        rest = after;
    }
}

/// The sizes of the pieces of a file.
#[derive(Default)]
pub(super) struct Sizes {
    known: FxHashMap<u64, u64>,
    /// Prompts whose pieces have more tokens than were counted.
    pub(super) squeezed: u64,
    /// Prompts and answers that nobody counted.
    pub(super) estimated: u64,
}

impl Sizes {
    /// Returns a size for each piece; they sum to `total` at most, or to an estimate where that is not known.
    fn fit(&mut self, said: &[Said], total: Option<u64>) -> Vec<u64> {
        let sure: u64 = said
            .iter()
            .filter_map(|piece| self.known.get(&piece.key))
            .fold(0, |sum, &tokens| sum.saturating_add(tokens));
        let new = |piece: &&Said| !self.known.contains_key(&piece.key);
        let mut bytes_left: u64 = said
            .iter()
            .filter(new)
            .map(|piece| piece.bytes.max(1))
            .sum();
        let mut to_share = total.map(|total| total.saturating_sub(sure));
        let mut left = total.unwrap_or(u64::MAX);
        let mut tight = false;
        let sizes = said.iter().map(|piece| {
            let bytes = piece.bytes.max(1);
            let known = self.known.get(&piece.key).copied();
            let wanted = known.unwrap_or_else(|| match &mut to_share {
                Some(rest) if bytes_left > 0 => {
                    let share = u128::from(*rest) * u128::from(bytes) / u128::from(bytes_left);
                    let share = (share as u64).min(*rest);
                    *rest -= share;
                    bytes_left = bytes_left.saturating_sub(bytes);
                    share
                }
                Some(_) => 0,
                None => (bytes as f64 / BYTES_PER_TOKEN).ceil() as u64,
            });
            let size = wanted.min(left);
            tight |= size < wanted;
            left -= size;
            if known.is_none() && size == wanted {
                self.known.insert(piece.key, size);
            }
            size
        });
        let sizes = sizes.collect();
        self.squeezed += u64::from(tight);
        sizes
    }

    fn is(&self, piece: &Said, tokens: u64) -> bool {
        tokens > 0 && self.known.get(&piece.key) == Some(&tokens)
    }

    /// Puts what there is to say into the loss report.
    pub(super) fn report(&self, feed: &mut Feed<'_>) {
        feed.losses.push(
            "texts are kept as hashes of pieces of at most 1 KiB; the tokens counted for a prompt are shared out among its \
             new pieces by their bytes"
                .to_string(),
        );
        if self.estimated > 0 {
            feed.losses.push(format!(
                "{} prompts or answers were not counted; their tokens are estimated at 3.6 bytes each",
                self.estimated
            ));
        }
        if self.squeezed > 0 {
            feed.losses.push(format!(
                "{} prompts or answers have fewer tokens than their pieces had before; their last pieces were cut",
                self.squeezed
            ));
        }
    }
}

/// A stretch of the last prompt: a piece, or tokens that no piece accounts for.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    key: Option<u64>,
    tokens: u64,
}

/// What a conversation has heard so far.
#[derive(Default)]
pub(super) struct Heard {
    last: Vec<Stretch>,
    /// Pieces of an answer that did not begin with them: they were computed, but elsewhere.
    moved: FxHashSet<u64>,
}

impl Heard {
    /// Returns a prompt as an edit of the one before; new pieces go to `feed`.
    pub(super) fn prompt(
        &mut self,
        sizes: &mut Sizes,
        feed: &mut Feed<'_>,
        said: &[Said],
        total: Option<u64>,
    ) -> PromptEdit {
        let (mut at, mut number, mut keep) = (0, 0, 0);
        while let Some(stretch) = self.last.get(at) {
            match stretch.key {
                None => {}
                Some(key) if said.get(number).is_some_and(|piece| piece.key == key) => number += 1,
                Some(_) => break,
            }
            keep += stretch.tokens;
            at += 1;
        }
        let broken = at < self.last.len();
        if total.is_some_and(|total| total < keep) {
            // What was counted wins.
            keep = total.unwrap_or(keep);
            sizes.squeezed += 1;
            self.last.clear();
            self.last.push(Stretch {
                key: None,
                tokens: keep,
            });
            number = said.len();
        } else {
            self.last.truncate(at);
        }
        let rest = &said[number..];
        sizes.estimated += u64::from(total.is_none());
        let lengths = sizes.fit(rest, total.map(|total| total - keep));
        let mut append = Vec::new();
        let mut sum = keep;
        for (piece, &tokens) in rest.iter().zip(&lengths) {
            sum += tokens;
            let known = sizes.is(piece, tokens);
            self.last.push(Stretch {
                key: Some(piece.key),
                tokens,
            });
            if known {
                append.push(Piece {
                    seg: Some(segment(feed, piece, tokens)),
                    again: self.moved.contains(&piece.key),
                    ..Piece::default()
                });
            } else {
                append.extend(plain(tokens, false));
            }
        }
        // An empty prompt has a token all the same: its beginning.
        let tokens = total.unwrap_or(sum).max(1);
        if tokens > sum {
            self.last.push(Stretch {
                key: None,
                tokens: tokens - sum,
            });
            append.extend(plain(tokens - sum, false));
        }
        self.moved.clear();
        PromptEdit {
            tokens,
            keep,
            append,
            break_at: broken.then(|| "recorded".to_string()),
            ..PromptEdit::default()
        }
    }

    /// Returns an answer of `tokens`, of which `reasoning` are not among its pieces.
    pub(super) fn answer(
        &mut self,
        sizes: &mut Sizes,
        feed: &mut Feed<'_>,
        said: &[Said],
        tokens: Option<u64>,
        reasoning: Option<u64>,
    ) -> OutputRecord {
        sizes.estimated += u64::from(tokens.is_none());
        let hidden = reasoning.unwrap_or(0);
        let lengths = sizes.fit(said, tokens.map(|tokens| tokens.saturating_sub(hidden)));
        let sum: u64 = lengths.iter().sum();
        let mut segs = Vec::new();
        if hidden == 0 {
            let whole = said.iter().zip(&lengths);
            for (piece, &tokens) in whole.take_while(|(piece, tokens)| sizes.is(piece, **tokens)) {
                segs.push(segment(feed, piece, tokens));
            }
        } else {
            self.moved.extend(said.iter().map(|piece| piece.key));
        }
        OutputRecord {
            tokens: tokens.unwrap_or(sum),
            reasoning,
            segs,
        }
    }
}

/// Names a piece in the dictionary.
fn segment(feed: &mut Feed<'_>, piece: &Said, tokens: u64) -> String {
    let id = format!("{:016x}", piece.key);
    let segment = Segment {
        id: id.clone(),
        kind: piece.kind.to_string(),
        tokens,
        bytes: Some(piece.bytes),
        hash: Some(id.clone()),
        ..Segment::default()
    };
    feed.put(|| "a piece".to_string(), Record::Segment(Box::new(segment)));
    id
}
