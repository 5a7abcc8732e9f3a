//! The numbers of the embedded log: what an operator may turn, and the fixed limits with their
//! reasons. Memory is bounded by the sum of the block cache, the write buffers and the tail.

use std::path::PathBuf;

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// A killed process: the write-ahead log is in the host's page cache, as with Kafka's default.
    #[default]
    Process,
    /// A power cut: one `fsync` per group of waiting writers.
    Host,
}

/// How to open an embedded log.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Bytes of the newest records kept in memory for readers at the tail, all partitions together.
    pub tail_bytes: usize,
    /// Bytes of RocksDB's cache for blocks read from files.
    pub block_cache_bytes: usize,
    /// Bytes of RocksDB's write buffers, all column families together.
    pub write_buffer_bytes: usize,
    /// Where the host says which boot this is; another file only in tests.
    pub boot_id_file: PathBuf,
    /// Who runs retention and compaction.
    pub upkeep: Upkeep,
}

/// Who runs retention and compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Upkeep {
    /// A thread of the log: once a second, or sooner when much is waiting to be compacted.
    #[default]
    Thread,
    /// Whoever calls `EmbeddedLog::maintain`: tests and tools that must know when.
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

/// A second or two of full speed, so that a reader that keeps up never touches RocksDB.
const TAIL_BYTES: usize = 128 << 20;

/// Index and filter blocks live in here too; records are read once, in order, and need little.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// Above this RocksDB flushes the largest buffer; small enough for a laptop.
const WRITE_BUFFER_BYTES: usize = 128 << 20;

/// One column family's buffer, and with it the size of a file of the log.
pub(super) const FAMILY_BUFFER_BYTES: usize = 32 << 20;

/// The write-ahead log is trimmed above this, so that a restart replays at most so much.
pub(super) const WAL_BYTES_MAX: u64 = 128 << 20;

/// Files of topics with explicit retention: small, because whole files are what is reclaimed.
pub(super) const SIZED_FILE_BYTES: u64 = 16 << 20;

/// A record is read in few blocks, and a block holds some dozens of records.
pub(super) const BLOCK_BYTES: usize = 16 << 10;

/// The largest body: as large as any sane Kafka broker is set to take.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;

/// The largest transaction or append: it is held in memory until it is written.
pub(super) const WRITE_BYTES_MAX: usize = 256 << 20;

/// One writer's turn takes up to this from the waiting ones; the rest is the next turn's.
pub(super) const WRITE_GROUP_BYTES_MAX: usize = 16 << 20;

/// Partitions of a topic; a key holds a 32-bit number, memory asks for less.
pub(super) const PARTITIONS_MAX: u32 = 1_024;

/// Topics; each is one or two column families with buffers of their own.
pub(super) const TOPICS_MAX: usize = 512;

/// Transactional ids remembered for fencing; they are one per instance and thread.
pub(super) const TRANSACTIONAL_IDS_MAX: usize = 4_096;

/// What a reader below the tail fetches at a time, so that small takes don't seek each time.
pub(super) const READ_AHEAD_BYTES: usize = 256 << 10;

/// A file leaves this much after its newest record's time is over. The log's start has moved past
/// it by then, so nobody finds a hole.
pub(super) const FILE_GRACE_SECONDS: u64 = 600;

/// A member that was told to give up its partitions is expelled if it does not within this.
pub(super) const REVOKE_MS_MAX: i64 = 10_000;

/// A named member's place is kept this long after it left, so that its restart is no rebalance.
pub(super) const ABSENCE_MS_MAX: i64 = 10_000;

/// How often the log's own thread looks after retention and compaction.
pub(super) const UPKEEP_EVERY_MS: u64 = 1_000;

/// How often each partition's start is looked at: retention is counted in minutes and more.
pub(super) const RETAIN_EVERY_MS: i64 = 10_000;

/// Compaction starts once a partition has this many records that were not looked at, or with every
/// [`CLEAN_EVERY_MS`].
pub(super) const CLEAN_AFTER_RECORDS: u64 = 50_000;

/// A partition with fewer new records is compacted this often.
pub(super) const CLEAN_EVERY_MS: i64 = 10_000;

/// Records of one pass of compaction; bounds how long a pass takes.
pub(super) const CLEAN_PASS_RECORDS: u64 = 50_000;

/// Bytes of keys one pass of compaction holds.
pub(super) const CLEAN_PASS_KEY_BYTES: usize = 32 << 20;

/// Rows of one batch of compaction; a commit waits at most for one.
pub(super) const CLEAN_BATCH_ROWS: usize = 1_000;
