//! Reading partitions, each from a queue of its own, at offsets the engine asks for.
//!
//! The one idea: a queue that is not taken from holds its fetcher back, so a lane that must wait
//! costs a bounded prefetch and nothing else. One bell rings for all queues of a reader.
//!
//! A client of librdkafka reads a partition at one place only; a reader that wants a second place
//! in the same partition gets a second client. A member's reader has a client per topic: one client
//! fetches all its partitions from a broker with one request after the other, and a critical record
//! would wait until the MiBs of a low lane are through.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Isolation, Limit, LogError, Reader, Slot, Wake};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::log::{Core, make_consumer};
use super::native::{Client, Feed, Given};
use super::reach::Reach;
use crate::notify::Notifier;

/// Messages taken from librdkafka in one call.
const FETCH_RECORDS: usize = 1_024;

/// A reader of partitions.
pub(super) struct KafkaReader {
    core: Arc<Core>,
    isolation: Isolation,
    /// How many partitions it will read, if that is known, as it is for a member: they share one
    /// budget.
    expected: Option<u32>,
    clients: Vec<(Client, Reach)>,
    readings: BTreeMap<Slot, Reading>,
    next_slot: u32,
    pub(super) bell: Arc<Notifier>,
}

/// One partition being read.
struct Reading {
    at: TopicPartition,
    /// Which client reads it.
    client: usize,
    feed: Feed,
    /// Taken from librdkafka and not by the engine.
    waiting: VecDeque<Record>,
    /// The offset behind the last record the engine took, or where it started.
    next: Offset,
    /// An end of the partition the fetcher has reached, if it is behind `next`.
    arrived: Option<Offset>,
    failed: Option<Code>,
}

impl KafkaReader {
    pub(super) fn new(core: &Arc<Core>, isolation: Isolation, expected: Option<u32>) -> Self {
        Self {
            core: Arc::clone(core),
            isolation,
            expected,
            clients: Vec::new(),
            readings: BTreeMap::new(),
            next_slot: 0,
            bell: Arc::default(),
        }
    }

    /// Whether something can be taken without waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.readings.values().any(|reading| {
            !reading.waiting.is_empty() || reading.failed.is_some() || reading.feed.is_ready()
        })
    }

    /// Serves what the clients have to say; errors reach their contexts.
    pub(super) fn serve(&self) {
        for (client, reach) in &self.clients {
            self.core.serve(client);
            reach.look(&self.core.config, client.client());
        }
    }

    /// A client that does not read this partition yet, nor another topic if they are kept apart.
    fn client_for(&mut self, at: &TopicPartition) -> Result<usize, LogError> {
        let apart = self.expected.is_some();
        let busy = |n: usize| {
            let mut its = self.readings.values().filter(|reading| reading.client == n);
            its.any(|reading| reading.at == *at || (apart && reading.at.topic != at.topic))
        };
        if let Some(free) = (0..self.clients.len()).find(|n| !busy(*n)) {
            return Ok(free);
        }
        let config = self.core.config.reader(self.isolation, self.expected);
        self.clients.push((Arc::new(make_consumer(&config)?), Reach::default()));
        Ok(self.clients.len() - 1)
    }

    fn reading(&mut self, slot: Slot) -> &mut Reading {
        self.readings.get_mut(&slot).expect("the engine names slots it was given and not removed")
    }

    /// Starts a reading of this partition.
    fn start(
        &self,
        at: &TopicPartition,
        (client, from): (usize, Offset),
    ) -> Result<Reading, LogError> {
        let partition = i32::try_from(at.partition.0).unwrap_or(i32::MAX);
        let (handle, _) = &self.clients[client];
        let feed = Feed::start(handle, (at.topic.as_str(), partition), from, &self.bell);
        let feed = feed.map_err(|code| self.core.failed(format!("reading {at}"), code))?;
        let (waiting, at) = (VecDeque::new(), at.clone());
        Ok(Reading { at, client, feed, waiting, next: from, arrived: None, failed: None })
    }

    /// What a reading that librdkafka gave up means for the engine.
    fn explain(&mut self, slot: Slot, code: Code) -> Result<(), LogError> {
        let reading = self.reading(slot);
        let (at, asked) = (reading.at.clone(), reading.next);
        let outside =
            matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation);
        if outside {
            let bounds = self.core.bounds(&at, Isolation::Uncommitted)?;
            let (start, end) = (bounds.start.0, bounds.end.0);
            if asked.0 < start || asked.0 > end {
                return Err(LogError::OutOfRange { at, asked: asked.0, start, end });
            }
        }
        // It may go on from where it was: a leader that moved, a message damaged on its way.
        self.seek(slot, asked)?;
        match code {
            _ if outside => Ok(()),
            code => Err(self.core.failed(format!("reading {at}"), code)),
        }
    }
}

