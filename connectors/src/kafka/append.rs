//! Appends outside transactions: idempotent, in order, acknowledged by every in-sync replica.
//!
//! librdkafka never times records out. If acknowledgements do not arrive in time, the producer is
//! dropped with the records it still has, and the caller appends again. Some records may then exist
//! twice, which the port allows and deduplication removes.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};

use super::core::KafkaCore;
use super::log_error;
use super::produce::Sender;

/// How long an append waits for acknowledgements: longer than a broker takes to restart or a
/// partition to get another leader.
const ACK_LIMIT: Duration = Duration::from_secs(60);

/// An idempotent producer.
pub(super) struct KafkaAppender {
    core: Arc<KafkaCore>,
    sender: Sender,
}

impl KafkaAppender {
    pub(super) fn new(core: &Arc<KafkaCore>) -> Result<Self, LogError> {
        let sender = Sender::new(core, &core.config.appender())?;
        Ok(Self { core: Arc::clone(core), sender })
    }

    fn send_all(&mut self, records: &[Outgoing]) -> Result<(), Code> {
        self.sender.begin(records.len());
        for (slot, record) in records.iter().enumerate() {
            // Every partition was checked before the first record is sent.
            let partition_index =
                self.sender.partition_index(record).map_err(|_| Code::UnknownTopicOrPartition)?;
            self.sender.send(partition_index, record, slot, ACK_LIMIT)?;
        }
        self.sender.await_acks(ACK_LIMIT)
    }
}

impl Appender for KafkaAppender {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        for record in records {
            self.sender.partition_index(record)?;
        }
        match self.send_all(records) {
            Ok(()) => {
                // A slot holds the offset after its record.
                let offset = |end: u64| Offset(end.saturating_sub(1));
                Ok(self.sender.ends().into_iter().map(offset).collect())
            }
            Err(code) => {
                let failed = log_error::from_code("appending", code, self.sender.context());
                // Records it still has must not arrive after those that are appended again.
                self.sender = Sender::new(&self.core, &self.core.config.appender())?;
                Err(failed)
            }
        }
    }
}
