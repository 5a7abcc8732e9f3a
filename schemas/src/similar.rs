//! Finds the known name that is most similar to a mistyped one, for error messages.
//!
//! Every process suggests alike: case and the separators `-` and `_` do not count, then the edit
//! distance decides. Long names are not compared, so the work for one error is bounded.

/// Longer names are not compared: no known name is similar.
const COMPARED_MAX_CHARS: usize = 64;

/// The known name most similar to `name`, if any is similar: at most a third of the characters, and
/// at least two, may differ.
pub fn most_similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.chars().count() > COMPARED_MAX_CHARS {
        return None;
    }
    let wanted = plain(name);
    let most = (wanted.len() / 3).max(2);
    let rated = known.into_iter().map(|known| (distance(&wanted, &plain(known)), known));
    let similar = rated.filter(|(distance, known)| *distance <= most && *distance < known.len());
    similar.min().map(|(_, known)| known)
}

/// A name without case and separators.
fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// The edit distance of two names: insertions, removals and replacements of characters.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, a) in a.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["channels", "from", "last_event_id", "user"];

    #[test]
    fn a_mistyped_name_is_recognised_whatever_its_case_and_separators() {
        for (name, expected) in [
            ("fron", Some("from")),
            ("FROM", Some("from")),
            ("channel", Some("channels")),
            ("lastEventID", Some("last_event_id")),
            ("Last-Event", Some("last_event_id")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(most_similar(name, KNOWN), expected, "{name}");
        }
        assert_eq!(most_similar(&"f".repeat(65), KNOWN), None);
        assert_eq!(most_similar("from", []), None);
    }
}
