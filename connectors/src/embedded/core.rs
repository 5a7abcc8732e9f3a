//! The shared state of an open embedded log: database, topics, write queue and group coordinator.
//!
//! Producers, readers and members hold it. When the last of them is dropped the log closes, and
//! only then can the directory be opened again.
//!
//! Locks are taken in this order and never in another: writer lock, coordinator, topics, one
//! partition, one notifier. That of the open transactions is taken alone. After a failed write the
//! state on disk is not known, so the log stays failed for this process and every later call
//! returns the reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use rocksdb::{Direction, IteratorMode, WriteBatch};
use tidewire_engine::port::{Bounds, Clock, LogError, TopicSpec};
use tidewire_engine::record::{Offset, Partition, Topic, TopicPartition};

use super::config::Config;
use super::database::{ColumnFamilies, LogDatabase};
use super::group::Coordinator;
use super::incarnation::{self, BootNote};
use super::layout::{self, PartitionHead, TopicRow};
use super::open_transactions::OpenTransactions;
use super::topic::{PartitionLog, PartitionRef, RecoveredState, TopicLog};
use super::write_queue::{WriteQueue, WriterState};
use crate::telemetry;

/// Called with each record's offset and stored bytes; returns whether to continue.
pub(super) type VisitRecord<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<bool, LogError>;

/// An open log.
pub(super) struct Core {
    /// The settings it was opened with.
    pub(super) config: Config,
    /// The source of the append time.
    pub(super) clock: Arc<dyn Clock>,
    /// Everything that is persisted.
    pub(super) database: LogDatabase,
    /// The open topics.
    pub(super) topics: RwLock<BTreeMap<Topic, Arc<TopicLog>>>,
    /// Writes that wait for the writer lock.
    pub(super) write_queue: WriteQueue,
    /// The writer lock: the thread that holds it gives out offsets and writes.
    writer: Mutex<WriterState>,
    /// The transactions that are open.
    pub(super) open_transactions: Arc<OpenTransactions>,
    /// Consumer groups.
    pub(super) coordinator: Mutex<Coordinator>,
    /// Why the log failed, once it has.
    failure: OnceLock<String>,
    note: BootNote,
}

