//! The catalogue: event types and channel kinds as data, read from the files in `catalogue/` once
//! and checked as a whole.
//!
//! In reading order: `model` (what a type and a channel kind are), `source` (the files as they
//! are written), `notation` (the small languages inside them), `load` and `check` (from files to
//! model, all errors together), `lookup` (by name and alias), `deliver` (from an event to its
//! channels), and `page` (the reference page). Adding a type is one entry in one file, no code.

mod check;
mod deliver;
mod load;
mod lookup;
mod model;
mod notation;
mod page;
mod source;
#[cfg(test)]
mod tests;

pub use deliver::{Delivery, DeliveryError};
pub(crate) use deliver::{Fields, OPERATOR_SOURCE};
pub use load::CatalogueErrors;
pub use lookup::Catalogue;
pub use model::{
    Alias, ChannelKind, ChannelRule, Class, Condition, Delivered, EventType, Field, FieldDefault,
    FieldKind, Lift, Move, Operator, Rename, Source, Test, Who,
};
pub use page::{UPDATE_COMMAND, page};
pub use source::FILES;
