//! The port to a schema registry: finds the schema of an id in Confluent's framing.
//!
//! Only the question and its answers are here. The HTTP client, its retries and its cache are a
//! connector.

use std::fmt::Debug;
use std::sync::Arc;

use super::writer::WriterSchema;
use crate::envelope::Reason;

/// A schema registry, queried by the schema id of a record.
pub trait Registry: Debug + Send + Sync {
    /// The schema of an id. Blocks for a bounded time, retries included. Answers are cached, so a
    /// known schema costs a look-up.
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault>;

    /// The same for a schema's GUID, big-endian, which some producers send instead of the id.
    fn schema_by_guid(&self, guid: u128) -> Result<Arc<WriterSchema>, RegistryFault>;
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

impl RegistryFault {
    /// The reason of a record that needs the schema.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Unknown(_) => Reason::SchemaUnknown,
            Self::Unavailable(_) => Reason::RegistryUnavailable,
            Self::Unusable(_) => Reason::AvroDecode,
        }
    }
}

/// A GUID as text, such as `0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0`.
pub fn guid_text(guid: u128) -> String {
    let hex = format!("{guid:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}
