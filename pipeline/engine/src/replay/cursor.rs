//! Reads a partition record by record, to an end that is fixed when reading begins.
//!
//! The end is the uncommitted one: everything committed by then is below it, and transactions that
//! are open in between are waited for. Each cursor has its own reader, so only its own records wake
//! it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::port::{Bounds, Isolation, LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{Offset, Record, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::turn::repeat;

/// The most records fetched at a time.
const FETCH: ReadLimit = ReadLimit { records: 1_024, bytes: 1 << 20 };

/// One wait for records that are known to exist.
const WAIT: Duration = Duration::from_millis(100);

/// Waits in a row without records, after which the read fails: longer than the transaction of
/// another process may stay open.
const WAITS_MAX: u32 = 600;

/// A read position in a partition.
pub(super) struct PartitionCursor {
    pub(super) at: TopicPartition,
    reader: Box<dyn Reader>,
    slot: ReaderSlot,
    end: Offset,
    ahead: VecDeque<Record>,
    taken: Vec<Record>,
}

/// The start of a partition, and the end of everything committed by now.
pub(super) fn bounds(log: &ReadOnlyLog, at: &TopicPartition) -> Result<Bounds, LogError> {
    let start = repeat(|| log.bounds(at, Isolation::Committed))?.start;
    let end = repeat(|| log.bounds(at, Isolation::Uncommitted))?.end;
    Ok(Bounds { start, end })
}

impl PartitionCursor {
    /// Starts at an offset. `OutOfRange` if retention has removed it.
    pub(super) fn open(
        log: &ReadOnlyLog,
        at: &TopicPartition,
        from: Offset,
    ) -> Result<Self, LogError> {
        let end = bounds(log, at)?.end;
        let mut reader = repeat(|| log.reader())?;
        let slot = repeat(|| reader.add(at, from))?;
        let (ahead, taken) = (VecDeque::new(), Vec::new());
        Ok(Self { at: at.clone(), reader, slot, end, ahead, taken })
    }

    /// The next record; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<&Record>, LogError> {
        if self.ahead.is_empty() {
            self.fetch()?;
        }
        Ok(self.ahead.front())
    }

    /// Returns the next record and moves past it.
    pub(super) fn next(&mut self) -> Result<Option<Record>, LogError> {
        if self.ahead.is_empty() {
            self.fetch()?;
        }
        Ok(self.ahead.pop_front())
    }

    fn fetch(&mut self) -> Result<(), LogError> {
        let mut waits = 0;
        while self.ahead.is_empty() && repeat(|| self.reader.position(self.slot))? < self.end {
            if repeat(|| self.reader.take(self.slot, FETCH, &mut self.taken))? == 0 {
                if waits == WAITS_MAX {
                    let text = format!("{} returned no records for a minute", self.at);
                    return Err(LogError::Retry(text.into()));
                }
                waits += 1;
                repeat(|| self.reader.wait(WAIT))?;
            }
            let end = self.end;
            self.ahead.extend(self.taken.drain(..).filter(|record| record.offset < end));
        }
        Ok(())
    }
}
