//! Looks up event types by name, alias and prefix, and channel kinds by name.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::model::{Alias, ChannelKind, EventType, Lift, OperatorSpec};

/// A fast hash: every event looks its type up, and only the catalogue's files add keys.
pub(super) type ByName<T> = HashMap<String, T, Xxh3DefaultBuilder>;

/// Names and aliases of types, with the indexes of type and alias.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    pub(super) exact: ByName<(usize, Option<usize>)>,
    pub(super) conditional: ByName<Vec<(usize, usize)>>,
    pub(super) prefixes: Vec<(String, usize)>,
}

/// All event types, channel kinds, operators and ingress rules.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub(super) types: Vec<EventType>,
    pub(super) kinds: Vec<ChannelKind>,
    pub(super) operators: Vec<OperatorSpec>,
    pub(super) reserved: Vec<String>,
    pub(super) lifts: Vec<Lift>,
    /// File name and title of every domain.
    pub(super) domains: Vec<(String, String)>,
    pub(super) names: NameIndex,
    pub(super) hash: u64,
}

impl Catalogue {
    /// Changes whenever what the catalogue means for events does.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Every type, by domain and name.
    pub fn types(&self) -> &[EventType] {
        &self.types
    }

    /// Every channel kind, by name.
    pub fn channel_kinds(&self) -> &[ChannelKind] {
        &self.kinds
    }

    /// Every operator, by name.
    pub fn operators(&self) -> &[OperatorSpec] {
        &self.operators
    }

    /// Fields that are copied out of nested objects.
    pub fn lifts(&self) -> &[Lift] {
        &self.lifts
    }

    /// Names of protocol frames, which no event may have.
    pub fn reserved(&self) -> &[String] {
        &self.reserved
    }

    /// File name and title of every domain, in the reference page's order.
    pub fn domains(&self) -> &[(String, String)] {
        &self.domains
    }

    /// A channel kind by name.
    pub fn channel_kind(&self, name: &str) -> Option<&ChannelKind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// The type of this canonical name or alias. Conditional meanings of an alias are ignored.
    pub fn resolve(&self, type_or_alias: &str) -> Option<&EventType> {
        self.resolve_sent(type_or_alias, |_| false).map(|(event_type, _)| event_type)
    }

    /// The type and the alias used for it; `holds` evaluates an alias's condition.
    pub(crate) fn resolve_sent(
        &self,
        name: &str,
        holds: impl Fn(&Alias) -> bool,
    ) -> Option<(&EventType, Option<&Alias>)> {
        if !self.names.conditional.is_empty()
            && let Some(claims) = self.names.conditional.get(name)
        {
            for &(at, alias) in claims {
                let event_type = &self.types[at];
                let alias = &event_type.aliases[alias];
                if holds(alias) {
                    return Some((event_type, Some(alias)));
                }
            }
        }
        if let Some(&(at, alias)) = self.names.exact.get(name) {
            let event_type = &self.types[at];
            let is_pattern = alias.is_none() && event_type.name.ends_with('*');
            return (!is_pattern).then(|| (event_type, alias.map(|at| &event_type.aliases[at])));
        }
        let (prefix, at) =
            self.names.prefixes.iter().find(|(p, _)| name.starts_with(p.as_str()))?;
        let rest = &name[prefix.len()..];
        let plain = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
        plain.then(|| (&self.types[*at], None))
    }

    /// How every type of a pattern such as `custom.*` begins, if this name begins like it.
    pub(crate) fn prefix_of(&self, name: &str) -> Option<&str> {
        let mut prefixes = self.names.prefixes.iter().map(|(prefix, _)| prefix.as_str());
        prefixes.find(|prefix| name.starts_with(prefix))
    }

    /// The name or alias most similar to this one, if any is similar. Patterns are no names.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        /// Longer names are not compared: no name of the catalogue is similar.
        const COMPARED_MAX_CHARS: usize = 64;
        let name = name.to_lowercase();
        let length = name.chars().count();
        if length > COMPARED_MAX_CHARS {
            return None;
        }
        let (wanted, most) = (EditDistance::to(&name), (length / 3).max(2));
        let names = self.types.iter().flat_map(|t| {
            std::iter::once(t.name.as_str()).chain(t.aliases.iter().map(|a| a.name.as_str()))
        });
        let near = names
            .filter(|known| !known.ends_with('*'))
            .filter(|known| known.len().abs_diff(length) <= most);
        let rated = near.map(|known| (wanted.of(known), known));
        rated.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
    }
}

/// Computes the edit distance (insertions, removals and replacements of characters) of one name to
/// others, a column of the table at a time in the bits of a word: one body can have a thousand
/// unknown types, and each is compared with hundreds of names. (G. Myers, A fast bit-vector
/// algorithm for approximate string matching, 1999; here for whole texts.)
struct EditDistance {
    /// How many characters the name has: at most 64.
    length: usize,
    /// Where in the name each ASCII character occurs. Names of the catalogue have no others.
    places: [u64; 128],
}

impl EditDistance {
    fn to(name: &str) -> Self {
        let (mut length, mut places) = (0, [0; 128]);
        for character in name.chars() {
            if let Some(place) = places.get_mut(character as usize) {
                *place |= 1 << length;
            }
            length += 1;
        }
        Self { length, places }
    }

    fn of(&self, other: &str) -> usize {
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

    use super::EditDistance;

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
}
