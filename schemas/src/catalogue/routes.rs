//! Evaluates a type's routing plan: the operators that an event runs, each with its key.
//!
//! An operator runs once per key, however many entries give that key. It never runs for an event
//! that it emitted itself. The result is in the order of the catalogue. A list gives at most
//! [`LIST_KEYS_MAX`] keys; what it has beyond them and elements that are no valid ids are counted.
//!
//! The caller keeps a [`Routes`] and its memory from event to event, so that evaluation allocates
//! nothing once they are large enough.

use std::borrow::Cow;
use std::ops::Range;

use super::deliver::{EnvelopeIds, OPERATOR_SOURCE};
use super::model::{EventType, KeyPart, MoveKey, Source};
use crate::Priority;
use crate::channel::is_id;
use crate::event::EventView;
use crate::fields::Fields;
use crate::json;

/// The most keys that a list gives: each one costs a record in the log.
pub const LIST_KEYS_MAX: usize = 100;

/// The operators to run for an event.
#[derive(Debug, Default)]
pub struct Routes {
    entries: Vec<RouteEntry>,
    /// The keys, one after the other.
    keys: String,
    skipped: usize,
}

#[derive(Debug)]
struct RouteEntry {
    /// The entry's index in the plan.
    at: usize,
    /// Where the key is in `keys`; `None`: the event's own.
    key: Option<Range<usize>>,
}

/// An operator to run and the key to run it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorRun<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// The key; `None`: the event's own.
    pub other_key: Option<&'a str>,
}

impl Routes {
    /// The operators, in the order of the catalogue. `event_type` is the type that was evaluated.
    pub fn iter<'a>(&'a self, event_type: &'a EventType) -> impl Iterator<Item = OperatorRun<'a>> {
        self.entries.iter().map(move |entry| OperatorRun {
            operator: &event_type.moves[entry.at].operator,
            other_key: entry.key.clone().map(|range| &self.keys[range]),
        })
    }

    /// Elements of lists that gave no key: more than [`LIST_KEYS_MAX`], or no valid id.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
        self.skipped = 0;
    }
}

impl EventType {
    /// Whether every operator it moves runs for the event's own key, whatever the event says.
    pub fn moves_own_key_only(&self) -> bool {
        self.moves.iter().all(|entry| entry.key == MoveKey::Own && entry.when.is_none())
    }

    /// The key of an event with these fields; `None` if they hold none.
    pub fn key_of<'a>(&self, account_id: &'a str, fields: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        let mut sources = self.key.iter();
        sources.find_map(|source| match source {
            Source::Account => Some(Cow::Borrowed(account_id)),
            Source::Type => Some(Cow::Owned(self.name.clone())),
            Source::Field(name) => fields.text(name),
            Source::Inner(object, name) => fields.object(object)?.text(name),
        })
    }

    /// The priority of an event with these fields, if nothing else states one.
    pub fn priority_of(&self, fields: &Fields<'_>) -> Priority {
        let raised = self.priority_if.iter().find(|(condition, _)| condition.holds(fields));
        raised.map_or(self.priority, |(_, priority)| *priority)
    }

    /// Evaluates the plan for an event of this type and replaces what `routes` holds.
    pub fn routes(&self, event: &EventView<'_>, fields: &Fields<'_>, routes: &mut Routes) {
        routes.clear();
        let emitter = event.source.and_then(|source| source.strip_prefix(OPERATOR_SOURCE));
        for (at, entry) in self.moves.iter().enumerate() {
            let fails = |condition| !super::Condition::holds(condition, fields);
            if emitter == Some(entry.operator.as_str()) || entry.when.as_ref().is_some_and(fails) {
                continue;
            }
            let mut adding = AddingRoutes { event_type: self, event, at, routes: &mut *routes };
            match &entry.key {
                MoveKey::Own => adding.add(event.key),
                MoveKey::FirstOf(parts) => {
                    let _ = parts.iter().any(|part| adding.add_part(part, fields));
                }
            }
        }
    }
}

/// Adds the routes of one entry of the plan.
struct AddingRoutes<'a> {
    event_type: &'a EventType,
    event: &'a EventView<'a>,
    at: usize,
    routes: &'a mut Routes,
}

impl AddingRoutes<'_> {
    /// Adds what the part gives; returns whether it gives a key.
    fn add_part(&mut self, part: &KeyPart, fields: &Fields<'_>) -> bool {
        let EventView { account_id, event_type, .. } = *self.event;
        if !part.is_list {
            let key = part.source.text(EnvelopeIds { account_id, event_type }, fields);
            return key.is_some_and(|key| self.add_id(&key));
        }
        let list = part.source.field().and_then(|name| fields.raw(name));
        let (mut given, mut elements) = (false, 0usize);
        json::each_element(list.unwrap_or("[]"), |element| {
            elements += 1;
            if elements > LIST_KEYS_MAX {
                self.routes.skipped += 1;
                return;
            }
            let key = json::string(element).unwrap_or(Cow::Borrowed(""));
            given |= self.add_id(&key);
        });
        given
    }

    /// Adds a key if it is a valid id; counts it otherwise.
    fn add_id(&mut self, key: &str) -> bool {
        let valid = is_id(key);
        match valid {
            true => self.add(key),
            false => self.routes.skipped += 1,
        }
        valid
    }

    fn add(&mut self, key: &str) {
        let other = (key != self.event.key).then_some(key);
        let operator = &self.event_type.moves[self.at].operator;
        let new = OperatorRun { operator, other_key: other };
        if self.routes.iter(self.event_type).any(|known| known == new) {
            return;
        }
        let start = self.routes.keys.len();
        let range = other.map(|key| {
            self.routes.keys.push_str(key);
            start..start + key.len()
        });
        self.routes.entries.push(RouteEntry { at: self.at, key: range });
    }
}
