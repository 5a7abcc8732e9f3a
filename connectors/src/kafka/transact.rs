//! A transactional producer on Kafka.
//!
//! `drain` waits for every acknowledgement before offsets are sent. librdkafka's own commit would
//! wait too, but in sleeps of 100 ms. `log_error` classifies what the broker or librdkafka reports
//! about a transaction by what the engine has to do next.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Committed, GroupToken, LogError, Transactor};
use tidewire_engine::record::{Offset, Outgoing, TopicPartition};

use super::core::KafkaCore;
use super::log_error;
use super::partition_list::offset_list;
use super::produce::Sender;

/// How long one call to the transaction coordinator may take. The engine repeats calls that may be
/// repeated.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// How long the records of a transaction may take to be acknowledged: a little longer than the
/// transaction itself may stay open.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// How long initialising a producer may take: the coordinator may have to abort a transaction that
/// a former owner left open.
const INIT_LIMIT: Duration = Duration::from_secs(30);

/// Partitions one producer may write to: a broker could not commit more within its time limit.
const PARTITIONS_MAX: usize = 4_096;

/// The producer of a transactional id.
pub(super) struct KafkaTransactor {
    sender: Sender,
}

impl KafkaTransactor {
    /// Fences the former producer of this id and aborts what it left open.
    pub(super) fn new(core: &Arc<KafkaCore>, id: &str) -> Result<Self, LogError> {
        let sender = Sender::new(core, &core.config.transactor(id))?;
        let doing = format!("initialising the transactional id {id}");
        sender.producer().init_transactions(INIT_LIMIT).map_err(|error| {
            sender.begin(0);
            match log_error::from_transaction_error(&doing, &error, sender.context()) {
                // No transaction is open yet, so there is nothing to abort and no unknown commit.
                LogError::Abort(cause) | LogError::Unknown(cause) => LogError::Retry(cause),
                other => other,
            }
        })?;
        Ok(Self { sender })
    }

    fn sort(
        &self,
        doing: &str,
        outcome: Result<(), rdkafka::error::KafkaError>,
    ) -> Result<(), LogError> {
        outcome.map_err(|error| {
            log_error::from_transaction_error(doing, &error, self.sender.context())
        })
    }

    /// Once this producer is fenced, its records fail as purged and further ones are refused. The
    /// fatal error of the client is the cause.
    fn sort_code(&self, doing: &str, code: Code) -> LogError {
        let fatal = self.sender.producer().client().fatal_error();
        let code = fatal.map_or(code, |(cause, _)| cause);
        log_error::from_transaction_code(doing, code, self.sender.context())
    }
}

impl Transactor for KafkaTransactor {
    fn begin(&mut self) -> Result<(), LogError> {
        self.sender.begin(PARTITIONS_MAX);
        self.sort("opening a transaction", self.sender.producer().begin_transaction())
    }

    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        for record in records {
            let partition_index = self.sender.partition_index(record)?;
            if partition_index >= PARTITIONS_MAX {
                return Err(LogError::Invalid(format!(
                    "a transactional producer writes to at most {PARTITIONS_MAX} partitions"
                )));
            }
            let sent = self.sender.send(partition_index, record, partition_index, DRAIN_LIMIT);
            sent.map_err(|code| self.sort_code("writing in a transaction", code))?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), LogError> {
        let answers = self.sender.await_acks(DRAIN_LIMIT);
        answers.map_err(|code| self.sort_code("waiting for the records of a transaction", code))
    }

    fn send_offsets(
        &mut self,
        group: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let proof = group.proof.downcast_ref::<ConsumerGroupMetadata>();
        let proof = proof.ok_or_else(|| {
            LogError::Invalid("the group token comes from another log".to_owned())
        })?;
        let list = offset_list(offsets)?;
        let sent = self.sender.producer().send_offsets_to_transaction(&list, proof, CALL_LIMIT);
        self.sort("sending offsets", sent)
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let committed = self.sender.producer().commit_transaction(CALL_LIMIT);
        self.sort("committing", committed)?;
        let ends = self.sender.ends();
        let written = self.sender.partitions().iter().zip(ends).filter(|(_, end)| *end > 0);
        Ok(written.map(|(at, end)| (at.clone(), Offset(end))).collect())
    }

    fn abort(&mut self) -> Result<(), LogError> {
        let aborted = self.sender.producer().abort_transaction(CALL_LIMIT);
        // Acknowledgements of purged records don't belong to the next transaction.
        self.sender.begin(0);
        self.sort("aborting", aborted)
    }
}
