//! Sends what was added to partials: when an interval ends, and early if a task keeps many parts.
//!
//! ```text
//! timer of a partial ─▶ another round begins ─▶ some parts of former rounds ─▶ the timer again
//! many parts ─────────▶ another round begins ─▶ some parts of former rounds
//! ```
//!
//! Each part is a call of its operator with effects of its own. If it fails, the part becomes a
//! dead letter, and only that is sent once it is requeued. A flush sends some parts at a time, so a
//! transaction stays within its limits; the rest follows in the next tick.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::id::{hash128, hex};

use crate::derive::audit::layout::{AuditCause, CalledFor};
use crate::derive::audit::part_link;
use crate::derive::failure::CommitFailure;
use crate::derive::operate::MadeByTask;
use crate::derive::operator::{Flow, Operator, OperatorError, Rules};
use crate::derive::operator_call::{RolledBackCall, call};
use crate::derive::partial::{EARLY_FLUSH_PARTS, flush_timer};
use crate::derive::partial_decl::PartialDecl;
use crate::derive::partial_rows::{HEAD, Part, PartKey, PartialHead, rounds};
use crate::derive::running::RunningTask;
use crate::derive::stores::unreadable;
use crate::derive::timer_cause::TimerCause;
use crate::derive::timers::{DueTimer, LATER_MS};
use crate::derive::trigger::Subject;
use crate::fact_pack::TIME;
use crate::port::{KeyRange, StoreError, Table};
use crate::record::{Body, Millis};
use crate::telemetry;

/// Parts that are sent at a time: some hundred KiB of facts.
pub const FLUSH_PARTS_MAX: usize = 1_000;

/// Bytes of stored parts after which no more are sent at a time.
const FLUSH_BYTES: usize = 512 << 10;

/// A partial and its operator.
type OwnedPartial = (&'static dyn Operator, &'static dyn PartialDecl);

/// A stored part.
struct StoredPart {
    key: Bytes,
    value: Bytes,
}

impl RunningTask {
    /// Sends parts of the partial whose timer is due.
    pub(super) fn end_partial(
        &mut self,
        rules: Rules<'_>,
        due: &DueTimer,
    ) -> Result<(), CommitFailure> {
        let found = owned_partial(rules, &due.key);
        let head = match found {
            Some((_, partial)) => self.head(partial.spec().table)?,
            None => None,
        };
        let Some(((operator, partial), mut head)) = found.zip(head) else {
            // The parts wait for a build that has the partial or can decode its head.
            telemetry::timers_orphaned();
            let later = Millis(self.times.latest().0.saturating_add(LATER_MS));
            let timer = flush_timer(later, &due.key);
            self.timers.flushes.set(&mut self.state, timer, Bytes::new());
            return Ok(());
        };
        self.flush(rules, (operator, partial), &mut head)?;
        if head.parts > 0 {
            let interval = partial.spec().interval_ms;
            let at = match head.is_flushing() {
                true => due.at,
                false => Millis(self.times.latest().0.saturating_add(interval)),
            };
            let timer = flush_timer(at, &due.key);
            self.timers.flushes.set(&mut self.state, timer, Bytes::new());
        }
        Ok(())
    }

