//! The port to a schema registry: finds the schema of an id in Confluent's framing.
//!
//! Only the question and its answers are here. The HTTP client, its retries and its cache are a
//! connector.

use std::fmt::Debug;
use std::sync::Arc;

use super::writer::WriterSchema;
use crate::envelope::Rejection;

/// A schema registry, queried by the schema id of a record.
pub trait Registry: Debug + Send + Sync {
    /// The schema of an id. Blocks for a bounded time, retries included. Answers are cached, so a
    /// known schema costs a look-up.
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault>;
}

/// Why there is no schema for an id. Each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryFault {
    /// The registry does not have the id.
    #[error("{0}")]
    Unknown(String),
    /// The registry can't be asked now: it does not answer, fails, limits us or rejects our login.
    /// Says nothing about the schema, so it may be asked again later.
    #[error("{0}")]
    Unavailable(String),
    /// The schema or one it references is missing, invalid, too large or of an unsupported kind.
    #[error("{0}")]
    Unusable(String),
}

/// A schema that the registry can't be asked for now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema {id} can't be looked up: {why}")]
pub struct SchemaUnavailable {
    /// The schema's id.
    pub id: u32,
    /// Why the registry can't be asked, and what to do.
    pub why: String,
}

/// Why a record did not become an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitFailure {
    /// It can't become one.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It may be valid: the same record can be decoded once the registry answers.
    #[error(transparent)]
    Waits(#[from] SchemaUnavailable),
}
