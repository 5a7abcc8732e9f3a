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
//!
//! Copies that are more than one transaction may hold follow in further ones
//! (`pending_copies.rs`).

use bytes::Bytes;
use tidewire_schemas::envelope::Reason;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::{hash128, hex};

use crate::dead_letters::operator_failure::{FailedCause, RequeuedFor, TriggerKind};
use crate::dead_letters::record::{Diagnosis, SourceAddress, dead_letter_of};
use crate::derive::audit::layout::AuditItem;
use crate::derive::batch::LocalEmission;
use crate::derive::delivery::ChannelDelivery;
use crate::derive::effect_limits::cause_fits;
use crate::derive::emit::{MAX_HOPS, amended_value};
use crate::derive::failure::CommitFailure;
use crate::derive::forward::{ForwardedTo, audited_copy, copy_for, fact, fact_output};
use crate::derive::input::Input;
use crate::derive::operator::{Context, Flow, OnFailure, Operator, Rules};
use crate::derive::operator_call::{RolledBackCall, call, numbered};
use crate::derive::pending_copies::{
    PendingCopy, operator_names, pending_body, pending_copies, pending_record,
};
use crate::derive::plan::Destinations;
use crate::derive::running::RunningTask;
use crate::derive::taken_record::LaneRecord;
use crate::derive::timer_cause::TimerCause;
use crate::derive::trigger::{Inherited, Subject, Trigger};
use crate::fact_pack::pack_of_record;
use crate::port::StoreError;
use crate::record::{Body, Millis, Outgoing};
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
        self.batch.audit.event(event, taken.hops());
        let whole = (self.state.savepoint(), self.batch.savepoint());
        let input = Input::new(event, rules.catalogue);
        let to = self.destinations(rules, &input);
        let subject = self.subject(&input, taken, event);
        let mut operators = to.own.with(rules.plan.every);
        if taken.hops().is_none() {
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
        self.batch.audit.event(event, taken.hops());
        self.batch.audit.add(&AuditItem::ForOtherKey(to.key, to.numbers));
        let input = Input::new(event, rules.catalogue);
        let subject = Subject { key: to.key, ..self.subject(&input, taken, event) };
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
            let input = Input::new(&event, rules.catalogue);
            let to = self.destinations(rules, &input);
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
                    // It is delivered alone once it is requeued, so with what operators have set.
                    let amended = amended_value(&input, self.batch.amended());
                    let amended = amended.filter(|_| failed.is_of(&ChannelDelivery));
                    let value = amended.map_or_else(|| emission.value.clone(), Bytes::from);
                    let body = fact(key, value, *inherited).to_body();
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
        self.batch.counts.keys_skipped += to.skipped as u64;
        let copies: Vec<_> = to.others.iter().map(|to| PendingCopy::of(rules, to)).collect();
        if inherited.hops > MAX_HOPS && !copies.is_empty() {
            self.put_unforwarded(rules, subject, &copies);
        } else {
            self.write_copies(rules, (subject, inherited), &copies);
        }
    }

    /// Writes copies of an event as far as its limit allows, and one record that lists the others:
    /// the task goes on with that in another transaction.
    fn write_copies(
        &mut self,
        rules: Rules<'_>,
        (subject, inherited): (Subject<'_>, Inherited),
        copies: &[PendingCopy],
    ) {
        let Trigger::Event { event, value, .. } = subject.trigger else { return };
        let shared = Bytes::copy_from_slice(if copies.is_empty() { &[] } else { value });
        for (done, copy) in copies.iter().enumerate() {
            let fact = copy_for(copy, shared.clone(), inherited);
            if !cause_fits(fact.size(), self.batch.caused()) {
                let body = pending_record(rules, &copies[done..], (event.key, value), inherited);
                let names = operator_names(rules, &copies[done..]);
                self.batch.audit.add(&AuditItem::FurtherCopies(&names));
                let (topic, partition) = (rules.topology.facts().clone(), self.partition);
                let record = Outgoing { topic, partition, body: pack_of_record(&body) };
                return self.batch.emit_caused(record.into());
            }
            let lane = self.batch.lane_of_fact(inherited.lane);
            self.batch.audit.add(&AuditItem::Forwarded(audited_copy(copy, lane)));
            self.batch.emit_caused(fact_output(rules, event.account_id, lane, fact));
        }
    }

    /// Adds the dead letter of copies that are too many hops away.
    fn put_unforwarded(&mut self, rules: Rules<'_>, subject: Subject<'_>, copies: &[PendingCopy]) {
        let Trigger::Event { event, value, .. } = subject.trigger else { return };
        let why = format!(
            "{MAX_HOPS} facts and timers in a row led to this {}, which is the limit, so it has no \
             copies for {} other keys; check which operators cause each other",
            event.event_type,
            copies.len()
        );
        let failed = RolledBackCall::of_copies(operator_names(rules, copies), subject, why);
        let id = format!("{}:{}/copies", event.event_id.len(), event.event_id);
        let id = hex(&hash128(event.account_id, &id));
        let inherited = Inherited { hops: 0, ..subject.trigger.inherited(subject.time) };
        let body = pending_body(copies, (event.key, value), inherited);
        self.put_derived(rules, MadeByTask { time: subject.time, id: &id, body: &body }, failed);
    }

    /// Goes on with the copies that a record lists.
    fn write_pending(
        &mut self,
        rules: Rules<'_>,
        taken: LaneRecord<'_>,
    ) -> Result<(), CommitFailure> {
        let value = taken.record.value().unwrap_or_default();
        let event = match EventView::decode(value) {
            Ok(event) => event,
            Err(error) => {
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                return Ok(());
            }
        };
        let Some(copies) = taken.record.record().and_then(pending_copies) else {
            let detail = "its list of copies can't be decoded; requeue it with the build that \
                          wrote it";
            self.put_dead_letter(rules, taken, Reason::ProcessingFailed, detail);
            return Ok(());
        };
        self.batch.audit.event(&event, taken.hops());
        let trigger = Trigger::of(&taken, &event);
        let subject = Subject { trigger, key: event.key, time: taken.time };
        // Those of a critical event too: what waited once is not urgent any more.
        let inherited = Inherited { lane: Lane::Facts, ..trigger.inherited(taken.time) };
        self.write_copies(rules, (subject, inherited), &copies);
        Ok(())
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
        if requeued.trigger == Some(TriggerKind::Copies) {
            return self.write_pending(rules, taken);
        }
        let named = |o: &&dyn Operator| {
            o.name() == requeued.operator || numbered(o.number()) == requeued.operator
        };
        let delivery: &dyn Operator = &ChannelDelivery;
        let of_build = rules.operators.iter().copied();
        let operator = of_build.chain([delivery]).find(named);
        // Delivery may have failed on an emission alone.
        let is_alone = |o: &&dyn Operator| {
            o.on_failure() == OnFailure::RollBackCall || o.name() == delivery.name()
        };
        let operator = operator.filter(is_alone);
        let (Some(operator), Some(kind)) = (operator, requeued.trigger) else {
            let detail = format!(
                "this build has no operator {} that can be called again; run the build that wrote \
                 the dead letter, or a later one, and requeue it there",
                requeued.operator
            );
            self.put_dead_letter(rules, taken, Reason::UnknownOperator, &detail);
            return Ok(());
        };
        match kind {
            TriggerKind::Event => self.call_again(rules, operator, taken),
            TriggerKind::Part => self.send_part_again(rules, operator, taken),
            TriggerKind::Timer | TriggerKind::Update | TriggerKind::Copies => {
                self.fire_again(rules, operator, (taken, kind))
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
        let event = match EventView::decode(taken.record.value().unwrap_or_default()) {
            Ok(event) => event,
            Err(error) => {
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                return Ok(());
            }
        };
        self.batch.audit.event(&event, taken.hops());
        let input = Input::new(&event, rules.catalogue);
        let mut subject = self.subject(&input, taken, &event);
        if let Some(to) = ForwardedTo::of(&taken) {
            subject.key = to.key;
        }
        let context = self.context(rules, operator, subject);
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
        let record = taken.record;
        let Some(cause) = TimerCause::decode(record.value().unwrap_or_default()) else {
            let detail = "its cause can't be decoded; requeue it with the build that wrote \
                          the dead letter";
            self.put_dead_letter(rules, taken, Reason::ProcessingFailed, detail);
            return Ok(());
        };
        let own = record.key().unwrap_or_default();
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

    /// Sends a requeued part of a total.
    fn send_part_again(
        &mut self,
        rules: Rules<'_>,
        operator: &dyn Operator,
        taken: LaneRecord<'_>,
    ) -> Result<(), CommitFailure> {
        if let Err(failed) = self.send_part(rules, operator, &taken.record.to_record().body)? {
            self.put_failed_call(rules, taken, failed);
        }
        Ok(())
    }

    /// Adds the dead letter of an operator that failed on a lane's record.
    fn put_failed_call(&mut self, rules: Rules<'_>, taken: LaneRecord<'_>, failed: RolledBackCall) {
        let at = &self.lanes[taken.lane.index()];
        let (record, entry) = (&taken.record.to_record(), taken.record.entry);
        let cause = FailedCause::Record { at, record, entry };
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
            Reason::UnknownOperator => self.batch.counts.unknown_operator += 1,
            Reason::EmptyValue => self.batch.counts.empty += 1,
            _ => self.batch.counts.undecodable += 1,
        }
        let diagnosis = Diagnosis { reason: reason.as_str(), field: None, detail };
        let (record, entry) = (&taken.record.to_record(), taken.record.entry);
        let from = SourceAddress { at: &self.lanes[taken.lane.index()], record, entry };
        let letter = dead_letter_of(rules.topology, from, diagnosis);
        self.batch.audit.dead_letter(reason.as_str(), &letter, detail);
        self.batch.put_dead_letter(letter);
    }

    fn destinations(&mut self, rules: Rules<'_>, input: &Input<'_>) -> Destinations {
        let Some(known) = input.known() else { return Destinations::default() };
        rules.plan.destinations(known, input, &mut self.routes)
    }

    /// An event of a lane as what operators of its own key are called with.
    fn subject<'a>(
        &self,
        input: &Input<'_>,
        taken: LaneRecord<'a>,
        event: &'a EventView<'a>,
    ) -> Subject<'a> {
        let trigger = Trigger::of(&taken, event);
        let trigger = match input.known().is_some_and(|of| of.broadcast) {
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
            kept: None,
            level: self.level,
            times: self.times,
            state: &mut self.state,
            batch: &mut self.batch,
            timers: &mut self.timers,
            ids: &mut self.ids,
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
