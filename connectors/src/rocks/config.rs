//! Settings of the task stores, and fixed limits with their reasons.
//!
//! Memory is bounded by the block cache and the write buffers, which all tasks of the process
//! share, and by the queue of each store.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the task stores.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory, with one subdirectory per task.
    pub dir: PathBuf,
    /// Bytes of RocksDB's block cache, all tasks together; index and filter blocks included.
    pub block_cache_bytes: usize,
    /// Bytes of RocksDB's write buffers, all tasks together.
    pub write_buffer_bytes: usize,
    /// Files that each store keeps open.
    pub open_files_max: i32,
    /// Task time between two checkpoints of a task.
    pub checkpoint_every: Duration,
}

impl Config {
    /// The defaults for stores in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            block_cache_bytes: BLOCK_CACHE_BYTES,
            write_buffer_bytes: WRITE_BUFFER_BYTES,
            open_files_max: OPEN_FILES_MAX,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }
}

/// Milliseconds a horizon moves before ranges are deleted again: each deletion leaves a tombstone
/// that reads have to pass until the files below it are compacted.
pub(super) const DROP_EVERY_MS: i64 = 60_000;

/// Most reads are answered by the tasks' own caches or by a bloom filter.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// Several times the merged writes of all tasks in a second.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// A replay executes at most this much before its span, half of it on average.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Checkpoints a task keeps. Each may use as many bytes as the store had.
pub(super) const CHECKPOINTS_MAX: usize = 4;

/// A task waits for its writer thread while more than this is queued.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The write buffer of a family of tables, and the size of its files: large enough that a flush is
/// worth a file. The memory is taken in blocks of at most 1 MiB, so three families of eight tasks
/// use 24 MiB of [`WRITE_BUFFER_BYTES`] with their first writes.
pub(super) const TABLES_BUFFER_BYTES: usize = 16 << 20;

/// The write buffer of the family of progress, whose row is replaced with each batch.
pub(super) const META_BUFFER_BYTES: usize = 1 << 20;

/// Bits of bloom filter per key: one miss in a hundred reads a block.
pub(super) const FILTER_BITS: f64 = 10.0;

/// Point reads need small blocks.
pub(super) const BLOCK_BYTES: usize = 4 << 10;

/// Files a task's database keeps open.
const OPEN_FILES_MAX: i32 = 128;

/// Files that are not written to are compacted at least this often, to drop expired values.
pub(super) const EXPIRE_SECONDS: u64 = 6 * 3600;
