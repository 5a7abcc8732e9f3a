//! An event as operators read it: its envelope, and the fields of its data.
//!
//! The envelope is decoded once per record, and its type is looked up once. The data is scanned
//! when the first operator, or the routing plan, asks for a field, and once for all of them.

use std::cell::OnceCell;
use std::ops::Deref;

use tidewire_schemas::catalogue::{Catalogue, Delivery, DeliveryError, EventType};
use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::Fields;

/// The fields of data that is no object.
static NO_FIELDS: Fields<'static> = Fields::NONE;

/// An event that operators process.
#[derive(Debug)]
pub struct Input<'a> {
    event: &'a EventView<'a>,
    known: Option<&'static EventType>,
    /// `None`: the data is no JSON object.
    fields: OnceCell<Option<Fields<'a>>>,
}

impl<'a> Input<'a> {
    /// The event to process.
    pub(super) fn new(event: &'a EventView<'a>, catalogue: &'static Catalogue) -> Self {
        let known = catalogue.resolve(event.event_type);
        Self { event, known, fields: OnceCell::new() }
    }

    /// An event whose type was looked up, and whose data was scanned.
    pub(super) fn scanned(
        event: &'a EventView<'a>,
        known: &'static EventType,
        fields: Fields<'a>,
    ) -> Self {
        Self { event, known: Some(known), fields: OnceCell::from(Some(fields)) }
    }

    /// Its type; `None` if the catalogue does not have it.
    pub(super) fn known(&self) -> Option<&'static EventType> {
        self.known
    }

    /// Its channels.
    pub(super) fn deliveries(&self) -> Result<Vec<Delivery>, DeliveryError> {
        let unknown = || DeliveryError::UnknownType(self.event.event_type.to_owned());
        self.known.ok_or_else(unknown)?.deliveries_by(self.event, self.object())
    }

    /// The fields of its data. Data that is no JSON object has none.
    pub fn fields(&self) -> &Fields<'a> {
        self.object().unwrap_or(&NO_FIELDS)
    }

    /// The same; `None` if its data is no object.
    pub(super) fn object(&self) -> Option<&Fields<'a>> {
        self.fields.get_or_init(|| Fields::of(self.event.data)).as_ref()
    }
}

impl<'a> Deref for Input<'a> {
    type Target = EventView<'a>;

    fn deref(&self) -> &EventView<'a> {
        self.event
    }
}