impl Reading {
    /// Takes what librdkafka has ready into `waiting`; whether there was anything.
    fn fetch(&mut self, want: usize) -> bool {
        let Self { feed, waiting, next, arrived, failed, .. } = self;
        let before = waiting.len();
        feed.take(want.clamp(1, FETCH_RECORDS), |given| match given {
            Given::Record(record) if record.offset >= *next => waiting.push_back(record),
            Given::Record(_) => {}
            Given::End(offset) => *arrived = Some(offset),
            Given::Failed(code) => *failed = Some(code),
        });
        waiting.len() > before
    }

    /// Moves what `limit` allows to the engine.
    fn give(&mut self, limit: Limit, out: &mut Vec<Record>) -> usize {
        let (mut records, mut bytes) = (0, 0usize);
        while records < limit.records.max(1) {
            if self.waiting.is_empty() && !self.fetch(limit.records - records) {
                break;
            }
            let Some(front) = self.waiting.front() else { break };
            bytes = bytes.saturating_add(front.body.as_bytes().len());
            if records > 0 && bytes > limit.bytes {
                break;
            }
            let Some(record) = self.waiting.pop_front() else { break };
            self.next = record.offset.next();
            out.push(record);
            records += 1;
        }
        records
    }

    /// Behind what was taken, control records and compacted gaps included.
    fn position(&self) -> Offset {
        if let Some(front) = self.waiting.front() {
            return front.offset;
        }
        // librdkafka counts the news of an end as one record more: where its position is just
        // behind that end, it can't be told from a control record, and the next end will tell.
        let passed = self.feed.position().filter(|p| Some(*p) != self.arrived.map(Offset::next));
        self.next.max(self.arrived.unwrap_or(self.next)).max(passed.unwrap_or(self.next))
    }
}

impl Reader for KafkaReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<Slot, LogError> {
        let client = self.client_for(at)?;
        let reading = self.start(at, (client, from))?;
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        self.readings.insert(slot, reading);
        Ok(slot)
    }

    fn remove(&mut self, slot: Slot) {
        self.readings.remove(&slot);
    }

    fn seek(&mut self, slot: Slot, to: Offset) -> Result<(), LogError> {
        let Some(reading) = self.readings.remove(&slot) else { return Ok(()) };
        let (at, client) = (reading.at.clone(), reading.client);
        // The old feed ends before the new one begins: they share the partition's queue.
        drop(reading);
        let reading = self.start(&at, (client, to))?;
        self.readings.insert(slot, reading);
        Ok(())
    }

    fn take(&mut self, slot: Slot, limit: Limit, out: &mut Vec<Record>) -> Result<usize, LogError> {
        let reading = self.reading(slot);
        let taken = reading.give(limit, out);
        if taken == 0
            && let Some(code) = reading.failed.take()
        {
            self.explain(slot, code)?;
        }
        Ok(taken)
    }

    fn position(&mut self, slot: Slot) -> Result<Offset, LogError> {
        let reading = self.reading(slot);
        // What is ready but no record (an end, a control record) is known only once taken.
        if reading.waiting.is_empty() && reading.feed.is_ready() {
            reading.fetch(FETCH_RECORDS);
        }
        Ok(reading.position())
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.serve();
        let bell = Arc::clone(&self.bell);
        bell.wait(at_most, || self.is_ready());
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }
}
