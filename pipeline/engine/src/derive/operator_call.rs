//! One call of an operator: its effects are kept whole or rolled back whole.
//!
//! A savepoint covers the call. If it fails, panics or exceeds a limit, what it wrote, emitted and
//! set is rolled back, and the operator gets a dead letter of its own; the event or timer goes on.
//!
//! Panics of operators are caught here and nowhere else in the engine. That is sound for these
//! reasons:
//!
//! * An operator has no fields, so a call can only have changed the state, the batch and the
//!   timers, all through its `Context`.
//! * Everything changed in these is rolled back to the savepoint. Only the first due time of the
//!   timers may then be too early, which costs a tick without effect.
//! * No method of `Context` runs the operator's code between two changes that belong together:
//!   `scan` only reads while it visits.
//!
//! A failure of the store is none of the operator: it ends the loop.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidewire_schemas::envelope::Reason;

use crate::dead_letters::operator_failure::{
    FailedCause, OperatorFailure, TriggerKind, operator_dead_letter,
};
use crate::dead_letters::record::Diagnosis;
use crate::derive::audit::layout::AuditItem;
use crate::derive::batch::TaskBatch;
use crate::derive::operator::{Context, Flow, Operator, OperatorError};
use crate::derive::timer_cause::TimerCause;
use crate::derive::trigger::{Subject, Trigger};
use crate::port::StoreError;
use crate::topology::Topology;

/// Characters of a detail: an operator's message, or a panic's, may have any length.
const DETAIL_MAX_CHARS: usize = 1_024;

/// A call whose effects were rolled back.
#[derive(Debug)]
pub(super) struct RolledBackCall {
    /// What happened and what to do.
    pub(super) why: String,
    reason: Reason,
    operator: Cow<'static, str>,
    trigger: TriggerKind,
    account: String,
    /// Events the call had emitted.
    emitted: u32,
}

