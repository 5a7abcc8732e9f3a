//! The ports: what the engine asks of the world, in few verbs. A log is read, appended to and
//! transacted with; a store is read, scanned and handed batches; a clock says the time.
//!
//! Everything here is plain blocking code, called from the loops' own threads. The embedded log,
//! Kafka and the simulator implement it, and one conformance suite (`tests/conformance`) states
//! the contract for all of them. Callbacks of a client library never cross this line: they become
//! the values that [`Member::changes`] and [`Transactor::drain`] return.
//!
//! Nothing here names a client library, a file or a socket.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::record::{Millis, Offset, Outgoing, Partition, Record, Topic, TopicPartition};

/// What went wrong underneath, kept for the log line; decisions are taken on [`LogError`].
pub type Cause = Box<dyn Error + Send + Sync>;

/// A failure of the log, by what the caller has to do next.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The same call may be made again; nothing has happened, or it is safe to repeat.
    #[error("the log did not answer; the call is repeated")]
    Retry(#[source] Cause),
    /// The open transaction must be aborted and its records taken again.
    #[error("the transaction must be aborted")]
    Abort(#[source] Cause),
    /// It is not known whether the transaction was committed: initialise the transactional id
    /// again and go back to what the log says.
    #[error("the outcome of the transaction is unknown")]
    Unknown(#[source] Cause),
    /// Another holder of this transactional id or of these partitions took over; stop writing.
    #[error("another instance took over: {0}")]
    Fenced(String),
    /// The position is not in the log (any more): before its start or beyond its end.
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
    /// The request itself is wrong: an unknown topic, a mismatch of settings. The text says how to
    /// mend it.
    #[error("{0}")]
    Invalid(String),
    /// The log is lost to this process: a full or broken disk, damaged data, a broker refusing us.
    #[error("the log is lost: {0}")]
    Fatal(String, #[source] Option<Cause>),
}

/// What a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records leave by age and size; offsets stay contiguous from the log's start.
    Delete {
        /// Milliseconds a record is kept at least; `None`: for ever.
        retention_ms: Option<u64>,
        /// Bytes a partition keeps at least; `None`: no limit.
        retention_bytes: Option<u64>,
    },
    /// The latest record of each key stays; tombstones leave after a delay.
    Compact {
        /// Milliseconds a tombstone stays readable.
        delete_retention_ms: u64,
    },
    /// Compaction, and records leave by age too.
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
    /// What it keeps.
    pub cleanup: Cleanup,
}

/// A topic as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name, partitions, cleanup.
    pub spec: TopicSpec,
    /// Changes whenever offsets may start to mean other records: the topic was made anew, or its
    /// log lost records it had acknowledged. Kafka's topic id, or the embedded log's incarnation.
    pub id: u128,
}

/// Which records a reader sees, and where its end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is outside transactions or was committed; the end is the last stable offset.
    Committed,
    /// The end is the very end, open transactions included.
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
    /// The next record to take.
    pub offset: Offset,
    /// What the committer left beside it.
    pub metadata: String,
}

/// Named topics of numbered partitions of records.
pub trait Log: Send + Sync {
    /// Creates a topic. `Ok(false)` if it is there exactly as asked; `Invalid` if it is there
    /// otherwise, naming the difference.
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError>;

    /// Every topic, by name.
    fn topics(&self) -> Result<Vec<TopicInfo>, LogError>;

    /// Start and end of a partition.
    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError>;

    /// The first offset whose record's time is at or after `time`; `None` if there is none yet.
    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError>;

    /// What `group` has committed for each of these, in the same order.
    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError>;

    /// A producer outside transactions. Retries inside it never double or reorder.
    fn appender(&self) -> Result<Box<dyn Appender>, LogError>;

    /// The producer of this transactional id. Making it fences the one before and aborts what that
    /// one left open.
    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError>;

    /// A reader that belongs to no group.
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError>;

    /// A member of a consumer group.
    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError>;
}

/// Appends outside transactions.
pub trait Appender: Send {
    /// Appends all, in order within each partition, and returns their offsets in the same order
    /// once the log answers for them. On an error some may have been appended.
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError>;
}

/// Writes records and group offsets that become visible together or not at all.
///
/// One cycle: `begin`, any number of `append`, `drain`, `send_offsets`, `commit`. After an error
/// that says `Abort`: `abort`. After `Unknown` or `Fenced`: drop it.
pub trait Transactor: Send {
    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), LogError>;

    /// Adds records; may return before they have arrived.
    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError>;

    /// Waits until nothing is in flight. A failed delivery is an error. This stands before
    /// `send_offsets`.
    fn drain(&mut self) -> Result<(), LogError>;

    /// Adds the group's progress. `Fenced` if the generation has passed.
    fn send_offsets(
        &mut self,
        group: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError>;

    /// Commits. Returns, for each partition written, the offset behind its last record.
    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError>;

    /// Undoes what was begun.
    fn abort(&mut self) -> Result<(), LogError>;
}

/// A place in a [`Reader`]'s list of partitions. Not reused while the reader lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderSlot(pub u32);

/// How much to take at most. At least one record is returned if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

/// Reads partitions, each at its own pace.
pub trait Reader: Send {
    /// Starts to read a partition at this position. `OutOfRange` at once or at the first `take`.
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError>;

