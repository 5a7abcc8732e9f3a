//! Reads partitions; some reads return nothing, or only a part, although there is more.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::port::{Isolation, LogError, ReadLimit, Reader, ReaderSlot, Wake};
use tidewire_engine::record::{Offset, Record, TopicPartition};

use super::faults::Call;
use super::injection::LAZY_ONCE_IN;
use super::log::FakeLog;
use super::partition::LogEntry;

pub(super) struct FakeReader {
    pub(super) log: FakeLog,
    isolation: Isolation,
    /// The next offset of each partition; `None` where one was removed.
    slots: Vec<Option<(TopicPartition, u64)>>,
}

impl FakeReader {
    pub(super) fn new(log: &FakeLog, isolation: Isolation) -> Self {
        Self { log: log.clone(), isolation, slots: Vec::new() }
    }

    fn at(&self, slot: ReaderSlot) -> &(TopicPartition, u64) {
        self.slots[slot.0 as usize].as_ref().expect("a removed slot is not used")
    }
}

impl Reader for FakeReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        self.log.call(Call::Add, |log_state| log_state.partition(at)?.check(at, from.0))?;
        self.slots.push(Some((at.clone(), from.0)));
        Ok(ReaderSlot(self.slots.len() as u32 - 1))
    }

    fn remove(&mut self, slot: ReaderSlot) {
        self.slots[slot.0 as usize] = None;
    }

    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError> {
        let at = self.at(slot).0.clone();
        self.log.call(Call::Seek, |log_state| log_state.partition(&at)?.check(&at, to.0))?;
        self.slots[slot.0 as usize].as_mut().expect("a removed slot is not used").1 = to.0;
        Ok(())
    }

    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let (at, from) = self.at(slot).clone();
        let (records, position) = self.log.call(Call::Take, |log_state| {
            if log_state.faults && log_state.random.one_in(LAZY_ONCE_IN) {
                return Ok((Vec::new(), from));
            }
            log_state.partition(&at)?.check(&at, from)?;
            let most = if log_state.faults { 1 + log_state.random.index(40) } else { 1_000 };
            let mut left = ReadLimit { records: limit.records.min(most), bytes: limit.bytes };
            let (mut records, mut position) = (Vec::new(), from);
            let (partition, end) = (log_state.partition(&at)?, log_state.end(&at, self.isolation)?);
            while position < end {
                let entry = &partition.entries[position as usize];
                if let LogEntry::Record { time, body, .. } = entry
                    && log_state.visible(entry, self.isolation)
                {
                    let bytes = body.as_bytes().len();
                    if !records.is_empty() && (left.records == 0 || left.bytes < bytes) {
                        break;
                    }
                    left.records = left.records.saturating_sub(1);
                    left.bytes = left.bytes.saturating_sub(bytes);
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

    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError> {
        let position = self.at(slot).1;
        self.log.call(Call::Position, |_| Ok(Offset(position)))
    }

    /// Returns at once, as the port allows: in a history nothing can arrive while it waits. The
    /// conformance suite uses two threads, so there it yields to the other one.
    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        if !self.log.state().one_thread {
            std::thread::yield_now();
        }
        self.log.call(Call::Wait, |log_state| {
            log_state.waited = Some(at_most);
            Ok(())
        })
    }

    fn waker(&self) -> Arc<dyn Wake> {
        struct Nobody;
        impl Wake for Nobody {
            fn wake(&self) {}
        }
        Arc::new(Nobody)
    }
}
