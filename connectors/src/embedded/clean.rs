//! Compaction of a topic: keeps the newest record of each key, and tombstones for a limited time.
//!
//! A pass reads the records after those that were compacted before, finds the newest of each key
//! among them, and removes the older record of each of these keys, which the key index knows.
//!
//! A pass writes in small batches so that no commit waits long behind one. An interrupted pass is
//! repeated: its last batch moves the compacted offset, and every step may be repeated. A record at
//! or above that offset is removed only because of a newer record of its key.
//!
//! A pass counts the keys that are new to the index. RocksDB's estimate of them would count each
//! write of a key until it merges its files, so that a partition of a few busy keys would wait much
//! too long. The count is written with the keys, so an interrupted pass leaves it exact.

use std::collections::HashMap;

use bytes::Bytes;
use rocksdb::{ReadOptions, WriteBatch};
use tidewire_engine::port::{Cleanup, LogError};
use tidewire_engine::record::{Body, Millis};

use super::config::{
    CLEAN_AFTER_RECORDS, CLEAN_BATCH_ROWS, CLEAN_EVERY_MS, CLEAN_LATEST_MS, CLEAN_PASS_KEY_BYTES,
    CLEAN_PASS_RECORDS,
};
use super::core::Core;
use super::layout;
use super::topic::{PartitionLog, PartitionRef, UpkeepProgress, UpkeepRun, UpkeepScope};
use crate::telemetry;

/// Compacts a partition: one pass if it is due, or as many as there are records for.
pub(super) fn clean(core: &Core, of: PartitionRef<'_>, run: UpkeepRun) -> Result<(), LogError> {
    let PartitionRef { topic, log } = of;
    let UpkeepRun { now, scope } = run;
    let (Some(keys), Some(delay)) = (&topic.families.keys, tombstone_delay(&topic.spec.cleanup))
    else {
        return Ok(());
    };
    let mut progress = log.progress();
    if scope == UpkeepScope::Due && !is_due(Uncompacted::of(log, now)) {
        return Ok(());
    }
    let cleaner = PartitionCleaner { core, of, keys, now };
    while progress.cleaned < log.end() {
        progress = cleaner.pass(progress)?;
        log.set_progress(progress);
        if scope == UpkeepScope::Due {
            break;
        }
    }
    while cleaner.drop_tombstones(delay)? && scope == UpkeepScope::Everything {}
    Ok(())
}

/// What a partition has for a pass of compaction.
struct Uncompacted {
    /// Records that were not compacted.
    waiting: u64,
    /// How many keys it has, or more after retention.
    kept: u64,
    /// Milliseconds since the last pass.
    elapsed_ms: i64,
}

impl Uncompacted {
    fn of(log: &PartitionLog, now: Millis) -> Self {
        let UpkeepProgress { cleaned, keys, at, .. } = log.progress();
        // Retention removes records without their keys being counted.
        let kept = keys.min(cleaned.saturating_sub(log.start()));
        let elapsed_ms = now.0.saturating_sub(at.0);
        Self { waiting: log.end().saturating_sub(cleaned), kept, elapsed_ms }
    }
}

/// Whether a pass is worth it now.
fn is_due(partition: Uncompacted) -> bool {
    let Uncompacted { waiting, kept, elapsed_ms } = partition;
    let many = waiting >= CLEAN_AFTER_RECORDS.max(kept);
    let some = elapsed_ms >= CLEAN_EVERY_MS && waiting >= kept / 2;
    many || some || elapsed_ms >= CLEAN_LATEST_MS
}

fn tombstone_delay(cleanup: &Cleanup) -> Option<u64> {
    match cleanup {
        Cleanup::Delete { .. } => None,
        Cleanup::Compact { delete_retention_ms }
        | Cleanup::CompactDelete { delete_retention_ms, .. } => Some(*delete_retention_ms),
    }
}

/// The newest record of a key in a pass.
struct Newest {
    offset: u64,
    tombstone: bool,
}

