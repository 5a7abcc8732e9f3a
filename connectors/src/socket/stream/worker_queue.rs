//! How other threads reach a worker: a bounded queue of what to do, and one wake.
//!
//! The wake is remembered and given once until the worker has seen it, so a burst of batches from
//! the hub costs one system call, not one each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use tidewire_engine::port::Wake;

use crate::socket::http::takeover::DetachedConnection;

/// What other threads ask of a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Serve this connection from now on.
    Adopt(Box<DetachedConnection>),
    /// Tell everyone to move on within this time, then close them and end.
    Drain(Duration),
}

/// Ends a worker's wait.
#[derive(Debug)]
pub struct WorkerWaker {
    waker: mio::Waker,
    pending: AtomicBool,
}

impl WorkerWaker {
    /// Around a poll's waker.
    pub fn new(waker: mio::Waker) -> Self {
        Self { waker, pending: AtomicBool::new(false) }
    }

    /// The worker is awake: the next wake counts again. Called before it looks at its queues.
    pub fn acknowledge(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }
}

impl Wake for WorkerWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // The worker still looks around once a second.
            tracing::warn!(%error, "a worker could not be woken");
        }
    }
}

/// The door to one worker.
#[derive(Clone, Debug)]
pub struct WorkerQueue {
    /// The queue.
    pub commands: SyncSender<WorkerCommand>,
    /// The wake.
    pub waker: Arc<WorkerWaker>,
}

impl WorkerQueue {
    /// Leaves a command; gives it back if the worker is too far behind or gone.
    pub fn send(&self, command: WorkerCommand) -> Result<(), WorkerCommand> {
        let sent = self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
        });
        self.waker.wake();
        sent
    }
}
