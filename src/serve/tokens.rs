//! The tokenizer of a served rig: text cut into pieces like a real one's, and ids that say what they stand for.
//!
//! No vocabulary: an id is its piece, written as a number, so decoding needs no table and encoding has no unknown
//! words. Any bytes come back exactly. Pieces are what byte-pair tokenizers make of English and code: a word with the
//! space before it, a run of punctuation, up to three digits, an indentation. `docs/serve.md` has the ids.

/// Ends a message, and an answer that ends by itself.
pub const END: u32 = 0;
/// Begins the list of tools.
pub const TOOLS: u32 = 1;
/// Begins what the system says.
pub const SYSTEM: u32 = 2;
/// Begins what a person says.
pub const USER: u32 = 3;
/// Begins what the model says.
pub const ASSISTANT: u32 = 4;
/// Begins what a tool says.
pub const TOOL: u32 = 5;
/// Begins a call of a tool.
pub const CALL: u32 = 6;

const SPECIALS: [&str; 7] = [
    "<|end|>",
    "<|tools|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|call|>",
];

/// Where each kind of piece has its ids.
const ONE: u32 = 16;
const TWO: u32 = ONE + (1 << 8);
const THREE: u32 = TWO + (1 << 16);
const FOUR: u32 = THREE + (1 << 24);
const BLANK: u32 = FOUR + (1 << 28);
const WORD: u32 = BLANK + MOST_LINES * MOST_SPACES;
/// The first number that is no id.
pub const VOCABULARY: u32 = WORD + 4 * WORDS;

/// Newlines and spaces of one piece stay below these.
const MOST_LINES: u32 = 8;
const MOST_SPACES: u32 = 128;
const MOST_LETTERS: usize = 6;
/// Words of one to six small letters.
const WORDS: u32 = 26 + 676 + 17_576 + 456_976 + 11_881_376 + 308_915_776;

/// Appends the ids of `text`.
pub fn encode(text: &[u8], ids: &mut Vec<u32>) {
    let mut rest = text;
    while !rest.is_empty() {
        let (id, len) = piece(rest);
        ids.push(id);
        rest = &rest[len..];
    }
}

/// Returns the first piece of `text` as an id, and its length in bytes.
fn piece(text: &[u8]) -> (u32, usize) {
    let lines = run(text, MOST_LINES as usize - 1, |byte| byte == b'\n');
    let spaces = run(&text[lines..], MOST_SPACES as usize - 1, |byte| {
        byte == b' '
    });
    let blank = lines + spaces;
    let follows = text.get(blank).copied().unwrap_or(0);
    let joins = follows.is_ascii_alphabetic() || is_mark(follows);
    if spaces > 0 && joins {
        // The last space goes with what follows it.
        if blank > 1 {
            return (blank_id(lines, spaces - 1), blank - 1);
        }
        return joined(text, 1);
    }
    if blank > 0 {
        return (blank_id(lines, spaces), blank);
    }
    let first = text[0];
    if first.is_ascii_alphabetic() || is_mark(first) {
        return joined(text, 0);
    }
    if first.is_ascii_digit() {
        let len = run(text, 3, |byte| byte.is_ascii_digit());
        return (raw(&text[..len]), len);
    }
    // A letter of another script; an odd byte stands alone.
    let len = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xff => 3,
        _ => 1,
    };
    let len = 1 + run(&text[1..], len - 1, |byte| byte & 0xc0 == 0x80);
    (raw(&text[..len]), len)
}

/// Returns a word or a run of marks, after `space` spaces.
fn joined(text: &[u8], space: usize) -> (u32, usize) {
    let body = &text[space..];
    if !body[0].is_ascii_alphabetic() {
        let len = space + run(body, 4 - space, is_mark);
        return (raw(&text[..len]), len);
    }
    let capitals = run(body, 4, |byte| byte.is_ascii_uppercase());
    let small = |at: usize| body.get(at).is_some_and(u8::is_ascii_lowercase);
    // The last capital belongs to the word that it begins.
    let capitals = capitals - usize::from(capitals > 1 && small(capitals));
    if capitals > 1 {
        let len = space + capitals.min(4 - space);
        return (raw(&text[..len]), len);
    }
    let rest = run(&body[capitals..], MOST_LETTERS - capitals, |byte| {
        byte.is_ascii_lowercase()
    });
    let len = capitals + rest;
    (word_id(&body[..len], space == 1), space + len)
}

/// Returns how many leading bytes, at most `most`, are such.
fn run(text: &[u8], most: usize, such: impl Fn(u8) -> bool) -> usize {
    text.iter()
        .take(most)
        .take_while(|&&byte| such(byte))
        .count()
}

fn is_mark(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b' ' && byte != b'\n' && byte != 0
}

fn blank_id(lines: usize, spaces: usize) -> u32 {
    BLANK + lines as u32 * MOST_SPACES + spaces as u32
}

/// Returns the id of one to three bytes, or of four below 128.
fn raw(bytes: &[u8]) -> u32 {
    let number = |bits: u32| bytes.iter().fold(0, |n, &byte| n << bits | u32::from(byte));
    match bytes.len() {
        1 => ONE + number(8),
        2 => TWO + number(8),
        3 => THREE + number(8),
        _ => FOUR + number(7),
    }
}

