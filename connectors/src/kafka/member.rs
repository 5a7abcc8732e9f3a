//! A member of a consumer group: its place there, and a reader.
//!
//! The place is a client that subscribes and never fetches: it acknowledges every assignment with
//! an empty list of its own, which is what the group waits for, while the partitions are read by
//! the reader's client at the offsets the engine decides.
//!
//! A revocation is acknowledged by the next call of `changes`, so that what is done until then can
//! still be committed; what is lost is acknowledged at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{
    Change, Committed, GroupToken, Isolation, Limit, LogError, Member, MemberSpec, Reader, Slot,
    Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::config::Config;
use super::context::{Context, Rebalanced};
use super::fault;
use super::log::{Core, list_of, make_consumer};
use super::native;
use super::reach::Reach;
use super::read::KafkaReader;

/// Events of the group that one call of `changes` looks at.
const EVENTS_MAX: usize = 1_000;

/// A member and its reader.
pub(super) struct KafkaMember {
    group: String,
    place: BaseConsumer<Context>,
    /// The group has something to say.
    news: Arc<AtomicBool>,
    /// A revocation the engine has been told of and the group is waiting for.
    revoking: bool,
    reader: KafkaReader,
    core: Arc<Core>,
    reach: Reach,
}

impl KafkaMember {
    /// Joins; the first assignment comes through `changes`.
    pub(super) fn new(core: &Arc<Core>, spec: &MemberSpec) -> Result<Self, LogError> {
        let partitions = check_counts(core, spec)?;
        let budget = Config::partitions_of(spec.topics.len(), partitions);
        let reader = KafkaReader::new(core, Isolation::Committed, Some(budget));
        let config = core.config.member(&spec.group, &spec.instance);
        let mut place = make_consumer(&config)?;
        let news = Arc::new(AtomicBool::new(false));
        let (bell, noted) = (Arc::clone(&reader.bell), Arc::clone(&news));
        place.set_nonempty_callback(move || {
            noted.store(true, Ordering::Release);
            bell.signal();
        });
        let topics: Vec<&str> = spec.topics.iter().map(|topic| topic.as_str()).collect();
        let doing = format!("joining the group {}", spec.group);
        place.subscribe(&topics).map_err(|e| fault::of_error(doing, &e, place.context()))?;
        let (core, reach) = (Arc::clone(core), Reach::default());
        Ok(Self { group: spec.group.clone(), place, news, revoking: false, reader, core, reach })
    }

    /// Tells the group that what it decided was taken note of. Nothing is assigned to this client.
    fn acknowledge(&self) -> Result<(), LogError> {
        let nothing = TopicPartitionList::new();
        let said = match self.place.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.place.incremental_assign(&nothing),
            _ => self.place.assign(&nothing),
        };
        self.said(said)
    }

    fn give_up(&mut self) -> Result<(), LogError> {
        self.revoking = false;
        let said = match self.place.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                self.place.incremental_unassign(&TopicPartitionList::new())
            }
            _ => self.place.unassign(),
        };
        self.said(said)
    }

    fn said(&self, outcome: Result<(), KafkaError>) -> Result<(), LogError> {
        let doing = format!("answering the group {}", self.group);
        outcome.map_err(|error| fault::of_error(doing, &error, self.place.context()))
    }

    /// Takes one event of the group, if there is one; also what keeps the membership alive.
    fn poll(&self) -> Result<(), LogError> {
        match self.place.poll(Duration::ZERO) {
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                Err(fault::of_code(self.doing(), code, self.place.context()))
            }
            Some(Err(KafkaError::MessageConsumption(code))) if is_final(code) => {
                Err(fault::of_code(self.doing(), code, self.place.context()))
            }
            // Nothing is assigned to this client, so it never fetches; a connection that is gone
            // for now is mended by the client, and its context says so.
            _ => Ok(()),
        }
    }

    fn doing(&self) -> String {
        format!("following the group {}", self.group)
    }

    fn change(&mut self, rebalanced: Rebalanced) -> Result<Change, LogError> {
        Ok(match rebalanced {
            Rebalanced::Assigned(of) => {
                self.acknowledge()?;
                Change::Assigned(of)
            }
            Rebalanced::Revoked(of) => {
                self.revoking = true;
                Change::Revoked(of)
            }
            Rebalanced::Lost(of) => {
                self.give_up()?;
                Change::Lost(of)
            }
        })
    }
}

/// What a member can't go on from by waiting.
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

/// The partition count all topics of a member share.
fn check_counts(core: &Core, spec: &MemberSpec) -> Result<u32, LogError> {
    let invalid = |text: String| Err(LogError::Invalid(text));
    let mut counts = Vec::new();
    for topic in &spec.topics {
        match core.count(topic)? {
            Some(count) => counts.push(count),
            None => return invalid(format!("there is no topic {topic} to read as a group")),
        }
    }
    match counts.first() {
        None => invalid("a member needs a topic".to_owned()),
        Some(first) if counts.iter().all(|count| count == first) => Ok(*first),
        Some(_) => invalid("the topics of a member must have the same partition count".to_owned()),
    }
}

impl Member for KafkaMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        if self.revoking {
            self.give_up()?;
        }
        self.reach.look(&self.core.config, self.place.client());
        self.news.store(false, Ordering::Release);
        let mut changes = Vec::new();
        for _ in 0..EVENTS_MAX {
            let more = native::has_events(&self.place);
            self.poll()?;
            for rebalanced in self.place.context().rebalances() {
                changes.push(self.change(rebalanced)?);
            }
            // What is to be given up must be given up before anything else is heard.
            if self.revoking || !more {
                break;
            }
        }
        Ok(changes)
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let proof = self.place.group_metadata();
        let proof =
            proof.ok_or_else(|| LogError::Invalid("a member without a group".to_owned()))?;
        Ok(GroupToken { group: self.group.clone(), proof: Arc::new(proof) })
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let committed = self.place.commit(&list_of(offsets)?, CommitMode::Sync);
        let doing = format!("committing offsets of the group {}", self.group);
        committed.map_err(|error| fault::of_error(doing, &error, self.place.context()))
    }
}

impl Reader for KafkaMember {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<Slot, LogError> {
        self.reader.add(at, from)
    }

    fn remove(&mut self, slot: Slot) {
        self.reader.remove(slot);
    }

    fn seek(&mut self, slot: Slot, to: Offset) -> Result<(), LogError> {
        self.reader.seek(slot, to)
    }

    fn take(&mut self, slot: Slot, limit: Limit, out: &mut Vec<Record>) -> Result<usize, LogError> {
        self.reader.take(slot, limit, out)
    }

    fn position(&mut self, slot: Slot) -> Result<Offset, LogError> {
        self.reader.position(slot)
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.reader.serve();
        let bell = Arc::clone(&self.reader.bell);
        bell.wait(at_most, || self.news.load(Ordering::Acquire) || self.reader.is_ready());
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        // The client's own end waits until a last revocation is answered, and nobody else will.
        self.place.context().close();
        if self.revoking {
            let _ = self.give_up();
        }
    }
}
