//! The port to a schema registry: finds the schema of an id in Confluent's framing.
//!
//! Only the question and its answers are here. The HTTP client, its retries and its cache are a
//! connector.

use std::fmt::{self, Debug};
use std::sync::Arc;

use super::writer::WriterSchema;
use crate::envelope::{Reason, Rejection};

/// A schema registry, queried by the schema id of a record.
pub trait Registry: Debug + Send + Sync {
    /// The schema of an id. Blocks for a bounded time, retries included. Answers are cached, so a
    /// known schema costs a look-up.
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault>;

    /// The same for a schema's GUID, big-endian, which some producers send instead of the id.
    fn schema_by_guid(&self, guid: u128) -> Result<Arc<WriterSchema>, RegistryFault>;

    /// The same for either.
    fn schema_of(&self, key: SchemaKey) -> Result<Arc<WriterSchema>, RegistryFault> {
        match key {
            SchemaKey::Id(id) => self.schema(id),
            SchemaKey::Guid(guid) => self.schema_by_guid(guid),
        }
    }
}

/// How a record names its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaKey {
    /// The number in Confluent's framing or in a header.
    Id(u32),
    /// The GUID in a header, big-endian.
    Guid(u128),
}

impl fmt::Display for SchemaKey {
    /// An id as a number, a GUID such as `0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(guid) => {
                let hex = format!("{guid:032x}");
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                f.write_str(&parts.join("-"))
            }
        }
    }
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

impl RegistryFault {
    /// What it means for a record that needs the schema. `reject` makes the rejection of its reason
    /// and cause.
    pub(super) fn failure(
        self,
        key: SchemaKey,
        reject: impl FnOnce(Reason, String) -> Rejection,
    ) -> AdmitFailure {
        match self {
            Self::Unknown(why) => reject(Reason::SchemaUnknown, why).into(),
            Self::Unusable(why) => reject(Reason::AvroDecode, why).into(),
            Self::Unavailable(why) => SchemaUnavailable { key, why }.into(),
        }
    }
}

/// A schema that the registry can't be asked for now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema {key} can't be looked up: {why}")]
pub struct SchemaUnavailable {
    /// The schema.
    pub key: SchemaKey,
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