fn word_id(letters: &[u8], space: bool) -> u32 {
    let capital = letters[0].is_ascii_uppercase();
    let before: u32 = (1..letters.len() as u32).map(|len| 26_u32.pow(len)).sum();
    let digit = |byte: &u8| u32::from(byte.to_ascii_lowercase() - b'a');
    let number = letters.iter().fold(0, |n, byte| n * 26 + digit(byte));
    WORD + (u32::from(space) * 2 + u32::from(capital)) * WORDS + before + number
}

/// Appends what an id stands for; returns false for a number that is none.
pub fn decode(id: u32, text: &mut Vec<u8>) -> bool {
    let spread = |text: &mut Vec<u8>, number: u32, len: u32, bits: u32| {
        let byte = |place: u32| (number >> (place * bits)) & ((1 << bits) - 1);
        text.extend((0..len).rev().map(|place| byte(place) as u8));
    };
    match id {
        _ if id < ONE => match SPECIALS.get(id as usize) {
            Some(name) => text.extend_from_slice(name.as_bytes()),
            None => return false,
        },
        _ if id < TWO => spread(text, id - ONE, 1, 8),
        _ if id < THREE => spread(text, id - TWO, 2, 8),
        _ if id < FOUR => spread(text, id - THREE, 3, 8),
        _ if id < BLANK => spread(text, id - FOUR, 4, 7),
        _ if id < WORD => {
            let (lines, spaces) = ((id - BLANK) / MOST_SPACES, (id - BLANK) % MOST_SPACES);
            text.extend((0..lines).map(|_| b'\n'));
            text.extend((0..spaces).map(|_| b' '));
        }
        _ if id < VOCABULARY => decode_word(id - WORD, text),
        _ => return false,
    }
    true
}

fn decode_word(word: u32, text: &mut Vec<u8>) {
    let (form, mut number) = (word / WORDS, word % WORDS);
    let mut len = 1;
    while number >= 26_u32.pow(len) {
        number -= 26_u32.pow(len);
        len += 1;
    }
    if form >= 2 {
        text.push(b' ');
    }
    let first = text.len();
    text.extend((0..len).map(|_| 0));
    for at in (first..text.len()).rev() {
        text[at] = b'a' + (number % 26) as u8;
        number /= 26;
    }
    if form % 2 == 1 {
        text[first].make_ascii_uppercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(text: &str) -> Vec<String> {
        let mut ids = Vec::new();
        encode(text.as_bytes(), &mut ids);
        let show = |&id: &u32| {
            let mut bytes = Vec::new();
            assert!(decode(id, &mut bytes));
            String::from_utf8(bytes).unwrap()
        };
        ids.iter().map(show).collect()
    }

    #[test]
    fn text_is_cut_where_a_byte_pair_tokenizer_would() {
        assert_eq!(
            pieces("fn main() {\n    let x = 1024;\n}"),
            [
                "fn", " main", "()", " {", "\n   ", " let", " x", " =", " ", "102", "4", ";", "\n",
                "}"
            ]
        );
        assert_eq!(pieces("an HTTPServer"), ["an", " HTT", "P", "Server"]);
        assert_eq!(pieces("extraordinary"), ["extrao", "rdinar", "y"]);
        assert_eq!(pieces("naïve 漢字"), ["na", "ï", "ve", " ", "漢", "字"]);
    }

    #[test]
    fn code_and_prose_take_about_as_many_tokens_as_with_a_real_tokenizer() {
        // o200k_base takes 3.89 bytes of Rust, TOML and Markdown for a token (1,465 files, 12.0 MB).
        let texts = [
            include_str!("../rig/engine/vllm.rs"),
            include_str!("../../docs/model.md"),
        ];
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for text in texts {
            encode(text.as_bytes(), &mut ids);
            bytes += text.len();
        }
        let share = bytes as f64 / ids.len() as f64;
        assert!((3.3..4.3).contains(&share), "{share:.2} bytes a token");
    }

    #[test]
    fn every_number_below_the_vocabulary_is_an_id_or_reserved() {
        for id in (0..VOCABULARY)
            .step_by(99_991)
            .chain([ONE - 1, VOCABULARY - 1])
        {
            let reserved = (SPECIALS.len() as u32..ONE).contains(&id);
            assert_eq!(decode(id, &mut Vec::new()), !reserved, "{id}");
        }
        assert!(!decode(VOCABULARY, &mut Vec::new()));
        assert!(
            i32::try_from(VOCABULARY).is_ok(),
            "clients keep ids in 32 bits with a sign"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut ids, mut back) = (Vec::new(), Vec::new());
            encode(&text, &mut ids);
            for id in ids {
                prop_assert!(decode(id, &mut back));
            }
            prop_assert_eq!(back, text);
        }

        #[test]
        fn any_text_comes_back(text in "[ \\na-zA-Z0-9(){};ä漢🦀]{0,120}") {
            prop_assert_eq!(pieces_bytes(&text), text.into_bytes());
        }
    }

    fn pieces_bytes(text: &str) -> Vec<u8> {
        let (mut ids, mut back) = (Vec::new(), Vec::new());
        encode(text.as_bytes(), &mut ids);
        for id in ids {
            assert!(decode(id, &mut back));
        }
        back
    }
}
