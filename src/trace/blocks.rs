//! Block ids as text: `3e8 3ea-3ef 410`, hexadecimal, runs of successive ids with a dash.
//!
//! New blocks mostly have successive ids, so a step that adds twenty costs about a dozen bytes.

/// How many blocks one piece may name: a few bytes of text must not ask for gigabytes.
const MAX_BLOCKS: u64 = 1 << 23;

/// Reads "3e8 3ea-3ef 410": hexadecimal ids, runs of successive ids with a dash.
///
/// At most `limit` ids are read: a file cannot ask for more than its prompt holds.
pub(super) fn parse_blocks(text: &str, limit: u64) -> Result<Vec<u64>, String> {
    let id = |word: &str| {
        u64::from_str_radix(word, 16)
            .map_err(|_| format!("block id `{word}` is not hexadecimal (at most 16 digits)"))
    };
    let limit = limit.min(MAX_BLOCKS);
    let mut keys = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (first, last) = match word.split_once('-') {
            Some((first, last)) => (id(first)?, id(last)?),
            None => (id(word)?, id(word)?),
        };
        if last < first {
            return Err(format!("the run of blocks `{word}` ends before it begins"));
        }
        if (last - first) >= limit.saturating_sub(keys.len() as u64) {
            return Err(format!(
                "the blocks hold more tokens than the {limit} blocks that are left of the prompt"
            ));
        }
        keys.extend(first..=last);
    }
    Ok(keys)
}

/// Writes block ids in the form that [`super::record::Piece::blocks`] has.
pub fn write_blocks(keys: &[u64]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut rest = keys;
    while let Some(&first) = rest.first() {
        let run = rest
            .iter()
            .zip(first..=u64::MAX)
            .take_while(|(key, expected)| *key == expected)
            .count();
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = if run > 1 {
            write!(text, "{first:x}-{:x}", rest[run - 1])
        } else {
            write!(text, "{first:x}")
        };
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_ids_come_back_as_they_were_written() {
        for keys in [
            vec![],
            vec![7],
            vec![1, 2, 3, 9, 8, 7],
            vec![u64::MAX - 1, u64::MAX],
            vec![u64::MAX, 0, 1],
        ] {
            let text = write_blocks(&keys);
            assert_eq!(parse_blocks(&text, 100), Ok(keys), "{text}");
        }
    }

    #[test]
    fn a_run_cannot_ask_for_more_than_the_prompt_holds() {
        assert!(parse_blocks("0-ffffffffffffffff", u64::MAX).is_err());
        assert!(parse_blocks("1-3 8", 3).is_err());
        assert!(parse_blocks("3-1", 9).is_err());
        assert!(parse_blocks("x", 9).is_err());
    }
}
