//! Looks up event types by name, alias and prefix, and channel kinds by name.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::model::{Alias, ChannelKind, EventType, Lift, OperatorSpec, OwnFile};
use crate::codec::typed_schemas::TypedSchemas;
use crate::similar::{COMPARED_MAX_CHARS, EditDistance};

/// A map with a fast hash: every event looks its type up, and only the catalogue's files add keys.
pub(super) type ByName<T> = HashMap<String, T, BuildHasherDefault<NameHasher>>;

/// XXH3 of a name at once. Its streaming form costs several times as much for so few bytes.
#[derive(Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, _: u8) {
        // The end of a text. A key is one text, so there is nothing to keep apart.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Names and aliases of types, with the indexes of type and alias.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    pub(super) exact: ByName<(usize, Option<usize>)>,
    pub(super) conditional: ByName<Vec<(usize, usize)>>,
    pub(super) prefixes: Vec<(String, usize)>,
}

/// All event types, channel kinds, operators and ingress rules.
#[derive(Default)]
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
    pub(super) own_files: Vec<OwnFile>,
    typed_schemas: OnceLock<TypedSchemas>,
}

/// Two catalogues with one hash treat every event alike.
impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Catalogue {}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalogue({:016x})", self.hash)
    }
}

impl Catalogue {
    /// Changes whenever what the catalogue means for events does.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The files that add to the built-in catalogue, by name.
    pub fn own_files(&self) -> &[OwnFile] {
        &self.own_files
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

    /// The Avro schemas of its types, which the decoder makes at the first record that needs one.
    pub(crate) fn typed_schemas(&self, make: fn(&Self) -> TypedSchemas) -> &TypedSchemas {
        self.typed_schemas.get_or_init(|| make(self))
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
