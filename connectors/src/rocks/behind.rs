//! The writer behind a store: takes what was handed over, merges what has gathered meanwhile and
//! writes it. It never waits for more: who hands over has gathered already. The queue is bounded in
//! bytes; whoever hands over more waits.
//!
//! Batches are written whole and in order. After a failure nothing more is written, and everyone
//! who asks gets the reason.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tidewire_engine::port::{StoreBatch, StoreError, Ticket};
use tidewire_engine::record::Partition;

use super::checkpoint::Keeper;
use super::config::QUEUE_BYTES_MAX;
use super::database::Database;
use super::merge;
use crate::telemetry;

/// A writer and its queue.
pub(super) struct Behind {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Something was handed over, or the end has come.
    filled: Condvar,
    /// Something was written, or writing failed.
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<StoreBatch>,
    bytes: usize,
    handed: u64,
    written: u64,
    /// From which batch on every one ends on a transaction's boundary.
    bounded_from: Option<u64>,
    end: Option<End>,
    failed: Option<String>,
}

/// How a store ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything handed over is written first.
    Close,
    /// What waits is dropped: the log has it.
    Abandon,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            None => Ok(()),
            Some(message) => Err(StoreError { message: message.clone(), source: None }),
        }
    }
}

impl Behind {
    /// Starts the writer of a database.
    #[expect(clippy::disallowed_methods, reason = "the end of what is returned joins it")]
    pub(super) fn start(
        (database, mut keeper): (Arc<Database>, Keeper),
        partition: Partition,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let run = {
            let queue = queue.clone();
            move || run(&queue, (&database, &mut keeper))
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

    /// Hands a batch over; waits while too much is waiting.
    pub(super) fn hand_over(&self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        let bytes = merge::size(&batch);
        let mut state = self.queue.state();
        while state.failed.is_none() && !state.waiting.is_empty() && state.bytes > QUEUE_BYTES_MAX {
            state = self.queue.emptied.wait(state).expect("no holder panics");
        }
        state.check()?;
        state.bytes += bytes;
        state.waiting.push_back(batch);
        state.handed += 1;
        let ticket = Ticket(state.handed);
        drop(state);
        self.queue.filled.notify_one();
        Ok(ticket)
    }

    /// From the batch handed over last on, each ends on a transaction's boundary.
    pub(super) fn allow_checkpoints(&self) {
        let mut state = self.queue.state();
        let handed = state.handed;
        state.bounded_from.get_or_insert(handed);
    }

    /// The newest batch written.
    pub(super) fn written(&self) -> Result<Ticket, StoreError> {
        let state = self.queue.state();
        state.check()?;
        Ok(Ticket(state.written))
    }

    /// Writes what waits and ends.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        self.end(End::Close);
        self.queue.state().check()
    }

    fn end(&mut self, end: End) {
        let Some(thread) = self.thread.take() else { return };
        self.queue.state().end = Some(end);
        self.queue.filled.notify_one();
        if thread.join().is_err() {
            self.queue.state().failed = Some("the store's writer thread panicked".to_owned());
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.end(End::Abandon);
    }
}

fn run(queue: &Queue, (database, keeper): (&Database, &mut Keeper)) {
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
        let bounded = state.bounded_from.is_some_and(|from| from <= state.written);
        drop(state);
        queue.emptied.notify_all();
        if failed {
            return;
        }
        if bounded {
            keeper.consider(database, &merged.progress);
        }
    }
}

/// What is to be written next; `None` at the end.
fn next(queue: &Queue) -> Option<(Vec<StoreBatch>, usize)> {
    let mut state = queue.state();
    while state.waiting.is_empty() {
        if state.end.is_some() {
            return None;
        }
        state = queue.filled.wait(state).expect("no holder panics");
    }
    if state.end == Some(End::Abandon) {
        return None;
    }
    let batches = state.waiting.drain(..).collect();
    Some((batches, state.bytes))
}
