//! Finds the known name that is most similar to a mistyped one, for error messages.
//!
//! Every process suggests alike: case and the separators `-` and `_` do not count, then the edit
//! distance decides. Long names are not compared, so the work for one error is bounded.

/// Longer names are not compared: no known name is similar.
pub(crate) const COMPARED_MAX_CHARS: usize = 64;

/// The known name most similar to `name`, if any is similar: at most a third of the characters, and
/// at least two, may differ.
pub fn most_similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.chars().count() > COMPARED_MAX_CHARS {
        return None;
    }
    let wanted = plain(name);
    let length = wanted.chars().count();
    // In lower case it may be longer.
    if length > COMPARED_MAX_CHARS {
        return None;
    }
    let (wanted, most) = (EditDistance::to(&wanted), (length / 3).max(2));
    let rated = known.into_iter().map(|known| (wanted.of(&plain(known)), known));
    let similar = rated.filter(|(distance, known)| *distance <= most && *distance < known.len());
    similar.min().map(|(_, known)| known)
}

/// A name without case and separators.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Computes the edit distance (insertions, removals and replacements of characters) of one name to
/// others, a column of the table at a time in the bits of a word: one body can have a thousand
/// unknown types, and each is compared with hundreds of names. (G. Myers, A fast bit-vector
/// algorithm for approximate string matching, 1999; here for whole texts.)
pub(crate) struct EditDistance {
    /// How many characters the name has: at most 64.
    length: usize,
    /// Where in the name each ASCII character occurs. Known names have no others.
    places: [u64; 128],
}

impl EditDistance {
    /// To this name, in lower case, of at most [`COMPARED_MAX_CHARS`] characters.
    pub(crate) fn to(name: &str) -> Self {
        let (mut length, mut places) = (0, [0; 128]);
        for character in name.chars() {
            if let Some(place) = places.get_mut(character as usize) {
                *place |= 1 << length;
            }
            length += 1;
        }
        Self { length, places }
    }

    /// From a name of ASCII characters.
    pub(crate) fn of(&self, other: &str) -> usize {
        let Some(last) = self.length.checked_sub(1) else { return other.len() };
        // Where a row of the table is greater, or less, than the row before it.
        let (mut greater, mut less) = (u64::MAX, 0u64);
        let mut distance = self.length;
        for byte in other.bytes().map(|byte| byte.to_ascii_lowercase()) {
            let equal = self.places.get(usize::from(byte)).copied().unwrap_or(0);
            let across = (((equal & greater).wrapping_add(greater)) ^ greater) | equal;
            let down = equal | less;
            let (up, back) = (less | !(across | greater), greater & across);
            distance += (up >> last & 1) as usize;
            distance -= (back >> last & 1) as usize;
            let (up, back) = (up << 1 | 1, back << 1);
            (greater, less) = (back | !(down | up), up & down);
        }
        distance
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the whole table.
    fn table(a: &str, b: &str) -> usize {
        let a: Vec<char> = a.chars().collect();
        let mut row: Vec<usize> = (0..=a.len()).collect();
        for (i, b) in b.chars().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, a) in a.iter().enumerate() {
                let replaced = diagonal + usize::from(*a != b);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
            }
        }
        row[a.len()]
    }

    proptest! {
        #[test]
        fn distances_are_those_of_the_table(a in "[a-cü]{0,64}", b in "[a-c]{0,70}") {
            prop_assert_eq!(EditDistance::to(&a).of(&b), table(&a, &b));
        }
    }

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
