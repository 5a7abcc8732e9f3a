//! The port to a schema registry: finds the schema of an id in Confluent's framing.
//!
//! Only the question and its answers are here. The HTTP client, its retries and its cache are a
//! connector.

use std::fmt::Debug;
use std::sync::Arc;

use super::writer::WriterSchema;

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
    /// The registry gave no usable answer, retries included.
    #[error("{0}")]
    Unavailable(String),
    /// The schema is invalid, too large or of an unsupported kind.
    #[error("{0}")]
    Unusable(String),
}
