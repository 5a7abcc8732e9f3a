//! Explains an event: what was decided about it, what it caused, and what that caused in turn.
//!
//! Everything is read from `out.audit` ([`crate::derive::audit`]). A local index says which of its
//! records name an event, a timer or an update; it is brought up to date before each question, and
//! can be removed at any time. Nothing is written to the log.
//!
//! An answer is JSON, since it is passed on by HTTP.

mod audit_reader;
mod cause_chain;
mod effect_list;
mod index;
mod tree;

pub use index::{IndexState, UpdateRequest, update_index};
pub use tree::{ExplainQuery, NODES_MAX, explain};

use crate::port::{LogError, StoreError};

/// Why an event could not be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The log failed.
    #[error("the audit could not be read")]
    Log(#[from] LogError),
    /// The index failed.
    #[error("the index of the audit could not be read or written")]
    Index(#[from] StoreError),
    /// There is no audit; the text says what to do.
    #[error("{0}")]
    NoAudit(String),
}
