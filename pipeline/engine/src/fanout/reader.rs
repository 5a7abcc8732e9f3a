//! The hub reader: follows the end of the output topics, all partitions, and fills the rings.
//!
//! Within a partition number the urgent topic is read first and the state topic last. The order of
//! reading is the hub's order, the same for every connection that follows. A value that is no event
//! is counted and skipped, never a reason to stop. If retention removes records before they are
//! read, the ring is emptied and its followers find the gap through the log; of the state topic's
//! records the log is not asked, so there is no gap.
//!
//! The first reader starts a little before the log's end, but at the end of the state topic: older
//! changes are in the snapshot that a subscription to state begins with.
//!
//! A reader that replaces a failed one continues where that one published last, so no record is
//! missing from the rings and none is in them twice. If the topics were created again, or the log
//! ends before what was read, it resets the rings to the log's end: the offsets that clients have
//! mean nothing there.

use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::offsets::{PartitionOffsets, STATE_TOPIC, TOPICS};
use super::segment::{SegmentEntry, SegmentSpec};
use crate::port::{Isolation, Log, LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{Offset, Partition, Record};
use crate::telemetry;
use crate::turn::EngineError;

/// Follows the output topics. One per process; the app's thread repeats [`HubReader::turn`].
pub struct HubReader {
    hub: Arc<Hub>,
    reader: Box<dyn Reader>,
    partitions: Vec<PartitionReader>,
    taken: Vec<Record>,
    encodes_reported: u64,
}

/// One partition number, read from all output topics.
struct PartitionReader {
    slots: [ReaderSlot; TOPICS],
    at: PartitionOffsets,
    /// The topics' ends at start: the partition is warm once it is read up to here.
    warm_at: PartitionOffsets,
}

impl HubReader {
    /// Continues where the reader before this one was; the first one starts a little before the
    /// log's end, so that the rings are warm.
    pub fn open(log: &dyn Log, hub: &Arc<Hub>) -> Result<Self, EngineError> {
        let open = || -> Result<Self, LogError> {
            let next_epoch = hub.next_epoch();
            let mut reader = log.reader(Isolation::Committed)?;
            let mut partitions = Vec::new();
            for partition in (0..hub.partitions()).map(Partition) {
                let start = match (next_epoch, hub.head(partition)) {
                    (Some(_), _) => ReaderStart::End,
                    (None, Some(head)) => ReaderStart::Head(head),
                    (None, None) => ReaderStart::Warm,
                };
                let of = PartitionToOpen { log, hub, partition };
                partitions.push(open_partition(of, &mut *reader, start)?);
            }
            if let Some(epoch) = next_epoch {
                let heads = partitions.iter().zip(0..).map(|(p, n)| (Partition(n), p.at));
                hub.reset(epoch, &heads.collect::<Vec<_>>());
                telemetry::hub_reset("topics");
            }
            Ok(Self {
                hub: Arc::clone(hub),
                reader,
                partitions,
                taken: Vec::new(),
                encodes_reported: 0,
            })
        };
        open().map_err(|e| EngineError::of_log("starting the hub reader", e))
    }

    /// Waits at most `at_most` for records, publishes all that are ready and wakes the shards.
    /// Returns how many records it read.
    pub fn turn(&mut self, at_most: Duration) -> Result<usize, EngineError> {
        if self.hub.next_epoch().is_some() {
            return Err(EngineError::Retry {
                doing: "reading the output topics",
                source: "the topics were created again; subscribers get a gap".into(),
            });
        }
        self.try_turn(at_most).map_err(|e| EngineError::of_log("reading the output topics", e))
    }

    fn try_turn(&mut self, at_most: Duration) -> Result<usize, LogError> {
        let mut taken = self.take_all()?;
        if taken == 0 {
            self.reader.wait(at_most)?;
            taken = self.take_all()?;
        }
        if taken > 0 {
            self.evict();
            self.hub.wake_shards();
            telemetry::hub_records(taken as u64);
        }
        self.report();
        Ok(taken)
    }

    /// Publishes one segment of every partition that has records. Returns how many records were
    /// read; a partition whose offsets moved on without a record, as past control records, counts
    /// as 1.
    fn take_all(&mut self) -> Result<usize, LogError> {
        let mut taken = 0;
        for partition in (0..self.hub.partitions()).map(Partition) {
            taken += self.take_partition(partition)?;
        }
        if !self.hub.warm() && self.partitions.iter().all(|p| p.at.reaches(&p.warm_at)) {
            self.hub.set_warm();
        }
        Ok(taken)
    }

    fn take_partition(&mut self, partition: Partition) -> Result<usize, LogError> {
        let before = self.partitions[partition.0 as usize].at;
        let mut at = before;
        let mut entries = Vec::new();
        let mut passed = 0;
        for topic in 0..TOPICS {
            match self.take_topic(partition, topic) {
                Ok(()) => {}
                Err(LogError::OutOfRange { asked, start, end, .. }) => {
                    return match asked > end {
                        true => self.reset(partition, topic, end),
                        false => self.skip_lost(partition, topic, start),
                    };
                }
                Err(error) => return Err(error),
            }
            for record in self.taken.drain(..) {
                at.0[topic] = record.offset.next().0;
                let entry = match topic {
                    STATE_TOPIC => SegmentEntry::state(record, at),
                    _ => SegmentEntry::new(topic, record, at),
                };
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(_) => passed += 1,
                }
            }
            let position =
                self.reader.position(self.partitions[partition.0 as usize].slots[topic])?;
            at.0[topic] = at.0[topic].max(position.0);
        }
        if at == before {
            return Ok(0);
        }
        if passed > 0 {
            telemetry::hub_undecodable(passed);
        }
        let taken = entries.len().max(1);
        self.partitions[partition.0 as usize].at = at;
        let epoch = self.hub.epoch();
        let spec = SegmentSpec { seq: 0, partition, before, after: at, epoch, entries };
        self.hub.publish(spec);
        Ok(taken)
    }

    fn take_topic(&mut self, partition: Partition, topic: usize) -> Result<(), LogError> {
        let config = self.hub.config();
        let limit = ReadLimit { records: config.take_max_records, bytes: config.take_max_bytes };
        let slot = self.partitions[partition.0 as usize].slots[topic];
        self.reader.take(slot, limit, &mut self.taken)?;
        Ok(())
    }

    /// Retention overtook the reader: its ring starts again after the loss. Connections that
    /// followed learn from the log that records are gone, and announce a gap.
    fn skip_lost(
        &mut self,
        partition: Partition,
        topic: usize,
        start: u64,
    ) -> Result<usize, LogError> {
        let at = self.seek(partition, topic, start)?;
        telemetry::hub_overtaken();
        self.hub.restart(partition, at);
        Ok(1)
    }

    /// The log ends before what was read: a broker lost records, or the topics were created again.
    fn reset(&mut self, partition: Partition, topic: usize, end: u64) -> Result<usize, LogError> {
        let at = self.seek(partition, topic, end)?;
        telemetry::hub_reset("log_end");
        self.hub.suspect_topics();
        self.hub.reset(self.hub.epoch(), &[(partition, at)]);
        Ok(1)
    }

    /// Continues a topic of a partition elsewhere; returns the partition's offsets.
    fn seek(
        &mut self,
        partition: Partition,
        topic: usize,
        to: u64,
    ) -> Result<PartitionOffsets, LogError> {
        self.taken.clear();
        let partition_reader = &mut self.partitions[partition.0 as usize];
        // Records of the other topics from this turn are read again: their offsets have not moved.
        for (t, slot) in partition_reader.slots.into_iter().enumerate() {
            let to = if t == topic { to } else { partition_reader.at.0[t] };
            self.reader.seek(slot, Offset(to))?;
        }
        partition_reader.at.0[topic] = to;
        Ok(partition_reader.at)
    }

    fn evict(&mut self) {
        while self.hub.ring_bytes() > self.hub.config().ring_max_bytes {
            if !self.hub.evict_oldest() {
                return;
            }
        }
    }

    fn report(&mut self) {
        let encodes = self.hub.encodes();
        telemetry::frames_encoded(encodes - self.encodes_reported);
        self.encodes_reported = encodes;
        telemetry::ring_bytes(self.hub.ring_bytes());
    }
}

