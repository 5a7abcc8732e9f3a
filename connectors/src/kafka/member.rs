//! A member of a consumer group on Kafka: a client for the membership, and a reader.
//!
//! The membership client subscribes and never fetches. It acknowledges every assignment with an
//! empty list, which is all the group waits for, while the reader's clients read the partitions at
//! the offsets the engine decides.
//!
//! A revocation is acknowledged by the next call of `changes`, so that work done until then can be
//! committed. Lost partitions are acknowledged at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{
    Change, Committed, GroupToken, Isolation, LogError, Member, MemberSpec, ReadLimit, Reader,
    ReaderSlot, UnreadRecords, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};
use tidewire_engine::topology::misfit_sentence;

use super::bootstrap_refresh::BootstrapRefresh;
use super::config::Config;
use super::context::{KafkaContext, Rebalanced};
use super::core::{KafkaCore, make_consumer};
use super::log_error;
use super::native;
use super::partition_list::offset_list;
use super::read::KafkaReader;

/// Events of the group that one call of `changes` handles at most.
const EVENTS_MAX: usize = 1_000;

/// A member of a group and its reader.
pub(super) struct KafkaMember {
    group: String,
    /// Partitions of each topic, as of the start.
    partitions: u32,
    group_client: BaseConsumer<KafkaContext>,
    /// Whether the membership client has events.
    group_events: Arc<AtomicBool>,
    /// Whether a revocation was returned to the engine and the group waits for it.
    revoking: bool,
    reader: KafkaReader,
    core: Arc<KafkaCore>,
    bootstrap_refresh: BootstrapRefresh,
}

impl KafkaMember {
    /// Joins the group; the first assignment comes through `changes`.
    pub(super) fn new(core: &Arc<KafkaCore>, spec: &MemberSpec) -> Result<Self, LogError> {
        let partitions = check_counts(core, spec)?;
        let budget = Config::total_partitions(spec.topics.len(), partitions);
        let reader = KafkaReader::new(core, Isolation::Committed, Some(budget));
        let config = core.config.member(&spec.group, &spec.instance);
        let mut group_client = make_consumer(&config)?;
        let group_events = Arc::new(AtomicBool::new(false));
        let (notifier, flag) = (Arc::clone(&reader.notifier), Arc::clone(&group_events));
        group_client.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            notifier.signal();
        });
        let topics: Vec<&str> = spec.topics.iter().map(|topic| topic.as_str()).collect();
        let doing = format!("joining the group {}", spec.group);
        group_client
            .subscribe(&topics)
            .map_err(|e| log_error::from_error(doing, &e, group_client.context()))?;
        let (core, bootstrap_refresh) = (Arc::clone(core), BootstrapRefresh::default());
        Ok(Self {
            group: spec.group.clone(),
            partitions,
            group_client,
            group_events,
            revoking: false,
            reader,
            core,
            bootstrap_refresh,
        })
    }

    /// Acknowledges an assignment to the group. Nothing is assigned to this client.
    fn acknowledge(&self) -> Result<(), LogError> {
        let nothing = TopicPartitionList::new();
        let answer = match self.group_client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.group_client.incremental_assign(&nothing),
            _ => self.group_client.assign(&nothing),
        };
        self.check_answer(answer)
    }

    /// Partitions that were added belong to no key of ours: the process ends with what to do.
    fn check_assigned(&self, of: &[TopicPartition]) -> Result<(), LogError> {
        let added = of.iter().find(|at| at.partition.0 >= self.partitions);
        added.map_or(Ok(()), |at| {
            // The highest partition may be assigned to another member.
            let count = self.core.find_topic(&at.topic, |found| found.partitions().len());
            let text = added_sentence(at, count.ok().flatten(), self.partitions);
            Err(LogError::Fatal(text, None))
        })
    }

    fn release(&mut self) -> Result<(), LogError> {
        self.revoking = false;
        let answer = match self.group_client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                self.group_client.incremental_unassign(&TopicPartitionList::new())
            }
            _ => self.group_client.unassign(),
        };
        self.check_answer(answer)
    }

    fn check_answer(&self, outcome: Result<(), KafkaError>) -> Result<(), LogError> {
        let doing = format!("acknowledging an assignment of the group {}", self.group);
        outcome.map_err(|error| log_error::from_error(doing, &error, self.group_client.context()))
    }

    /// Handles one event of the group, if there is one. Polling also keeps the membership alive.
    fn poll(&self) -> Result<(), LogError> {
        match self.group_client.poll(Duration::ZERO) {
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                Err(log_error::from_code(self.doing(), code, self.group_client.context()))
            }
            Some(Err(KafkaError::MessageConsumption(code))) if is_final(code) => {
                Err(log_error::from_code(self.doing(), code, self.group_client.context()))
            }
            // Nothing is assigned to this client, so it never fetches. The client reconnects by
            // itself, and its context logs lost connections.
            _ => Ok(()),
        }
    }

    fn doing(&self) -> String {
        format!("following the group {}", self.group)
    }

    fn change(&mut self, rebalanced: Rebalanced) -> Result<Change, LogError> {
        Ok(match rebalanced {
            Rebalanced::Assigned(of) => {
                self.check_assigned(&of)?;
                self.acknowledge()?;
                Change::Assigned(of)
            }
            Rebalanced::Revoked(of) => {
                self.revoking = true;
                Change::Revoked(of)
            }
            Rebalanced::Lost(of) => {
                self.release()?;
                Change::Lost(of)
            }
        })
    }
}

