//! The memory that connections may use together, and the shares of it that are counted.
//!
//! Counted are bytes that a socket has not accepted, incomplete messages of clients, small frames
//! that wait, and what the fan-out holds beside its rings because something refers to it: each
//! segment and frame once, however many connections do. Kernel buffers are not counted.
//!
//! At the limit nothing waits for memory and nothing is lost. A connection is then given one frame
//! at a time, so one that does not read keeps its place and that frame; a connection that reads is
//! served on. Those that do not read are closed sooner, which frees the memory. So no share is ever
//! refused: beyond the limit each connection still has one frame and one incomplete message, and a
//! sweep four steps, which are small then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::shard::ConnectionMemory;

use crate::telemetry;

/// The default of `memory.connections_bytes`.
pub const CONNECTIONS_BYTES: usize = 256 << 20;

/// The memory for all connections of a process.
pub struct MemoryBudget {
    max_bytes: usize,
    /// The sum of all shares.
    shares_bytes: AtomicUsize,
    /// Whether it was full at the last look.
    was_full: AtomicBool,
    /// What the fan-out holds for connections.
    fanout_bytes: Box<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({} of {} bytes)", self.used_bytes(), self.max_bytes)
    }
}

impl MemoryBudget {
    /// A budget of this many bytes. `fanout_bytes` returns what the fan-out holds for connections.
    pub fn new(
        max_bytes: usize,
        fanout_bytes: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            shares_bytes: AtomicUsize::new(0),
            was_full: AtomicBool::new(false),
            fanout_bytes: Box::new(fanout_bytes),
        })
    }

    /// The budget for connections to a hub.
    pub fn over_hub(max_bytes: usize, hub: &Arc<Hub>) -> Arc<Self> {
        let hub = Arc::clone(hub);
        Self::new(max_bytes, move || hub.bytes_beside_rings())
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.shares_bytes.load(Ordering::Relaxed) + (self.fanout_bytes)()
    }

    /// Whether there is memory left.
    pub fn state(&self) -> ConnectionMemory {
        let full = self.used_bytes() >= self.max_bytes;
        if full != self.was_full.load(Ordering::Relaxed)
            && full != self.was_full.swap(full, Ordering::Relaxed)
            && full
        {
            telemetry::connection_memory_full();
        }
        match full {
            true => ConnectionMemory::Full,
            false => ConnectionMemory::Available,
        }
    }

    /// Updates the metrics.
    pub fn report(&self) {
        telemetry::connection_memory(self.used_bytes(), self.state());
    }
}

/// What one connection uses of a budget. Dropping it gives the bytes back.
#[derive(Debug)]
pub struct MemoryShare {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryShare {
    /// An empty share.
    pub fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Bytes of this share.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts what is held now, even beyond the budget.
    pub fn set(&mut self, bytes: usize) {
        let total = &self.budget.shares_bytes;
        match bytes.checked_sub(self.bytes) {
            Some(more) => total.fetch_add(more, Ordering::Relaxed),
            None => total.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_the_fan_out_count_against_one_budget() {
        let fanout = Arc::new(AtomicUsize::new(40));
        let held = Arc::clone(&fanout);
        let budget = MemoryBudget::new(100, move || held.load(Ordering::Relaxed));
        let (mut one, mut other) = (MemoryShare::new(&budget), MemoryShare::new(&budget));
        one.set(50);
        assert_eq!((one.bytes(), other.bytes(), budget.used_bytes()), (50, 0, 90));
        assert_eq!(budget.state(), ConnectionMemory::Available);
        other.set(10);
        assert_eq!(budget.state(), ConnectionMemory::Full);
        one.set(30);
        assert_eq!((budget.used_bytes(), budget.state()), (80, ConnectionMemory::Available));
        fanout.store(70, Ordering::Relaxed);
        assert_eq!(budget.state(), ConnectionMemory::Full);
        drop((one, other));
        assert_eq!(budget.used_bytes(), 70);
    }
}
