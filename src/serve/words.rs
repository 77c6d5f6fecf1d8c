//! What a served rig says: plain words, always the same after the same prompt, as many as it is to take the time for.

use super::tokens;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Each is one token with the space before it, and without.
const WORDS: [&str; 64] = [
    "the", "file", "reads", "a", "list", "of", "names", "and", "then", "calls", "each", "one",
    "with", "its", "own", "part", "so", "that", "test", "fails", "when", "path", "is", "empty",
    "here", "we", "should", "return", "an", "error", "before", "it", "opens", "next", "step",
    "run", "build", "again", "to", "see", "what", "now", "this", "change", "makes", "value", "in",
    "map", "key", "was", "not", "set", "by", "first", "pass", "which", "code", "after", "some",
    "work", "done", "for", "line", "at",
];

/// Appends an answer of `len` tokens to a prompt; one that `ends` by itself has the end of the message for its last.
pub fn answer(prompt: &[u32], seed: u64, len: u64, ends: bool, ids: &mut Vec<u32>) {
    let bytes: Vec<u8> = prompt.iter().flat_map(|id| id.to_le_bytes()).collect();
    let start = xxh3_64_with_seed(&bytes, seed);
    let words = len - u64::from(ends);
    let mut piece = Vec::new();
    for place in 0..words {
        let chance = xxh3_64_with_seed(&place.to_le_bytes(), start);
        let word = WORDS[(chance >> 32) as usize % WORDS.len()];
        piece.clear();
        if place > 0 {
            piece.push(b' ');
        }
        piece.extend_from_slice(word.as_bytes());
        tokens::encode(&piece, ids);
    }
    if ends {
        ids.push(tokens::END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_sent_back_is_the_same_tokens() {
        let mut said = Vec::new();
        answer(&[3, 1, 4], 7, 500, true, &mut said);
        assert_eq!((said.len(), said[499]), (500, tokens::END));
        let mut text = Vec::new();
        for &id in &said[..499] {
            assert!(tokens::decode(id, &mut text));
        }
        let mut again = Vec::new();
        tokens::encode(&text, &mut again);
        assert_eq!(again, said[..499]);
    }

    #[test]
    fn another_prompt_or_seed_is_answered_otherwise() {
        let said = |prompt: &[u32], seed| {
            let mut ids = Vec::new();
            answer(prompt, seed, 20, false, &mut ids);
            ids
        };
        assert_eq!(said(&[1], 0), said(&[1], 0));
        assert_ne!(said(&[1], 0), said(&[2], 0));
        assert_ne!(said(&[1], 0), said(&[1], 1));
    }
}
