//! The contract of every loop: what one turn reports and which errors end the loop or the process.
//!
//! A loop is a value with a `turn`, which a thread of the process repeats. The thread acts only on
//! the variant of an error: after `Retry` it rebuilds the loop, which starts from the committed
//! offsets; after `Fatal` it stops the process.
//!
//! Nothing here sleeps, spawns or reads a clock.

use crate::port::{Cause, LogError, StoreError};

/// Attempts of a call that fails with [`LogError::Retry`] before its loop is rebuilt. The
/// connectors wait between attempts, so this bounds work, not time.
pub const MAX_REPEATS: u32 = 50;

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnOutcome {
    /// Records read from the log and committed.
    pub taken: usize,
    /// Records written.
    pub written: usize,
    /// Whether partitions of the loop are still being restored.
    pub restoring: bool,
    /// Whether the group has assigned this loop its partitions, even if none.
    pub joined: bool,
}

/// A loop's failure, by what its thread does next.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Rebuild the loop: it starts from the committed offsets.
    #[error("{doing} failed; the loop starts again from the committed offsets")]
    Retry {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// Stop the process; the source says what to do.
    #[error("{doing}: {source}")]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Cause,
    },
}

impl EngineError {
    /// Classifies a failure of the log by what the thread does next.
    pub(crate) fn of_log(doing: &'static str, error: LogError) -> Self {
        match error {
            LogError::Invalid(_) | LogError::Fatal(..) | LogError::OutOfRange { .. } => {
                Self::Fatal { doing, source: Box::new(error) }
            }
            _ => Self::Retry { doing, source: Box::new(error) },
        }
    }

    /// A store's failure ends the process: a disk that is full or broken stays so.
    pub(crate) fn of_store(doing: &'static str, error: StoreError) -> Self {
        Self::Fatal { doing, source: Box::new(error) }
    }
}

/// Repeats a call while it fails with [`LogError::Retry`], up to [`MAX_REPEATS`] times.
pub(crate) fn repeat<T>(mut call: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    for _ in 1..MAX_REPEATS {
        match call() {
            Err(LogError::Retry(_)) => {}
            done => return done,
        }
    }
    call()
}