/// Where a partition's reader starts.
#[derive(Clone, Copy, Debug)]
enum ReaderStart {
    /// A little before the log's end.
    Warm,
    /// Where the reader before it was.
    Head(PartitionOffsets),
    /// At the log's end.
    End,
}

/// A partition to open, with its log and its hub.
#[derive(Clone, Copy)]
struct PartitionToOpen<'a> {
    log: &'a dyn Log,
    hub: &'a Hub,
    partition: Partition,
}

fn open_partition(
    of: PartitionToOpen<'_>,
    reader: &mut dyn Reader,
    start: ReaderStart,
) -> Result<PartitionReader, LogError> {
    let PartitionToOpen { log, hub, partition } = of;
    let mut at = PartitionOffsets::default();
    let mut warm_at = PartitionOffsets::default();
    let mut slots = [ReaderSlot(0); TOPICS];
    let (mut is_lost, mut is_beyond) = (false, false);
    for (topic, slot) in slots.iter_mut().enumerate() {
        let tp = hub.topic_partition(topic, partition);
        let bounds = log.bounds(&tp, Isolation::Committed)?;
        at.0[topic] = match start {
            ReaderStart::Warm if topic == STATE_TOPIC => bounds.end.0,
            ReaderStart::Warm => {
                bounds.end.0.saturating_sub(hub.config().warmup_records).max(bounds.start.0)
            }
            ReaderStart::Head(head) => head.0[topic],
            ReaderStart::End => bounds.end.0,
        };
        warm_at.0[topic] = bounds.end.0;
        *slot = match reader.add(&tp, Offset(at.0[topic])) {
            // Retention moved between the two calls: begin at the new start.
            Err(LogError::OutOfRange { asked, start, end, .. }) if asked <= end => {
                at.0[topic] = start;
                is_lost = true;
                reader.add(&tp, Offset(start))?
            }
            Err(LogError::OutOfRange { end, .. }) => {
                at.0[topic] = end;
                is_beyond = true;
                reader.add(&tp, Offset(end))?
            }
            other => other?,
        };
    }
    match start {
        ReaderStart::Head(_) if is_beyond => {
            telemetry::hub_reset("log_end");
            hub.suspect_topics();
            hub.reset(hub.epoch(), &[(partition, at)]);
        }
        ReaderStart::Head(_) if is_lost => hub.restart(partition, at),
        ReaderStart::Warm => hub.restart(partition, at),
        ReaderStart::Head(_) | ReaderStart::End => {}
    }
    Ok(PartitionReader { slots, at, warm_at })
}
