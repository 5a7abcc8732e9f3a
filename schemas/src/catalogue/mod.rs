//! The catalogue: event types and channel kinds as data, read from the files in `catalogue/` once
//! and checked as a whole.
//!
//! In reading order: `model` (what a type and a channel kind are), `files` (the files as they
//! are written), `notation` (the small languages inside them), `load` and `check` (from files to
//! model, all errors together), `lookup` (by name and alias), `deliver` (from an event to its
//! channels), and `page` (the reference page). Adding a type is one entry in one file, no code.

mod check;
mod deliver;
mod errors;
mod files;
mod ingress;
mod load;
mod lookup;
mod model;
mod notation;
mod page;
#[cfg(test)]
mod tests;

pub use deliver::{Delivery, DeliveryError};
pub(crate) use deliver::{EnvelopeIds, FieldLookup, OPERATOR_SOURCE};
pub use errors::CatalogueErrors;
pub use files::FILES;
pub use lookup::Catalogue;
pub use model::{
    Alias, ChannelKind, ChannelRule, Class, Condition, DeliveryPolicy, EventType, Field,
    FieldDefault, FieldKind, Lift, Move, OperatorSpec, Predicate, ReaderRole, Rename, Source,
};
pub use page::{UPDATE_COMMAND, page};
