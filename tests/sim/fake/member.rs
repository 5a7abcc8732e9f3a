//! A member of a group: told of changes, and fenced once its session is over.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{
    Change, Committed, GroupToken, Limit, LogError, Member, Reader, Slot, Wake,
};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::faults::Call;
use super::reader::FakeReader;

pub(super) struct FakeMember {
    pub(super) reader: FakeReader,
    pub(super) name: String,
    pub(super) group: String,
    pub(super) id: u64,
}

impl Reader for FakeMember {
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
        self.reader.wait(at_most)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Member for FakeMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        let (name, id) = (self.name.clone(), self.id);
        self.reader.log.call(Call::Plain, |inner| {
            let group = inner.groups.get_mut(&name).expect("joined");
            let Some(member) = group.members.get_mut(&id) else {
                return Err(LogError::Fenced("another member of this name joined".to_owned()));
            };
            member.releasing.clear();
            let revoked: Vec<u32> = member
                .changes
                .iter()
                .flat_map(|change| match change {
                    Change::Revoked(of) => of.iter().map(|at| at.partition.0).collect(),
                    _ => Vec::new(),
                })
                .collect();
            member.releasing.extend(revoked);
            let changes = Vec::from(std::mem::take(&mut member.changes));
            member.in_group = true;
            inner.rebalance(&name);
            Ok(changes)
        })
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let proof: Arc<dyn Any + Send + Sync> = Arc::new((self.name.clone(), self.id));
        let group = self.group.clone();
        self.reader.log.call(Call::Plain, |_| Ok(GroupToken { group, proof }))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        let (name, id, group) = (self.name.clone(), self.id, self.group.clone());
        self.reader.log.call(Call::Plain, |inner| {
            for (at, committed) in offsets {
                if !inner.owns(&name, id, at.partition) {
                    return Err(LogError::Fenced(format!("{at} has another owner")));
                }
                inner.offsets.insert((group.clone(), at.clone()), committed.clone());
            }
            Ok(())
        })
    }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        let dead = self.reader.log.is_dead();
        let mut inner = self.reader.log.inner();
        if !dead && let Some(group) = inner.groups.get_mut(&self.name) {
            group.members.remove(&self.id);
            inner.rebalance(&self.name);
        }
    }
}
