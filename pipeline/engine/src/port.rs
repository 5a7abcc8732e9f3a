//! The ports: traits of the log, the store and the clock that the engine runs on.
//!
//! A log is read, appended to and transacted with; a store is read, scanned and given batches; a
//! clock gives the time. Everything here is plain blocking code, called from the loops' own
//! threads. The embedded log, Kafka and the simulator implement it, and one conformance suite
//! (`tests/conformance`) states the contract for all of them. Callbacks of a client library never
//! reach the engine: they become the values that [`Member::changes`] and [`Transactor::drain`]
//! return.
//!
//! Nothing here names a client library, a file or a socket.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::record::{Millis, Offset, Outgoing, Partition, Record, Topic, TopicPartition};

/// The underlying error, kept for the log line; callers decide by the variant of [`LogError`].
pub type Cause = Box<dyn Error + Send + Sync>;

/// An error of the log, by what the caller must do next.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The same call may be made again: it had no effect, or repeating it is safe.
    #[error("the log did not answer; the call can be repeated")]
    Retry(#[source] Cause),
    /// The open transaction must be aborted and its records processed again.
    #[error("the transaction must be aborted")]
    Abort(#[source] Cause),
    /// It is unknown whether the transaction was committed: initialise the transactional id again
    /// and restart from the log.
    #[error("the outcome of the transaction is unknown")]
    Unknown(#[source] Cause),
    /// Another holder of this transactional id or of these partitions took over; stop writing.
    #[error("another instance took over: {0}")]
    Fenced(String),
    /// The position is before the start of the log or beyond its end.
    #[error("{at}: offset {asked} is outside {start}..={end}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The offset asked for.
        asked: u64,
        /// The oldest offset still there.
        start: u64,
        /// The end.
        end: u64,
    },
    /// The request is invalid: an unknown topic, a mismatch of settings. The text says how to fix
    /// it.
    #[error("{0}")]
    Invalid(String),
    /// This process can't use the log any more: a full or broken disk, damaged data, access denied.
    #[error("the log can't be used: {0}")]
    Fatal(String, #[source] Option<Cause>),
}

/// What a topic retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records are deleted by age and size; offsets stay contiguous from the log's start.
    Delete {
        /// Milliseconds a record is kept at least; `None`: for ever.
        retention_ms: Option<u64>,
        /// Bytes a partition keeps at least; `None`: no limit.
        retention_bytes: Option<u64>,
    },
    /// The latest record of each key stays; tombstones are deleted after a delay.
    Compact {
        /// Milliseconds a tombstone stays readable.
        delete_retention_ms: u64,
    },
    /// Compaction, and records are also deleted by age.
    CompactDelete {
        /// Milliseconds a tombstone stays readable.
        delete_retention_ms: u64,
        /// Milliseconds a record is kept at least.
        retention_ms: u64,
    },
}

/// A topic to create, or as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub topic: Topic,
    /// Its partitions, numbered from 0. Fixed for the topic's life.
    pub partitions: u32,
    /// What it retains.
    pub cleanup: Cleanup,
}

/// A topic as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name, partitions, cleanup.
    pub spec: TopicSpec,
    /// Changes when offsets may mean other records: the topic was created again, or its log lost
    /// acknowledged records. Kafka's topic id, or the embedded log's incarnation.
    pub id: u128,
}

/// Which records a reader sees, and where its end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only records outside transactions or committed ones; the end is the last stable offset.
    Committed,
    /// The end is the high watermark, open transactions included.
    Uncommitted,
}

/// Where a partition starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset still readable (equal to `end` when there is none).
    pub start: Offset,
    /// One past the newest record the isolation shows.
    pub end: Offset,
}

/// An offset a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// The committer's metadata.
    pub metadata: String,
}

/// A log: named topics, each with numbered partitions of records.
pub trait Log: Send + Sync {
    /// Creates a topic. `Ok(false)` if it exists with this spec; `Invalid`, naming the difference,
    /// if it exists with another.
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError>;

    /// Every topic, by name.
    fn topics(&self) -> Result<Vec<TopicInfo>, LogError>;

    /// Start and end of a partition.
    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError>;

