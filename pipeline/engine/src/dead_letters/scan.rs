//! Reads a range of the dead-letter topic to an end that is fixed before reading.
//!
//! Every record that is acknowledged by then is below the end, also those in open transactions;
//! they are waited for. So a resolution record can't be missed behind another process's
//! transaction.

use std::time::Duration;

use crate::port::{Bounds, Isolation, Log, LogError, ReadLimit, Reader};
use crate::record::{Offset, Partition, Record, TopicPartition};
use crate::topology::Topology;
use crate::turn::repeat;

/// The most records taken at a time.
const TAKE: ReadLimit = ReadLimit { records: 2_048, bytes: 4 << 20 };

/// One wait for records that are known to exist.
const WAIT: Duration = Duration::from_millis(100);

/// Waits in a row without records, after which the read fails: longer than the transaction of
/// another process may stay open.
const WAITS_MAX: u32 = 600;

/// A reader of dead letters.
pub(super) struct Scan<'a> {
    log: &'a dyn Log,
    topology: &'a Topology,
    reader: Box<dyn Reader>,
    taken: Vec<Record>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(log: &'a dyn Log, topology: &'a Topology) -> Result<Self, LogError> {
        let reader = repeat(|| log.reader(Isolation::Committed))?;
        Ok(Self { log, topology, reader, taken: Vec::new() })
    }

    /// The present start and end of a partition.
    pub(super) fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        let at = self.at(partition);
        let start = repeat(|| self.log.bounds(&at, Isolation::Committed))?.start;
        let end = repeat(|| self.log.bounds(&at, Isolation::Uncommitted))?.end;
        Ok(Bounds { start, end })
    }

    /// Visits the records of a range in order; skips records that retention removed meanwhile.
    pub(super) fn read(
        &mut self,
        partition: Partition,
        range: Bounds,
        visit: &mut dyn FnMut(Record) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        if range.start >= range.end {
            return Ok(());
        }
        let at = self.at(partition);
        let slot = match repeat(|| self.reader.add(&at, range.start)) {
            Err(LogError::OutOfRange { start, .. }) if start > range.start.0 => {
                let rest = Bounds { start: Offset(start), end: range.end };
                return self.read(partition, rest, visit);
            }
            added => added?,
        };
        let mut waits = 0;
        while repeat(|| self.reader.position(slot))? < range.end {
            self.taken.clear();
            let (reader, taken) = (&mut self.reader, &mut self.taken);
            match repeat(|| reader.take(slot, TAKE, taken)) {
                Ok(0) if waits == WAITS_MAX => {
                    return Err(LogError::Retry(
                        format!("{at} returned no records for a minute").into(),
                    ));
                }
                Ok(0) => {
                    waits += 1;
                    repeat(|| reader.wait(WAIT))?;
                }
                Ok(_) => waits = 0,
                Err(LogError::OutOfRange { asked, start, .. }) if asked < start => {
                    reader.seek(slot, Offset(start))?;
                }
                Err(error) => return Err(error),
            }
            for record in self.taken.drain(..).filter(|record| record.offset < range.end) {
                visit(record)?;
            }
        }
        self.reader.remove(slot);
        Ok(())
    }

    fn at(&self, partition: Partition) -> TopicPartition {
        TopicPartition::new(self.topology.dead_letters(), partition)
    }
}
