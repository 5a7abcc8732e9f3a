//! Determines the channels of an event by the rules of its type.
//!
//! A rule whose optional field is absent is skipped. An absent required field is an error, since
//! admission rejects such an event.

use std::borrow::Cow;

use super::lookup::Catalogue;
use super::model::{Class, Condition, DeliveryPolicy, EventType, Predicate, Source};
use crate::channel;
use crate::event::EventView;
use crate::fields::Fields;
use crate::json;

/// The prefix of the `source` and of the id of every event that an operator emits. Admission
/// refuses both in events of producers: no id of an emitted event may be taken for another's.
pub const OPERATOR_SOURCE: &str = "op/";

/// Where one event goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The channel's full name, `kind:id`, the id percent-encoded.
    pub channel: String,
    /// The class it is delivered as.
    pub class: Class,
    /// For [`Class::State`]: the key whose latest value this is.
    pub state_key: Option<String>,
}

/// An event that contradicts its type's entry. Admission rejects those, so an operator emitted it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The catalogue does not have the type.
    #[error("event type `{0}` is not in the catalogue of this build")]
    UnknownType(String),
    /// A required field of a channel or a state key is missing or no valid id.
    #[error("event type `{event_type}`: channel `{rule}` needs a field that is absent")]
    MissingField {
        /// The type.
        event_type: String,
        /// The rule of its entry.
        rule: String,
    },
    /// `data` is not a JSON object.
    #[error("event type `{0}`: data is not a JSON object")]
    BadData(String),
}

/// The fields of `data` that rules may read, as JSON text; null counts as absent.
pub trait FieldLookup {
    /// A field's value as JSON text.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Condition {
    /// Whether it holds.
    pub(crate) fn holds(&self, fields: &(impl FieldLookup + ?Sized)) -> bool {
        let value = fields.value(&self.field);
        let text = value.and_then(json::scalar);
        let passed = match &self.predicate {
            Predicate::Present => value.is_some(),
            Predicate::Is(wanted) => text.is_some_and(|text| text == wanted.as_str()),
            Predicate::Begins(beginning) => text.is_some_and(|text| text.starts_with(beginning)),
        };
        passed != self.negated
    }
}

/// The parts of the envelope that keys and channels may be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeIds<'a> {
    pub(crate) account_id: &'a str,
    /// The canonical type.
    pub(crate) event_type: &'a str,
}

impl Source {
    /// Its text in this event; `None` where it is absent or no scalar.
    pub(crate) fn text<'a>(
        &self,
        envelope: EnvelopeIds<'a>,
        fields: &'a (impl FieldLookup + ?Sized),
    ) -> Option<Cow<'a, str>> {
        match self {
            Self::Account => Some(Cow::Borrowed(envelope.account_id)),
            Self::Type => Some(Cow::Borrowed(envelope.event_type)),
            Self::Field(name) => fields.value(name).and_then(json::scalar),
            Self::Inner(object, name) => {
                json::member(fields.value(object)?, name).and_then(json::scalar)
            }
        }
    }
}

impl Catalogue {
    /// The channels of an event, in the order of its type's entry; one delivery per class.
    pub fn deliveries(&self, event: &EventView<'_>) -> Result<Vec<Delivery>, DeliveryError> {
        let event_type = self
            .resolve(event.event_type)
            .ok_or_else(|| DeliveryError::UnknownType(event.event_type.to_owned()))?;
        event_type.deliveries(event)
    }
}

impl EventType {
    /// The same for an event whose type this is.
    pub fn deliveries(&self, event: &EventView<'_>) -> Result<Vec<Delivery>, DeliveryError> {
        self.deliveries_by(event, Fields::of(event.data).as_ref())
    }

    /// The same for an event whose data was scanned; `None` if it is no object.
    pub fn deliveries_by(
        &self,
        event: &EventView<'_>,
        fields: Option<&Fields<'_>>,
    ) -> Result<Vec<Delivery>, DeliveryError> {
        let emitted = event.source.is_some_and(|source| source.starts_with(OPERATOR_SOURCE));
        if self.delivery_policy == DeliveryPolicy::Emitted && !emitted {
            return Ok(Vec::new());
        }
        let none = Fields::default();
        let fields = match fields {
            Some(fields) => fields,
            None if self.reads_fields => {
                return Err(DeliveryError::BadData(event.event_type.to_owned()));
            }
            None => &none,
        };
        let envelope = EnvelopeIds { account_id: event.account_id, event_type: event.event_type };
        let mut out = Vec::with_capacity(self.channels.len() + 1);
        for rule in &self.channels {
            if rule.when.as_ref().is_some_and(|condition| !condition.holds(fields)) {
                continue;
            }
            let missing = || DeliveryError::MissingField {
                event_type: event.event_type.to_owned(),
                rule: rule.text.clone(),
            };
            let Some(id) = rule.id.text(envelope, fields) else {
                if is_required(self, &rule.id) {
                    return Err(missing());
                }
                continue;
            };
            let mut channel = String::with_capacity(rule.kind.len() + 1 + id.len());
            channel.push_str(&rule.kind);
            channel.push(':');
            channel::encode_id(&id, &mut channel);
            for &class in &rule.classes {
                let state_key = match class {
                    Class::State => match state_key(&rule.state_key, envelope, fields) {
                        Some(key) => Some(key),
                        None => return Err(missing()),
                    },
                    _ => None,
                };
                out.push(Delivery { channel: channel.clone(), class, state_key });
            }
        }
        Ok(out)
    }
}

fn is_required(event_type: &EventType, source: &Source) -> bool {
    match source {
        Source::Account | Source::Type => true,
        Source::Field(name) | Source::Inner(name, _) => {
            event_type.field(name).is_some_and(|field| field.required)
        }
    }
}

/// The key of a state entry. A single part is used as it is and must be present; several parts are
/// joined by `/`, which is encoded inside them, and an absent one is empty.
fn state_key(parts: &[Source], envelope: EnvelopeIds<'_>, fields: &Fields<'_>) -> Option<String> {
    if let [part] = parts {
        return part.text(envelope, fields).map(Cow::into_owned);
    }
    let mut key = String::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            key.push('/');
        }
        let text = part.text(envelope, fields).unwrap_or_default();
        for piece in text.split_inclusive('/') {
            let (plain, slash) = piece.strip_suffix('/').map_or((piece, ""), |p| (p, "%2F"));
            channel::encode_id(plain, &mut key);
            key.push_str(slash);
        }
    }
    Some(key)
}
