//! Checks what follows from what: the types that operators emit and the operators these run.
//!
//! A copy of an event for another key is one step, and so is an emission, wherever it goes. At most
//! [`HOPS_MAX`] steps may follow from one event, and no operator may follow from itself: DERIVE
//! would put such an event aside. Conditions are not considered: they can't make a cycle legal. An
//! operator never runs for what it emitted itself, so that is no cycle.

use std::collections::BTreeSet;

use super::errors::Errors;
use super::lookup::Catalogue;
use super::model::{EventType, MoveKey, OperatorSpec};

/// The most copies for other keys and emissions that may follow from one event.
pub const HOPS_MAX: u8 = 4;

/// Finds what each operator emits, and notes it at the types.
pub(super) fn emitted(catalogue: &mut Catalogue, errors: &mut Errors) {
    for operator in &catalogue.operators {
        let place = format!("operators.toml, {}", operator.name);
        for (at, name) in operator.emits.iter().enumerate() {
            if operator.emits[..at].contains(name) {
                errors.add(&place, format!("`{name}` is listed twice in `emits`"));
                continue;
            }
            match catalogue.types.iter_mut().find(|known| known.name == *name) {
                None => errors.add(&place, format!("`emits` names `{name}`, which is not a type")),
                Some(found) if found.channels.is_empty() && found.moves.is_empty() => errors.add(
                    &place,
                    format!("it emits `{name}`, which goes to no channel and moves no operator"),
                ),
                Some(found) => found.emitted_by.push(operator.name.clone()),
            }
        }
    }
}

/// Follows every type through operators and what they emit.
pub(super) fn check(catalogue: &Catalogue, errors: &mut Errors) {
    let mut found = BTreeSet::new();
    for event_type in &catalogue.types {
        let mut walk =
            Walk { catalogue, operators: Vec::new(), names: Vec::new(), found: &mut found };
        walk.names.push(&event_type.name);
        walk.follow(event_type, 0, None);
    }
    for (place, text) in found {
        errors.add(&place, text);
    }
}

/// A walk from one type, along a path that `names` and `operators` hold.
struct Walk<'a, 'f> {
    catalogue: &'a Catalogue,
    operators: Vec<&'a str>,
    names: Vec<&'a str>,
    found: &'f mut BTreeSet<(String, String)>,
}

impl<'a> Walk<'a, '_> {
    /// Visits what `event_type` runs, `hops` after the start; `emitter` emitted it.
    fn follow(&mut self, event_type: &'a EventType, hops: u8, emitter: Option<&str>) {
        for (operator, has_other_key) in self.moved(event_type) {
            if emitter == Some(operator.name.as_str()) {
                continue;
            }
            if let Some(at) = self.operators.iter().position(|known| **known == operator.name) {
                self.cycle(at);
                continue;
            }
            // An emission goes to each key at once; a copy of an event that came in is a step more.
            let copied = u8::from(has_other_key && emitter.is_none());
            self.operators.push(&operator.name);
            self.names.push(&operator.name);
            self.emissions(operator, hops + copied);
            self.operators.pop();
            self.names.pop();
        }
    }

    fn emissions(&mut self, operator: &'a OperatorSpec, hops: u8) {
        for name in &operator.emits {
            let Some(emitted) = self.catalogue.types.iter().find(|known| known.name == *name)
            else {
                continue;
            };
            self.names.push(&emitted.name);
            if hops + 1 > HOPS_MAX {
                self.too_long();
            } else {
                self.follow(emitted, hops + 1, Some(&operator.name));
            }
            self.names.pop();
        }
    }

    /// The operators that a type runs, once each, and whether any entry has another key.
    fn moved(&self, event_type: &'a EventType) -> Vec<(&'a OperatorSpec, bool)> {
        let specs = self.catalogue.operators.iter();
        let of_operator = |operator: &'a OperatorSpec| {
            let mut own = event_type.moves.iter().filter(|entry| entry.operator == operator.name);
            let is_run = operator.all || own.clone().next().is_some();
            is_run.then(|| (operator, own.any(|entry| entry.key != MoveKey::Own)))
        };
        specs.filter_map(of_operator).collect()
    }

    fn cycle(&mut self, at: usize) {
        // From the operator that comes first by name, so that a cycle is found once.
        let cycle = &self.operators[at..];
        let first = (0..cycle.len()).min_by_key(|at| cycle[*at]).unwrap_or(0);
        let mut names: Vec<&str> = cycle[first..].iter().chain(&cycle[..first]).copied().collect();
        names.push(names[0]);
        let text =
            format!("these operators follow from each other without end: {}", arrows(&names));
        self.found.insert(("operators.toml".to_owned(), text));
    }

    fn too_long(&mut self) {
        let start = self.catalogue.types.iter().find(|known| known.name == self.names[0]);
        let place = start.map_or(String::new(), |t| format!("{}.toml, {}", t.domain, t.name));
        let text = format!(
            "more than {HOPS_MAX} copies and emissions follow from it: {}",
            arrows(&self.names)
        );
        self.found.insert((place, text));
    }
}

fn arrows(names: &[&str]) -> String {
    names.join(" → ")
}
