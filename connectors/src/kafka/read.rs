//! Reads partitions, each from its own queue, from the offset the engine asks for.
//!
//! A queue that is not read from stops its fetcher, so a lane that has to wait costs only a bounded
//! prefetch. One notifier is signalled for all queues of a reader.
//!
//! A librdkafka client reads a partition at one position only, so a reader that needs a second
//! position in a partition gets a second client. The reader of a group member has a client per
//! topic: a client has one fetch in flight per broker, so a critical record would otherwise wait
//! behind MiBs of a low lane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{
    Isolation, LogError, ReadLimit, Reader, ReaderSlot, UnreadRecords, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::bootstrap_refresh::BootstrapRefresh;
use super::core::{KafkaCore, make_consumer};
use super::native::{PartitionConsumer, SharedConsumer};
use super::read_ahead::ReadAhead;
use super::read_retry::{FailedRead, ReadRetries};
use crate::notify::Notifier;

/// Messages taken from librdkafka in one call.
const FETCH_RECORDS: usize = 1_024;

/// A reader of partitions.
pub(super) struct KafkaReader {
    core: Arc<KafkaCore>,
    isolation: Isolation,
    /// How many partitions it will read, if that is known (for a member): they share one prefetch
    /// limit.
    expected: Option<u32>,
    clients: Vec<(SharedConsumer, BootstrapRefresh)>,
    fetchers: BTreeMap<ReaderSlot, PartitionFetcher>,
    next_slot: u32,
    pub(super) notifier: Arc<Notifier>,
}

/// One partition being read.
struct PartitionFetcher {
    at: TopicPartition,
    /// Which client reads it.
    client: usize,
    /// `None`: it has to be started at `ahead.next()`.
    consumer: Option<PartitionConsumer>,
    /// The end of the partition when reading last stopped, until a fetch reports it again.
    stopped_end: Option<Offset>,
    ahead: ReadAhead,
    retries: ReadRetries,
}

impl KafkaReader {
    pub(super) fn new(core: &Arc<KafkaCore>, isolation: Isolation, expected: Option<u32>) -> Self {
        Self {
            core: Arc::clone(core),
            isolation,
            expected,
            clients: Vec::new(),
            fetchers: BTreeMap::new(),
            next_slot: 0,
            notifier: Arc::default(),
        }
    }

