//! Content that stands in for what was recorded: words, or token ids, that are the same wherever the content tree says so.
//!
//! A node's content is drawn from a stream named by the seed, the node and its realm. It is therefore equal in two prompts
//! exactly when the tree says it is, and no two runs need to agree on anything but the seed.

use crate::call::Realms;
use crate::ids::NodeId;
use crate::rng;
use crate::units::Tokens;
use rand::Rng;

/// Words that begin with a space and are one token in nearly every vocabulary.
const COMMON: &str = "the of and to in is for that on with as are it be this at from by an have not or you all new more \
    time has but they we can which other will there about if out up when one so some what people into them her than his \
    then make like over such our man me even most after also made many must before through back years where much your way \
    well down should because each just those how too little state good very world still own see men work long get here \
    between both life being under never day same another know while last might us great old year off come since against \
    go came right used take three states himself few house use during without again place around however home small \
    found thought went say part once general high upon school every end does got left number course war until always away \
    something fact though water less public put think almost hand enough far took head yet better set told nothing night \
    point called find look asked next system give group second others line possible";

/// The word with which every message begins, so that none begins or ends with a space.
pub(crate) const OPENING: &str = "go";

/// What text is made of.
#[derive(Clone, Debug)]
pub struct Word {
    /// The word, with the space before it.
    pub text: String,
    /// What it costs, in thousandths of a token.
    pub milli: u64,
}

/// What content is made of under the engine's tokenizer.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Words, each with its cost.
    pub words: Vec<Word>,
    /// Something of one token that fills up what no word fits into.
    pub filler: Option<String>,
    /// Ids of ordinary tokens; empty where the engine does not tell them.
    pub ids: Vec<u32>,
}

impl Default for Vocabulary {
    /// Common words at one token each, which is to be verified.
    fn default() -> Vocabulary {
        let word = |text: &str| Word {
            text: format!(" {text}"),
            milli: 1000,
        };
        Vocabulary {
            words: COMMON.split_whitespace().map(word).collect(),
            filler: None,
            ids: Vec::new(),
        }
    }
}

impl Vocabulary {
    /// Returns text of `tokens` tokens, as nearly as words allow, and its cost in thousandths of a token.
    pub fn text(&self, seed: u64, node: NodeId, realm: u32, tokens: Tokens) -> (String, u64) {
        let mut draws = draws(seed, node, realm);
        let want = tokens.0 * 1000;
        let (mut text, mut cost) = (String::with_capacity(tokens.0 as usize * 6), 0);
        while cost < want {
            let draw = draws.next_u32() as usize;
            let word = &self.words[draw % self.words.len()];
            let left = want - cost;
            if word.milli <= left {
                text += &word.text;
                cost += word.milli;
            } else if let Some(filler) = &self.filler {
                for _ in 0..left.div_ceil(1000) {
                    text += filler;
                    cost += 1000;
                }
            } else if word.milli - left < left {
                text += &word.text;
                cost += word.milli;
            } else {
                break;
            }
        }
        (text, cost)
    }

    /// Appends `tokens` token ids.
    pub fn ids(&self, seed: u64, node: NodeId, realm: u32, tokens: Tokens, ids: &mut Vec<u32>) {
        let mut draws = draws(seed, node, realm);
        ids.extend((0..tokens.0).map(|_| self.ids[draws.next_u32() as usize % self.ids.len()]));
    }
}

fn draws(seed: u64, node: NodeId, realm: u32) -> rng::Stream {
    rng::stream(
        seed,
        "live content",
        u64::from(realm) << 32 | u64::from(node.0),
    )
}

/// Returns the beginning of `text` of at most `bytes` bytes, cut between characters.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the realm that decides which copies of a node are the same content.
pub(super) fn realm_of(head: bool, realms: Realms) -> u32 {
    // Heads have realms of their own; the top bit keeps the two apart.
    if head {
        realms.head | 1 << 31
    } else {
        realms.private
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_nodes_in_equal_realms_have_equal_content_and_no_others() {
        let words = Vocabulary::default();
        let text = |seed, node, realm| words.text(seed, NodeId(node), realm, Tokens(50)).0;
        assert_eq!(text(1, 2, 3), text(1, 2, 3));
        for other in [text(2, 2, 3), text(1, 3, 3), text(1, 2, 4)] {
            assert_ne!(text(1, 2, 3), other);
        }
        let longer = words.text(1, NodeId(2), 3, Tokens(60)).0;
        assert!(
            longer.starts_with(&text(1, 2, 3)),
            "a longer text continues a shorter one"
        );
    }

    #[test]
    fn a_text_has_as_many_tokens_as_were_asked_for() {
        let mut words = Vocabulary::default();
        assert_eq!(words.text(0, NodeId(1), 0, Tokens(17)).1, 17_000);
        for (place, word) in words.words.iter_mut().enumerate() {
            word.milli = 2000 + 1000 * (place as u64 % 3);
        }
        words.filler = Some("\n".to_string());
        for tokens in 1..40 {
            assert_eq!(words.text(0, NodeId(1), 0, Tokens(tokens)).1, tokens * 1000);
        }
    }
}
