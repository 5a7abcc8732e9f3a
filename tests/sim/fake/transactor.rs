//! A transactional id in use: fenced by whoever makes it again.

use tidewire_engine::port::{Committed, GroupToken, LogError, Transactor};
use tidewire_engine::record::{Offset, Outgoing, TopicPartition};

use super::faults::{Call, Fate};
use super::inner::{Inner, Outcome};
use super::log::FakeLog;

/// A drain finds that something never arrived.
const FAILED_DELIVERY_ONCE_IN: u64 = 60;

pub(super) struct FakeTransactor {
    pub(super) log: FakeLog,
    pub(super) id: String,
    pub(super) epoch: u64,
}

impl FakeTransactor {
    fn open(&self, inner: &Inner) -> Result<usize, LogError> {
        let state = &inner.ids[&self.id];
        if state.epoch != self.epoch {
            return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
        }
        state.open.ok_or_else(|| LogError::Invalid("no transaction is open".to_owned()))
    }

    fn in_transaction<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut Inner, usize) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.log.call(call, |inner| {
            let open = self.open(inner)?;
            effect(inner, open)
        })
    }
}

impl Transactor for FakeTransactor {
    fn begin(&mut self) -> Result<(), LogError> {
        self.log.call(Call::Begin, |inner| {
            let state = &inner.ids[&self.id];
            if state.epoch != self.epoch {
                return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
            }
            if state.open.is_some() {
                return Err(LogError::Invalid("a transaction is begun inside another".to_owned()));
            }
            inner.wait_for_ends(&self.id);
            let n = inner.begin();
            let state = inner.ids.get_mut(&self.id).expect("made with it");
            (state.open, state.last) = (Some(n), Some(n));
            Ok(())
        })
    }

    /// Some of it arrives at once, some by the drain; a process that dies in between leaves either.
    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        self.in_transaction(Call::Produce, |inner, open| {
            records.iter().try_for_each(|record| inner.may_append(record))?;
            let transaction = &mut inner.transactions[open];
            transaction.in_flight.extend_from_slice(records);
            transaction.drained &= records.is_empty();
            if !inner.faults || inner.random.once_in(2) {
                inner.deliver_all(open);
            }
            Ok(())
        })
    }

    fn drain(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Drain, |inner, open| {
            if inner.faults && inner.random.once_in(FAILED_DELIVERY_ONCE_IN) {
                inner.count("deliveries failed");
                let count = inner.transactions[open].in_flight.len() as u64;
                let arrive = inner.random.below(count + 1) as usize;
                inner.deliver(open, arrive);
                inner.transactions[open].in_flight.clear();
                inner.transactions[open].failed = true;
            }
            if inner.transactions[open].failed {
                return Err(LogError::Abort("a delivery failed".into()));
            }
            inner.deliver_all(open);
            inner.transactions[open].drained = true;
            Ok(())
        })
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        self.in_transaction(Call::SendOffsets, |inner, open| {
            inner.check(token)?;
            if !inner.transactions[open].drained {
                inner.breaks(format!("{}: offsets are sent with records in flight", self.id));
            }
            for (at, committed) in offsets {
                let entry = (token.group.clone(), at.clone(), committed.clone());
                inner.transactions[open].offsets.push(entry);
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let mut inner = self.log.inner();
        let fate = self.log.fate(&mut inner, Call::Commit)?;
        let open = self.open(&inner)?;
        if inner.transactions[open].failed {
            return Err(LogError::Abort("a delivery failed".into()));
        }
        inner.deliver_all(open);
        if fate == Fate::Prepared {
            inner.transactions[open].prepared = true;
            return self.log.after(&mut inner, fate, Ok(Vec::new()));
        }
        inner.ids.get_mut(&self.id).expect("made with it").open = None;
        inner.count("commits");
        let ends = inner.settle(open, Outcome::Committed);
        self.log.after(&mut inner, fate, Ok(ends))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Abort, |inner, open| {
            if inner.transactions[open].prepared {
                return Err(LogError::Invalid("its commit was asked for".to_owned()));
            }
            inner.ids.get_mut(&self.id).expect("made with it").open = None;
            inner.settle(open, Outcome::Aborted);
            Ok(())
        })
    }
}
