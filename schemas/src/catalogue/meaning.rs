//! The hash of what a catalogue means: what it decides about events, not how its files are written.
//!
//! Two catalogues with one hash treat every event alike. Comments, spaces, the order of entries,
//! the file an entry is in and texts that only the reference page shows are no part of it.

use std::fmt::{self, Write as _};

use xxhash_rust::xxh3::Xxh3;

use super::lookup::Catalogue;
use super::model::{Alias, ChannelKind, ChannelRule, EventType, Field};

/// The hash of everything in `catalogue` that decides what happens to an event.
pub(super) fn hash(catalogue: &Catalogue) -> u64 {
    let mut out = HashWriter(Xxh3::new());
    let mut types: Vec<EventType> = catalogue.types.iter().map(of_type).collect();
    types.sort_by(|a, b| a.name.cmp(&b.name));
    let mut kinds: Vec<ChannelKind> = catalogue.kinds.iter().map(of_kind).collect();
    kinds.sort_by(|a, b| a.name.cmp(&b.name));
    let mut operators = catalogue.operators.clone();
    operators.sort_by(|a, b| a.name.cmp(&b.name));
    let mut reserved = catalogue.reserved.clone();
    reserved.sort();
    let mut lifts = catalogue.lifts.clone();
    lifts.sort_by(|a, b| (&a.object, &a.field).cmp(&(&b.object, &b.field)));
    // The derived form quotes texts and names fields, so two values never give the same text.
    let parts: [&dyn fmt::Debug; 5] = [&types, &kinds, &operators, &reserved, &lifts];
    for part in parts {
        // A hash takes every text.
        let _ = write!(out, "{part:?};");
    }
    out.0.digest()
}

struct HashWriter(Xxh3);

impl fmt::Write for HashWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// The type without what only the reference page shows.
pub(super) fn of_type(event_type: &EventType) -> EventType {
    let mut out = EventType { index: 0, domain: String::new(), ..event_type.clone() };
    for Alias { surface, .. } in &mut out.aliases {
        surface.clear();
    }
    for ChannelRule { text, .. } in &mut out.channels {
        text.clear();
    }
    for Field { shape, .. } in &mut out.fields {
        *shape = None;
    }
    out
}

/// The kind without what only the reference page shows.
fn of_kind(kind: &ChannelKind) -> ChannelKind {
    ChannelKind { file: String::new(), carries: String::new(), ..kind.clone() }
}
