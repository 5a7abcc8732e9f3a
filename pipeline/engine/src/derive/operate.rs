//! What one event or timer of a task causes: the calls of its operators, and what they emit.
//!
//! ```text
//! event of a lane ─▶ operators of its key ─▶ delivery ─▶ copies for other keys ─▶ emissions
//! copy            ─▶ the operators it is for ──────────────────────────────────▶ emissions
//! timer           ─▶ its operator ─────────────────────────────────────────────▶ emissions
//! emission        ─▶ operators of its key ─▶ delivery ─▶ copies for other keys ─▶ emissions
//! ```
//!
//! An emission that moves operators of the same key is processed in the same step, after the call
//! that emitted it has succeeded. The queue of emissions is bounded, and each one costs a hop.
//!
//! A call that fails becomes a dead letter of that operator and of that event, copy, emission or
//! timer; all else goes on.

use tidewire_schemas::catalogue::EventType;
use tidewire_schemas::envelope::Reason;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::{hash128, hex};

use crate::dead_letters::operator_failure::{FailedCause, RequeuedFor, TriggerKind};
use crate::dead_letters::record::{Diagnosis, dead_letter};
use crate::derive::audit::layout::AuditItem;
use crate::derive::batch::LocalEmission;
use crate::derive::delivery::ChannelDelivery;
use crate::derive::effect_limits::emission_excess;
use crate::derive::emit::{MAX_HOPS, fact_body};
use crate::derive::failure::CommitFailure;
use crate::derive::forward::{ForwardedTo, audited_copy, forwarded_body, forwarded_record};
use crate::derive::input::Input;
use crate::derive::operator::{Context, Flow, OnFailure, Operator, Rules};
use crate::derive::operator_call::{RolledBackCall, call, numbered};
use crate::derive::plan::{Destinations, ForKey, OperatorSet};
use crate::derive::running::{LaneRecord, RunningTask};
use crate::derive::timer_cause::TimerCause;
use crate::derive::trigger::{Inherited, Subject, Trigger, hops_of};
use crate::port::StoreError;
use crate::record::{Body, Millis};
use crate::topology::Lane;

/// What a task has made and an operator failed on, as its dead letter has it.
pub(super) struct MadeByTask<'a> {
    /// Its append time, or when it was due.
    pub(super) time: Millis,
    /// 32 hex digits.
    pub(super) id: &'a str,
    /// The record as it is requeued.
    pub(super) body: &'a Body,
}

impl RunningTask {
    /// Processes an event of a lane.
    pub(super) fn operate(
        &mut self,
        rules: Rules<'_>,
        taken: LaneRecord<'_>,
        event: &EventView<'_>,
    ) -> Result<(), CommitFailure> {
        self.batch.begin_cause();
        self.batch.audit.event(event, hops_of(taken.lane, taken.record));
        let whole = (self.state.savepoint(), self.batch.savepoint());
        let input = Input::new(event);
        let known = rules.catalogue.resolve(event.event_type);
        let to = self.destinations(rules, known, &input);
        let subject = self.subject(known, taken, event);
        let mut operators = to.own.with(rules.plan.every);
        if hops_of(taken.lane, taken.record).is_none() {
            operators = operators.with(rules.plan.admitted);
        }
        for operator in operators.iter().map(|index| rules.operators[index]) {
            let context = self.context(rules, operator, subject);
            match call(context, |context| operator.on_event(&input, context))? {
                Ok(Flow::Continue) => {}
                Ok(Flow::Duplicate) => {
                    self.batch.counts.duplicates += 1;
                    self.batch.audit.add(&AuditItem::Duplicate);
                    return Ok(());
                }
                Err(failed) if operator.on_failure() == OnFailure::RollBackEvent => {
                    // The id is then not accepted, so that the event passes once it is requeued.
                    self.state.roll_back(whole.0);
                    self.batch.roll_back(whole.1);
                    self.put_dead_letter(rules, taken, Reason::ProcessingFailed, &failed.why);
                    return Ok(());
                }
                Err(failed) => self.put_failed_call(rules, taken, failed),
            }
        }
        // The copy of a broadcast event in a task that is not the one of its key has no deliveries.
        let is_ours = |task: &Self| {
            let partition = rules.topology.entity_partition(event.account_id, event.key);
            partition == task.partition
        };
        if to.is_elsewhere() && is_ours(self) {
            let inherited = subject.trigger.inherited(subject.time);
            self.forward(rules, (subject, inherited), &to);
        }
        self.process_emissions(rules)?;
        let made = self.batch.made_since(whole.1);
        // What a fact of a critical event causes waits for others no longer than the event's own.
        self.batch.urgent |= made > 0 && taken.lane == Lane::FactsUrgent;
        if made == 0 && is_ours(self) {
            self.batch.counts.undelivered += 1;
        }
        Ok(())
    }