    /// Stops reading a partition.
    fn remove(&mut self, slot: ReaderSlot);

    /// Moves on to another position of the same partition.
    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError>;

    /// Moves what is ready into `out`, without waiting; offset order. Returns how many.
    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError>;

    /// The next offset this partition will be read at. It passes control records and compacted
    /// gaps, so it reaches the end even where no record stands there.
    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError>;

    /// Waits until a partition may have something, the waker was used, a group change is pending or
    /// the time is over. May return early; never misses a wake-up.
    fn wait(&mut self, at_most: Duration) -> Result<(), LogError>;

    /// Ends a `wait` from another thread.
    fn waker(&self) -> Arc<dyn Wake>;
}

/// Ends another thread's wait. Remembered if that thread is not waiting now.
pub trait Wake: Send + Sync {
    /// Wakes.
    fn wake(&self);
}

/// How to join a group.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    /// The group.
    pub group: String,
    /// The topics; they have the same partition count, and a member gets the same partition
    /// numbers of each (range assignment).
    pub topics: Vec<Topic>,
    /// A stable name for this member, so that its restart is no rebalance.
    pub instance: String,
}

/// What happened to a member's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are this member's now. It decides where to start and calls [`Reader::add`].
    Assigned(Vec<TopicPartition>),
    /// These are about to go to another. What is done must be committed now; the revocation is
    /// acknowledged by the next call of [`Member::changes`].
    Revoked(Vec<TopicPartition>),
    /// These are gone already: drop everything, commit nothing.
    Lost(Vec<TopicPartition>),
}

/// Proves membership to [`Transactor::send_offsets`]. Fetched fresh for every transaction.
#[derive(Clone)]
pub struct GroupToken {
    /// The group.
    pub group: String,
    /// What the connector needs to prove it; opaque to the engine.
    pub proof: Arc<dyn std::any::Any + Send + Sync>,
}

/// A reader whose partitions are shared out by a group.
pub trait Member: Reader {
    /// Changes since the last call, oldest first. Also what keeps the membership alive: call it at
    /// least once a second.
    fn changes(&mut self) -> Result<Vec<Change>, LogError>;

    /// The proof for a transaction.
    fn token(&mut self) -> Result<GroupToken, LogError>;

    /// Commits progress outside transactions. `Fenced` if the generation has passed.
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
    /// When its entries may go by themselves.
    pub expiry: TableExpiry,
}

/// When entries of a table may go by themselves: once their time is before the table's horizon.
/// Readers check the time themselves, so that dropping is housekeeping and never changes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableExpiry {
    /// Never.
    Never,
    /// By a time at the beginning of each value (8 bytes, big-endian milliseconds), looked at
    /// whenever the store rewrites its files.
    ByValueTime,
    /// By a time at the beginning of each key (8 bytes, big-endian milliseconds with the sign
    /// flipped, so that keys are in order of time): whole ranges go, and no entry is looked at.
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

/// A change of one key; no value is a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreWrite {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Bytes,
    /// The new value.
    pub value: Option<Bytes>,
}

/// Writes that end on a transaction's boundary, and the progress they bring the store to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBatch {
    /// Sorted by table and key, each key once.
    pub writes: Vec<StoreWrite>,
    /// The encoded offsets this state corresponds to; replaces the one before, atomically with the
    /// writes.
    pub progress: Bytes,
}

/// Counts the batches handed to a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The store failed: a full or broken disk, damaged data. The task stops; the changelog has it all.
#[derive(Debug, thiserror::Error)]
#[error("the state store failed: {message}")]
pub struct StoreError {
    /// What failed and what to do about it.
    pub message: String,
    /// Underneath.
    #[source]
    pub source: Option<Cause>,
}

/// The local state of one task, written behind the log.
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

    /// Hands a batch to the writer, which writes batches whole and in this order. Returns at once
    /// unless too many are waiting.
    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError>;

    /// The newest batch that is written and visible to `get`; `Ticket(0)` before the first.
    fn written(&mut self) -> Result<Ticket, StoreError>;

    /// The progress of the newest written batch; `None` for a new store.
    fn progress(&mut self) -> Result<Option<Bytes>, StoreError>;

    /// Says that what was handed over last ends on the boundary of a transaction, as everything
    /// after it will. From there on the store may be kept now and then as it is: a *checkpoint*,
    /// with which a replay can begin. A store that keeps none does nothing.
    fn allow_checkpoints(&mut self) {}

    /// Entries of a table that is not [`TableExpiry::Never`] and of an earlier time may go from now
    /// on.
    fn set_horizon(&mut self, table: Table, before: Millis) -> Result<(), StoreError>;

    /// Waits until everything handed over is written, and closes.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Opens the stores of tasks.
pub trait Stores: Send + Sync {
    /// The store of partition `partition`, created if it is not there. It is locked: a second open
    /// fails until the first is closed.
    fn open(
        &self,
        partition: Partition,
        tables: &[TableSpec],
    ) -> Result<Box<dyn Store>, StoreError>;

    /// Removes a store whose progress no longer fits the log, so that it is rebuilt.
    fn destroy(&self, partition: Partition) -> Result<(), StoreError>;
}

/// The wall clock, for loops; engines are given times as values.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> Millis;
}
