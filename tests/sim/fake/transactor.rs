//! A transactional id: initialising it again fences the one before.

use tidewire_engine::port::{Committed, GroupToken, LogError, Transactor};
use tidewire_engine::record::{Offset, Outgoing, TopicPartition};

use super::faults::{Call, CallOutcome};
use super::log::FakeLog;
use super::log_state::{LogState, TransactionOutcome};

/// One drain in this many reports a failed delivery.
const FAILED_DELIVERY_ONCE_IN: u64 = 60;

pub(super) struct FakeTransactor {
    pub(super) log: FakeLog,
    pub(super) id: String,
    pub(super) epoch: u64,
}

impl FakeTransactor {
    fn open(&self, log_state: &LogState) -> Result<usize, LogError> {
        let state = &log_state.ids[&self.id];
        if state.epoch != self.epoch {
            return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
        }
        state.open.ok_or_else(|| LogError::Invalid("no transaction is open".to_owned()))
    }

    fn in_transaction<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut LogState, usize) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.log.call(call, |log_state| {
            let open = self.open(log_state)?;
            effect(log_state, open)
        })
    }
}

impl Transactor for FakeTransactor {
    fn begin(&mut self) -> Result<(), LogError> {
        self.log.call(Call::Begin, |log_state| {
            let state = &log_state.ids[&self.id];
            if state.epoch != self.epoch {
                return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
            }
            if state.open.is_some() {
                return Err(LogError::Invalid("a transaction is begun inside another".to_owned()));
            }
            log_state.wait_for_ends(&self.id);
            let n = log_state.begin();
            let state = log_state.ids.get_mut(&self.id).expect("made with it");
            (state.open, state.last) = (Some(n), Some(n));
            Ok(())
        })
    }

    /// Records arrive now or with the drain; a process that dies in between leaves either.
    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        self.in_transaction(Call::Produce, |log_state, open| {
            records.iter().try_for_each(|record| log_state.check_append(record))?;
            let transaction = &mut log_state.transactions[open];
            transaction.in_flight.extend_from_slice(records);
            transaction.drained &= records.is_empty();
            if !log_state.faults || log_state.random.one_in(2) {
                log_state.deliver_all(open);
            }
            Ok(())
        })
    }

    fn drain(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Drain, |log_state, open| {
            if log_state.faults && log_state.random.one_in(FAILED_DELIVERY_ONCE_IN) {
                log_state.count("deliveries failed");
                let count = log_state.transactions[open].in_flight.len();
                let arrive = log_state.random.index(count + 1);
                log_state.deliver(open, arrive);
                log_state.transactions[open].in_flight.clear();
                log_state.transactions[open].failed = true;
            }
            if log_state.transactions[open].failed {
                return Err(LogError::Abort("a delivery failed".into()));
            }
            log_state.deliver_all(open);
            log_state.transactions[open].drained = true;
            Ok(())
        })
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        self.in_transaction(Call::SendOffsets, |log_state, open| {
            log_state.check(token)?;
            if !log_state.transactions[open].drained {
                log_state.report_violation(format!(
                    "{}: offsets are sent with records in flight",
                    self.id
                ));
            }
            for (at, committed) in offsets {
                let entry = (token.group.clone(), at.clone(), committed.clone());
                log_state.transactions[open].offsets.push(entry);
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let mut log_state = self.log.state();
        let outcome = self.log.decide(&mut log_state, Call::Commit)?;
        let open = self.open(&log_state)?;
        if log_state.transactions[open].failed {
            return Err(LogError::Abort("a delivery failed".into()));
        }
        log_state.deliver_all(open);
        if outcome == CallOutcome::Prepared {
            log_state.transactions[open].prepared = true;
            return self.log.after(&mut log_state, outcome, Ok(Vec::new()));
        }
        log_state.ids.get_mut(&self.id).expect("made with it").open = None;
        log_state.count("commits");
        let ends = log_state.complete(open, TransactionOutcome::Committed);
        self.log.after(&mut log_state, outcome, Ok(ends))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Abort, |log_state, open| {
            if log_state.transactions[open].prepared {
                return Err(LogError::Invalid("its commit was requested".to_owned()));
            }
            log_state.ids.get_mut(&self.id).expect("made with it").open = None;
            log_state.complete(open, TransactionOutcome::Aborted);
            Ok(())
        })
    }
}
