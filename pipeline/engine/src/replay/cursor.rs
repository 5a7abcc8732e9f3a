//! A partition read record by record, to an end that is fixed when the reading begins.
//!
//! The end is asked uncommitted: everything committed by then is below it, and whoever has a
//! transaction open in between is waited for. Each cursor has a reader of its own, so that its wait
//! is ended by its own records only.

use std::collections::VecDeque;
use std::time::Duration;

use crate::port::{Bounds, Isolation, LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{Offset, Record, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::turn::repeat;

/// What is fetched at a time.
const FETCH: ReadLimit = ReadLimit { records: 1_024, bytes: 1 << 20 };

/// One wait for records that must come.
const WAIT: Duration = Duration::from_millis(100);

/// Waits in a row that brought nothing, after which the log is said not to answer: longer than the
/// transaction of somebody else may stay open.
const WAITS_MAX: u32 = 600;

/// A place in a partition.
pub(super) struct PartitionCursor {
    pub(super) at: TopicPartition,
    reader: Box<dyn Reader>,
    slot: ReaderSlot,
    end: Offset,
    ahead: VecDeque<Record>,
    taken: Vec<Record>,
}

/// Where a partition starts, and where everything committed by now ends.
pub(super) fn bounds(log: &ReadOnlyLog, at: &TopicPartition) -> Result<Bounds, LogError> {
    let start = repeat(|| log.bounds(at, Isolation::Committed))?.start;
    let end = repeat(|| log.bounds(at, Isolation::Uncommitted))?.end;
    Ok(Bounds { start, end })
}

impl PartitionCursor {
    /// Reads on from an offset. `OutOfRange` if retention has taken it.
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

    /// Passes the next record.
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
                    let text = format!("{} gave nothing for a minute", self.at);
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
