//! A transactional id in use: fenced by whoever makes it again.

use tidewire_engine::port::{Committed, GroupToken, LogError, Transactor};
use tidewire_engine::record::{Offset, Outgoing, TopicPartition};

use super::faults::Call;
use super::inner::{Inner, Outcome};
use super::log::FakeLog;

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
        self.log.call(Call::Transaction, |inner| {
            let state = &inner.ids[&self.id];
            if state.epoch != self.epoch {
                return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
            }
            assert_eq!(state.open, None, "a transaction is begun inside another");
            let n = inner.begin();
            inner.ids.get_mut(&self.id).expect("made with it").open = Some(n);
            Ok(())
        })
    }

    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        self.in_transaction(Call::Transaction, |inner, open| {
            records.iter().try_for_each(|record| inner.write(record, Some(open)).map(drop))
        })
    }

    fn drain(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Transaction, |_, _| Ok(()))
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        self.in_transaction(Call::Transaction, |inner, open| {
            inner.check(token)?;
            for (at, committed) in offsets {
                let entry = (token.group.clone(), at.clone(), committed.clone());
                inner.transactions[open].offsets.push(entry);
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        self.in_transaction(Call::Commit, |inner, open| {
            inner.ids.get_mut(&self.id).expect("made with it").open = None;
            inner.count("commits");
            Ok(inner.settle(open, Outcome::Committed))
        })
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Plain, |inner, open| {
            inner.ids.get_mut(&self.id).expect("made with it").open = None;
            inner.settle(open, Outcome::Aborted);
            Ok(())
        })
    }
}
