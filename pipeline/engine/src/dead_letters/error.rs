//! How listing and resolving dead letters fail.

use crate::port::LogError;

/// Letters in one index: some 60 MB of memory.
pub(super) const LIST_MAX: usize = 1_000_000;

/// Why letters could not be read or resolved.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// More than an index holds.
    #[error("more than {LIST_MAX} letters match; narrow them down by reason, source or time")]
    TooMany,
    /// Somebody else requeues or drops.
    #[error(
        "another requeue or drop took over after {done} letters of this one; what was done stays \
         done, run it again for the rest"
    )]
    TakenOver {
        /// Letters resolved before.
        done: u64,
    },
    /// The log failed.
    #[error("the log failed after {done} letters; what was done stays done, run it again")]
    Log {
        /// Letters resolved before.
        done: u64,
        /// How.
        #[source]
        source: LogError,
    },
}

impl From<LogError> for DeadLettersError {
    fn from(source: LogError) -> Self {
        Self::Log { done: 0, source }
    }
}
