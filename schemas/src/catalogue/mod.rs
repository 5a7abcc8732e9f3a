//! The catalogue: event types and channel kinds, read once from data files and checked as a whole.
//!
//! In reading order: `model` (what a type and a channel kind are), `files` (the TOML files),
//! `notation` (the syntax inside their strings), `errors`, `ingress` (spellings and defaults),
//! `load` and `check` (from files to model), `meaning` (its hash), `lookup` (by name and alias),
//! `deliver` (from an event to its channels), and `page` (the reference page). Adding a type is one
//! entry in one file, no code.

mod check;
mod deliver;
mod errors;
mod files;
mod ingress;
mod load;
mod lookup;
mod meaning;
mod model;
mod notation;
mod page;
#[cfg(test)]
mod tests;

pub use deliver::{Delivery, DeliveryError, OPERATOR_SOURCE};
pub(crate) use deliver::{EnvelopeIds, FieldLookup};
pub use errors::CatalogueErrors;
pub use files::FILES;
pub use lookup::Catalogue;
pub use model::{
    Alias, ChannelKind, ChannelRule, Class, Condition, DeliveryPolicy, EventType, Field,
    FieldDefault, FieldKind, Lift, Move, OperatorSpec, Predicate, ReaderRole, Rename, Source,
};
pub use page::{UPDATE_COMMAND, page};
