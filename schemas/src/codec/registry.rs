//! What a schema id of Confluent's framing stands for, asked of whoever can ask a schema registry.
//!
//! Only the question and its answers are here; the client that carries it is a connector.

use std::fmt::Debug;
use std::sync::Arc;

use super::writer::WriterSchema;

/// A schema registry, asked by the id that stands in a record.
pub trait Registry: Debug + Send + Sync {
    /// The schema of an id. Blocks for a bounded time, retries included; answers are remembered, so
    /// that a record whose schema is known costs a look-up.
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault>;
}

/// Why there is no schema to an id. Each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryFault {
    /// The registry does not have the id.
    #[error("{0}")]
    Unknown(String),
    /// The registry did not answer, or not with a schema, retries included.
    #[error("{0}")]
    Unavailable(String),
    /// The schema can't be used here: it is no schema, too large, or of a kind not read.
    #[error("{0}")]
    Unusable(String),
}