    /// Whether something can be taken without waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.fetchers.values().any(|fetcher| match &fetcher.consumer {
            None => fetcher.retries.may_start(),
            Some(_) => {
                fetcher.ahead.front().is_some()
                    || fetcher.ahead.failed().is_some()
                    || fetcher.is_ready()
            }
        })
    }

    /// Serves the events of the clients; errors reach their contexts.
    pub(super) fn serve(&self) {
        for (client, bootstrap_refresh) in &self.clients {
            self.core.serve(client);
            bootstrap_refresh.check(&self.core.config, client.client());
        }
    }

    /// A client that does not read this partition yet, nor, for a member, another topic.
    fn client_for(&mut self, at: &TopicPartition) -> Result<usize, LogError> {
        let apart = self.expected.is_some();
        let busy = |n: usize| {
            let mut its = self.fetchers.values().filter(|fetcher| fetcher.client == n);
            its.any(|fetcher| fetcher.at == *at || (apart && fetcher.at.topic != at.topic))
        };
        if let Some(free) = (0..self.clients.len()).find(|n| !busy(*n)) {
            return Ok(free);
        }
        let config = self.core.config.reader(self.isolation, self.expected);
        self.clients.push((Arc::new(make_consumer(&config)?), BootstrapRefresh::default()));
        Ok(self.clients.len() - 1)
    }

    fn fetcher(&mut self, slot: ReaderSlot) -> &mut PartitionFetcher {
        get_fetcher(&mut self.fetchers, slot)
    }

    /// Starts a fetcher that has no consumer. After an error it still has none, so that this can be
    /// called again.
    fn start(&mut self, slot: ReaderSlot) -> Result<(), LogError> {
        let Self { core, clients, fetchers, notifier, .. } = self;
        let fetcher = get_fetcher(fetchers, slot);
        let PartitionFetcher { at, client, ahead, .. } = &*fetcher;
        let (client, from) = (&clients[*client].0, ahead.next());
        let started = PartitionConsumer::start(client, at, from, notifier);
        let consumer = started.map_err(|code| core.failed(format!("reading {at}"), code))?;
        fetcher.consumer = Some(consumer);
        fetcher.ahead = ReadAhead::new(from);
        Ok(())
    }

    /// Handles a failure of which all records before it were handed out: an error that a retry may
    /// correct only stops the partition until the next attempt.
    fn handle_failure(&mut self, slot: ReaderSlot, why: FailedRead) -> Result<(), LogError> {
        let fetcher = self.fetcher(slot);
        let (at, asked) = (fetcher.at.clone(), fetcher.ahead.next());
        match self.explain(&at, asked, why.code) {
            Some(LogError::Retry(_)) | None => {}
            Some(error) => return Err(error),
        }
        let fetcher = self.fetcher(slot);
        fetcher.stop();
        fetcher.retries.failed(&at, asked, &why);
        Ok(())
    }

    /// The error for a failed read; `None`: the position is still there.
    fn explain(&self, at: &TopicPartition, asked: Offset, code: Code) -> Option<LogError> {
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                let bounds = match self.core.bounds(at, Isolation::Uncommitted) {
                    Ok(bounds) => bounds,
                    Err(error) => return Some(error),
                };
                let (start, end) = (bounds.start.0, bounds.end.0);
                let at = at.clone();
                (asked.0 < start || asked.0 > end).then_some(LogError::OutOfRange {
                    at,
                    asked: asked.0,
                    start,
                    end,
                })
            }
            // For a writer this is final; for a reader it is a limit of librdkafka.
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => None,
            code => Some(self.core.failed(format_args!("reading {at}"), code)),
        }
    }
}

fn get_fetcher(
    fetchers: &mut BTreeMap<ReaderSlot, PartitionFetcher>,
    slot: ReaderSlot,
) -> &mut PartitionFetcher {
    fetchers.get_mut(&slot).expect("the engine names slots it was given and not removed")
}

impl PartitionFetcher {
    fn stop(&mut self) {
        self.stopped_end = self.end();
        self.consumer = None;
    }

    /// The end of the partition, open transactions included, as of the last fetch.
    fn end(&self) -> Option<Offset> {
        let fetched = self.consumer.as_ref().and_then(PartitionConsumer::high_watermark);
        fetched.or(self.stopped_end)
    }

    /// Whether librdkafka has results.
    fn is_ready(&self) -> bool {
        self.consumer.as_ref().is_some_and(PartitionConsumer::is_ready)
    }

    /// Takes what librdkafka has ready; returns whether there is a record.
    fn fetch(&mut self, want: usize) -> bool {
        let Self { consumer, ahead, .. } = self;
        if let (Some(consumer), None) = (consumer, ahead.failed()) {
            consumer.take(want.clamp(1, FETCH_RECORDS), |result| ahead.add(result));
        }
        ahead.front().is_some()
    }

    /// Moves records to the engine, as many as `limit` allows.
    fn hand_out(&mut self, limit: ReadLimit, out: &mut Vec<Record>) -> usize {
        let (mut records, mut bytes) = (0, 0usize);
        while records < limit.records.max(1) {
            if self.ahead.front().is_none() && !self.fetch(limit.records - records) {
                break;
            }
            let Some(front) = self.ahead.front() else { break };
            bytes = bytes.saturating_add(front.body.as_bytes().len());
            if records > 0 && bytes > limit.bytes {
                break;
            }
            out.extend(self.ahead.pop());
            records += 1;
        }
        records
    }

    /// The offset after what was taken, control records and compacted gaps included.
    fn position(&self) -> Offset {
        self.ahead.position(self.consumer.as_ref().and_then(PartitionConsumer::position))
    }
}

