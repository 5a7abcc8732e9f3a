//! How a transaction fails, by what has to happen next.

use crate::port::{LogError, StoreError};
use crate::turn::EngineError;

/// Why a cycle did not end in a commit.
#[derive(Debug)]
pub(super) enum CommitFailure {
    /// Nothing was committed: abort, and take the same records again.
    Abort(LogError),
    /// Nobody knows: initialise the transactional ids again and restore.
    Unknown(LogError),
    /// The loop ends.
    Stop(EngineError),
}

impl CommitFailure {
    /// Of a call inside the transaction, before its commit.
    pub(super) fn before_commit(doing: &'static str, error: LogError) -> Self {
        match error {
            LogError::Retry(_) | LogError::Abort(_) => Self::Abort(error),
            LogError::Unknown(_) => Self::Unknown(error),
            _ => Self::Stop(EngineError::of_log(doing, error)),
        }
    }

    /// Of the commit itself: a call that went on asking to be repeated may have done its work.
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