struct PartitionCleaner<'a> {
    core: &'a Core,
    of: PartitionRef<'a>,
    keys: &'a str,
    now: Millis,
}

impl PartitionCleaner<'_> {
    /// Compacts from the compacted offset on.
    fn pass(&self, before: UpkeepProgress) -> Result<UpkeepProgress, LogError> {
        let mut newest: HashMap<Bytes, Newest> = HashMap::new();
        let mut older = Vec::new();
        let mut reached = self.of.log.end();
        let (mut records, mut key_bytes) = (0, 0);
        let from = before.cleaned.max(self.of.log.start());
        let span = from..self.of.log.end();
        self.core.scan(self.of, span, &mut |offset, value| {
            let body = self.body(offset, value)?;
            let key = Bytes::copy_from_slice(body.key().unwrap_or_default());
            records += 1;
            key_bytes += key.len();
            let tombstone = body.value().is_none();
            if let Some(before) = newest.insert(key, Newest { offset, tombstone }) {
                older.push(before.offset);
            }
            let more = records < CLEAN_PASS_RECORDS && key_bytes < CLEAN_PASS_KEY_BYTES;
            if !more {
                reached = offset + 1;
            }
            Ok(more)
        })?;
        let mut rows = CleanerBatch::new(self, before.keys);
        for offset in older {
            rows.remove_record(offset)?;
        }
        for (key, newest) in newest {
            self.index(&mut rows, &key, &newest)?;
        }
        rows.finish(UpkeepProgress { cleaned: reached, at: self.now, ..before })
    }

    /// Points the key index at a key's newest record and removes the older one.
    fn index(
        &self,
        rows: &mut CleanerBatch<'_>,
        key: &[u8],
        newest: &Newest,
    ) -> Result<(), LogError> {
        let row = layout::index_key(self.of.log.at.partition, key);
        let before = self.indexed(&row)?;
        rows.keys += u64::from(before.is_none());
        // The same offset: an interrupted pass had done this.
        if let Some(before) = before.filter(|before| *before != newest.offset) {
            rows.remove_record(before)?;
        }
        rows.put_key(&row, &newest.offset.to_be_bytes())?;
        if newest.tombstone {
            let row = layout::tombstone_key(self.of.log.at.partition, newest.offset);
            rows.put_key(&row, &layout::encode_tombstone(self.now, key))?;
        }
        Ok(())
    }

    fn indexed(&self, row: &[u8]) -> Result<Option<u64>, LogError> {
        let database = &self.core.database;
        let found = database.rocks().get_pinned_cf(&database.family(self.keys)?, row);
        match found.map_err(|error| database.log_error(&error))? {
            None => Ok(None),
            Some(value) => layout::decode_u64(&value)
                .map(Some)
                .ok_or_else(|| database.corruption("a row of a key index is unreadable")),
        }
    }

    /// Removes expired tombstones, at most one pass; returns whether there may be more.
    fn drop_tombstones(&self, delay: u64) -> Result<bool, LogError> {
        let database = &self.core.database;
        let partition = self.of.log.at.partition;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(layout::tombstone_key(partition, u64::MAX));
        let family = database.family(self.keys)?;
        let mut found = database.rocks().raw_iterator_cf_opt(&family, options);
        found.seek(layout::tombstone_key(partition, 0));
        let mut rows = CleanerBatch::new(self, self.of.log.progress().keys);
        let mut dropped = 0;
        while let Some((row, value)) = found.item() {
            let (offset, (since, key)) = layout::tombstone_offset(row)
                .zip(layout::split_tombstone(value))
                .ok_or_else(|| database.corruption("the row of a tombstone is unreadable"))?;
            if since.0.saturating_add_unsigned(delay) > self.now.0 {
                break;
            }
            let index = layout::index_key(partition, key);
            if self.indexed(&index)? == Some(offset) {
                rows.remove_record(offset)?;
                rows.keys = rows.keys.saturating_sub(1);
                rows.remove_key(&index)?;
            }
            rows.remove_key(row)?;
            dropped += 1;
            if dropped == CLEAN_PASS_RECORDS {
                break;
            }
            found.next();
        }
        found.status().map_err(|error| database.log_error(&error))?;
        if dropped > 0 {
            let progress = rows.finish(self.of.log.progress())?;
            self.of.log.set_progress(progress);
        }
        Ok(dropped == CLEAN_PASS_RECORDS)
    }

    fn body(&self, offset: u64, value: &[u8]) -> Result<Body, LogError> {
        let corruption = || self.core.database.corruption(&format!("a record at offset {offset}"));
        let (_, _, body) = layout::split_record(value).ok_or_else(corruption)?;
        Body::from_stored(Bytes::copy_from_slice(body)).map_err(|_| corruption())
    }
}

