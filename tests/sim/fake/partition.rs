//! One partition: its entries by offset, with retention and compaction.
//!
//! Offsets never move: compaction leaves a gap, and retention moves the start. Nothing at or after
//! the first open transaction is ever removed.

use std::collections::{BTreeMap, HashMap};

use tidewire_engine::port::{Cleanup, LogError};
use tidewire_engine::record::{Body, Millis, TopicPartition};

/// The entry at an offset.
#[derive(Clone, Debug)]
pub(super) enum LogEntry {
    Record {
        time: Millis,
        body: Body,
        transaction: Option<usize>,
    },
    /// The end of a transaction.
    Control,
    /// Removed by compaction.
    Gone,
}

/// A partition.
#[derive(Clone, Debug, Default)]
pub(super) struct FakePartition {
    /// By offset; those before the start can no longer be read.
    pub(super) entries: Vec<LogEntry>,
    pub(super) start: u64,
    /// When compaction first saw each tombstone that still exists.
    tombstones: BTreeMap<u64, Millis>,
}

/// What a clean-up depends on.
pub(super) struct CleanupContext<'a> {
    pub(super) now: Millis,
    /// The first offset that must not be removed.
    pub(super) stable: u64,
    /// Whether a transaction was aborted.
    pub(super) aborted: &'a dyn Fn(usize) -> bool,
}

impl FakePartition {
    pub(super) fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Fails if nothing can be read from this offset on.
    pub(super) fn check(&self, at: &TopicPartition, asked: u64) -> Result<(), LogError> {
        let (start, end) = (self.start, self.end());
        if (start..=end).contains(&asked) {
            return Ok(());
        }
        Err(LogError::OutOfRange { at: at.clone(), asked, start, end })
    }

    /// Applies retention and compaction of this topic.
    pub(super) fn clean(&mut self, cleanup: Cleanup, context: &CleanupContext<'_>) {
        match cleanup {
            Cleanup::Delete { retention_ms, retention_bytes } => {
                self.remove_by_age(retention_ms, context);
                self.remove_by_size(retention_bytes, context);
            }
            Cleanup::Compact { delete_retention_ms } => self.compact(delete_retention_ms, context),
            Cleanup::CompactDelete { delete_retention_ms, retention_ms } => {
                self.compact(delete_retention_ms, context);
                self.remove_by_age(Some(retention_ms), context);
            }
        }
    }

    fn remove_by_age(&mut self, retention_ms: Option<u64>, context: &CleanupContext<'_>) {
        let Some(retention_ms) = retention_ms else { return };
        self.remove_while(context, |entry| match entry {
            LogEntry::Record { time, .. } => {
                time.0.saturating_add_unsigned(retention_ms) < context.now.0
            }
            LogEntry::Control | LogEntry::Gone => true,
        });
    }

    fn remove_by_size(&mut self, retention_bytes: Option<u64>, context: &CleanupContext<'_>) {
        let Some(retention_bytes) = retention_bytes else { return };
        let mut left: u64 = self.entries[self.start as usize..].iter().map(size).sum();
        self.remove_while(context, |entry| {
            left -= size(entry);
            left >= retention_bytes
        });
    }

    fn remove_while(
        &mut self,
        context: &CleanupContext<'_>,
        mut is_removed: impl FnMut(&LogEntry) -> bool,
    ) {
        while self.start < context.stable && is_removed(&self.entries[self.start as usize]) {
            self.start += 1;
        }
    }

    /// Keeps the newest record of each key; a tombstone is removed some time after it was first
    /// seen.
    fn compact(&mut self, delete_retention_ms: u64, context: &CleanupContext<'_>) {
        let mut newest = HashMap::new();
        let mut gone = Vec::new();
        for offset in self.start..context.stable {
            let LogEntry::Record { body, transaction, .. } = &self.entries[offset as usize] else {
                continue;
            };
            if transaction.is_some_and(context.aborted) {
                gone.push(offset);
                continue;
            }
            gone.extend(newest.insert(body.key(), offset));
            if body.value().is_none() {
                self.tombstones.entry(offset).or_insert(context.now);
            }
        }
        let over =
            |since: &Millis| since.0.saturating_add_unsigned(delete_retention_ms) <= context.now.0;
        gone.extend(self.tombstones.iter().filter(|(_, since)| over(since)).map(|(at, _)| *at));
        for offset in gone {
            self.tombstones.remove(&offset);
            self.entries[offset as usize] = LogEntry::Gone;
        }
    }
}

fn size(entry: &LogEntry) -> u64 {
    match entry {
        LogEntry::Record { body, .. } => body.as_bytes().len() as u64,
        LogEntry::Control | LogEntry::Gone => 0,
    }
}
