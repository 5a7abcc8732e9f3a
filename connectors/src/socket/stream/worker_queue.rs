//! How other threads reach a worker: a bounded queue of connections, a drain request, a wake-up.
//!
//! Wake-ups coalesce until the worker polls, so a burst of segments from the hub costs one system
//! call. A connection that finds the queue full, or the worker gone, is handed back to its sender.
//! The drain request is a value beside the queue, so a full queue cannot keep a worker from ending.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidewire_engine::port::Wake;

use crate::socket::http::takeover::DetachedConnection;

/// Wakes a worker that waits in `poll`.
#[derive(Debug)]
pub struct WorkerWaker {
    waker: mio::Waker,
    pending: AtomicBool,
    drain: OnceLock<Duration>,
}

impl WorkerWaker {
    /// Wraps a poll's waker.
    pub fn new(waker: mio::Waker) -> Self {
        Self { waker, pending: AtomicBool::new(false), drain: OnceLock::new() }
    }

    /// Arms the waker again. The worker calls it before it looks at its queues, or it could miss
    /// what is queued in between.
    pub fn acknowledge(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Asks the worker to send move requests to all within this time, then to close them and end.
    /// Only the first request counts.
    pub fn request_drain(&self, window: Duration) {
        self.drain.get_or_init(|| window);
        self.wake();
    }

    /// The window of the drain that was asked for.
    pub fn requested_drain(&self) -> Option<Duration> {
        self.drain.get().copied()
    }
}

impl Wake for WorkerWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // Its poll times out within half a second, so the worker is only late.
            tracing::warn!(%error, "a worker could not be woken and runs late");
        }
    }
}

/// Hands connections to one worker.
#[derive(Clone, Debug)]
pub struct WorkerQueue {
    /// The queue.
    pub connections: SyncSender<Box<DetachedConnection>>,
    /// Wakes the worker.
    pub waker: Arc<WorkerWaker>,
}

impl WorkerQueue {
    /// Hands over a connection; returns it if the queue is full or the worker has ended.
    pub fn send(&self, detached: Box<DetachedConnection>) -> Result<(), Box<DetachedConnection>> {
        let sent = self.connections.try_send(detached).map_err(|error| match error {
            TrySendError::Full(detached) | TrySendError::Disconnected(detached) => detached,
        });
        self.waker.wake();
        sent
    }
}