    /// Processes a copy that was forwarded to this task for some operators.
    pub(super) fn operate_forwarded(
        &mut self,
        rules: Rules<'_>,
        taken: LaneRecord<'_>,
        (event, to): (&EventView<'_>, ForwardedTo<'_>),
    ) -> Result<(), CommitFailure> {
        self.batch.begin_cause();
        self.batch.audit.event(event, hops_of(taken.lane, taken.record));
        self.batch.audit.add(&AuditItem::ForOtherKey(to.key, to.numbers));
        let input = Input::new(event);
        let known = rules.catalogue.resolve(event.event_type);
        let subject = Subject { key: to.key, ..self.subject(known, taken, event) };
        let (operators, unknown) = to.operators(rules);
        for number in unknown {
            let failed = RolledBackCall::unknown(number, subject);
            self.put_failed_call(rules, taken, failed);
        }
        for operator in operators.iter().map(|index| rules.operators[index]) {
            let context = self.context(rules, operator, subject);
            if let Err(failed) = call(context, |context| operator.on_event(&input, context))? {
                self.put_failed_call(rules, taken, failed);
            }
        }
        self.batch.urgent |= taken.lane == Lane::FactsUrgent;
        self.process_emissions(rules)
    }

    /// Processes what the current event or timer has emitted for operators of its own key.
    pub(super) fn process_emissions(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        while let Some(emission) = self.batch.next_emission() {
            self.batch.audit.add(&AuditItem::NextEmission);
            let event = EventView::decode(&emission.value).expect("an operator has encoded it");
            let input = Input::new(&event);
            let known = rules.catalogue.resolve(event.event_type);
            let to = self.destinations(rules, known, &input);
            let LocalEmission { value, inherited } = &emission;
            let urgent = inherited.lane == Lane::FactsUrgent;
            let (value, hops, key) = (&value[..], inherited.hops, event.key);
            let trigger = Trigger::Event { event: &event, value, hops, urgent, task: None };
            let subject = Subject { trigger, key, time: inherited.time };
            let delivery: [&dyn Operator; 1] = [&ChannelDelivery];
            let moved = to.own.iter().map(|index| rules.operators[index]);
            for operator in moved.chain(delivery) {
                let context = self.context(rules, operator, subject);
                if let Err(failed) = call(context, |context| operator.on_event(&input, context))? {
                    let body = fact_body(key, value, *inherited);
                    let id = &event_hash(&event);
                    let made = MadeByTask { time: subject.time, id, body: &body };
                    self.put_derived(rules, made, failed);
                }
            }
            // An emission and its copies are one step on the way.
            self.forward(rules, (subject, *inherited), &to);
        }
        Ok(())
    }

