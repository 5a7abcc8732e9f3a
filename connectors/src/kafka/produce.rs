//! Sends records and waits for their acknowledgements, for appenders and transactors.
//!
//! Waiting is woken by an event of the producer, never by polling on a timer: a small write is
//! acknowledged in less time than the shortest sleep.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::LogError;
use tidewire_engine::record::{Outgoing, TopicPartition};

use super::bootstrap_refresh::BootstrapRefresh;
use super::config::invalid_properties;
use super::context::KafkaContext;
use super::core::KafkaCore;
use super::native::NotifyingProducer;
use super::partition_list::partition_number;
use crate::clock;

/// How long one wait lasts before the deadline is checked.
const WAIT_GRAIN: Duration = Duration::from_secs(1);

/// After this long without acknowledgements the client's brokers are checked.
const SLOW_ACK: Duration = Duration::from_secs(2);

/// A producer and the acknowledgements it waits for.
pub(super) struct Sender {
    core: Arc<KafkaCore>,
    producer: NotifyingProducer,
    /// Partitions that are known to exist.
    checked: Vec<TopicPartition>,
    bootstrap_refresh: BootstrapRefresh,
}

impl Sender {
    pub(super) fn new(core: &Arc<KafkaCore>, config: &ClientConfig) -> Result<Self, LogError> {
        let producer: Result<BaseProducer<KafkaContext>, _> =
            config.create_with_context(KafkaContext::default());
        let producer =
            NotifyingProducer::new(producer.map_err(|error| invalid_properties(&error))?);
        Ok(Self {
            core: Arc::clone(core),
            producer,
            checked: Vec::new(),
            bootstrap_refresh: BootstrapRefresh::default(),
        })
    }

    pub(super) fn producer(&self) -> &BaseProducer<KafkaContext> {
        self.producer.producer()
    }

    pub(super) fn context(&self) -> &KafkaContext {
        self.producer().client().context()
    }

    /// Starts a new round of acknowledgements; earlier ones are ignored.
    pub(super) fn begin(&self, slots: usize) {
        self.producer.serve();
        self.context().deliveries().begin(slots);
    }

    /// The index of a partition among those this producer has written to. Fails if it does not
    /// exist.
    pub(super) fn partition_index(&mut self, record: &Outgoing) -> Result<usize, LogError> {
        let is = |at: &TopicPartition| at.partition == record.partition && at.topic == record.topic;
        if let Some(partition_index) = self.checked.iter().position(is) {
            return Ok(partition_index);
        }
        let at = TopicPartition::new(&record.topic, record.partition);
        self.core.check(&at)?;
        self.checked.push(at);
        Ok(self.checked.len() - 1)
    }

    /// The partitions by their index.
    pub(super) fn partitions(&self) -> &[TopicPartition] {
        &self.checked
    }

    /// Gives a record to librdkafka; its acknowledgement goes into `slot`. Waits while the queue is
    /// full.
    pub(super) fn send(
        &self,
        partition_index: usize,
        record: &Outgoing,
        slot: usize,
        within: Duration,
    ) -> Result<(), Code> {
        let begun = clock::now();
        let at = &self.checked[partition_index];
        loop {
            let opaque = self.context().deliveries().expect(slot);
            match self.producer().send(kafka_record(at, record, opaque)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                    self.context().deliveries().cancel();
                    if begun.elapsed() > within {
                        return Err(Code::QueueFull);
                    }
                    self.producer.wait(WAIT_GRAIN);
                    self.producer.serve();
                }
                Err((error, _)) => {
                    self.context().deliveries().cancel();
                    return Err(error.rdkafka_error_code().unwrap_or(Code::Unknown));
                }
            }
        }
    }

    /// Waits until every record is acknowledged; returns the first failure or a timeout.
    pub(super) fn await_acks(&self, within: Duration) -> Result<(), Code> {
        let begun = clock::now();
        loop {
            self.producer.serve();
            {
                let deliveries = self.context().deliveries();
                if let Some(code) = deliveries.failed {
                    return Err(code);
                }
                if deliveries.pending == 0 {
                    return Ok(());
                }
            }
            if let Some((code, _)) = self.producer().client().fatal_error() {
                return Err(code);
            }
            let left = within.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Code::OperationTimedOut);
            }
            if begun.elapsed() > SLOW_ACK {
                self.bootstrap_refresh.check(&self.core.config, self.producer().client());
            }
            self.producer.wait(left.min(WAIT_GRAIN));
        }
    }

    /// One past the largest acknowledged offset, by slot.
    pub(super) fn ends(&self) -> Vec<u64> {
        self.context().deliveries().ends.clone()
    }
}

fn kafka_record<'a>(
    at: &'a TopicPartition,
    record: &'a Outgoing,
    opaque: usize,
) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut kafka =
        BaseRecord::with_opaque_to(at.topic.as_str(), opaque).partition(partition_number(at));
    kafka.key = record.body.key();
    kafka.payload = record.body.value();
    let mut headers = record.body.headers().peekable();
    if headers.peek().is_some() {
        let all = headers.fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
        kafka.headers = Some(all);
    }
    kafka
}