impl Core {
    /// Opens the database and loads every topic.
    pub(super) fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let database = LogDatabase::open(&config)?;
        check_format(&database)?;
        let note = incarnation::start_run(&database, &config)?;
        let core = Self {
            config,
            clock,
            database,
            topics: RwLock::default(),
            write_queue: WriteQueue::default(),
            writer: Mutex::default(),
            open_transactions: Arc::default(),
            coordinator: Mutex::default(),
            failure: OnceLock::new(),
            note,
        };
        for (topic, row) in core.topic_rows()? {
            let mut state = core.lock_writer()?;
            core.load_topic(&topic, &row, &mut state)?;
        }
        Ok(core)
    }

    /// Takes the writer lock.
    pub(super) fn lock_writer(&self) -> Result<MutexGuard<'_, WriterState>, LogError> {
        self.check_failure()?;
        self.writer.lock().map_err(|_| {
            self.fail("a thread panicked while it wrote to the embedded log; restart the process")
        })
    }

    /// An open topic.
    pub(super) fn topic(&self, topic: &Topic) -> Result<Arc<TopicLog>, LogError> {
        let topics = self.topics.read().expect("no holder panics");
        topics.get(topic).cloned().ok_or_else(|| {
            LogError::Invalid(format!("topic {topic} does not exist; create it first"))
        })
    }

    /// A topic and one of its partitions.
    pub(super) fn partition(
        &self,
        at: &TopicPartition,
    ) -> Result<(Arc<TopicLog>, Arc<PartitionLog>), LogError> {
        let topic = self.topic(&at.topic)?;
        let partition = topic.partitions.get(at.partition.0 as usize).cloned();
        let partition = partition.ok_or_else(|| {
            let count = topic.partitions.len();
            LogError::Invalid(format!("{at}: the topic has {count} partitions, numbered from 0"))
        })?;
        Ok((topic, partition))
    }

    /// Fails once the log has failed.
    pub(super) fn check_failure(&self) -> Result<(), LogError> {
        match self.failure.get() {
            None => Ok(()),
            Some(text) => Err(LogError::Fatal(text.clone(), None)),
        }
    }

    /// Marks the log as failed; the first reason stays.
    fn fail(&self, text: &str) -> LogError {
        LogError::Fatal(self.failure.get_or_init(|| text.to_owned()).clone(), None)
    }

    /// Marks the log as failed because of this error; returns the reason and its cause as text.
    pub(super) fn fail_by(&self, error: &LogError) -> String {
        let text = match error {
            LogError::Fatal(text, Some(cause)) => format!("{text} ({cause})"),
            LogError::Fatal(text, None) => text.clone(),
            other => other.to_string(),
        };
        tracing::error!(reason = text, "the embedded log failed");
        self.failure.get_or_init(|| text).clone()
    }

    /// Creates a topic that does not exist; the caller holds the writer lock.
    pub(super) fn create_topic(
        &self,
        spec: &TopicSpec,
        state: &mut WriterState,
    ) -> Result<(), LogError> {
        let rows = self.topic_rows()?;
        let number = rows.iter().map(|(_, row)| row.number + 1).max().unwrap_or(0);
        let TopicSpec { topic, partitions, cleanup } = spec.clone();
        let row = TopicRow { number, creation: creation_id()?, partitions, cleanup };
        self.database.create_families(&ColumnFamilies::of(&topic, &cleanup))?;
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.database.meta()?, layout::topic_key(topic.as_str()), row.encode());
        self.database.write(batch)?;
        self.load_topic(&topic, &row, state)
    }

    /// Opens a topic that is described in meta.
    fn load_topic(
        &self,
        topic: &Topic,
        row: &TopicRow,
        state: &mut WriterState,
    ) -> Result<(), LogError> {
        let spec =
            TopicSpec { topic: topic.clone(), partitions: row.partitions, cleanup: row.cleanup };
        let families = ColumnFamilies::of(topic, &row.cleanup);
        let mut partitions = Vec::with_capacity(row.partitions as usize);
        for partition in (0..row.partitions).map(Partition) {
            let (head, recovered) = self.recover(row.number, partition)?;
            let at = TopicPartition::new(topic, partition);
            let log = PartitionLog::new(at, row.number, state.heads.len(), &recovered);
            state.heads.push(head);
            partitions.push(Arc::new(log));
        }
        let id = row.creation | u128::from(self.note.incarnation);
        let log = Arc::new(TopicLog { spec, id, families, partitions });
        for partition in &log.partitions {
            self.check_stored(PartitionRef { topic: &log, log: partition })?;
        }
        if !log.families.leaves_by_file {
            let starts = log.partitions.iter().map(|p| p.start.clone()).collect();
            self.database.set_floors(topic, starts);
        }
        self.topics.write().expect("no holder panics").insert(topic.clone(), log);
        Ok(())
    }

    fn recover(
        &self,
        topic: u32,
        partition: Partition,
    ) -> Result<(PartitionHead, RecoveredState), LogError> {
        let row = |kind| self.database.meta_row(&layout::partition_key(kind, topic, partition));
        let corruption =
            || self.database.corruption("the row of a partition in meta is unreadable");
        let number = |kind| match row(kind)? {
            None => Ok(0),
            Some(row) => layout::decode_u64(&row).ok_or_else(corruption),
        };
        let head = match row(b'h')? {
            None => PartitionHead::default(),
            Some(row) => PartitionHead::decode(&row).ok_or_else(corruption)?,
        };
        let bounds = Bounds { start: Offset(number(b's')?), end: Offset(head.next) };
        Ok((head, RecoveredState { bounds, cleaned: number(b'c')?, keys: number(b'k')? }))
    }

    /// Compares a partition's metadata with its records: no record may be at or after the end. If
    /// files expired while the log was closed, the start moves to the first stored record.
    fn check_stored(&self, of: PartitionRef<'_>) -> Result<(), LogError> {
        let PartitionRef { topic, log } = of;
        let family = self.database.family(&topic.families.records)?;
        let (start, end) = (log.start(), log.end());
        let from = layout::record_key(log.at.partition, end);
        let past_end = self
            .database
            .rocks()
            .iterator_cf(&family, IteratorMode::From(&from, Direction::Forward))
            .next()
            .transpose()
            .map_err(|error| self.database.log_error(&error))?;
        let partition = |key: &[u8]| layout::split_record_key(key).map(|(p, _)| p);
        if past_end.is_some_and(|(key, _)| partition(&key) == Some(log.at.partition)) {
            return Err(self
                .database
                .corruption("a record is stored after the end of its partition"));
        }
        if topic.families.keys.is_none() && start < end {
            let first = self.first_stored(of, start..end)?.unwrap_or(end);
            if first > start {
                self.move_start(log, first)?;
                telemetry::log_removed("missing", first - start);
            }
        }
        Ok(())
    }

    /// The first offset of this span that has a record.
    pub(super) fn first_stored(
        &self,
        of: PartitionRef<'_>,
        span: std::ops::Range<u64>,
    ) -> Result<Option<u64>, LogError> {
        let mut found = None;
        let mut visit = |offset: u64, _: &[u8]| {
            found = Some(offset);
            Ok(false)
        };
        self.scan(of, span, &mut visit)?;
        Ok(found)
    }

    /// Visits the stored records of a span in order until the visitor returns false.
    pub(super) fn scan(
        &self,
        of: PartitionRef<'_>,
        span: std::ops::Range<u64>,
        visit: VisitRecord<'_>,
    ) -> Result<(), LogError> {
        let PartitionRef { topic, log } = of;
        let family = self.database.family(&topic.families.records)?;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_upper_bound(layout::record_key(log.at.partition, span.end));
        let mut rows = self.database.rocks().raw_iterator_cf_opt(&family, options);
        rows.seek(layout::record_key(log.at.partition, span.start));
        while let Some((key, value)) = rows.item() {
            let (_, offset) = layout::split_record_key(key)
                .ok_or_else(|| self.database.corruption("the key of a record is unreadable"))?;
            if !visit(offset, value)? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.database.log_error(&error))
    }

    /// Moves a partition's start forward, on disk first.
    pub(super) fn move_start(&self, log: &PartitionLog, start: u64) -> Result<(), LogError> {
        let key = layout::partition_key(b's', log.topic, log.at.partition);
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.database.meta()?, key, start.to_be_bytes());
        self.database.write(batch)?;
        log.start.fetch_max(start, std::sync::atomic::Ordering::AcqRel);
        Ok(())
    }

    fn topic_rows(&self) -> Result<Vec<(Topic, TopicRow)>, LogError> {
        let meta = self.database.meta()?;
        let prefix = layout::topic_key("");
        let mut rows = Vec::new();
        let from = IteratorMode::From(&prefix, Direction::Forward);
        for row in self.database.rocks().iterator_cf(&meta, from) {
            let (key, value) = row.map_err(|error| self.database.log_error(&error))?;
            let Some(name) = key.strip_prefix(&prefix[..]) else { break };
            let name = std::str::from_utf8(name).ok();
            let (name, row) = name.zip(TopicRow::decode(&value)).ok_or_else(|| {
                self.database.corruption("the row of a topic in meta is unreadable")
            })?;
            rows.push((Topic::new(name), row));
        }
        Ok(rows)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.failure.get().is_some() {
            return;
        }
        if let Err(error) = incarnation::end_run(&self.database, &self.note) {
            tracing::warn!(%error, "the embedded log could not record that it was closed");
        }
    }
}

fn check_format(database: &LogDatabase) -> Result<(), LogError> {
    let key = b"format";
    match database.meta_row(key)? {
        None => {
            let mut batch = WriteBatch::default();
            batch.put_cf(&database.meta()?, key, layout::FORMAT.to_be_bytes());
            database.write(batch)
        }
        Some(row) if row == layout::FORMAT.to_be_bytes() => Ok(()),
        Some(_) => Err(LogError::Fatal(
            "the data directory was written by another version of tidewire; start that version, \
             or give another --data-dir"
                .to_owned(),
            None,
        )),
    }
}

/// Random bits for a new topic; the low 32 are zero, for the incarnation.
fn creation_id() -> Result<u128, LogError> {
    use std::io::Read;
    let mut bits = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bits));
    read.map_err(|error| {
        LogError::Fatal("can't read /dev/urandom".to_owned(), Some(Box::new(error)))
    })?;
    Ok(u128::from_be_bytes(bits) & !u128::from(u32::MAX))
}
