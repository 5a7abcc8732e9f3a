//! Reads what is committed in a partition, up to its end at the beginning of the read.
//!
//! For the few records of `catalogues`, which a start needs whole. An open transaction is not
//! waited for: a dead process may have left it, and taking over its transactional id decides it.

use std::time::Duration;

use crate::port::{Bounds, Isolation, Log, LogError, ReadLimit};
use crate::record::{Record, TopicPartition};

/// The most records taken at a time.
const TAKE: ReadLimit = ReadLimit { records: 1_024, bytes: 4 << 20 };

/// One wait for records that are known to exist.
const WAIT: Duration = Duration::from_millis(100);

/// Waits after which the read fails, so that the caller can report it and try again.
const WAITS_MAX: u32 = 100;

/// Visits the committed records of a partition in order.
pub(crate) fn read_committed(
    log: &dyn Log,
    at: &TopicPartition,
    mut visit: impl FnMut(&Record),
) -> Result<(), LogError> {
    let Bounds { start, end } = log.bounds(at, Isolation::Committed)?;
    if start >= end {
        return Ok(());
    }
    let mut reader = log.reader(Isolation::Committed)?;
    let slot = reader.add(at, start)?;
    let (mut taken, mut waits) = (Vec::new(), 0);
    while reader.position(slot)? < end {
        if reader.take(slot, TAKE, &mut taken)? == 0 {
            if waits == WAITS_MAX {
                return Err(LogError::Retry(format!("{at} returned no records").into()));
            }
            waits += 1;
            reader.wait(WAIT)?;
        }
        taken.iter().for_each(&mut visit);
        taken.clear();
    }
    Ok(())
}
