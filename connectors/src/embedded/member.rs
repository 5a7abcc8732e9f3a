//! A member of a consumer group on the embedded log: a reader, and a membership with the
//! coordinator.
//!
//! The rules of groups are in `group`; nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{
    Change, Committed, GroupToken, LogError, Member, MemberSpec, ReadLimit, Reader, ReaderSlot,
    UnreadRecords, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::core::Core;
use super::group::MemberId;
use super::read::EmbeddedReader;
use super::write_queue::AtomicWrite;
use super::writer;

/// A member of a group and its reader.
pub(super) struct EmbeddedMember {
    core: Arc<Core>,
    reader: EmbeddedReader,
    group: String,
    id: MemberId,
}

impl EmbeddedMember {
    /// Joins the group.
    pub(super) fn new(core: &Arc<Core>, spec: &MemberSpec) -> Result<Self, LogError> {
        let mut counts = Vec::new();
        for topic in &spec.topics {
            counts.push(core.topic(topic)?.spec.partitions);
        }
        let count = counts
            .first()
            .copied()
            .ok_or_else(|| invalid("a member of a group needs at least one topic"))?;
        if counts.iter().any(|other| *other != count) {
            return Err(invalid(
                "the topics of a group member must have the same number of partitions",
            ));
        }
        if spec.group.is_empty() || spec.group.contains('\0') {
            return Err(invalid("a group needs a name that is not empty and has no zero bytes"));
        }
        let reader = EmbeddedReader::new(core);
        let mut coordinator = core.coordinator.lock().expect("no holder panics");
        let id = coordinator.join(spec, count, reader.notifier.clone(), core.clock.now());
        drop(coordinator);
        Ok(Self { core: core.clone(), reader, group: spec.group.clone(), id })
    }
}

impl Member for EmbeddedMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        let mut coordinator = self.core.coordinator.lock().expect("no holder panics");
        coordinator.changes(&self.group, self.id, self.core.clock.now())
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let coordinator = self.core.coordinator.lock().expect("no holder panics");
        let proof = coordinator.proof(&self.group, self.id)?;
        Ok(GroupToken { group: self.group.clone(), proof: Arc::new(proof) })
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        let proof = {
            let coordinator = self.core.coordinator.lock().expect("no holder panics");
            coordinator.proof(&self.group, self.id)?
        };
        let row = |(at, committed): &(TopicPartition, Committed)| {
            (self.group.clone(), at.clone(), committed.clone())
        };
        let offsets = offsets.iter().map(row).collect();
        let write = AtomicWrite { offsets, proofs: vec![proof], ..AtomicWrite::default() };
        writer::submit(&self.core, write).map(drop)
    }
}

impl Reader for EmbeddedMember {
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
        self.core.check_failure()?;
        self.reader.wait_or(at_most, || {
            let coordinator = self.core.coordinator.lock().expect("no holder panics");
            coordinator.pending(&self.group, self.id)
        });
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        let mut coordinator = self.core.coordinator.lock().expect("no holder panics");
        coordinator.leave(&self.group, self.id, self.core.clock.now());
    }
}

fn invalid(text: &str) -> LogError {
    LogError::Invalid(text.to_owned())
}
