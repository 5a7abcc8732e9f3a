//! The catalogue: event types and channel kinds, read once from data files and checked as a whole.
//!
//! In reading order: `model` (what a type and a channel kind are), `files` (the TOML files),
//! `notation` (the syntax inside their strings), `errors`, `ingress` (spellings and defaults),
//! `load`, `own` (files of a user's folder) and `check` (from files to model), `moves` and `chains`
//! (operators, and what follows from what they emit), `meaning` (its hash), `compare` (an older
//! catalogue with a newer one), `stored` (a user's files in the log), `lookup` (by name and alias),
//! `deliver` (from an event to its channels), `routes` (from an event to operators), and `page`
//! (the reference page). Adding a type is one entry in one file, no code.

mod chains;
mod check;
mod compare;
mod deliver;
mod errors;
mod files;
mod ingress;
mod load;
mod lookup;
mod meaning;
mod model;
mod moves;
mod notation;
mod own;
mod page;
mod routes;
mod stored;
#[cfg(test)]
mod tests;

pub use chains::HOPS_MAX;
pub use compare::{Comparison, compare};
pub(crate) use deliver::EnvelopeIds;
pub use deliver::{Delivery, DeliveryError, FieldLookup, OPERATOR_SOURCE};
pub use errors::CatalogueErrors;
pub use files::FILES;
pub use lookup::Catalogue;
pub use model::{
    Alias, ChannelKind, ChannelRule, Class, Condition, DeliveryPolicy, EventType, Field,
    FieldDefault, FieldKind, KeyPart, Lift, Move, MoveKey, OperatorSpec, OwnFile, Predicate,
    ReaderRole, Rename, Source,
};
pub use page::{UPDATE_COMMAND, page};
pub use routes::{LIST_KEYS_MAX, OperatorRun, Routes};
pub use stored::{
    InvalidStored, STORED_MAX_BYTES, STORED_MAX_FILES, decode as decode_stored,
    encode as encode_stored,
};
