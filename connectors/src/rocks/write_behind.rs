//! Writes a store's batches from a thread of its own, after the commit.
//!
//! The thread merges all batches that wait and writes them at once. It adds no delay, since the
//! callers already batch. The queue is bounded in bytes; `hand_over` blocks while it is full.
//!
//! Batches are written whole and in order. After a failure nothing more is written, and every later
//! call returns the reason.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tidewire_engine::port::{StoreBatch, StoreError, Ticket};
use tidewire_engine::record::Partition;

use super::checkpoint::TaskCheckpoints;
use super::config::QUEUE_BYTES_MAX;
use super::database::TaskDatabase;
use super::merge;
use crate::telemetry;

/// The writer thread of a store and its queue.
pub(super) struct WriteBehind {
    queue: Arc<BatchQueue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct BatchQueue {
    state: Mutex<BatchQueueState>,
    /// A batch was queued, or the store is closing.
    filled: Condvar,
    /// Batches were written, or a write failed.
    emptied: Condvar,
}

#[derive(Default)]
struct BatchQueueState {
    waiting: VecDeque<StoreBatch>,
    bytes: usize,
    submitted: u64,
    written: u64,
    /// The number of the first batch after which a checkpoint may be created.
    checkpoints_from: Option<u64>,
    stop: Option<StopMode>,
    failed: Option<String>,
}

/// How a store is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StopMode {
    /// Queued batches are written first.
    Close,
    /// Queued batches are dropped: the log has them.
    Abandon,
}

impl BatchQueue {
    fn state(&self) -> MutexGuard<'_, BatchQueueState> {
        self.state.lock().expect("no holder panics")
    }
}

impl BatchQueueState {
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            None => Ok(()),
            Some(message) => Err(StoreError { message: message.clone(), source: None }),
        }
    }
}

impl WriteBehind {
    /// Starts the writer thread of a database.
    #[expect(clippy::disallowed_methods, reason = "the end of what is returned joins it")]
    pub(super) fn start(
        database: Arc<TaskDatabase>,
        mut checkpoints: TaskCheckpoints,
        partition: Partition,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(BatchQueue::default());
        let run = {
            let queue = queue.clone();
            move || run(&queue, &database, &mut checkpoints)
        };
        let thread = std::thread::Builder::new()
            .name(format!("store-{}", partition.0))
            .spawn(run)
            .map_err(|error| StoreError {
                message: "can't start the store's writer thread".to_owned(),
                source: Some(Box::new(error)),
            })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Queues a batch; blocks while the queue is full.
    pub(super) fn hand_over(&self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        let bytes = merge::size(&batch);
        let mut state = self.queue.state();
        while state.failed.is_none() && !state.waiting.is_empty() && state.bytes > QUEUE_BYTES_MAX {
            state = self.queue.emptied.wait(state).expect("no holder panics");
        }
        state.check()?;
        state.bytes += bytes;
        state.waiting.push_back(batch);
        state.submitted += 1;
        let ticket = Ticket(state.submitted);
        drop(state);
        self.queue.filled.notify_one();
        Ok(ticket)
    }

    /// Allows checkpoints from the batch queued last on: each of these ends at a boundary of a
    /// transaction.
    pub(super) fn allow_checkpoints(&self) {
        let mut state = self.queue.state();
        let submitted = state.submitted;
        state.checkpoints_from.get_or_insert(submitted);
    }

    /// The newest batch written.
    pub(super) fn written(&self) -> Result<Ticket, StoreError> {
        let state = self.queue.state();
        state.check()?;
        Ok(Ticket(state.written))
    }

    /// Writes what is queued and ends the thread.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        self.stop(StopMode::Close);
        self.queue.state().check()
    }

    fn stop(&mut self, mode: StopMode) {
        let Some(thread) = self.thread.take() else { return };
        self.queue.state().stop = Some(mode);
        self.queue.filled.notify_one();
        if thread.join().is_err() {
            self.queue.state().failed =
                Some("the store's writer thread panicked; restart the process".to_owned());
        }
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.stop(StopMode::Abandon);
    }
}

fn run(queue: &BatchQueue, database: &TaskDatabase, checkpoints: &mut TaskCheckpoints) {
    while let Some((batches, bytes)) = next(queue) {
        let count = batches.len() as u64;
        let merged = merge::merge(batches);
        let outcome = database.write(&merged);
        let mut state = queue.state();
        state.bytes -= bytes;
        match outcome {
            Ok(()) => {
                state.written += count;
                telemetry::store_written(count, merged.writes.len());
            }
            Err(error) => {
                let cause = error.source.map(|cause| format!(" ({cause})")).unwrap_or_default();
                let message = format!("{}{cause}", error.message);
                tracing::error!(reason = message, "a state store failed");
                state.failed = Some(message);
            }
        }
        let failed = state.failed.is_some();
        let may_checkpoint = state.checkpoints_from.is_some_and(|from| from <= state.written);
        drop(state);
        queue.emptied.notify_all();
        if failed {
            return;
        }
        if may_checkpoint {
            checkpoints.create_if_due(database, &merged.progress);
        }
    }
}

/// The batches to write next and their bytes; `None` at the end.
fn next(queue: &BatchQueue) -> Option<(Vec<StoreBatch>, usize)> {
    let mut state = queue.state();
    while state.waiting.is_empty() {
        if state.stop.is_some() {
            return None;
        }
        state = queue.filled.wait(state).expect("no holder panics");
    }
    if state.stop == Some(StopMode::Abandon) {
        return None;
    }
    let batches = state.waiting.drain(..).collect();
    Some((batches, state.bytes))
}
