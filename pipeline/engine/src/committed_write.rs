//! Writes a few records in one transaction, under a transactional id that only such writes use.
//!
//! For the records of `catalogues`. The caller has taken the id over, and has read what its former
//! holders committed.

use crate::port::{LogError, Transactor};
use crate::record::Outgoing;

/// Writes records all or none. If the outcome is unknown or another process took the id over, the
/// call may be repeated from taking over the id on, which decides the outcome.
pub(crate) fn write_committed(
    transactor: &mut dyn Transactor,
    records: &[Outgoing],
) -> Result<(), LogError> {
    match write(transactor, records) {
        Err(error @ (LogError::Abort(_) | LogError::Unknown(_) | LogError::Fenced(_))) => {
            Err(LogError::Retry(Box::new(error)))
        }
        written => written,
    }
}

fn write(transactor: &mut dyn Transactor, records: &[Outgoing]) -> Result<(), LogError> {
    transactor.begin()?;
    transactor.append(records)?;
    transactor.drain()?;
    transactor.commit().map(drop)
}
