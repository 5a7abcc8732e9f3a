//! The numbers of the task stores. Memory is the block cache and the write buffers, shared by all
//! tasks of the process, and what waits in each store's queue.

use std::path::PathBuf;
use std::time::Duration;

/// How to keep the stores of tasks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; each task has one of its own inside.
    pub dir: PathBuf,
    /// Bytes of RocksDB's block cache, all tasks together; index and filter blocks included.
    pub block_cache_bytes: usize,
    /// Bytes of RocksDB's write buffers, all tasks together.
    pub write_buffer_bytes: usize,
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
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }
}

/// Milliseconds a horizon moves before ranges are dropped again: each drop leaves a mark that reads
/// must pass until the files below it are rewritten.
pub(super) const DROP_EVERY_MS: i64 = 60_000;

/// Most reads end in the tasks' own caches or in a filter.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// Enough that a second's merged writes of every task fit several times.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// A replay executes so much again before its span, on average half of it.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Checkpoints a task keeps: each may hold as many bytes as the store itself had.
pub(super) const CHECKPOINTS_MAX: usize = 4;

/// A task that hands over more than this waits for its writer.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bits of bloom filter per key: one miss in a hundred reads a block.
pub(super) const FILTER_BITS: f64 = 10.0;

/// Point reads want small blocks.
pub(super) const BLOCK_BYTES: usize = 4 << 10;

/// Files a task's database keeps open.
pub(super) const OPEN_FILES_MAX: i32 = 128;

/// Expired values leave quiet files at least this often.
pub(super) const EXPIRE_SECONDS: u64 = 6 * 3600;
