//! Errors of listing and resolving dead letters.

use crate::port::LogError;

/// The most dead letters of one listing: some 60 MB of memory.
pub(super) const LIST_MAX: usize = 1_000_000;

/// Why dead letters could not be read or resolved.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// More dead letters match than a listing holds.
    #[error("more than {LIST_MAX} dead letters match; select fewer by reason, source or time")]
    TooMany,
    /// Another process requeues or drops.
    #[error(
        "another requeue or drop took over after {done} dead letters; these stay resolved, run it \
         again for the rest"
    )]
    TakenOver {
        /// Dead letters resolved before.
        done: u64,
    },
    /// The log failed.
    #[error(
        "the log failed after {done} dead letters; these stay resolved, run it again for the rest"
    )]
    Log {
        /// Dead letters resolved before.
        done: u64,
        /// The error.
        #[source]
        source: LogError,
    },
}

impl From<LogError> for DeadLettersError {
    fn from(source: LogError) -> Self {
        Self::Log { done: 0, source }
    }
}
