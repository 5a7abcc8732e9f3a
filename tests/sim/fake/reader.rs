//! Reads partitions; sometimes nothing is ready though there is something.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{Isolation, Limit, LogError, Reader, Slot, Wake};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::faults::{Call, LAZY_ONCE_IN};
use super::inner::{Entry, Inner};
use super::log::FakeLog;

pub(super) struct FakeReader {
    pub(super) log: FakeLog,
    pub(super) isolation: Isolation,
    pub(super) slots: Vec<Option<(TopicPartition, u64)>>,
}

impl FakeReader {
    fn at(&self, slot: Slot) -> &(TopicPartition, u64) {
        self.slots[slot.0 as usize].as_ref().expect("a slot is used while it is there")
    }

    fn end(&self, inner: &Inner, at: &TopicPartition) -> Result<u64, LogError> {
        match self.isolation {
            Isolation::Committed => inner.stable_end(at),
            Isolation::Uncommitted => Ok(inner.part(at)?.len() as u64),
        }
    }
}

impl Reader for FakeReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<Slot, LogError> {
        self.log.call(Call::Plain, |inner| inner.part(at).map(drop))?;
        self.slots.push(Some((at.clone(), from.0)));
        Ok(Slot(self.slots.len() as u32 - 1))
    }

    fn remove(&mut self, slot: Slot) {
        self.slots[slot.0 as usize] = None;
    }

    fn seek(&mut self, slot: Slot, to: Offset) -> Result<(), LogError> {
        self.log.call(Call::Plain, |_| Ok(()))?;
        self.slots[slot.0 as usize].as_mut().expect("a slot is used while it is there").1 = to.0;
        Ok(())
    }

    fn take(&mut self, slot: Slot, limit: Limit, out: &mut Vec<Record>) -> Result<usize, LogError> {
        let (at, from) = self.at(slot).clone();
        let (records, position) = self.log.call(Call::Plain, |inner| {
            if inner.faults && inner.random.once_in(LAZY_ONCE_IN) {
                return Ok((Vec::new(), from));
            }
            let end = self.end(inner, &at)?;
            let most = if inner.faults { 1 + inner.random.below(40) as usize } else { 1_000 };
            let part = inner.part(&at)?;
            let (mut records, mut position) = (Vec::new(), from);
            while position < end {
                let entry = &part[position as usize];
                if let Entry::Record { time, body, .. } = entry
                    && inner.visible(entry, self.isolation)
                {
                    if records.len() >= limit.records.min(most) {
                        break;
                    }
                    let offset = Offset(position);
                    records.push(Record { offset, timestamp: *time, body: body.clone() });
                }
                position += 1;
            }
            Ok((records, position))
        })?;
        self.slots[slot.0 as usize] = Some((at, position));
        let count = records.len();
        out.extend(records);
        Ok(count)
    }

    fn position(&mut self, slot: Slot) -> Result<Offset, LogError> {
        let position = self.at(slot).1;
        self.log.call(Call::Plain, |_| Ok(Offset(position)))
    }

    fn wait(&mut self, _: Duration) -> Result<(), LogError> {
        self.log.call(Call::Wait, |_| Ok(()))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        struct Nobody;
        impl Wake for Nobody {
            fn wake(&self) {}
        }
        Arc::new(Nobody)
    }
}
