//! A member of a group: receives changes, and is fenced once its session has expired.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{
    Change, Committed, GroupToken, LogError, Member, ReadLimit, Reader, ReaderSlot, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::faults::Call;
use super::journal::Fact;
use super::log_state::LogState;
use super::reader::FakeReader;

pub(super) struct FakeMember {
    pub(super) reader: FakeReader,
    pub(super) group: String,
    pub(super) id: u64,
}

impl Reader for FakeMember {
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

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.reader.wait(at_most)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Member for FakeMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        let (group, id) = (&self.group, self.id);
        let process = self.reader.log.process();
        self.reader.log.call(Call::Changes, |log_state| {
            let now = log_state.now;
            let changes = log_state.groups.get_mut(group).expect("joined").changes(id, now)?;
            for change in &changes {
                match change {
                    Change::Lost(of) => log_state.lost.extend(process_partitions(process, of)),
                    Change::Assigned(of) => {
                        log_state.lost.retain(|place| {
                            !process_partitions(process, of).any(|own| own == *place)
                        });
                    }
                    Change::Revoked(_) => {}
                }
            }
            Ok(changes)
        })
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let (group, id) = (&self.group, self.id);
        self.reader.log.call(Call::Token, |log_state| Ok(token(log_state, group, id)))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        let (group, id) = (&self.group, self.id);
        self.reader.log.call(Call::CommitOffsets, |log_state| {
            log_state.check(&token(log_state, group, id))?;
            for (at, committed) in offsets {
                log_state.offsets.insert((group.clone(), at.clone()), committed.clone());
                let moved = Fact::OffsetCommitted(group.clone(), at.clone(), committed.clone());
                log_state.journal.push(moved);
            }
            Ok(())
        })
    }
}

fn process_partitions(process: u64, of: &[TopicPartition]) -> impl Iterator<Item = (u64, u32)> {
    of.iter().map(move |at| (process, at.partition.0))
}

fn token(log_state: &LogState, group: &str, id: u64) -> GroupToken {
    let proof = log_state.groups[group].proof(id);
    GroupToken { group: group.to_owned(), proof: Arc::new(proof) }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        // A crashed process does not leave the group.
        if self.reader.log.is_dead() {
            return;
        }
        let mut log_state = self.reader.log.state();
        let now = log_state.now;
        log_state.groups.get_mut(&self.group).expect("joined").leave(self.id, now);
    }
}
