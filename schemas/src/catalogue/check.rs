//! Checks the entries of a catalogue against each other.
//!
//! It finds names that two types claim, channel kinds that nothing writes, and ingress rules that
//! cover nothing. Every check continues after an error, so that all errors are reported together.

use super::errors::Errors;
use super::ingress::IngressRules;
use super::lookup::{ByName, Catalogue, NameIndex};
use super::model::{Class, DeliveryPolicy};
use super::notation;

/// Every pattern of an ingress rule covers a type, and one of the covered types declares each field
/// that the rule sets.
pub(super) fn ingress(catalogue: &Catalogue, rules: &IngressRules, errors: &mut Errors) {
    let renames = (rules.renames.iter())
        .map(|entry| (&entry.place, &entry.types, entry.fields.values().collect::<Vec<_>>()));
    let defaults = (rules.defaults.iter())
        .map(|entry| (&entry.place, &entry.types, entry.fields.keys().collect::<Vec<_>>()));
    for (place, patterns, fields) in renames.chain(defaults) {
        let covered = |pattern: &String| {
            let pattern = pattern.clone();
            catalogue.types.iter().filter(move |t| notation::covers(&pattern, &t.name))
        };
        for pattern in patterns.iter().filter(|pattern| covered(pattern).next().is_none()) {
            errors.add(place, format!("the pattern `{pattern}` covers no type"));
        }
        for name in fields {
            if !patterns.iter().flat_map(covered).any(|t| t.field(name).is_some()) {
                errors.add(place, format!("no type covered has a field `{name}`"));
            }
        }
    }
}

/// Every channel kind has a writer, and unions consist of known kinds.
pub(super) fn kinds(catalogue: &Catalogue, errors: &mut Errors) {
    for (at, kind) in catalogue.kinds.iter().enumerate() {
        let place = format!("{}.toml, {}", kind.file, kind.name);
        if catalogue.kinds[..at].iter().any(|before| before.name == kind.name) {
            errors.add(&place, "there is a channel kind with this name already");
        }
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

/// Every type has somebody who writes it.
pub(super) fn writers(catalogue: &Catalogue, errors: &mut Errors) {
    for event_type in catalogue.types.iter().filter(|known| known.emitted_by.is_empty()) {
        let place = format!("{}.toml, {}", event_type.domain, event_type.name);
        if event_type.delivery_policy == DeliveryPolicy::Emitted {
            errors.add(&place, "only emitted events are delivered, but no operator emits it");
        } else if !event_type.producers && !event_type.internal {
            errors.add(&place, "nobody writes it: producers may not, and no operator emits it");
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
                let other = &catalogue.types[before.0];
                let text = match other.name == catalogue.types[at.0].name {
                    true => format!("there is a type with this name in {}.toml", other.domain),
                    false => format!("`{name}` is a name of {} too", other.name),
                };
                errors.add(place, text);
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
    names.prefixes = prefixes(catalogue, errors);
    names
}

/// The patterns without their `*`. A name that two of them cover would be of either type.
fn prefixes(catalogue: &Catalogue, errors: &mut Errors) -> Vec<(String, usize)> {
    let mut prefixes: Vec<(String, usize)> = Vec::new();
    for (at, event_type) in catalogue.types.iter().enumerate() {
        let Some(prefix) = event_type.name.strip_suffix('*') else { continue };
        let overlaps = |(other, _): &&(String, usize)| {
            *other != prefix && (other.starts_with(prefix) || prefix.starts_with(&other[..]))
        };
        if let Some((other, _)) = prefixes.iter().find(overlaps) {
            let place = format!("{}.toml, {}", event_type.domain, event_type.name);
            errors.add(&place, format!("`{other}*` and `{prefix}*` cover the same names"));
        }
        prefixes.push((prefix.to_owned(), at));
    }
    prefixes
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