/// Calls an operator. If that fails, its effects are rolled back.
pub(super) fn call(
    mut context: Context<'_>,
    act: impl FnOnce(&mut Context<'_>) -> Result<Flow, OperatorError>,
) -> Result<Result<Flow, RolledBackCall>, StoreError> {
    let savepoint = (context.state.savepoint(), context.batch.savepoint());
    context.batch.audit.add(&AuditItem::Called(context.operator.number()));
    let called = catch_unwind(AssertUnwindSafe(|| act(&mut context)));
    let why = match called {
        Ok(Ok(flow)) => match context.excess.take() {
            None => return Ok(Ok(flow)),
            Some(excess) => excess,
        },
        Ok(Err(OperatorError::Store(error))) => return Err(error),
        Ok(Err(OperatorError::Failed(why))) => why,
        Err(panic) => format!("it panicked: {}", message(&*panic)),
    };
    context.state.roll_back(savepoint.0);
    context.batch.roll_back(savepoint.1);
    let name = context.operator.name();
    let (trigger, what) = match context.trigger {
        Trigger::Event { .. } => (TriggerKind::Event, ""),
        Trigger::Timer { .. } => (TriggerKind::Timer, "timer of "),
        Trigger::Update { .. } => (TriggerKind::Update, "update of "),
        Trigger::Part { .. } => (TriggerKind::Part, "part of "),
    };
    Ok(Err(RolledBackCall {
        why: format!("{what}{name}: {}", shortened(why)),
        reason: Reason::ProcessingFailed,
        operator: Cow::Borrowed(name),
        trigger,
        account: context.trigger.account().to_owned(),
        emitted: context.emitted,
    }))
}

impl RolledBackCall {
    /// Whether it was a call of this operator.
    pub(super) fn is_of(&self, operator: &dyn Operator) -> bool {
        self.operator == operator.name()
    }

    /// Copies for these operators that were not written.
    pub(super) fn of_copies(operators: String, subject: Subject<'_>, why: String) -> Self {
        let failed = Self::of(Cow::Owned(operators), subject, why);
        Self { trigger: TriggerKind::Copies, ..failed }
    }

    /// A call of an operator that this build does not have.
    pub(super) fn unknown(number: u8, subject: Subject<'_>) -> Self {
        let operator = numbered(number);
        let why = format!(
            "this build has no operator {operator}; run the build that has it, and requeue this \
             there"
        );
        let failed = Self::of(Cow::Owned(operator), subject, why);
        Self { reason: Reason::UnknownOperator, ..failed }
    }

    fn of(operator: Cow<'static, str>, subject: Subject<'_>, why: String) -> Self {
        let trigger = match subject.trigger {
            Trigger::Event { .. } => TriggerKind::Event,
            Trigger::Timer { .. } => TriggerKind::Timer,
            Trigger::Update { .. } => TriggerKind::Update,
            Trigger::Part { .. } => TriggerKind::Part,
        };
        let account = subject.trigger.account().to_owned();
        Self { why, reason: Reason::ProcessingFailed, operator, trigger, account, emitted: 0 }
    }

    /// A timer of an operator that this build does not have.
    pub(super) fn unknown_timer(number: u8, cause: Option<&TimerCause>) -> Self {
        let account = cause.map(|cause| cause.account.clone()).unwrap_or_default();
        let operator = numbered(number);
        let why = format!(
            "this build has no operator {operator}, so its timer did not fire; run the build \
             that has it, and requeue this there"
        );
        let (trigger, reason) = (TriggerKind::Timer, Reason::UnknownOperator);
        Self { why, reason, operator: Cow::Owned(operator), trigger, account, emitted: 0 }
    }

    /// An update of an operator that this build does not have.
    pub(super) fn unknown_update(number: u8, cause: &TimerCause) -> Self {
        let timer = Self::unknown_timer(number, Some(cause));
        Self { trigger: TriggerKind::Update, ..timer }
    }

    /// An update that follows from so many others of its transaction, and can't wait.
    pub(super) fn unsent_update(operator: &'static str, cause: &TimerCause, before: usize) -> Self {
        let why = format!(
            "update of {operator}: {before} updates in a row led here in one transaction, and the \
             task remembers too many keys for this one to wait; check which operators cause each \
             other, and requeue this"
        );
        let (operator, trigger) = (Cow::Borrowed(operator), TriggerKind::Update);
        let (reason, account) = (Reason::ProcessingFailed, cause.account.clone());
        Self { why, reason, operator, trigger, account, emitted: 0 }
    }

    /// A timer whose cause can't be decoded.
    pub(super) fn undecodable_timer(operator: &'static str) -> Self {
        let why = format!(
            "timer of {operator}: its cause can't be decoded: it is damaged, or a later build \
             wrote it; requeue this with that build"
        );
        let (operator, trigger) = (Cow::Borrowed(operator), TriggerKind::Timer);
        let (reason, account) = (Reason::ProcessingFailed, String::new());
        Self { why, reason, operator, trigger, account, emitted: 0 }
    }

    /// Adds its dead letter to the transaction.
    pub(super) fn put(self, batch: &mut TaskBatch, topology: &Topology, cause: FailedCause<'_>) {
        let Self { why, reason, operator, trigger, account, emitted } = self;
        let (name, account) = (&operator[..], &account[..]);
        let failure = OperatorFailure { operator: name, trigger, account, emission: emitted };
        let diagnosis = Diagnosis { reason: reason.as_str(), field: None, detail: &why };
        let letter = operator_dead_letter(topology, cause, failure, diagnosis);
        batch.audit.failed(name, &letter, &why);
        // A metric has a value per operator of this build, one for copies, one for all others.
        let counted = match operator {
            Cow::Borrowed(name) => name,
            Cow::Owned(_) if trigger == TriggerKind::Copies => trigger.as_str(),
            Cow::Owned(_) => "unknown",
        };
        match reason {
            Reason::UnknownOperator => batch.counts.unknown_operator += 1,
            _ => batch.counts.failed += 1,
        }
        batch.put_failed_call(counted, letter);
    }
}

/// The name in dead letters of an operator that this build does not have.
pub(super) fn numbered(number: u8) -> String {
    format!("number-{number}")
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

fn shortened(mut why: String) -> String {
    if let Some((end, _)) = why.char_indices().nth(DETAIL_MAX_CHARS) {
        why.truncate(end);
        why.push('…');
    }
    why
}

#[cfg(test)]
mod tests;