    /// Asks for the ends of partitions without waiting for the answer. A log that knows them has it
    /// at once, as here. Uncommitted ends are behind the records of every transaction that is open
    /// now; a log that gives these no offsets has no answer before such a transaction has ended.
    fn request_ends(
        &self,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Box<dyn EndsRequest>, LogError> {
        let ends = of.iter().map(|at| Ok(self.bounds(at, isolation)?.end));
        Ok(Box::new(KnownEnds::new(ends.collect::<Result<_, LogError>>()?)))
    }

    /// The first offset whose record's time is at or after `time`; `None` if no record is.
    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError>;

    /// What `group` has committed for each of these, in the same order.
    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError>;

    /// A producer outside transactions. Its retries never duplicate or reorder records.
    fn appender(&self) -> Result<Box<dyn Appender>, LogError>;

    /// The producer of this transactional id. Creating it fences the previous one and aborts its
    /// open transaction.
    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError>;

    /// A reader that belongs to no group.
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError>;

    /// One sentence for each partition that a reader of this log cannot read: partition,
    /// offset and cause. The reader goes on trying.
    fn read_problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// A member of a consumer group.
    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError>;
}

/// A request for the ends of partitions.
pub trait EndsRequest: Send {
    /// The ends in the order of the request, each as it was at some time since the request; `None`
    /// in place of an end that is not known now, for example without a leader.
    ///
    /// `None` while there is no answer. Never waits. Not called again after an answer or an error.
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError>;
}

/// Ends that are known without asking.
pub struct KnownEnds(Vec<Offset>);

impl KnownEnds {
    /// The ends, in the order of the request.
    pub fn new(ends: Vec<Offset>) -> Self {
        Self(ends)
    }
}

impl EndsRequest for KnownEnds {
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        Ok(Some(std::mem::take(&mut self.0).into_iter().map(Some).collect()))
    }
}

/// Appends outside transactions.
pub trait Appender: Send {
    /// Appends all, in order within each partition, and returns their offsets in the same order
    /// once the log has acknowledged them. On an error some may have been appended.
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError>;
}

/// Writes records and group offsets atomically.
///
/// One cycle: `begin`, any number of `append`, `drain`, `send_offsets`, `commit`. After an error
/// that says `Abort`: `abort`. After `Unknown` or `Fenced`: drop it.
pub trait Transactor: Send {
    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), LogError>;

    /// Adds records; may return before they are acknowledged.
    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError>;

    /// Waits until no record is in flight. A failed delivery is an error. Call it before
    /// `send_offsets`.
    fn drain(&mut self) -> Result<(), LogError>;

    /// Adds the group's offsets. `Fenced` if the group has a newer generation.
    fn send_offsets(
        &mut self,
        group: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError>;

    /// Commits. Returns, for each partition written, the offset after its last record.
    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError>;

    /// Aborts the open transaction.
    fn abort(&mut self) -> Result<(), LogError>;
}

/// A partition in a [`Reader`]'s list. Not reused while the reader lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderSlot(pub u32);

/// The most that one `take` returns, except that at least one ready record is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

/// What is left to read in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadRecords {
    /// The next offset to read.
    pub next: Offset,
    /// Offsets from there to the end, open transactions included.
    pub records: u64,
    /// Whether all before the first open transaction was read, so that the rest waits for it.
    pub open_transaction: bool,
    /// The time of the next record, if the reader has it already.
    pub oldest: Option<Millis>,
}

/// Reads partitions, each at its own pace.
pub trait Reader: Send {
    /// Starts reading a partition at an offset. `OutOfRange` now or at the first `take`.
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError>;

    /// Stops reading a partition.
    fn remove(&mut self, slot: ReaderSlot);

    /// Continues at another offset of the same partition.
    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError>;

    /// Moves ready records to `out` in offset order, without waiting. Returns how many.
    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError>;

    /// The next offset to read. It skips control records and compacted gaps, so it reaches the end
    /// even if the last offsets hold no record.
    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError>;

    /// What is left to read in a partition, as far as the reader knows it without asking the log;
    /// `None`: it does not know.
    fn backlog(&mut self, _slot: ReaderSlot) -> Option<UnreadRecords> {
        None
    }

    /// Waits until a partition may have records, the waker was used, a group change is pending or
    /// the time is over. May return early; never misses a wake-up.
    fn wait(&mut self, at_most: Duration) -> Result<(), LogError>;

    /// The same without regard to what there is to read.
    fn wait_for_waker(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.wait(at_most)
    }

    /// Ends a `wait` from another thread.
    fn waker(&self) -> Arc<dyn Wake>;
}

/// Ends another thread's wait: the current one, or else the next one.
pub trait Wake: Send + Sync {
    /// Wakes the thread.
    fn wake(&self);
}

/// How to join a group.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    /// The group.
    pub group: String,
    /// The topics. They have the same partition count, and a member is assigned the same partition
    /// numbers of each (range assignment).
    pub topics: Vec<Topic>,
    /// A stable name of this member, so that its restart causes no rebalance.
    pub instance: String,
}