/// What to do about an added partition; `count` is the number that the broker reports, if it did.
fn added_sentence(added: &TopicPartition, count: Option<usize>, wanted: u32) -> String {
    let count = count.and_then(|count| u32::try_from(count).ok());
    match count.filter(|count| *count > added.partition.0) {
        Some(count) => misfit_sentence(&added.topic, count, wanted),
        None => format!(
            "topic {} has more than {} partitions and topics.partitions is {wanted}; run \
             `tidewire doctor` for the number and what to do",
            added.topic, added.partition.0
        ),
    }
}

/// Errors that a member can't recover from by waiting.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::FencedInstanceId
            | Code::UnreleasedInstanceId
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::PollExceeded
    )
}

/// The number of partitions that all topics of a member have.
fn check_counts(core: &KafkaCore, spec: &MemberSpec) -> Result<u32, LogError> {
    let invalid = |text: String| Err(LogError::Invalid(text));
    let mut counts = Vec::new();
    for topic in &spec.topics {
        match core.count(topic)? {
            Some(count) => counts.push(count),
            None => {
                return invalid(format!(
                    "topic {topic} does not exist; create the topics with `tidewire topics create`"
                ));
            }
        }
    }
    match counts.first() {
        None => invalid("a member of a group needs at least one topic".to_owned()),
        Some(first) if counts.iter().all(|count| count == first) => Ok(*first),
        Some(_) => invalid(
            "the topics of a group member must have the same number of partitions".to_owned(),
        ),
    }
}

impl Member for KafkaMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        if self.revoking {
            self.release()?;
        }
        self.bootstrap_refresh.check(&self.core.config, self.group_client.client());
        self.group_events.store(false, Ordering::Release);
        let mut changes = Vec::new();
        for _ in 0..EVENTS_MAX {
            let more = native::has_events(&self.group_client);
            self.poll()?;
            for rebalanced in self.group_client.context().rebalances() {
                changes.push(self.change(rebalanced)?);
            }
            // The engine has to give up revoked partitions before it gets further changes.
            if self.revoking || !more {
                break;
            }
        }
        Ok(changes)
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let proof = self.group_client.group_metadata();
        let proof = proof.ok_or_else(|| {
            LogError::Invalid("the client has no group metadata; join a group first".to_owned())
        })?;
        Ok(GroupToken { group: self.group.clone(), proof: Arc::new(proof) })
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let committed = self.group_client.commit(&offset_list(offsets)?, CommitMode::Sync);
        let doing = format!("committing offsets of the group {}", self.group);
        committed.map_err(|error| log_error::from_error(doing, &error, self.group_client.context()))
    }
}

impl Reader for KafkaMember {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        self.reader.add(at, from)
    }

    fn remove(&mut self, slot: ReaderSlot) {
        self.reader.remove(slot);
    }

    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError> {
        self.reader.seek(slot, to)
    }

    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        self.reader.take(slot, limit, out)
    }

    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError> {
        self.reader.position(slot)
    }

    fn backlog(&mut self, slot: ReaderSlot) -> Option<UnreadRecords> {
        self.reader.backlog(slot)
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.reader.serve();
        let notifier = Arc::clone(&self.reader.notifier);
        notifier
            .wait(at_most, || self.group_events.load(Ordering::Acquire) || self.reader.is_ready());
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        // Closing the client waits until its last revocation is acknowledged; nobody else does.
        self.group_client.context().close();
        if self.revoking {
            let _ = self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::record::{Partition, Topic};

    #[test]
    fn added_partitions_are_reported_with_the_broker_s_count_or_with_none() {
        let ninth = TopicPartition::new(&Topic::new("tw.in"), Partition(8));
        let known = added_sentence(&ninth, Some(12), 8);
        assert!(known.contains("tw.in has 12 partitions"), "{known}");
        assert!(known.contains("set topics.partitions to 12"), "{known}");
        for unknown in [None, Some(8)] {
            let text = added_sentence(&ninth, unknown, 8);
            assert!(text.contains("tw.in has more than 8 partitions"), "{text}");
            assert!(!text.contains("set topics.partitions to"), "{text}");
        }
    }
}
