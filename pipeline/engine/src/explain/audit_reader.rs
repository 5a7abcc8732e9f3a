//! Reads records of `out.audit`: single ones, and ranges up to the present end.
//!
//! Only committed records are read, and open transactions are not waited for: what they hold is
//! explained once they are committed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::port::{Isolation, LogError, ReadLimit, Reader};
use crate::record::{Offset, Partition, Record, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::topology::Topology;
use crate::turn::repeat;

/// The most that is taken at a time.
const TAKE: ReadLimit = ReadLimit { records: 256, bytes: 4 << 20 };

/// One record.
const ONE: ReadLimit = ReadLimit { records: 1, bytes: 1 };

/// One wait for records that are known to exist.
const WAIT: Duration = Duration::from_millis(100);

/// Waits in a row without records, after which the read fails.
const WAITS_MAX: u32 = 300;

/// Bytes of records that are kept, since related entries are often in one record.
const KEPT_MAX_BYTES: usize = 32 << 20;

/// A reader of the audit.
pub(super) struct AuditReader<'a> {
    log: &'a ReadOnlyLog,
    topology: &'a Topology,
    reader: Box<dyn Reader>,
    kept: BTreeMap<(Partition, Offset), Record>,
    kept_bytes: usize,
}

impl<'a> AuditReader<'a> {
    pub(super) fn new(log: &'a ReadOnlyLog, topology: &'a Topology) -> Result<Self, LogError> {
        let reader = repeat(|| log.reader())?;
        Ok(Self { log, topology, reader, kept: BTreeMap::new(), kept_bytes: 0 })
    }

    /// A task's partition of the audit.
    pub(super) fn at(&self, partition: Partition) -> TopicPartition {
        TopicPartition::new(self.topology.out_audit(), partition)
    }

    /// The record at an offset; `None` if retention has removed it.
    pub(super) fn record(
        &mut self,
        partition: Partition,
        offset: Offset,
    ) -> Result<Option<Record>, LogError> {
        if let Some(record) = self.kept.get(&(partition, offset)) {
            return Ok(Some(record.clone()));
        }
        let mut found = None;
        self.read(partition, (offset, offset.next()), &mut |record| {
            found = (record.offset == offset).then_some(record);
            false
        })?;
        if let Some(record) = &found {
            if self.kept_bytes > KEPT_MAX_BYTES {
                self.kept.clear();
                self.kept_bytes = 0;
            }
            self.kept_bytes += record.size();
            self.kept.insert((partition, offset), record.clone());
        }
        Ok(found)
    }

    /// Visits the records of a range that are committed, until `visit` returns `false`; returns the
    /// position after the last. What retention has removed is skipped.
    pub(super) fn read(
        &mut self,
        partition: Partition,
        (from, to): (Offset, Offset),
        visit: &mut dyn FnMut(Record) -> bool,
    ) -> Result<Offset, LogError> {
        let at = self.at(partition);
        let bounds = repeat(|| self.log.bounds(&at, Isolation::Committed))?;
        let (from, end) = (from.max(bounds.start), to.min(bounds.end));
        if from >= end {
            return Ok(from);
        }
        let slot = repeat(|| self.reader.add(&at, from))?;
        let limit = if end.0 - from.0 == 1 { ONE } else { TAKE };
        let (mut waits, mut taken, mut position) = (0, Vec::new(), from);
        'read: while position < end {
            if repeat(|| self.reader.take(slot, limit, &mut taken))? == 0 {
                // Control records are passed without a record.
                position = repeat(|| self.reader.position(slot))?;
                if position >= end {
                    break;
                }
                if waits == WAITS_MAX {
                    let text = format!("{at} returned no records for half a minute");
                    return Err(LogError::Retry(text.into()));
                }
                waits += 1;
                repeat(|| self.reader.wait(WAIT))?;
                continue;
            }
            waits = 0;
            for record in taken.drain(..) {
                if record.offset >= end {
                    position = end;
                    break 'read;
                }
                position = record.offset.next();
                if !visit(record) {
                    break 'read;
                }
            }
        }
        self.reader.remove(slot);
        Ok(position)
    }
}