    /// Writes a copy of an event for each other key that it moves operators for.
    fn forward(
        &mut self,
        rules: Rules<'_>,
        (subject, inherited): (Subject<'_>, Inherited),
        to: &Destinations,
    ) {
        let Trigger::Event { event, value, .. } = subject.trigger else { return };
        self.batch.counts.keys_skipped += to.skipped as u64;
        for other in &to.others {
            let body = forwarded_body(rules, other, value, inherited);
            let bytes = body.as_bytes().len();
            let what = event.event_type;
            let excess = match emission_excess(what, bytes, self.batch.caused()) {
                None if inherited.hops > MAX_HOPS => Some(format!(
                    "{MAX_HOPS} facts and timers in a row led to this {what}, which is the limit; \
                     check which operators cause each other"
                )),
                excess => excess,
            };
            let Some(why) = excess else {
                let record = forwarded_record(rules, event.account_id, inherited, body);
                self.batch.audit.add(&AuditItem::Forwarded(audited_copy(&record, inherited.lane)));
                self.batch.emit_caused(record);
                self.batch.urgent |= inherited.lane == Lane::FactsUrgent;
                continue;
            };
            self.put_unforwarded(rules, subject, (other, &why));
        }
    }

    /// Adds a dead letter for each operator of a copy that can't be written.
    fn put_unforwarded(
        &mut self,
        rules: Rules<'_>,
        subject: Subject<'_>,
        (to, why): (&ForKey, &str),
    ) {
        let Trigger::Event { event, value, .. } = subject.trigger else { return };
        let id = format!("{}:{}/{}", event.event_id.len(), event.event_id, to.key);
        let id = hex(&hash128(event.account_id, &id));
        for index in to.operators.iter() {
            let failed = RolledBackCall::not_made(rules.operators[index].name(), subject, why);
            let one = ForKey { key: to.key.clone(), operators: OperatorSet::of(index) };
            let inherited = Inherited { hops: 0, ..subject.trigger.inherited(subject.time) };
            let body = forwarded_body(rules, &one, value, inherited);
            let made = MadeByTask { time: subject.time, id: &id, body: &body };
            self.put_derived(rules, made, failed);
        }
    }

    /// Processes a record that was requeued for one operator: de-duplication, delivery and the
    /// other operators have processed it before.
    pub(super) fn operate_again(
        &mut self,
        rules: Rules<'_>,
        taken: LaneRecord<'_>,
        requeued: RequeuedFor<'_>,
    ) -> Result<(), CommitFailure> {
        self.batch.begin_cause();
        self.batch.audit.add(&AuditItem::Requeued(requeued.operator));
        let named = |o: &&&dyn Operator| {
            o.name() == requeued.operator || numbered(o.number()) == requeued.operator
        };
        let operator = rules.operators.iter().find(named);
        let operator = operator.filter(|o| o.on_failure() == OnFailure::RollBackCall);
        let (Some(operator), Some(kind)) = (operator, requeued.trigger) else {
            let detail = format!(
                "this build has no operator {} that can be called again; run the build that wrote \
                 the dead letter, or a later one, and requeue it there",
                requeued.operator
            );
            self.put_dead_letter(rules, taken, Reason::ProcessingFailed, &detail);
            return Ok(());
        };
        match kind {
            TriggerKind::Event => self.call_again(rules, *operator, taken),
            TriggerKind::Timer | TriggerKind::Update => {
                self.fire_again(rules, *operator, (taken, kind))
            }
        }?;
        self.process_emissions(rules)
    }

    /// Calls an operator with a requeued event.
    fn call_again(
        &mut self,
        rules: Rules<'_>,
        operator: &dyn Operator,
        taken: LaneRecord<'_>,
    ) -> Result<(), CommitFailure> {
        let event = match EventView::decode(taken.record.body.value().unwrap_or_default()) {
            Ok(event) => event,
            Err(error) => {
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                return Ok(());
            }
        };
        self.batch.audit.event(&event, hops_of(taken.lane, taken.record));
        let known = rules.catalogue.resolve(event.event_type);
        let mut subject = self.subject(known, taken, &event);
        if let Some(to) = ForwardedTo::of(taken.lane, taken.record) {
            subject.key = to.key;
        }
        let context = self.context(rules, operator, subject);
        let input = Input::new(&event);
        if let Err(failed) = call(context, |context| operator.on_event(&input, context))? {
            self.put_failed_call(rules, taken, failed);
        }
        Ok(())
    }

    /// Calls an operator with a requeued timer or update.
    fn fire_again(
        &mut self,
        rules: Rules<'_>,
        operator: &dyn Operator,
        (taken, kind): (LaneRecord<'_>, TriggerKind),
    ) -> Result<(), CommitFailure> {
        let body = &taken.record.body;
        let Some(cause) = TimerCause::decode(body.value().unwrap_or_default()) else {
            let detail = "its cause can't be decoded; requeue it with the build that wrote \
                          the dead letter";
            self.put_dead_letter(rules, taken, Reason::ProcessingFailed, detail);
            return Ok(());
        };
        let own = body.key().unwrap_or_default();
        let done = if kind == TriggerKind::Update {
            let subject = Subject::of_update(&cause, taken.time);
            send(self.context(rules, operator, subject), own)?
        } else {
            let subject = Subject::of_timer(&cause, taken.time);
            fire(self.context(rules, operator, subject), own)?
        };
        if let Err(failed) = done {
            self.put_failed_call(rules, taken, failed);
        }
        Ok(())
    }

    /// Adds the dead letter of an operator that failed on a lane's record.
    fn put_failed_call(&mut self, rules: Rules<'_>, taken: LaneRecord<'_>, failed: RolledBackCall) {
        let at = &self.lanes[taken.lane.index()];
        let cause = FailedCause::Record { at, record: taken.record };
        failed.put(&mut self.batch, rules.topology, cause);
    }

    /// Adds the dead letter of an operator that failed on what the task itself has made.
    pub(super) fn put_derived(
        &mut self,
        rules: Rules<'_>,
        made: MadeByTask<'_>,
        failed: RolledBackCall,
    ) {
        let MadeByTask { time, id, body } = made;
        let partition = self.partition;
        let cause = FailedCause::Derived { partition, time, id, body };
        failed.put(&mut self.batch, rules.topology, cause);
    }

    /// Adds a record's dead letter to the transaction.
    pub(super) fn put_dead_letter(
        &mut self,
        rules: Rules<'_>,
        taken: LaneRecord<'_>,
        reason: Reason,
        detail: &str,
    ) {
        match reason {
            Reason::ProcessingFailed => self.batch.counts.failed += 1,
            Reason::EmptyValue => self.batch.counts.empty += 1,
            _ => self.batch.counts.undecodable += 1,
        }
        let diagnosis = Diagnosis { reason: reason.as_str(), field: None, detail };
        let from = &self.lanes[taken.lane.index()];
        let letter = dead_letter(rules.topology, from, taken.record, diagnosis);
        self.batch.audit.dead_letter(reason.as_str(), &letter, detail);
        self.batch.put_dead_letter(letter);
    }

    fn destinations(
        &mut self,
        rules: Rules<'_>,
        known: Option<&EventType>,
        input: &Input<'_>,
    ) -> Destinations {
        let Some(known) = known else { return Destinations::default() };
        rules.plan.destinations(known, input, &mut self.routes)
    }

    /// An event of a lane as what operators of its own key are called with.
    fn subject<'a>(
        &self,
        known: Option<&EventType>,
        taken: LaneRecord<'a>,
        event: &'a EventView<'a>,
    ) -> Subject<'a> {
        let trigger = Trigger::of(taken.lane, taken.record, event);
        let trigger = match known.is_some_and(|of| of.broadcast) {
            true => trigger.in_task(self.partition),
            false => trigger,
        };
        Subject { trigger, key: event.key, time: taken.time }
    }

    pub(super) fn context<'a>(
        &'a mut self,
        rules: Rules<'a>,
        operator: &'a dyn Operator,
        subject: Subject<'a>,
    ) -> Context<'a> {
        Context {
            rules,
            operator,
            trigger: subject.trigger,
            key: subject.key,
            partition: self.partition,
            emitted: 0,
            excess: None,
            time: subject.time,
            level: self.level,
            times: self.times,
            state: &mut self.state,
            batch: &mut self.batch,
            timers: &mut self.timers,
        }
    }
}

/// Calls an operator with one of its timers.
pub(super) fn fire(
    context: Context<'_>,
    key: &[u8],
) -> Result<Result<Flow, RolledBackCall>, StoreError> {
    let operator = context.operator;
    call(context, |context| operator.on_timer(key, context).map(|()| Flow::Continue))
}

/// Calls an operator with a change that it marked.
pub(super) fn send(
    context: Context<'_>,
    own: &[u8],
) -> Result<Result<Flow, RolledBackCall>, StoreError> {
    let operator = context.operator;
    call(context, |context| operator.on_commit(own, context).map(|()| Flow::Continue))
}

/// The hash at the end of an emitted event's id.
fn event_hash(event: &EventView<'_>) -> String {
    event.event_id.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
