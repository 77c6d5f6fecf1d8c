//! A prompt as an edit of the one before it, and its tokens shared out over what it is made of.

use super::super::asked::{Asked, Item};
use super::super::threads::ThreadNo;
use super::{Privacy, Recorder};
use crate::trace::record::{Extra, Piece, PromptEdit, Record, Segment};
use serde_json::Value;

impl Recorder {
    /// Returns a prompt as an edit of the one before it, and writes the segments it needs.
    pub(super) fn edit(
        &mut self,
        thread: ThreadNo,
        asked: &Asked,
        total: u64,
        records: &mut Vec<Record>,
    ) -> PromptEdit {
        let before = self.threads.get(thread);
        let recorded = &self.recorded[&thread];
        let keys = || asked.items.iter().map(|item| item.key);
        let common = before
            .keys
            .iter()
            .zip(keys())
            .take_while(|(a, b)| **a == *b)
            .count();
        let whole = common == before.keys.len() && before.steps > 0;
        let repeated = whole && before.answer.is_some() && keys().nth(common) == before.answer;
        let mut edit = PromptEdit {
            tokens: total,
            ..PromptEdit::default()
        };
        let mut ends: Vec<u64> = recorded.ends[..common.min(recorded.ends.len())].to_vec();
        let mut rest = common;
        edit.keep = match (whole, repeated) {
            _ if before.steps == 0 => 0,
            (true, true) if recorded.reasoning > 0 => {
                // Thoughts stand before what was said and are not sent again.
                let said = recorded.output - recorded.reasoning;
                edit.break_class = Some("reasoning-dropped".to_string());
                edit.break_at = Some("recorded".to_string());
                let room = total.saturating_sub(recorded.prompt);
                if said.min(room) > 0 {
                    edit.append.push(Piece {
                        tokens: Some(said.min(room)),
                        again: true,
                        ..Piece::default()
                    });
                }
                rest += 1;
                recorded.prompt
            }
            (true, true) => {
                rest += 1;
                recorded.prompt + recorded.output
            }
            (true, false) => recorded.prompt,
            (false, _) => {
                let head = asked.head.min(before.keys.len());
                let class = if common <= head { "compaction" } else { "edit" };
                edit.break_class = Some(class.to_string());
                edit.break_at = Some("estimated".to_string());
                ends.last().copied().unwrap_or(0)
            }
        };
        edit.keep = edit.keep.min(total);
        let kept: u64 = edit.keep
            + edit
                .append
                .iter()
                .filter_map(|piece| piece.tokens)
                .sum::<u64>();
        if rest > common {
            ends.push(kept);
        }
        let had = |key: u64| recorded.had.contains(&key);
        let again: Vec<bool> = asked.items[rest..]
            .iter()
            .map(|item| !whole && had(item.key))
            .collect();
        let pieces = self.share(&asked.items[rest..], total - kept, records);
        let mut end = kept;
        for (mut piece, again) in pieces
            .into_iter()
            .zip(again.into_iter().chain(std::iter::repeat(false)))
        {
            let seg = piece.seg.as_ref().map_or(0, |seg| self.segments[seg]);
            end += piece.tokens.unwrap_or(0) + seg;
            ends.push(end);
            piece.again = again;
            edit.append.push(piece);
        }
        ends.truncate(asked.items.len());
        self.recorded.entry(thread).or_default().ends = ends;
        edit
    }

    /// Shares `budget` tokens out over items: those known have their size, the others share the rest by their bytes.
    ///
    /// The pieces stand in the order of the items; one more holds what is left.
    fn share(&mut self, items: &[Item], budget: u64, records: &mut Vec<Record>) -> Vec<Piece> {
        let names: Vec<String> = items
            .iter()
            .map(|item| self.hash(item.kind.word(), &item.text))
            .collect();
        let known: u64 = names
            .iter()
            .filter_map(|name| self.segments.get(name))
            .sum();
        let fresh = |this: &Recorder, name: &String| !this.segments.contains_key(name);
        let bytes = |item: &Item| item.text.len() as f64 + 4.0;
        let new = items
            .iter()
            .zip(&names)
            .filter(|(_, name)| fresh(self, name));
        let weight: f64 = new.map(|(item, _)| bytes(item)).sum();
        let to_share = budget.saturating_sub(known) as f64;
        let (mut left, mut shared, mut passed) = (budget, 0_u64, 0.0);
        let mut pieces = Vec::new();
        for (item, name) in items.iter().zip(names) {
            let tokens = if let Some(&tokens) = self.segments.get(&name) {
                tokens
            } else {
                // What has been handed out so far is rounded, so that all of it is handed out in the end.
                passed += bytes(item);
                let tokens = (to_share * passed / weight).round() as u64 - shared;
                shared += tokens;
                tokens
            };
            if tokens == 0 || tokens > left {
                pieces.push(Piece {
                    tokens: Some(tokens.min(left)),
                    ..Piece::default()
                });
                left -= tokens.min(left);
                continue;
            }
            left -= tokens;
            if fresh(self, &name) {
                self.segments.insert(name.clone(), tokens);
                records.push(self.segment(&name, item, tokens));
            }
            pieces.push(Piece {
                seg: Some(name),
                ..Piece::default()
            });
        }
        if left > 0 {
            pieces.push(Piece {
                tokens: Some(left),
                ..Piece::default()
            });
        }
        pieces
    }

    fn segment(&self, name: &str, item: &Item, tokens: u64) -> Record {
        let full = self.privacy == Privacy::Full;
        let digits = name.rsplit('-').next().unwrap_or(name);
        Record::Segment(Box::new(Segment {
            id: name.to_string(),
            kind: item.kind.word().to_string(),
            tokens,
            bytes: Some(item.text.len() as u64),
            hash: (!full).then(|| digits.to_string()),
            text: full.then(|| item.text.clone()),
            extra: Extra::from([("tokens_how".to_string(), Value::from("shared-by-bytes"))]),
            ..Segment::default()
        }))
    }
}
