//! The index of the audit: which records of `out.audit` name an event, a timer or an update.
//!
//! ```text
//! table 1   kind byte (1 event, 2 link) · hash u64 · partition, 4 bytes · offset, 8 bytes
//!           → append time of the record, 8 bytes
//! progress  01 · id of the topic, 16 bytes · begin z (milliseconds) · per partition: next offset n
//! ```
//!
//! All numbers are big-endian, `n` and `z` are LEB128. A hash that two events share only costs a
//! look at a record. The index follows the log in steps of a bounded size. It begins again if the
//! topic was created again, or if an earlier time is asked for than it begins at. Rows of records
//! that retention has removed are dropped by their time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::id::hash128;

use super::ExplainError;
use super::audit_reader::AuditReader;
use crate::derive::audit::layout::{AuditCause, AuditItem, AuditPart};
use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::port::{
    Isolation, KeyRange, Store, StoreBatch, StoreError, StoreWrite, Stores, Table, TableExpiry,
    TableSpec,
};
use crate::record::{Millis, Offset, Partition, Record, TopicPartition, put_varint};
use crate::replay::ReadOnlyLog;
use crate::topology::Topology;
use crate::turn::repeat;

/// The table of the index.
const PLACES: Table = Table(1);

const TABLES: &[TableSpec] =
    &[TableSpec { table: PLACES, name: "audit", expiry: TableExpiry::ByValueTime }];

/// The only store of an index.
const STORE: Partition = Partition(0);

const VERSION: u8 = 1;

/// Bytes of the audit whose rows are written at once.
const BATCH_BYTES: usize = 4 << 20;

/// Records that are looked at for one event.
const FOUND_MAX: usize = 1_000;

/// What rows are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexKey<'a> {
    /// The id of an event.
    Event(&'a str),
    /// The link of a timer or update.
    Link(u64),
}

impl IndexKey<'_> {
    fn prefix(self) -> [u8; 9] {
        let (kind, hash) = match self {
            Self::Event(id) => (1, hash128("", id)),
            Self::Link(link) => {
                let mut hash = [0; 16];
                hash[..8].copy_from_slice(&link.to_be_bytes());
                (2, hash)
            }
        };
        let mut out = [kind; 9];
        out[1..].copy_from_slice(&hash[..8]);
        out
    }
}

/// How an index is brought up to date.
#[derive(Clone, Copy)]
pub struct UpdateRequest<'a> {
    /// The log.
    pub log: &'a ReadOnlyLog,
    /// The topics.
    pub topology: &'a Topology,
    /// Where a new index begins; `None`: with the oldest record.
    pub since: Option<Millis>,
    /// Bytes of the audit to read at most, in this call.
    pub bytes_max: usize,
}

/// How far an index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexState {
    /// Records that are not read yet.
    pub left: u64,
    /// Records of this call that this build can't read.
    pub unreadable: u64,
    /// Where it begins; `None`: with the oldest record.
    pub since: Option<Millis>,
    /// Whether it has found any record at all.
    pub is_empty: bool,
}

/// Brings an index up to date, as far as one call may.
pub fn update_index(
    stores: &dyn Stores,
    request: UpdateRequest<'_>,
) -> Result<IndexState, ExplainError> {
    let mut store = stores.open(STORE, TABLES)?;
    let topic = topic_id(request)?;
    let stored = store.progress()?.and_then(|stored| IndexProgress::decode(&stored));
    let progress = match stored.filter(|stored| stored.fits(topic, request)) {
        Some(progress) => progress,
        None => {
            store.close()?;
            stores.destroy(STORE)?;
            store = stores.open(STORE, TABLES)?;
            IndexProgress::begin(topic, request)?
        }
    };
    let mut update = IndexUpdate {
        store,
        progress,
        rows: BTreeMap::new(),
        read: 0,
        read_before: 0,
        state: IndexState::default(),
    };
    update.run(request)?;
    update.state.since = Some(Millis(update.progress.since)).filter(|since| since.0 > i64::MIN);
    update.store.close()?;
    Ok(update.state)
}

fn topic_id(request: UpdateRequest<'_>) -> Result<u128, ExplainError> {
    let topics = repeat(|| request.log.topics())?;
    let name = request.topology.out_audit();
    let found = topics.iter().find(|info| info.spec.topic == *name);
    found.map(|info| info.id).ok_or_else(|| {
        ExplainError::NoAudit(format!(
            "there is no topic {name}; check topics.prefix, or run `tidewire topics create`"
        ))
    })
}

/// Which records an index has read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IndexProgress {
    topic: u128,
    /// The time it begins at; the lowest: with the oldest record.
    since: i64,
    next: Vec<u64>,
}

impl IndexProgress {
    fn begin(topic: u128, request: UpdateRequest<'_>) -> Result<Self, ExplainError> {
        let mut next = Vec::new();
        for partition in (0..request.topology.partitions()).map(Partition) {
            let at = TopicPartition::new(request.topology.out_audit(), partition);
            let bounds = repeat(|| request.log.bounds(&at, Isolation::Committed))?;
            let from = match request.since {
                None => bounds.start,
                Some(since) => repeat(|| request.log.offset_at(&at, since))?.unwrap_or(bounds.end),
            };
            next.push(from.0);
        }
        Ok(Self { topic, since: request.since.map_or(i64::MIN, |since| since.0), next })
    }

    /// Whether it can go on.
    fn fits(&self, topic: u128, request: UpdateRequest<'_>) -> bool {
        let is_of_topic = self.topic == topic;
        let has_all = self.next.len() == request.topology.partitions() as usize;
        is_of_topic && has_all && request.since.is_none_or(|since| self.since <= since.0)
    }

    fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.topic.to_be_bytes());
        put_signed(&mut out, self.since);
        self.next.iter().for_each(|next| put_varint(&mut out, *next));
        out.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let topic = u128::from_be_bytes(*from.take(16)?.first_chunk()?);
        let (since, mut next) = (from.signed()?, Vec::new());
        while from.end().is_none() {
            next.push(from.varint()?);
        }
        Some(Self { topic, since, next })
    }
}

/// One call that brings an index up to date.
struct IndexUpdate {
    store: Box<dyn Store>,
    progress: IndexProgress,
    /// Rows that are not handed over yet, with the time of their record.
    rows: BTreeMap<[u8; 21], Millis>,
    /// Bytes read by this call.
    read: usize,
    /// Bytes whose rows are handed over.
    read_before: usize,
    state: IndexState,
}

impl IndexUpdate {
    fn run(&mut self, request: UpdateRequest<'_>) -> Result<(), ExplainError> {
        let mut reader = AuditReader::new(request.log, request.topology)?;
        let mut oldest: Option<Millis> = None;
        let mut ends = 0;
        for partition in (0..request.topology.partitions()).map(Partition) {
            let at = reader.at(partition);
            let bounds = repeat(|| request.log.bounds(&at, Isolation::Committed))?;
            ends += bounds.end.0;
            let first = reader.record(partition, bounds.start)?.map(|record| record.timestamp);
            oldest = oldest.into_iter().chain(first).min();
            let mut next = Offset(self.progress.next[partition.0 as usize]);
            while self.read < request.bytes_max && next < bounds.end {
                let until = request.bytes_max.min(self.read_before + BATCH_BYTES);
                next = reader.read(partition, (next, bounds.end), &mut |record| {
                    self.read += record.size();
                    self.add(partition, &record);
                    self.read < until
                })?;
                self.progress.next[partition.0 as usize] = next.0;
                self.hand_over()?;
            }
            self.state.left += bounds.end.0.saturating_sub(next.0);
        }
        self.state.is_empty = ends == 0;
        if let Some(oldest) = oldest {
            self.store.set_horizon(PLACES, oldest)?;
        }
        self.hand_over()
    }

    /// Adds the rows of a record.
    fn add(&mut self, partition: Partition, record: &Record) {
        let Ok(part) = AuditPart::decode(record.body.value().unwrap_or_default()) else {
            self.state.unreadable += 1;
            return;
        };
        for entry in &part.entries {
            if let AuditCause::Timer(of) | AuditCause::Update(of) = entry.cause {
                self.add_row(IndexKey::Link(of.link), partition, record);
            }
            for item in &entry.items {
                if let AuditItem::Event(event) | AuditItem::Emitted(event) = item {
                    self.add_row(IndexKey::Event(&event.id), partition, record);
                }
            }
        }
    }

    fn add_row(&mut self, key: IndexKey<'_>, partition: Partition, record: &Record) {
        let mut row = [0; 21];
        row[..9].copy_from_slice(&key.prefix());
        row[9..13].copy_from_slice(&partition.0.to_be_bytes());
        row[13..].copy_from_slice(&record.offset.0.to_be_bytes());
        self.rows.insert(row, record.timestamp);
    }

    fn hand_over(&mut self) -> Result<(), ExplainError> {
        let write = |(key, time): (&[u8; 21], &Millis)| StoreWrite {
            table: PLACES,
            key: Bytes::copy_from_slice(key),
            value: Some(Bytes::copy_from_slice(&time.0.to_be_bytes())),
        };
        let writes = self.rows.iter().map(write).collect();
        self.store.hand_over(StoreBatch { writes, progress: self.progress.encode() })?;
        self.rows.clear();
        self.read_before = self.read;
        Ok(())
    }
}

/// An index that is up to date.
pub(super) struct AuditIndex(Box<dyn Store>);

impl AuditIndex {
    pub(super) fn open(stores: &dyn Stores) -> Result<Self, StoreError> {
        Ok(Self(stores.open(STORE, TABLES)?))
    }

    /// The records that name a key, of each task in the order of the log.
    pub(super) fn find(
        &mut self,
        key: IndexKey<'_>,
    ) -> Result<Vec<(Partition, Offset)>, StoreError> {
        let (from, mut found) = (key.prefix(), Vec::new());
        self.0.scan(PLACES, KeyRange { from: &from, to: None }, &mut |row, _| {
            let rest = row.strip_prefix(&from[..]).filter(|rest| rest.len() == 12);
            let Some((partition, offset)) = rest.and_then(|rest| rest.split_first_chunk()) else {
                return ControlFlow::Break(());
            };
            let offset = offset.first_chunk().copied().unwrap_or_default();
            let offset = Offset(u64::from_be_bytes(offset));
            found.push((Partition(u32::from_be_bytes(*partition)), offset));
            if found.len() < FOUND_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    pub(super) fn close(self) -> Result<(), StoreError> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn progress_reads_back(
            topic: u128, since: i64, next in proptest::collection::vec(any::<u64>(), 0..9),
        ) {
            let progress = IndexProgress { topic, since, next };
            prop_assert_eq!(IndexProgress::decode(&progress.encode()), Some(progress));
        }

        #[test]
        fn damaged_progress_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = IndexProgress::decode(&bytes);
        }
    }

    #[test]
    fn events_and_links_are_never_confused() {
        let link = u64::from_be_bytes(*hash128("", "e-1").first_chunk().expect("16 bytes"));
        assert_ne!(IndexKey::Event("e-1").prefix(), IndexKey::Link(link).prefix());
        assert_eq!(IndexKey::Event("e-1").prefix()[1..], IndexKey::Link(link).prefix()[1..]);
    }
}
