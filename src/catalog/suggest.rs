//! Names close to one that was not found.
//!
//! Used wherever a person types a name: hardware, engines, models, settings, file fields. It knows no catalogue, only
//! strings.

/// Most suggestions a message can carry before it reads like a listing.
const MOST: usize = 3;

/// Returns up to three of `names` that `wanted` may have meant, closest first, then in the order given.
///
/// A name is close when few letters differ for its length, or when one of the two begins with or contains the other.
pub fn suggest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted = plain(wanted);
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut close: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| nearness(&wanted, &plain(name)).map(|rank| (rank, name)))
        .collect();
    close.sort_by_key(|(rank, _)| *rank);
    close.dedup_by_key(|(_, name)| *name);
    close.truncate(MOST);
    close
        .into_iter()
        .map(|(_, name)| name.to_string())
        .collect()
}

/// Returns "; did you mean `a` or `b`?", or nothing when there is nothing to suggest.
pub fn question(suggestions: &[String]) -> String {
    let quoted: Vec<String> = suggestions.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [first @ .., last] => format!("; did you mean {} or {last}?", first.join(", ")),
    }
}

/// Returns the number of letters to insert, delete, replace or swap to turn `a` into `b`.
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// Returns the name as it is compared: lower case, one kind of separator.
fn plain(name: &str) -> String {
    name.trim()
        .to_lowercase()
        .replace(['_', ' ', '/', ':'], "-")
}

/// Returns how far apart two plain names are for a reader, or nothing when they are unlike.
fn nearness(wanted: &str, name: &str) -> Option<usize> {
    let letters = distance(wanted, name);
    let longest = wanted.chars().count().max(name.chars().count());
    if letters * 3 <= longest {
        return Some(letters);
    }
    let part = wanted.chars().count() >= 3 && name.contains(wanted)
        || name.chars().count() >= 3 && wanted.contains(name);
    part.then_some(longest + letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_of_two_letters_is_one_slip() {
        assert_eq!(distance("vllm", "vlml"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_closest_names_come_first() {
        let names = ["dgx-spark", "2x-dgx-spark", "h100", "h200", "rtx-4090"];
        assert_eq!(suggest("dgx-sprak", names), ["dgx-spark", "2x-dgx-spark"]);
        assert_eq!(suggest("H100 ", names)[0], "h100");
        assert_eq!(suggest("spark", names), ["dgx-spark", "2x-dgx-spark"]);
        assert!(suggest("typewriter", names).is_empty());
        assert!(suggest("", names).is_empty());
    }

    #[test]
    fn a_question_is_asked_only_with_something_to_offer() {
        assert_eq!(question(&[]), "");
        assert_eq!(question(&["a".to_string()]), "; did you mean `a`?");
        let two = ["a".to_string(), "b".to_string()];
        assert_eq!(question(&two), "; did you mean `a` or `b`?");
    }
}
