//! Partitions of the input that wait for the schema registry, and the list of them for others.
//!
//! A record whose schema can't be asked for is neither valid nor invalid, so its partition is not
//! read further until the registry answers. Only the position and the schema key are kept: the
//! records are read again from the committed offset. When the registry is asked again is decided by
//! its client, which has the clock; in between, asking costs a look-up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidewire_schemas::codec::{Registry, RegistryFault, SchemaUnavailable};

use crate::port::UnreadRecords;
use crate::record::{Millis, Offset, TopicPartition};
use crate::telemetry;

/// Shared by an ADMIT loop and the code that reports what it waits for. It outlives a rebuild of
/// the loop.
#[derive(Clone, Debug, Default)]
pub struct WaitingPartitions(Arc<Mutex<Vec<String>>>);

impl WaitingPartitions {
    /// One sentence for each waiting partition: partition, offset and cause.
    pub fn sentences(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, sentences: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sentences;
    }
}

/// Where a partition waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingRecord {
    /// The record whose schema is missing.
    pub(super) offset: Offset,
    /// Its append time.
    pub(super) timestamp: Millis,
    /// Records from there on, as far as they were known when the wait began.
    pub(super) unread: u64,
    pub(super) missing: SchemaUnavailable,
}

/// The waiting partitions of a loop.
#[derive(Debug)]
pub(super) struct RegistryWaits {
    /// The name of the loop's input, for metrics.
    source: &'static str,
    records: BTreeMap<TopicPartition, WaitingRecord>,
    listed: WaitingPartitions,
    /// The first partition that is asked for next; it rotates, since one schema may be the only
    /// one that the registry can't give.
    first: usize,
}

impl RegistryWaits {
    pub(super) fn new(source: &'static str, listed: WaitingPartitions) -> Self {
        let waits = Self { source, records: BTreeMap::new(), listed, first: 0 };
        waits.report();
        waits
    }

    /// A partition waits from now on.
    pub(super) fn begin(&mut self, at: TopicPartition, record: WaitingRecord) {
        telemetry::admit_waits(&at, record.offset, &record.missing);
        self.records.insert(at, record);
        self.report();
    }

    /// The partitions whose schema the registry can be asked for now. They wait no longer.
    pub(super) fn ready(&mut self, registry: &dyn Registry) -> Vec<TopicPartition> {
        self.first = (self.first + 1) % self.records.len().max(1);
        let waiting = self.records.iter().cycle().skip(self.first).take(self.records.len());
        let is_ready = |key| !matches!(registry.schema_of(key), Err(RegistryFault::Unavailable(_)));
        // The first failure ends it: while the registry is away, all others fail too.
        let ready: Vec<TopicPartition> = waiting
            .take_while(|(_, record)| is_ready(record.missing.key))
            .map(|(at, _)| at.clone())
            .collect();
        for at in &ready {
            if let Some(record) = self.records.remove(at) {
                telemetry::admit_goes_on(at, record.offset);
            }
        }
        if !ready.is_empty() {
            self.report();
        }
        ready
    }

    /// Forgets the partitions for which this is false, because they are not ours any more.
    pub(super) fn retain(&mut self, mut ours: impl FnMut(&TopicPartition) -> bool) {
        self.records.retain(|at, _| ours(at));
        self.report();
    }

    /// Forgets all partitions and returns them, with what is unread in each.
    pub(super) fn take_all(&mut self) -> Vec<(TopicPartition, UnreadRecords)> {
        let all = self.backlogs().collect();
        self.records.clear();
        self.report();
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is unread in each waiting partition: at least what it was when the wait began.
    pub(super) fn backlogs(&self) -> impl Iterator<Item = (TopicPartition, UnreadRecords)> {
        self.records.iter().map(|(at, record)| {
            let unread = UnreadRecords {
                next: record.offset,
                records: record.unread,
                open_transaction: false,
                oldest: Some(record.timestamp),
            };
            (at.clone(), unread)
        })
    }

    fn report(&self) {
        telemetry::admit_waiting_partitions(self.source, self.records.len());
        let sentence = |(at, record): (&TopicPartition, &WaitingRecord)| {
            format!("{at} waits at offset {}: {}", record.offset.0, record.missing)
        };
        self.listed.set(self.records.iter().map(sentence).collect());
    }
}

impl Drop for RegistryWaits {
    fn drop(&mut self) {
        self.take_all();
    }
}
