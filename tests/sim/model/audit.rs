//! The model of the audit: each record, timer and part of a transaction once, with its effects.
//!
//! An entry is compared as lines: what it is about, its outcome, and every output in order.

use tidewire_engine::derive::PART_MAX_BYTES;
use tidewire_engine::derive::audit::layout::{AuditCause, AuditEntry, AuditItem, AuditPart};
use tidewire_engine::record::Body;
use tidewire_engine::topology::Lane;

use super::ensure::ensure;

/// The lines of each entry of a transaction.
#[derive(Debug, Default)]
pub(super) struct ExpectedAudit(Vec<Vec<String>>);

impl ExpectedAudit {
    /// Begins the entry of a record at this offset, and of an entry of a pack with its index.
    pub(super) fn record(&mut self, lane: Lane, at: &str) {
        self.0.push(vec![format!("{} {at}", lane.name())]);
    }

    /// Begins the entry of a part of a total.
    pub(super) fn part(&mut self) {
        self.0.push(vec!["part".to_owned()]);
    }

    /// Begins the entry of a timer.
    pub(super) fn timer(&mut self) {
        self.0.push(vec!["timer".to_owned()]);
    }

    /// Adds a line to the last entry.
    pub(super) fn line(&mut self, line: String) {
        self.0.last_mut().expect("an entry was begun").push(line);
    }

    /// Whether these records are this audit.
    pub(super) fn check(&self, written: &[&Body]) -> Result<(), String> {
        let mut entries = Vec::new();
        for (n, body) in written.iter().enumerate() {
            let value = body.value().unwrap_or_default();
            ensure(body.key().is_none() && value.len() <= PART_MAX_BYTES, || {
                format!("part {n} of an audit has a key, or {} bytes", value.len())
            })?;
            let part = AuditPart::decode(value).map_err(|error| error.to_string())?;
            ensure((part.part as usize, part.parts as usize) == (n, written.len()), || {
                format!("part {} of {} of an audit is record {n}", part.part, part.parts)
            })?;
            entries.extend(part.entries.iter().map(lines));
        }
        let differs =
            (0..entries.len().max(self.0.len())).find(|n| entries.get(*n) != self.0.get(*n));
        ensure(differs.is_none(), || {
            let n = differs.unwrap_or_default();
            format!("entry {n} of the audit: {:?}, not {:?}", entries.get(n), self.0.get(n))
        })
    }
}

/// The line of a fact.
pub(super) fn fact_line(key: &str, lane: Lane) -> String {
    format!("fact {key} {}", lane.name())
}

fn lines(entry: &AuditEntry<'_>) -> Vec<String> {
    let first = match entry.cause {
        AuditCause::Record { lane, offset, entry: None } => format!("{} {}", lane.name(), offset.0),
        AuditCause::Record { lane, offset, entry: Some(index) } => {
            format!("{} {}/{index}", lane.name(), offset.0)
        }
        // The operators of the simulation send no other updates.
        AuditCause::Update(_) => "part".to_owned(),
        AuditCause::Timer(_) => "timer".to_owned(),
        other => format!("{other:?}"),
    };
    let mut emitted = "";
    let item_line = |item: &'_ AuditItem<'_>| match item {
        AuditItem::Event(event) => Some(format!("event {}", event.id)),
        AuditItem::Requeued(operator) => Some(format!("requeued {operator}")),
        AuditItem::SecondCopy => Some("copy".to_owned()),
        AuditItem::Duplicate => Some("duplicate".to_owned()),
        AuditItem::ToChannel(channel) => Some(format!("channel {channel}")),
        AuditItem::ToUrgentChannel(channel) => Some(format!("urgent {channel}")),
        AuditItem::Failed(_, letter, _) => Some(format!("failed {letter}")),
        AuditItem::DeadLetter(_, letter, _) => Some(format!("set aside {letter}")),
        _ => None,
    };
    let mut lines = vec![first];
    for item in &entry.items {
        if let AuditItem::Emitted(event) = item {
            emitted = event.key;
        }
        if let AuditItem::ToKey(lane) = item {
            lines.push(fact_line(emitted, *lane));
        }
        lines.extend(item_line(item));
    }
    lines
}
