//! Sends the updates that are due, when a transaction is sealed and when an interval ends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use crate::derive::audit::layout::{AuditCause, CalledFor};
use crate::derive::audit::update_link;
use crate::derive::failure::CommitFailure;
use crate::derive::operate::{MadeByTask, send};
use crate::derive::operator::{Operator, Rules};
use crate::derive::operator_call::RolledBackCall;
use crate::derive::running::RunningTask;
use crate::derive::timer_cause::TimerCause;
use crate::derive::timers::{DueTimer, TimerKey, TimerOwner};
use crate::derive::trigger::{Subject, TIME};
use crate::derive::updates::{Mark, UPDATES, UpdateRow, Updates, row_key, timer_key};
use crate::record::{Body, Millis};
use crate::telemetry;

/// Times that updates may follow from each other within a transaction; the rest waits for the end
/// of its interval.
const ROUNDS_MAX: usize = 4;

impl RunningTask {
    /// Sends what this transaction has marked, as far as its intervals allow.
    pub(super) fn commit_updates(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        for round in 0.. {
            let marks = self.batch.take_marks();
            if marks.is_empty() {
                break;
            }
            let is_last = round >= ROUNDS_MAX;
            for mark in merged(marks).into_values() {
                match is_last {
                    true => self.defer_update(rules, mark)?,
                    false => self.commit_update(rules, mark)?,
                }
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Sends the update of a key, unless it was sent within the last interval.
    fn commit_update(&mut self, rules: Rules<'_>, mark: Mark) -> Result<(), CommitFailure> {
        let Some((operator, updates)) = operator_of(rules, mark.operator) else { return Ok(()) };
        let row = updates.row(&mut self.state, &mark.row_key())?;
        let sent = row.map(|row| row.updated);
        if sent.is_some_and(|sent| mark.time < updates.end(sent)) {
            return self.defer_update(rules, mark);
        }
        if let Some(sent) = sent {
            self.remove_interval(&updates, &mark, sent);
        }
        self.begin_interval(&updates, &mark, mark.time);
        self.send_update(rules, operator, &mark)
    }

    /// Lets the update of a key wait for the end of its interval.
    fn defer_update(&mut self, rules: Rules<'_>, mark: Mark) -> Result<(), CommitFailure> {
        let Some((_, updates)) = operator_of(rules, mark.operator) else { return Ok(()) };
        let key = mark.row_key();
        let row = updates.row(&mut self.state, &key)?;
        let updated = match row {
            Some(UpdateRow { waiting: Some(_), .. }) => return Ok(()),
            Some(row) => row.updated,
            None => {
                self.begin_interval(&updates, &mark, mark.time);
                mark.time
            }
        };
        // What a timer sends costs a hop.
        let hops = mark.cause.hops.saturating_add(1);
        let waiting = Some(TimerCause { hops, ..mark.cause });
        updates.put(&mut self.state, key, Some(&UpdateRow { updated, waiting }));
        Ok(())
    }

    /// Handles the end of an interval.
    pub(super) fn end_interval(
        &mut self,
        rules: Rules<'_>,
        due: &DueTimer,
        stored: &[u8],
    ) -> Result<(), CommitFailure> {
        let decoded = TimerCause::decode(stored).zip(due.key.split_first());
        let Some((cause, (number, own))) = decoded else {
            telemetry::timers_orphaned();
            return Ok(());
        };
        let Some((operator, updates)) = operator_of(rules, *number) else {
            telemetry::timers_orphaned();
            let failed = RolledBackCall::unknown_update(*number, &cause);
            let own = Bytes::copy_from_slice(own);
            let mark = Mark { operator: *number, own, cause, time: due.at };
            self.batch.audit.begin(rules.audit, AuditCause::Update(audited(&mark)), due.at);
            self.put_update(rules, &mark, failed);
            return Ok(());
        };
        let key = row_key(&cause, own);
        let row = updates.row(&mut self.state, &key)?;
        let Some(row) = row.filter(|row| updates.end(row.updated) == due.at) else {
            return Ok(());
        };
        let Some(waiting) = row.waiting else {
            updates.put(&mut self.state, key, None);
            return Ok(());
        };
        let own = Bytes::copy_from_slice(own);
        let mark = Mark { operator: *number, own, cause: waiting, time: due.at };
        self.begin_interval(&updates, &mark, due.at);
        self.send_update(rules, operator, &mark)
    }

    /// Sets the row of a key that is sent now, and the timer at the end of its interval.
    fn begin_interval(&mut self, updates: &Updates, mark: &Mark, updated: Millis) {
        let row = UpdateRow { updated, waiting: None };
        updates.put(&mut self.state, mark.row_key(), Some(&row));
        let own = timer_key(mark.operator, &mark.own);
        let timer = interval_timer(&mark.cause, updates.end(updated), &own);
        self.intervals.set(&mut self.state, timer, mark.cause.encode().into());
    }

    fn remove_interval(&mut self, updates: &Updates, mark: &Mark, updated: Millis) {
        let own = timer_key(mark.operator, &mark.own);
        let timer = interval_timer(&mark.cause, updates.end(updated), &own);
        self.intervals.remove(&mut self.state, timer);
    }

    /// Calls the operator that marked a key, and processes what it emits.
    fn send_update(
        &mut self,
        rules: Rules<'_>,
        operator: &dyn Operator,
        mark: &Mark,
    ) -> Result<(), CommitFailure> {
        self.batch.begin_cause();
        self.batch.audit.begin(rules.audit, AuditCause::Update(audited(mark)), mark.time);
        let subject = Subject::of_update(&mark.cause, mark.time);
        if let Err(failed) = send(self.context(rules, operator, subject), &mark.own)? {
            self.put_update(rules, mark, failed);
        }
        self.process_emissions(rules)
    }

    fn put_update(&mut self, rules: Rules<'_>, mark: &Mark, failed: RolledBackCall) {
        let stated = mark.time.0.to_be_bytes();
        let value = mark.cause.encode();
        let body = Body::new(Some(&mark.own), Some(&value), &[(TIME, &stated)]);
        let made = MadeByTask { time: mark.time, id: &mark.cause.hex(), body: &body };
        self.put_derived(rules, made, failed);
    }
}

/// The operator of this number, and its updates.
fn operator_of(rules: Rules<'_>, number: u8) -> Option<(&'static dyn Operator, Updates)> {
    let operator = rules.operators.iter().find(|o| o.number() == number)?;
    Some((*operator, operator.updates()?))
}

/// The last mark of each key, with the most hops of any of its marks.
fn merged(marks: Vec<Mark>) -> BTreeMap<(u8, Vec<u8>), Mark> {
    let mut merged = BTreeMap::new();
    for mark in marks {
        match merged.entry((mark.operator, mark.row_key())) {
            Entry::Vacant(none) => drop(none.insert(mark)),
            Entry::Occupied(mut known) => {
                let before: &Mark = known.get();
                let hops = mark.cause.hops.max(before.cause.hops);
                let time = mark.time.max(before.time);
                known.insert(Mark { time, cause: TimerCause { hops, ..mark.cause }, ..mark });
            }
        }
    }
    merged
}

fn interval_timer<'a>(cause: &TimerCause, at: Millis, own: &'a [u8]) -> TimerKey<'a> {
    let owner = TimerOwner::of(&cause.account, &cause.entity);
    TimerKey { at, operator: UPDATES, owner, key: own }
}

/// An update as the audit names it.
fn audited(mark: &Mark) -> CalledFor<'_> {
    let link = update_link(mark.operator, &mark.row_key());
    let (account, entity) = (&mark.cause.account[..], &mark.cause.entity[..]);
    CalledFor { operator: mark.operator, link, account, entity }
}
