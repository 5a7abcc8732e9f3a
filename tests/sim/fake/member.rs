//! A member of a group: told of changes, and fenced once its session is over.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{
    Change, Committed, GroupToken, Isolation, LogError, Member, ReadLimit, Reader, ReaderSlot, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::faults::Call;
use super::inner::Inner;
use super::journal::Fact;
use super::reader::FakeReader;

pub(super) struct FakeMember {
    pub(super) reader: FakeReader,
    pub(super) group: String,
    pub(super) id: u64,
}

impl Reader for FakeMember {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        let slot = self.reader.add(at, from)?;
        let mut inner = self.reader.log.inner();
        let end = inner.end(at, Isolation::Committed)?;
        inner.journal.push(Fact::TakenUp(at.clone(), from, end));
        Ok(slot)
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
        self.reader.log.call(Call::Changes, |inner| {
            let now = inner.now;
            let changes = inner.groups.get_mut(group).expect("joined").changes(id, now)?;
            for change in &changes {
                match change {
                    Change::Lost(of) => inner.lost.extend(places(process, of)),
                    Change::Assigned(of) => {
                        inner.lost.retain(|place| !places(process, of).any(|own| own == *place));
                    }
                    Change::Revoked(_) => {}
                }
            }
            Ok(changes)
        })
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let (group, id) = (&self.group, self.id);
        self.reader.log.call(Call::Token, |inner| Ok(token(inner, group, id)))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        let (group, id) = (&self.group, self.id);
        self.reader.log.call(Call::CommitOffsets, |inner| {
            inner.check(&token(inner, group, id))?;
            for (at, committed) in offsets {
                inner.offsets.insert((group.clone(), at.clone()), committed.clone());
                let moved = Fact::Moved(group.clone(), at.clone(), committed.clone());
                inner.journal.push(moved);
            }
            Ok(())
        })
    }
}

fn places(process: u64, of: &[TopicPartition]) -> impl Iterator<Item = (u64, u32)> {
    of.iter().map(move |at| (process, at.partition.0))
}

fn token(inner: &Inner, group: &str, id: u64) -> GroupToken {
    let proof = inner.groups[group].proof(id);
    GroupToken { group: group.to_owned(), proof: Arc::new(proof) }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        // A crashed process says no goodbye.
        if self.reader.log.is_dead() {
            return;
        }
        let mut inner = self.reader.log.inner();
        let now = inner.now;
        inner.groups.get_mut(&self.group).expect("joined").leave(self.id, now);
    }
}
