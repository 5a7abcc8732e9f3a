//! Settings of the embedded log, and its fixed limits with their reasons.
//!
//! Memory is bounded by the sum of the block cache, the write buffers and the tail.

use std::path::PathBuf;

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// A killed process: the write-ahead log is in the host's page cache, as Kafka does by default.
    #[default]
    Process,
    /// A power failure: one `fsync` per batch of waiting writes.
    Host,
}

/// Settings of an embedded log.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory, created if it does not exist. One process at a time can open it.
    pub dir: PathBuf,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Bytes of the newest records kept in memory for readers at the tail, all partitions together.
    pub tail_bytes: usize,
    /// Bytes of RocksDB's block cache.
    pub block_cache_bytes: usize,
    /// Bytes of RocksDB's write buffers, all column families together.
    pub write_buffer_bytes: usize,
    /// The file with the host's boot id; tests give another one.
    pub boot_id_file: PathBuf,
    /// Who runs retention and compaction.
    pub upkeep: Upkeep,
}

/// Who runs retention and compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Upkeep {
    /// A thread of the log, which checks once a second.
    #[default]
    Thread,
    /// The caller of `EmbeddedLog::maintain`: tests and tools that need to choose the time.
    Caller,
}

impl Config {
    /// The defaults for a log in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::default(),
            tail_bytes: TAIL_BYTES,
            block_cache_bytes: BLOCK_CACHE_BYTES,
            write_buffer_bytes: WRITE_BUFFER_BYTES,
            boot_id_file: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            upkeep: Upkeep::default(),
        }
    }
}

/// One or two seconds at full speed, so that a reader that keeps up never reads from RocksDB.
const TAIL_BYTES: usize = 128 << 20;

/// Includes index and filter blocks. Records are read once, in order, and need little cache.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// Above this RocksDB flushes the largest buffer. Small enough for a laptop.
const WRITE_BUFFER_BYTES: usize = 128 << 20;

/// The write buffer of one column family, which decides the size of the log's files.
pub(super) const FAMILY_BUFFER_BYTES: usize = 32 << 20;

/// Largest size of the write-ahead log, and so of what a restart replays.
pub(super) const WAL_BYTES_MAX: u64 = 128 << 20;

/// File size of topics with retention by size: small, because whole files are reclaimed.
pub(super) const SIZED_FILE_BYTES: u64 = 16 << 20;

/// Block size: a block holds some dozens of records, and a record is in few blocks.
pub(super) const BLOCK_BYTES: usize = 16 << 10;

/// The largest record body: as large as Kafka brokers are usually configured to accept.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;

/// The largest append or transaction, which is in memory until it is written.
pub(super) const WRITE_BYTES_MAX: usize = 256 << 20;

/// One batch contains waiting writes up to this size; the rest goes into the next batch.
pub(super) const WRITE_GROUP_BYTES_MAX: usize = 16 << 20;

/// Partitions of a topic. Keys could hold 32 bits; memory per partition limits it further.
pub(super) const PARTITIONS_MAX: u32 = 1_024;

/// Topics. Each has one or two column families with write buffers of their own.
pub(super) const TOPICS_MAX: usize = 512;

/// Transactional ids kept for fencing. Each instance and thread has a few.
pub(super) const TRANSACTIONAL_IDS_MAX: usize = 4_096;

/// What a reader fetches from RocksDB at a time, so that small reads don't seek each time.
pub(super) const READ_AHEAD_BYTES: usize = 256 << 10;

/// A file is deleted this long after its newest record expired. By then the start of the partition
/// has moved past it, so that no reader meets missing records.
pub(super) const FILE_GRACE_SECONDS: u64 = 600;

/// A member that does not acknowledge a revocation within this time is expelled.
pub(super) const REVOKE_MS_MAX: i64 = 10_000;

/// A static member keeps its partitions this long after it left, so that a restart does not cause
/// a rebalance.
pub(super) const ABSENCE_MS_MAX: i64 = 10_000;

/// How often the upkeep thread checks retention and compaction.
pub(super) const UPKEEP_EVERY_MS: u64 = 1_000;

/// How often retention of a partition is checked: it is minutes or longer.
pub(super) const RETAIN_EVERY_MS: i64 = 10_000;

/// A partition with this many uncompacted records, and as many as it has keys, is compacted at the
/// next check, without waiting for [`CLEAN_EVERY_MS`].
pub(super) const CLEAN_AFTER_RECORDS: u64 = 50_000;

/// How often a partition with fewer uncompacted records is compacted, if they are half as many as
/// its keys. That is Kafka's `min.cleanable.dirty.ratio`: most records of a busy partition are
/// replaced before they are ever compacted.
pub(super) const CLEAN_EVERY_MS: i64 = 10_000;

/// How long a record may wait for compaction at most.
pub(super) const CLEAN_LATEST_MS: i64 = 600_000;

/// Records of one pass of compaction, which bounds its duration.
pub(super) const CLEAN_PASS_RECORDS: u64 = 200_000;

/// Bytes of keys one pass of compaction keeps in memory.
pub(super) const CLEAN_PASS_KEY_BYTES: usize = 32 << 20;

/// Rows of one batch of compaction. A commit waits for at most one batch.
pub(super) const CLEAN_BATCH_ROWS: usize = 1_000;
