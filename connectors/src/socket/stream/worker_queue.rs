//! How other threads reach a worker: a bounded queue of commands and a wake-up.
//!
//! Wake-ups coalesce until the worker polls, so a burst of segments from the hub costs one system
//! call. A command that finds the queue full, or the worker gone, is handed back to its sender.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use tidewire_engine::port::Wake;

use crate::socket::http::takeover::DetachedConnection;

/// A command to a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Serve this connection.
    Adopt(Box<DetachedConnection>),
    /// Send move requests to all within this time, then close them and end.
    Drain(Duration),
}

/// Wakes a worker that waits in `poll`.
#[derive(Debug)]
pub struct WorkerWaker {
    waker: mio::Waker,
    pending: AtomicBool,
}

impl WorkerWaker {
    /// Wraps a poll's waker.
    pub fn new(waker: mio::Waker) -> Self {
        Self { waker, pending: AtomicBool::new(false) }
    }

    /// Arms the waker again. The worker calls it before it looks at its queues, or it could miss
    /// what is queued in between.
    pub fn acknowledge(&self) {
        self.pending.store(false, Ordering::SeqCst);
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

/// Sends commands to one worker.
#[derive(Clone, Debug)]
pub struct WorkerQueue {
    /// The queue.
    pub commands: SyncSender<WorkerCommand>,
    /// Wakes the worker.
    pub waker: Arc<WorkerWaker>,
}

impl WorkerQueue {
    /// Sends a command; returns it if the queue is full or the worker has ended.
    pub fn send(&self, command: WorkerCommand) -> Result<(), WorkerCommand> {
        let sent = self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
        });
        self.waker.wake();
        sent
    }
}