/// A change of a member's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This member owns these now. It chooses where to start and calls [`Reader::add`].
    Assigned(Vec<TopicPartition>),
    /// These will be assigned to another member. Commit now; the next call of [`Member::changes`]
    /// acknowledges the revocation.
    Revoked(Vec<TopicPartition>),
    /// Another member may own these already: drop everything, commit nothing.
    Lost(Vec<TopicPartition>),
}

/// Proof of membership for [`Transactor::send_offsets`]. Fetched again for every transaction.
#[derive(Clone)]
pub struct GroupToken {
    /// The group.
    pub group: String,
    /// The connector's proof; opaque to the engine.
    pub proof: Arc<dyn std::any::Any + Send + Sync>,
}

/// A reader whose partitions are assigned by a consumer group.
pub trait Member: Reader {
    /// Changes since the last call, oldest first. Calling it keeps the membership alive: do so at
    /// least once a second.
    fn changes(&mut self) -> Result<Vec<Change>, LogError>;

    /// The proof for a transaction.
    fn token(&mut self) -> Result<GroupToken, LogError>;

    /// Commits offsets outside transactions. `Fenced` if the group has a newer generation.
    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError>;
}

/// One keyed table of a store. Numbers are stable: they are persisted in changelogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// How a store keeps a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its stable number.
    pub table: Table,
    /// Its name in metrics and tools.
    pub name: &'static str,
    /// When its entries may be removed without a write.
    pub expiry: TableExpiry,
}

/// How the store removes entries whose time is before the table's horizon. Readers check the time
/// themselves, so removal frees space and never changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableExpiry {
    /// Never.
    Never,
    /// By a time at the beginning of each value (8 bytes, big-endian milliseconds), checked when
    /// the store compacts its files.
    ByValueTime,
    /// By a time at the beginning of each key (8 bytes, big-endian milliseconds with the sign
    /// flipped, so that keys are ordered by time): whole ranges are deleted without reading them.
    ByKeyTime,
}

/// Keys of a table in byte order, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The first key of the range, whether or not it exists.
    pub from: &'a [u8],
    /// The first key behind the range; `None`: to the end of the table.
    pub to: Option<&'a [u8]>,
}

impl KeyRange<'_> {
    /// The whole table.
    pub const ALL: KeyRange<'static> = KeyRange { from: &[], to: None };
}

/// A change of one key; no value removes it. A row of a table that was not declared when the store
/// was opened can be removed, and nothing else: a build that declared it may have written the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreWrite {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Bytes,
    /// The new value.
    pub value: Option<Bytes>,
}

/// Writes of whole transactions, and the progress of the store after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBatch {
    /// Each key once, in any order.
    pub writes: Vec<StoreWrite>,
    /// The encoded offsets that this state corresponds to. It replaces the previous progress,
    /// atomically with the writes.
    pub progress: Bytes,
}

/// The number of a batch handed to a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The store failed: a full or broken disk, damaged data. The task stops and can be restored.
#[derive(Debug, thiserror::Error)]
#[error("the state store failed: {message}")]
pub struct StoreError {
    /// What failed and what to do about it.
    pub message: String,
    /// The underlying error.
    #[source]
    pub source: Option<Cause>,
}

/// The local state of one task, written after the log (write-behind).
pub trait Store: Send {
    /// The value as of the newest *written* batch.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the keys of a range in order, as of the newest written batch.
    fn scan(
        &mut self,
        table: Table,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Hands a batch to the writer, which writes batches atomically and in this order. Blocks only
    /// while too many are waiting.
    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError>;

    /// The newest batch that is written and visible to `get`; `Ticket(0)` before the first.
    fn written(&mut self) -> Result<Ticket, StoreError>;

    /// The progress of the newest written batch; `None` for a new store.
    fn progress(&mut self) -> Result<Option<Bytes>, StoreError>;

    /// Says that the last batch, and every later one, ends at the boundary of a transaction. From
    /// then on the store may keep *checkpoints*, from which a replay can start. A store without
    /// checkpoints does nothing.
    fn allow_checkpoints(&mut self) {}

    /// Allows the removal of entries before this time, in a table that is not
    /// [`TableExpiry::Never`].
    fn set_horizon(&mut self, table: Table, before: Millis) -> Result<(), StoreError>;

    /// Waits until every batch is written, and closes.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Opens the stores of tasks.
pub trait Stores: Send + Sync {
    /// The store of a partition, created if it does not exist. It is locked: a second open fails
    /// until the first is closed.
    fn open(
        &self,
        partition: Partition,
        tables: &[TableSpec],
    ) -> Result<Box<dyn Store>, StoreError>;

    /// Removes a store whose progress no longer fits the log, so that it is rebuilt.
    fn destroy(&self, partition: Partition) -> Result<(), StoreError>;
}

/// The wall clock, for the threads that run the loops; the engine gets times as values.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> Millis;
}
