//! Failures of a DERIVE transaction, classified by what the loop does next.
//!
//! The classification differs before and at the commit: only a failed commit may have been carried
//! out.

use crate::port::{LogError, StoreError};
use crate::turn::EngineError;

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) enum CommitFailure {
    /// Nothing was committed: abort, and process the same records again.
    Abort(LogError),
    /// The outcome is unknown: initialise the transactional ids again and restore.
    Unknown(LogError),
    /// The loop ends with this error.
    Stop(EngineError),
}

impl CommitFailure {
    /// Classifies the failure of a call in the transaction, before its commit.
    pub(super) fn before_commit(doing: &'static str, error: LogError) -> Self {
        match error {
            LogError::Retry(_) | LogError::Abort(_) => Self::Abort(error),
            LogError::Unknown(_) => Self::Unknown(error),
            _ => Self::Stop(EngineError::of_log(doing, error)),
        }
    }

    /// Classifies the failure of the commit itself. A commit that failed with [`LogError::Retry`]
    /// until its repeats ran out may have been carried out.
    pub(super) fn of_commit(error: LogError) -> Self {
        match error {
            LogError::Retry(_) | LogError::Unknown(_) => Self::Unknown(error),
            LogError::Abort(_) => Self::Abort(error),
            _ => Self::Stop(EngineError::of_log("committing", error)),
        }
    }
}

impl From<StoreError> for CommitFailure {
    fn from(error: StoreError) -> Self {
        Self::Stop(EngineError::of_store("reading a task's state", error))
    }
}

impl From<EngineError> for CommitFailure {
    fn from(error: EngineError) -> Self {
        Self::Stop(error)
    }
}
