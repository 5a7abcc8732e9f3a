//! Finds what led to an emitted event: the events that it follows from, the nearest first.

use serde_json::{Value, json};
use tidewire_schemas::catalogue::OPERATOR_SOURCE;

use super::ExplainError;
use super::index::IndexKey;
use super::tree::{Explainer, operator_name};
use crate::derive::audit::layout::{AuditCause, AuditEntry, AuditItem, AuditPart, AuditedEvent};

/// Events of a chain: more than facts and timers may follow from each other.
const CHAIN_MAX: usize = 16;

impl Explainer<'_> {
    /// What led to an event, the nearest cause first. Empty for an event of a producer.
    pub(super) fn causes(&mut self, id: &str, account: &str) -> Result<Vec<Value>, ExplainError> {
        let (mut id, mut chain) = (id.to_owned(), Vec::new());
        while id.starts_with(OPERATOR_SOURCE) && chain.len() < CHAIN_MAX {
            let Some((cause, next)) = self.cause_of(&id, account)? else { break };
            chain.push(cause);
            let Some(next) = next else { break };
            id = next;
        }
        Ok(chain)
    }

    /// The call that emitted an event, and the id of the event it was called with.
    fn cause_of(
        &mut self,
        id: &str,
        account: &str,
    ) -> Result<Option<(Value, Option<String>)>, ExplainError> {
        for (partition, offset) in self.index.find(IndexKey::Event(id))? {
            let Some(record) = self.reader.record(partition, offset)? else { continue };
            let value = record.body.value().unwrap_or_default();
            let Ok(part) = AuditPart::decode(value) else { continue };
            for entry in &part.entries {
                let Some((operator, subject)) = emitter(entry, id, account) else { continue };
                let operator = operator_name(self.operators, operator);
                let called_with = match (subject, entry.cause) {
                    (Some(_), _) | (None, AuditCause::Record { .. }) => "event",
                    (None, AuditCause::Timer(_)) => "timer",
                    (None, _) => "update",
                };
                let node = json!({
                    "operator": operator,
                    "called_with": called_with,
                    "id": subject.map(|event| &event.id),
                    "type": subject.map(|event| event.event_type),
                    "key": subject.map(|event| event.key),
                    "task": partition.0,
                });
                return Ok(Some((node, subject.map(|event| event.id.to_string()))));
            }
        }
        Ok(None)
    }
}

/// The operator that emitted an event in this entry, and what it was called with.
fn emitter<'a>(
    entry: &'a AuditEntry<'_>,
    id: &str,
    account: &str,
) -> Option<(u8, Option<&'a AuditedEvent<'a>>)> {
    let (mut operator, mut subject, mut waiting) = (0, None, Vec::new());
    let (mut emitted, mut processed) = (None, 0);
    for item in &entry.items {
        match item {
            AuditItem::Event(event) => subject = Some(event),
            AuditItem::Called(number) => operator = *number,
            AuditItem::Emitted(event) if event.id == id && event.account == account => {
                return Some((operator, subject));
            }
            AuditItem::Emitted(event) => emitted = Some(event),
            AuditItem::ToOperators => waiting.extend(emitted),
            AuditItem::NextEmission => {
                subject = waiting.get(processed).copied().or(subject);
                processed += 1;
            }
            _ => {}
        }
    }
    None
}
