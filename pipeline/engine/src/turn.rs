//! What every loop has in common: one turn, what it did, and how it fails.
//!
//! The one idea: a loop is a value with a `turn`; the app's thread repeats it and acts on nothing
//! but the variant of an error. `Retry` is answered by making the loop anew, which starts from what
//! the log says was committed; `Fatal` by stopping the process.
//!
//! Nothing here sleeps, spawns or reads a clock.

use crate::port::{Cause, LogError, StoreError};

/// Times a call that says "again" is repeated before its loop gives up and starts anew. The
/// connectors wait between attempts, so this bounds work, not time.
pub const MAX_REPEATS: u32 = 50;

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnOutcome {
    /// Records taken from the log and committed.
    pub taken: usize,
    /// Records written.
    pub written: usize,
    /// Whether the loop has partitions it is still restoring.
    pub restoring: bool,
    /// Whether the group has said which partitions are this loop's, be it none.
    pub joined: bool,
}

/// How a loop fails.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Drop the loop and make it anew: it starts from the committed offsets.
    #[error("{doing}: starting again from the committed offsets")]
    Retry {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// The process can't go on; the text says what to do.
    #[error("{doing}: {source}")]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Cause,
    },
}

impl EngineError {
    /// Sorts a log's failure by what the thread has to do.
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

/// Repeats a call for as long as it says that it may be repeated.
pub(crate) fn repeat<T>(mut call: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    for _ in 1..MAX_REPEATS {
        match call() {
            Err(LogError::Retry(_)) => {}
            done => return done,
        }
    }
    call()
}