    /// Sends parts of the partials that have too many, if one may have.
    pub(super) fn flush_early(&mut self, rules: Rules<'_>) -> Result<(), CommitFailure> {
        if !std::mem::take(&mut self.batch.flush_early) {
            return Ok(());
        }
        for operator in rules.operators {
            for partial in operator.partials() {
                let Some(mut head) = self.head(partial.spec().table)? else { continue };
                while head.parts >= EARLY_FLUSH_PARTS {
                    if self.flush(rules, (*operator, *partial), &mut head)? == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the task knows of a partial; `None` if this build can't decode it.
    fn head(&mut self, table: Table) -> Result<Option<PartialHead>, StoreError> {
        let stored = self.state.get(table, HEAD)?;
        Ok(stored.map_or(Some(PartialHead::default()), |stored| PartialHead::decode(&stored)))
    }

    /// Sends some parts of former rounds, of the current one too if all others were sent; returns
    /// how many.
    fn flush(
        &mut self,
        rules: Rules<'_>,
        (operator, partial): OwnedPartial,
        head: &mut PartialHead,
    ) -> Result<usize, CommitFailure> {
        head.begin_round();
        let table = partial.spec().table;
        let (parts, is_all) = self.parts(table, *head)?;
        let sent = parts.len();
        for StoredPart { key, value } in parts {
            self.state.put(table, &key, None);
            head.parts = head.parts.saturating_sub(1);
            let time = Part::decode(&value).map(|part| part.time).unwrap_or_default();
            let stated = time.0.to_be_bytes();
            let named = [&[table.0], &key[..]].concat();
            let body = Body::new(Some(&named), Some(&value), &[(TIME, &stated)]);
            self.batch.begin_cause();
            let row = PartKey::decode(&key);
            let account = row.as_ref().map_or("", |row| &row.account);
            let (operator_number, link) = (operator.number(), part_link(table, &key));
            let part = CalledFor { operator: operator_number, link, account, entity: "" };
            self.batch.audit.begin(rules.audit, AuditCause::Update(part), time);
            if let Err(failed) = self.send_part(rules, operator, &body)? {
                let id = hex(&part_id(self.partition.0, operator, &body));
                self.put_derived(rules, MadeByTask { time, id: &id, body: &body }, failed);
            }
        }
        if is_all {
            head.end_flush();
        }
        self.state.put(table, HEAD, Some(head.encode().into()));
        Ok(sent)
    }

    /// The first parts of former rounds, and whether these are all.
    fn parts(
        &mut self,
        table: Table,
        head: PartialHead,
    ) -> Result<(Vec<StoredPart>, bool), StoreError> {
        let (from, to) = rounds(head.first, head.round);
        let (mut parts, mut bytes, mut is_all) = (Vec::new(), 0, true);
        self.state.scan(table, KeyRange { from: &from, to: Some(&to) }, &mut |key, value| {
            if parts.len() >= FLUSH_PARTS_MAX || bytes >= FLUSH_BYTES {
                is_all = false;
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            parts.push(StoredPart { key, value });
            ControlFlow::Continue(())
        })?;
        Ok((parts, is_all))
    }

    /// Sends a part, from the body of its dead letter: key, the table's number first, and value.
    pub(super) fn send_part(
        &mut self,
        rules: Rules<'_>,
        operator: &dyn Operator,
        body: &Body,
    ) -> Result<Result<Flow, RolledBackCall>, StoreError> {
        let key = body.key().unwrap_or_default();
        let table = Table(key.first().copied().unwrap_or_default());
        let row = key.get(1..).and_then(PartKey::decode);
        let part = body.value().and_then(Part::decode);
        let account = row.as_ref().map(|row| row.account.clone()).unwrap_or_default();
        let id = part_id(self.partition.0, operator, body);
        let hops = part.as_ref().map_or(0, |part| part.hops);
        let cause = TimerCause { hops, id, account, entity: String::new(), correlation: hex(&id) };
        let time = part.as_ref().map(|part| part.time).unwrap_or_default();
        let context = self.context(rules, operator, Subject::of_part(&cause, time));
        call(context, |context| {
            let known = operator.partials().iter().find(|known| known.spec().table == table);
            let data = known.zip(row).zip(part).and_then(|((known, row), part)| {
                Some((known.spec().event_type, known.event_data(row.key, &part.value)?))
            });
            let (event_type, data) = data.ok_or_else(|| unreadable(table, "part"))?;
            context.emit_part(event_type, &data)?;
            Ok::<_, OperatorError>(Flow::Continue)
        })
    }
}

/// The partial whose timer has this key: its table's number.
fn owned_partial(rules: Rules<'_>, own: &[u8]) -> Option<OwnedPartial> {
    rules.operators.iter().find_map(|operator| {
        let mut partials = operator.partials().iter();
        let partial = partials.find(|partial| [partial.spec().table.0] == *own)?;
        Some((*operator, *partial))
    })
}

/// The id of what is sent: no other part of the deployment has the same task, operator, table,
/// round and key. It is the same when the part is requeued.
fn part_id(partition: u32, operator: &dyn Operator, body: &Body) -> [u8; 16] {
    let key = hex(body.key().unwrap_or_default());
    hash128("", &format!("part/{partition}/{}/{key}", operator.number()))
}