impl Reader for KafkaReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        let client = self.client_for(at)?;
        let slot = ReaderSlot(self.next_slot);
        self.next_slot += 1;
        let (ahead, retries) = (ReadAhead::new(from), ReadRetries::new(&self.core.unreadable));
        let (at, consumer, stopped_end) = (at.clone(), None, None);
        let fetcher = PartitionFetcher { at, client, consumer, stopped_end, ahead, retries };
        self.fetchers.insert(slot, fetcher);
        self.start(slot).inspect_err(|_| self.remove(slot))?;
        Ok(slot)
    }

    fn remove(&mut self, slot: ReaderSlot) {
        self.fetchers.remove(&slot);
    }

    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError> {
        let retries = ReadRetries::new(&self.core.unreadable);
        let fetcher = self.fetcher(slot);
        // The old consumer has to stop before the new one starts: they share the queue.
        fetcher.stop();
        fetcher.ahead = ReadAhead::new(to);
        fetcher.retries = retries;
        self.start(slot)
    }

    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let fetcher = self.fetcher(slot);
        if fetcher.consumer.is_none() {
            if !fetcher.retries.may_start() {
                return Ok(0);
            }
            self.start(slot)?;
        }
        let fetcher = self.fetcher(slot);
        let taken = fetcher.hand_out(limit, out);
        match fetcher.ahead.failed().filter(|_| taken == 0) {
            Some(why) => {
                let why = why.clone();
                self.handle_failure(slot, why)?;
            }
            None if taken > 0 || fetcher.ahead.reached_end().is_some() => {
                fetcher.retries.succeeded();
            }
            None => {}
        }
        Ok(taken)
    }

    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError> {
        let fetcher = self.fetcher(slot);
        // Ends and control records that are ready are known only once they are taken.
        if fetcher.ahead.front().is_none() && fetcher.is_ready() {
            fetcher.fetch(FETCH_RECORDS);
        }
        Ok(fetcher.position())
    }

    fn backlog(&mut self, slot: ReaderSlot) -> Option<UnreadRecords> {
        let fetcher = self.fetcher(slot);
        let end = fetcher.end()?;
        let oldest = fetcher.ahead.front().map(|record| record.timestamp);
        let next = fetcher.position();
        let records = end.0.saturating_sub(next.0);
        // The end that a fetch reports is that of the stable records.
        let at_stable_end = fetcher.ahead.reached_end() == Some(next) && !fetcher.is_ready();
        let open_transaction = records > 0 && at_stable_end && oldest.is_none();
        Some(UnreadRecords { next, records, open_transaction, oldest })
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.serve();
        let notifier = Arc::clone(&self.notifier);
        notifier.wait(at_most, || self.is_ready());
        Ok(())
    }

    fn wait_for_waker(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.serve();
        self.notifier.wait(at_most, || false);
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.notifier) as Arc<dyn Wake>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Config;
    use tidewire_engine::record::{Partition, Topic};

    /// No offset of librdkafka.
    const TOO_LARGE: Offset = Offset(u64::MAX);

    #[test]
    fn a_partition_that_could_not_be_started_can_be_asked_again() {
        let core = KafkaCore::open(Config::new("127.0.0.1:1", "tw.")).expect("well formed");
        let mut reader = KafkaReader::new(&Arc::new(core), Isolation::Committed, None);
        let at = TopicPartition::new(&Topic::new("tw.in"), Partition(0));
        assert!(reader.add(&at, TOO_LARGE).is_err());
        let slot = reader.add(&at, Offset(5)).expect("no broker is asked");
        for _ in 0..2 {
            assert!(matches!(reader.seek(slot, TOO_LARGE), Err(LogError::Retry(_))));
            let limit = ReadLimit { records: 1, bytes: 1 };
            let taken = reader.take(slot, limit, &mut Vec::new());
            assert!(matches!(taken, Err(LogError::Retry(_))), "{taken:?}");
            assert_eq!(reader.position(slot).expect("it is known"), TOO_LARGE);
        }
        reader.seek(slot, Offset(7)).expect("no broker is asked");
        assert_eq!(reader.position(slot).expect("it is known"), Offset(7));
    }
}
