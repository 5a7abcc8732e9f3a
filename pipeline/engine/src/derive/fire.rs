//! A tick of a task: moves its time, and fires the timers that are due then.

use tidewire_schemas::id::{hash128, hex};

use crate::derive::audit::layout::{AuditCause, CalledFor};
use crate::derive::audit::timer_link;
use crate::derive::failure::CommitFailure;
use crate::derive::operate::{MadeByTask, fire};
use crate::derive::operator::Rules;
use crate::derive::operator_call::RolledBackCall;
use crate::derive::running::{RunningTask, TickTime};
use crate::derive::state_channel::{LIVES, end_life};
use crate::derive::stores::expire;
use crate::derive::timer_cause::TimerCause;
use crate::derive::timers::{DueTimer, MAX_EXPIRIES_PER_TICK, MAX_TIMERS_PER_TICK, TimerKind};
use crate::derive::trigger::Subject;
use crate::fact_pack::TIME;
use crate::record::Body;
use crate::telemetry;

/// Bytes of outputs after which a tick leaves the other due timers to the next one.
const TICK_BYTES: usize = 4 << 20;

impl RunningTask {
    /// Moves the lanes that were consumed to their ends to the tick's time, and fires the timers
    /// that are due then.
    pub(super) fn tick(&mut self, rules: Rules<'_>, tick: TickTime) -> Result<(), CommitFailure> {
        self.times.tick(tick.at, tick.ended);
        self.batch.tick(tick.at, tick.ended);
        self.fire_due(rules, TimerKind::Lease)?;
        self.fire_due(rules, TimerKind::Settled)?;
        self.end_lives(rules)?;
        self.end_intervals(rules, TICK_BYTES)?;
        self.end_partials(rules)?;
        self.has_due_timers = self.is_due(&self.times);
        Ok(())
    }

    /// Fires the timers of this kind that operators have set.
    fn fire_due(&mut self, rules: Rules<'_>, kind: TimerKind) -> Result<(), CommitFailure> {
        let now = match kind {
            TimerKind::Settled => self.times.settled(),
            TimerKind::Lease => self.times.lease(),
        };
        let before = self.batch.bytes();
        let timers = self.timers.of_kind(kind);
        for due in timers.due(&mut self.state, now, MAX_TIMERS_PER_TICK)? {
            let timers = self.timers.of_kind(kind);
            let Some(cause) = timers.take(&mut self.state, &due)? else { continue };
            self.batch.counts.timers += 1;
            self.batch.begin_cause();
            self.fire_one(rules, &due, &cause)?;
            self.process_emissions(rules)?;
            if self.batch.bytes() - before >= TICK_BYTES {
                break;
            }
        }
        Ok(self.timers.of_kind(kind).advance(&mut self.state)?)
    }

    /// Removes entries of stores and of state channels whose time is over. They have a quota of
    /// their own, so that neither they nor the timers of operators wait for the others.
    fn end_lives(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        let settled = self.times.settled();
        let expiries = &self.timers.expiries;
        for due in expiries.due(&mut self.state, settled, MAX_EXPIRIES_PER_TICK)? {
            let taken = self.timers.expiries.take(&mut self.state, &due)?;
            if taken.is_none() {
                continue;
            }
            self.batch.counts.timers += 1;
            if due.operator == LIVES {
                if let Some(gone) = end_life(rules, &mut self.state, &due.key, settled)? {
                    self.batch.audit.begin(rules.audit, AuditCause::EndOfLife, due.at);
                    self.batch.audit.state_written(&gone);
                    self.batch.emit(gone);
                }
            } else {
                expire(rules, &mut self.state, &due.key, settled)?;
            }
        }
        Ok(self.timers.expiries.advance(&mut self.state)?)
    }

    /// Flushes the partials that are due by the latest time. A lane with a backlog does not hold
    /// them up, since totals are added up.
    fn end_partials(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        let (latest, before) = (self.times.latest(), self.batch.bytes());
        for due in self.timers.flushes.due(&mut self.state, latest, MAX_TIMERS_PER_TICK)? {
            if self.timers.flushes.take(&mut self.state, &due)?.is_none() {
                continue;
            }
            self.batch.counts.timers += 1;
            self.end_partial(rules, &due)?;
            if self.batch.bytes() - before >= TICK_BYTES {
                break;
            }
        }
        self.timers.flushes.advance(&mut self.state)?;
        self.flush_early(rules)
    }

    /// Fires a timer that was taken from the table.
    fn fire_one(
        &mut self,
        rules: Rules<'_>,
        due: &DueTimer,
        stored: &[u8],
    ) -> Result<(), CommitFailure> {
        let operator = rules.operators.iter().find(|o| o.number() == due.operator);
        let decoded = TimerCause::decode(stored);
        let fired = AuditCause::Timer(audited(due, decoded.as_ref()));
        self.batch.audit.begin(rules.audit, fired, due.at);
        let failed = match (operator, &decoded) {
            (Some(operator), Some(cause)) => {
                let subject = Subject::of_timer(cause, due.at);
                let context = self.context(rules, *operator, subject);
                fire(context, &due.key)?.err()
            }
            (Some(operator), None) => Some(RolledBackCall::undecodable_timer(operator.name())),
            (None, _) => {
                telemetry::timers_orphaned();
                Some(RolledBackCall::unknown_timer(due.operator, decoded.as_ref()))
            }
        };
        let Some(failed) = failed else { return Ok(()) };
        let id = match &decoded {
            Some(cause) => cause.hex(),
            None => hex(&hash128("", &format!("{:?}", due.stored))),
        };
        let time = due.at.0.to_be_bytes();
        let body = Body::new(Some(&due.key), Some(stored), &[(TIME, &time)]);
        self.put_derived(rules, MadeByTask { time: due.at, id: &id, body: &body }, failed);
        Ok(())
    }
}

/// A timer as the audit names it.
fn audited<'a>(due: &DueTimer, cause: Option<&'a TimerCause>) -> CalledFor<'a> {
    let (account, entity) = cause.map_or(("", ""), |cause| (&cause.account, &cause.entity));
    CalledFor { operator: due.operator, link: timer_link(&due.stored), account, entity }
}