/// Changes of a pass, written in batches small enough not to delay a commit.
struct CleanerBatch<'a> {
    cleaner: &'a PartitionCleaner<'a>,
    batch: WriteBatch,
    /// How many keys the partition has once the batch is written.
    keys: u64,
}

impl<'a> CleanerBatch<'a> {
    fn new(cleaner: &'a PartitionCleaner<'a>, keys: u64) -> Self {
        Self { cleaner, batch: WriteBatch::default(), keys }
    }

    fn remove_record(&mut self, offset: u64) -> Result<(), LogError> {
        let PartitionCleaner { core, of, .. } = self.cleaner;
        let family = core.database.family(&of.topic.families.records)?;
        self.batch.delete_cf(&family, layout::record_key(of.log.at.partition, offset));
        telemetry::log_removed("compaction", 1);
        self.write_if_full()
    }

    fn put_key(&mut self, row: &[u8], value: &[u8]) -> Result<(), LogError> {
        let family = self.cleaner.core.database.family(self.cleaner.keys)?;
        self.batch.put_cf(&family, row, value);
        self.write_if_full()
    }

    fn remove_key(&mut self, row: &[u8]) -> Result<(), LogError> {
        let family = self.cleaner.core.database.family(self.cleaner.keys)?;
        self.batch.delete_cf(&family, row);
        self.write_if_full()
    }

