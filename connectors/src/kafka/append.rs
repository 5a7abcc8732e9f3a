//! Appending outside transactions: idempotent, in order, acknowledged by every in-sync replica.
//!
//! Records are never timed out by librdkafka. When no answer comes for long, the producer is thrown
//! away with what it still holds, and the caller is told to append again: some may then be there
//! twice, which is what the port allows and de-duplication ends.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};

use super::core::KafkaCore;
use super::log_error;
use super::produce::Sender;

/// How long an append waits for its answers. Longer than a broker takes to restart or a partition
/// to get another leader.
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
            // Every place was checked before the first record left.
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
                // A slot holds what is behind its record.
                let offset = |end: u64| Offset(end.saturating_sub(1));
                Ok(self.sender.ends().into_iter().map(offset).collect())
            }
            Err(code) => {
                let failed = log_error::from_code("appending", code, self.sender.context());
                // What it still holds must not arrive behind what is appended again.
                self.sender = Sender::new(&self.core, &self.core.config.appender())?;
                Err(failed)
            }
        }
    }
}
