//! Sends the updates that are due, when a transaction is sealed and when an interval ends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use crate::derive::audit::layout::{AuditCause, CalledFor};
use crate::derive::audit::update_link;
use crate::derive::failure::CommitFailure;
use crate::derive::intervals::{Coalesced, EndedInterval};
use crate::derive::operate::{MadeByTask, send};
use crate::derive::operator::{Operator, Rules};
use crate::derive::operator_call::RolledBackCall;
use crate::derive::running::RunningTask;
use crate::derive::timer_cause::TimerCause;
use crate::derive::timers::MAX_TIMERS_PER_TICK;
use crate::derive::trigger::Subject;
use crate::derive::updates::{Mark, Updates};
use crate::fact_pack::TIME;
use crate::record::Body;
use crate::telemetry;

/// Times that updates may follow from each other within a transaction; the rest waits for the end
/// of its interval.
const ROUNDS_MAX: usize = 4;

/// Bytes of outputs and changed state after which a transaction sends no further update: the rest
/// waits for the end of its interval. As much again as a tick may write.
const UPDATE_BYTES: usize = 4 << 20;

impl RunningTask {
    /// Sends what this transaction has marked, as far as its intervals and its size allow.
    pub(super) fn commit_updates(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        self.intervals.set_latest(self.times.latest());
        let before = self.uncommitted_bytes();
        for round in 0..=ROUNDS_MAX {
            let marks = self.batch.take_marks();
            if marks.is_empty() {
                break;
            }
            for mark in merged(marks).into_values() {
                let Some(of) = operator_of(rules, &mark) else { continue };
                let is_large = self.uncommitted_bytes().saturating_sub(before) >= UPDATE_BYTES;
                let defers = round == ROUNDS_MAX || is_large;
                match self.intervals.coalesce(&mark.key, mark.time) {
                    Coalesced::Send if !defers || self.intervals.is_full() => {
                        self.send_update(rules, of, &mark)?;
                    }
                    _ => self.defer_update(of.1, mark),
                }
            }
        }
        self.put_unsent(rules);
        self.intervals.seal(&mut self.state);
        self.flush_early(rules)
    }

    /// Lets what the last round has marked wait. Only a task that remembers no further key sends
    /// anything in that round: there a new key can't wait, so its update becomes a dead letter.
    fn put_unsent(&mut self, rules: Rules<'_>) {
        for mark in merged(self.batch.take_marks()).into_values() {
            let Some((operator, updates)) = operator_of(rules, &mark) else { continue };
            if self.intervals.is_remembered(&mark.key) {
                self.defer_update(updates, mark);
                continue;
            }
            self.batch.audit.begin(rules.audit, AuditCause::Update(audited(&mark)), mark.time);
            let failed =
                RolledBackCall::unsent_update(operator.name(), &mark.cause, ROUNDS_MAX + 1);
            self.put_update(rules, &mark, failed);
        }
    }

    /// Lets the update of a key wait for the end of its interval.
    fn defer_update(&mut self, updates: Updates, mark: Mark) {
        let Mark { key, cause, time } = mark;
        // What is sent at the end of an interval costs a hop.
        let hops = cause.hops.saturating_add(1);
        let cause = || TimerCause { hops, ..cause }.encode().into();
        self.intervals.wait(&mut self.state, (&key, updates.end(time)), cause);
    }

    /// Ends the intervals of coalesced updates up to the latest time: a lane with a backlog does
    /// not hold them up, since an update sends the values of now. Stops at so many bytes.
    pub(super) fn end_intervals(
        &mut self,
        rules: Rules<'_>,
        bytes: usize,
    ) -> Result<(), CommitFailure> {
        self.intervals.set_latest(self.times.latest());
        let before = self.batch.bytes();
        for _ in 0..MAX_TIMERS_PER_TICK {
            let Some(ended) = self.intervals.take_ended(&mut self.state) else { break };
            self.batch.counts.timers += 1;
            self.end_interval(rules, ended)?;
            if self.batch.bytes() - before >= bytes {
                break;
            }
        }
        Ok(())
    }

    /// Sends the change that has waited for the end of an interval.
    fn end_interval(
        &mut self,
        rules: Rules<'_>,
        ended: EndedInterval,
    ) -> Result<(), CommitFailure> {
        let EndedInterval { end, key, cause } = ended;
        let Some(cause) = TimerCause::decode(&cause) else {
            telemetry::timers_orphaned();
            return Ok(());
        };
        let mark = Mark { key, cause, time: end };
        if let Some(of) = operator_of(rules, &mark) {
            return self.send_update(rules, of, &mark);
        }
        telemetry::timers_orphaned();
        self.batch.audit.begin(rules.audit, AuditCause::Update(audited(&mark)), mark.time);
        let number = mark.parts().map_or(0, |(number, _)| number);
        let failed = RolledBackCall::unknown_update(number, &mark.cause);
        self.put_update(rules, &mark, failed);
        Ok(())
    }

    /// Calls the operator that marked a key, and processes what it emits.
    fn send_update(
        &mut self,
        rules: Rules<'_>,
        (operator, updates): (&dyn Operator, Updates),
        mark: &Mark,
    ) -> Result<(), CommitFailure> {
        self.intervals.begin(&mut self.state, &mark.key, updates.end(mark.time));
        self.batch.begin_cause();
        self.batch.audit.begin(rules.audit, AuditCause::Update(audited(mark)), mark.time);
        let subject = Subject::of_update(&mark.cause, mark.time);
        let own = mark.parts().map(|(_, own)| own).unwrap_or_default();
        if let Err(failed) = send(self.context(rules, operator, subject), own)? {
            self.put_update(rules, mark, failed);
        }
        self.process_emissions(rules)
    }

    fn put_update(&mut self, rules: Rules<'_>, mark: &Mark, failed: RolledBackCall) {
        let stated = mark.time.0.to_be_bytes();
        let own = mark.parts().map(|(_, own)| own);
        let value = mark.cause.encode();
        let body = Body::new(own, Some(&value), &[(TIME, &stated)]);
        let made = MadeByTask { time: mark.time, id: &mark.cause.hex(), body: &body };
        self.put_derived(rules, made, failed);
    }
}

/// The operator that has marked a key, and its updates; `None` if this build does not have it.
fn operator_of(rules: Rules<'_>, mark: &Mark) -> Option<(&'static dyn Operator, Updates)> {
    let number = mark.parts()?.0;
    let operator = rules.operators.iter().find(|o| o.number() == number)?;
    Some((*operator, operator.updates()?))
}

/// The last mark of each key, with the most hops of any of its marks.
fn merged(marks: Vec<Mark>) -> BTreeMap<Bytes, Mark> {
    let mut merged = BTreeMap::new();
    for mark in marks {
        match merged.entry(mark.key.clone()) {
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

/// An update as the audit names it.
fn audited(mark: &Mark) -> CalledFor<'_> {
    let operator = mark.parts().map_or(0, |(number, _)| number);
    let (account, entity) = (&mark.cause.account[..], &mark.cause.entity[..]);
    CalledFor { operator, link: update_link(&mark.key), account, entity }
}