    fn write_if_full(&mut self) -> Result<(), LogError> {
        if self.batch.len() < CLEAN_BATCH_ROWS { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), LogError> {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let database = &self.cleaner.core.database;
        batch.put_cf(&database.meta()?, self.meta_key(b'k'), self.keys.to_be_bytes());
        database.write(batch)
    }

    /// Writes the rest and the compacted offset; returns the progress with the number of keys.
    fn finish(mut self, progress: UpkeepProgress) -> Result<UpkeepProgress, LogError> {
        let meta = self.cleaner.core.database.meta()?;
        self.batch.put_cf(&meta, self.meta_key(b'c'), progress.cleaned.to_be_bytes());
        self.write()?;
        Ok(UpkeepProgress { keys: self.keys, ..progress })
    }

    fn meta_key(&self, kind: u8) -> [u8; 10] {
        let log = self.cleaner.of.log;
        layout::partition_key(kind, log.topic, log.at.partition)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::path::Path;
    use std::sync::Arc;

    use tidewire_engine::port::{Appender, Clock, TopicSpec};
    use tidewire_engine::record::{Outgoing, Partition, Topic};

    use super::*;
    use crate::embedded::append::EmbeddedAppender;
    use crate::embedded::config::{Config, Upkeep};

    struct CompactionClock;

    impl Clock for CompactionClock {
        fn now(&self) -> Millis {
            Millis(1_000)
        }
    }

    const DELAY_MS: u64 = 1_000;

    fn open(dir: &Path) -> Arc<Core> {
        let config = Config { upkeep: Upkeep::Caller, ..Config::new(dir) };
        Arc::new(Core::open(config, Arc::new(CompactionClock)).unwrap())
    }

    fn create(core: &Core, cleanup: Cleanup) -> Topic {
        let topic = Topic::new("t");
        let spec = TopicSpec { topic: topic.clone(), partitions: 2, cleanup };
        core.create_topic(&spec, &mut core.lock_writer().unwrap()).unwrap();
        topic
    }

    /// Appends a record for each of these keys to the second partition.
    fn append(core: &Arc<Core>, keys: Range<u64>, value: Option<&[u8]>) {
        let record = |n: u64| Outgoing {
            topic: Topic::new("t"),
            partition: Partition(1),
            body: Body::new(Some(&n.to_be_bytes()), value, &[]),
        };
        EmbeddedAppender(core.clone()).append(&keys.map(record).collect::<Vec<_>>()).unwrap();
    }

    /// Compacts what there is at this time; returns the keys that are then counted.
    fn compact(core: &Core, now: i64) -> u64 {
        let topic = core.topic(&Topic::new("t")).unwrap();
        let of = PartitionRef { topic: &topic, log: &topic.partitions[1] };
        clean(core, of, UpkeepRun { now: Millis(now), scope: UpkeepScope::Everything }).unwrap();
        Uncompacted::of(of.log, Millis(now)).kept
    }

    #[test]
    fn keys_are_counted_once_however_often_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let core = open(dir.path());
        create(&core, Cleanup::Compact { delete_retention_ms: DELAY_MS });
        for pass in 0..20 {
            append(&core, 0..100, Some(b"v"));
            assert_eq!(compact(&core, pass), 100);
        }
        append(&core, 90..110, Some(b"v"));
        assert_eq!(compact(&core, 50), 110);
        append(&core, 0..40, None);
        append(&core, 30..40, Some(b"again"));
        assert_eq!(compact(&core, 60), 110, "tombstones are records too");
        drop(core);
        let core = open(dir.path());
        assert_eq!(compact(&core, 70), 110, "after a restart");
        assert_eq!(compact(&core, 60 + DELAY_MS as i64), 80, "their tombstones have left");
        drop(core);
        assert_eq!(compact(&open(dir.path()), 2_000), 80);
    }

    #[test]
    fn keys_that_retention_has_removed_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let core = open(dir.path());
        let (delete_retention_ms, retention_ms) = (DELAY_MS, 1);
        let topic = create(&core, Cleanup::CompactDelete { delete_retention_ms, retention_ms });
        append(&core, 0..100, Some(b"v"));
        assert_eq!(compact(&core, 0), 100);
        let log = core.topic(&topic).unwrap().partitions[1].clone();
        core.move_start(&log, 70).unwrap();
        assert_eq!(compact(&core, 0), 30);
    }

    #[test]
    fn a_pass_is_due_once_it_has_as_much_to_compact_as_it_costs() {
        let due = |waiting, kept, elapsed_ms| is_due(Uncompacted { waiting, kept, elapsed_ms });
        assert!(!due(CLEAN_AFTER_RECORDS - 1, 0, CLEAN_EVERY_MS - 1), "few, and soon");
        assert!(due(CLEAN_AFTER_RECORDS, 0, 0), "many");
        assert!(due(1, 2, CLEAN_EVERY_MS), "as many as half of the keys, and later");
        assert!(!due(CLEAN_AFTER_RECORDS, 10 * CLEAN_AFTER_RECORDS, CLEAN_EVERY_MS), "a tenth");
        assert!(due(5 * CLEAN_AFTER_RECORDS, 10 * CLEAN_AFTER_RECORDS, CLEAN_EVERY_MS));
        assert!(!due(5 * CLEAN_AFTER_RECORDS, 10 * CLEAN_AFTER_RECORDS, 0));
        assert!(due(10 * CLEAN_AFTER_RECORDS, 10 * CLEAN_AFTER_RECORDS, 0));
        assert!(due(1, 1 << 40, CLEAN_LATEST_MS), "at the latest");
    }
}
