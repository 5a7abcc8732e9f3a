//! Checks the entries of a catalogue against each other.
//!
//! It finds names that two types claim, channel kinds that nothing writes, and ingress rules that
//! cover nothing. Every check continues after an error, so that all errors are reported together.

use super::errors::Errors;
use super::ingress::IngressRules;
use super::lookup::{ByName, Catalogue, NameIndex};
use super::model::Class;
use super::notation;

/// Every pattern of an ingress rule covers a type, and one of the covered types declares each field
/// that the rule sets.
pub(super) fn ingress(catalogue: &Catalogue, rules: &IngressRules, errors: &mut Errors) {
    let renames = (rules.renames.iter())
        .map(|entry| (&entry.types, entry.fields.values().collect::<Vec<_>>()));
    let defaults = (rules.defaults.iter())
        .map(|entry| (&entry.types, entry.fields.keys().collect::<Vec<_>>()));
    for (patterns, fields) in renames.chain(defaults) {
        let covered = |pattern: &String| {
            let pattern = pattern.clone();
            catalogue.types.iter().filter(move |t| notation::covers(&pattern, &t.name))
        };
        for pattern in patterns.iter().filter(|pattern| covered(pattern).next().is_none()) {
            errors.add("ingress.toml", format!("the pattern `{pattern}` covers no type"));
        }
        for name in fields {
            if !patterns.iter().flat_map(covered).any(|t| t.field(name).is_some()) {
                errors.add("ingress.toml", format!("no type covered has a field `{name}`"));
            }
        }
    }
}

/// Every channel kind has a writer, and unions consist of known kinds.
pub(super) fn kinds(catalogue: &Catalogue, errors: &mut Errors) {
    for kind in &catalogue.kinds {
        let place = format!("channels.toml, {}", kind.name);
        for member in &kind.union {
            if catalogue.channel_kind(member).is_none() {
                errors.add(&place, format!("unknown channel kind `{member}` in the union"));
            }
        }
        if let Some(operator) = &kind.written_by
            && !catalogue.operators.iter().any(|known| known.name == *operator)
        {
            errors.add(&place, format!("unknown operator `{operator}`"));
        }
        let derived = kind.classes.contains(&Class::Derived);
        let mut rules = catalogue.types.iter().flat_map(|t| &t.channels);
        if !derived && kind.written_by.is_none() && !rules.any(|rule| rule.kind == kind.name) {
            errors.add(&place, "no type is delivered to it");
        }
        if derived == kind.union.is_empty() {
            errors.add(&place, "a derived kind must have a union, and no other kind may have one");
        }
    }
}

/// The index from names to types; a name that two types claim is an error.
pub(super) fn names(catalogue: &Catalogue, errors: &mut Errors) -> NameIndex {
    let mut names = NameIndex::default();
    let mut claim = |name: &str, at: (usize, Option<usize>), place: &str| {
        let reserved = catalogue.reserved.iter().any(|reserved| reserved == name);
        match names.exact.insert(name.to_owned(), at) {
            _ if reserved => {
                errors.add(place, format!("`{name}` is reserved for a protocol frame"))
            }
            Some(before) if !same_meaning(catalogue, before, at) => {
                let other = &catalogue.types[before.0].name;
                errors.add(place, format!("`{name}` is a name of {other} too"));
            }
            _ => {}
        }
    };
    let mut conditional: ByName<Vec<(usize, usize)>> = ByName::default();
    for (at, event_type) in catalogue.types.iter().enumerate() {
        let place = format!("{}.toml, {}", event_type.domain, event_type.name);
        claim(&event_type.name, (at, None), &place);
        for (alias_at, alias) in event_type.aliases.iter().enumerate() {
            match alias.when {
                None => claim(&alias.name, (at, Some(alias_at)), &place),
                Some(_) => {
                    conditional.entry(alias.name.clone()).or_default().push((at, alias_at));
                }
            }
        }
    }
    for (name, claims) in &conditional {
        if !names.exact.contains_key(name) {
            let event_type = &catalogue.types[claims[0].0];
            let place = format!("{}.toml, {}", event_type.domain, event_type.name);
            errors.add(&place, format!("no type has the name `{name}` when the condition fails"));
        }
    }
    names.conditional = conditional;
    let prefixes = catalogue.types.iter().enumerate();
    names.prefixes = prefixes
        .filter_map(|(at, t)| t.name.strip_suffix('*').map(|prefix| (prefix.to_owned(), at)))
        .collect();
    names
}

fn same_meaning(
    catalogue: &Catalogue,
    before: (usize, Option<usize>),
    now: (usize, Option<usize>),
) -> bool {
    let preset = |(at, alias): (usize, Option<usize>)| {
        alias.map(|alias| &catalogue.types[at].aliases[alias].preset)
    };
    before.0 == now.0 && preset(before) == preset(now)
}
