//! Limits what the files of a user's folder may say: they add, and change nothing that is built in.
//!
//! A deployment's state and its clients rely on the built-in entries, so an entry that would change
//! one is refused here, before the files are compiled together. What a file may not say at all,
//! such as a new operator, is code or belongs to Tidewire's own roles. A refused entry is removed,
//! so that it causes no further errors.

use super::errors::Errors;
use super::files::{CatalogueFile, KindEntry, TypeEntry};
use super::lookup::Catalogue;
use super::notation;

/// Refuses and removes what a file may not say; `place` is its path.
pub(super) fn restrict(place: &str, file: &mut CatalogueFile, errors: &mut Errors) {
    for (section, is_used) in [
        ("operators", !file.operators.is_empty()),
        ("reserved", !file.reserved.is_empty()),
        ("lift", !file.lift.is_empty()),
    ] {
        if is_used {
            errors.add(place, format!("`{section}` can only be built in; remove it"));
        }
    }
    file.operators.clear();
    file.reserved.clear();
    file.lift.clear();
    file.rename.retain(|entry| patterns(place, &entry.types, errors));
    file.default.retain(|entry| patterns(place, &entry.types, errors));
    file.kinds
        .retain(|name, entry| kind(&format!("{place}, {name}"), (name.as_str(), entry), errors));
    file.types.retain(|name, entry| {
        event_type(&format!("{place}, {name}"), (name.as_str(), entry), errors)
    });
}

/// Whether the patterns of an ingress rule cover no built-in type.
fn patterns(place: &str, patterns: &[String], errors: &mut Errors) -> bool {
    let types = &Catalogue::builtin().types;
    let mut all_own = true;
    for pattern in patterns {
        let covered = types.iter().find(|known| notation::covers(pattern, &known.name));
        if let Some(covered) = covered {
            all_own = false;
            let name = &covered.name;
            errors.add(
                place,
                format!(
                    "the pattern `{pattern}` covers the built-in type `{name}`, which can't be \
                     changed; name your own types"
                ),
            );
        }
    }
    all_own
}

fn kind(place: &str, (name, entry): (&str, &mut KindEntry), errors: &mut Errors) -> bool {
    if entry.written_by.take().is_some() {
        errors.add(place, "`written_by` names an operator, which can only be built in; remove it");
    }
    let is_new = Catalogue::builtin().channel_kind(name).is_none();
    if !is_new {
        let text = "is a built-in channel kind, which can't be changed; choose another name";
        errors.add(place, format!("`{name}` {text}"));
    }
    is_new
}

fn event_type(place: &str, (name, entry): (&str, &mut TypeEntry), errors: &mut Errors) -> bool {
    for (word, value) in [("internal", &mut entry.internal), ("broadcast", &mut entry.broadcast)] {
        if std::mem::take(value) {
            let text = "is for events of Tidewire's own processes; remove it";
            errors.add(place, format!("`{word}` {text}"));
        }
    }
    for line in entry.aliases.values_mut() {
        line.retain(|line| alias(place, line, errors));
    }
    let mut types = Catalogue::builtin().types.iter();
    let Some(known) = types.find(|known| notation::covers(&known.name, name)) else { return true };
    if known.name == name {
        let text = "is a built-in type, which can't be changed; choose another name";
        errors.add(place, format!("`{name}` {text}"));
    } else {
        let text = format!("is covered by the built-in type `{}`", known.name);
        errors.add(place, format!("`{name}` {text}; choose a name that begins otherwise"));
    }
    false
}

/// Whether an alias is a name that means no built-in type, under any condition.
fn alias(place: &str, line: &str, errors: &mut Errors) -> bool {
    // What can't be parsed is reported when the entry is compiled.
    let Ok(parsed) = notation::alias(line) else { return true };
    let builtin = Catalogue::builtin();
    let is_taken = builtin.resolve(parsed.name).is_some()
        || builtin.names.conditional.contains_key(parsed.name);
    if is_taken {
        let text = "is a name of a built-in type, which can't be changed; choose another alias";
        errors.add(place, format!("`{}` {text}", parsed.name));
    }
    !is_taken
}
