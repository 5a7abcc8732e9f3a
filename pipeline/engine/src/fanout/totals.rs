//! Totals of the memory that the fan-out holds, shared by its segments, frames and shards.
//!
//! Whatever is made adds its bytes and subtracts them when it is dropped, so a segment or frame
//! that has left the ring counts once, in full, for as long as anything refers to it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Totals of all segments, frames and shards of a hub.
#[derive(Debug, Default)]
pub(super) struct FanoutTotals {
    /// Bytes of records and frames in the rings.
    pub(super) ring_bytes: AtomicUsize,
    /// Bytes of records and frames in memory, in a ring or not.
    pub(super) held_bytes: AtomicUsize,
    /// Bytes of small frames queued for connections that have not been written to.
    pub(super) control_bytes: AtomicUsize,
    /// Frames encoded since the start.
    pub(super) encodes: AtomicU64,
    /// Whether the memory for connections was full at the last tick of a shard.
    pub(super) memory_full: AtomicBool,
}

impl FanoutTotals {
    /// Bytes that connections cause beside the rings: what has left a ring and is still referred
    /// to, what sweeps have read, and small frames that wait.
    pub(super) fn bytes_beside_rings(&self) -> usize {
        let held = self.held_bytes.load(Ordering::Relaxed);
        // Not read at one moment, so the difference can be negative for an instant.
        let outside = held.saturating_sub(self.ring_bytes.load(Ordering::Relaxed));
        outside + self.control_bytes.load(Ordering::Relaxed)
    }
}
