//! The road from HTTP requests into the log: a bounded queue and the one thread that appends.
//!
//! The one idea: appending costs the same for one record as for thousands, so the thread waits for
//! one request and takes every other that is waiting with it into a single append. Requests are
//! async and many; the log is blocking and has one writer here.
//!
//! Room is claimed in bytes before a body is read, so neither bodies nor the queue can outgrow
//! [`INGEST_BYTES`]. A full house is an answer (503), never a wait; and so is a log that does not
//! answer in time, whatever the thread is waiting for meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{clock, telemetry};

/// Bytes of all bodies between their first byte and their answer: sixteen of the largest.
pub const INGEST_BYTES: usize = 64 * 1_024 * 1_024;

/// Requests waiting for the thread. Small bodies are bounded by this, large ones by bytes.
const QUEUE_REQUESTS: usize = 1_024;

/// What one append takes at most, so that the first request of a burst isn't kept waiting for all.
const BATCH_RECORDS: usize = 10_000;
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// A repeatable failure is repeated this often, this far apart, before requests are answered.
const ATTEMPTS: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);

/// The semaphore counts in these.
const PERMIT_BYTES: usize = 1_024;

/// Why records were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Too much is waiting; the same request may be sent again in a moment.
    #[error("too many events are waiting to be appended; send the request again in a moment")]
    Overloaded,
    /// The log didn't take them, though some of them may stand in it. With event ids the request
    /// may be sent again: duplicates are dropped.
    #[error("the log did not confirm the events; send them again with the same event_id")]
    NotConfirmed,
    /// The process has lost its log or is stopping.
    #[error("this gateway takes no events any more; use another or wait until it is back")]
    Closed,
}

struct Job {
    records: Vec<Outgoing>,
    waiting: Waiting,
}

/// Whoever waits for an answer, and the room its body takes until there is one.
struct Waiting {
    count: usize,
    answer: oneshot::Sender<Result<Vec<Offset>, IngestError>>,
    _room: Room,
}

/// Room for a body, given back when it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Where handlers leave records. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Ingest {
    jobs: SyncSender<Job>,
    room: Arc<Semaphore>,
    lost: Arc<AtomicBool>,
    answer_limit: Duration,
}

impl Ingest {
    /// Starts the thread, which the gateway joins. Requests wait for the log up to `answer_limit`.
    #[expect(clippy::disallowed_methods, reason = "the gateway joins what is started here")]
    pub fn start(
        appender: Box<dyn Appender>,
        answer_limit: Duration,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = sync_channel(QUEUE_REQUESTS);
        let lost = Arc::new(AtomicBool::new(false));
        let mut writer = Writer { appender, queue, lost: Arc::clone(&lost), held: None };
        let thread =
            std::thread::Builder::new().name("ingest".to_owned()).spawn(move || writer.run())?;
        let room = Arc::new(Semaphore::new(INGEST_BYTES / PERMIT_BYTES));
        Ok((Self { jobs, room, lost, answer_limit }, thread))
    }

    /// Claims room for a body of at most this many bytes.
    pub fn claim(&self, bytes: usize) -> Result<Room, IngestError> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(permits.max(1)).map(Room).map_err(|_| {
            telemetry::ingest_overloaded("bytes");
            IngestError::Overloaded
        })
    }

    /// Appends records and returns their offsets in the same order. The room is given back once
    /// they are out of the queue, even if the answer came too late for this.
    pub async fn append(
        &self,
        records: Vec<Outgoing>,
        room: Room,
    ) -> Result<Vec<Offset>, IngestError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { count: records.len(), answer, _room: room };
        match self.jobs.try_send(Job { records, waiting }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                telemetry::ingest_overloaded("queue");
                return Err(IngestError::Overloaded);
            }
            Err(TrySendError::Disconnected(_)) => return Err(IngestError::Closed),
        }
        match tokio::time::timeout(self.answer_limit, answered).await {
            Ok(answer) => answer.unwrap_or(Err(IngestError::Closed)),
            Err(_) => Err(IngestError::NotConfirmed),
        }
    }

    /// Whether the log is lost to this process.
    pub fn has_lost_log(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Writer {
    appender: Box<dyn Appender>,
    queue: Receiver<Job>,
    lost: Arc<AtomicBool>,
    /// A job that was taken but didn't fit the batch before it.
    held: Option<Job>,
}

impl Writer {
    fn run(&mut self) {
        let mut records = Vec::new();
        while let Some(first) = self.held.take().or_else(|| self.queue.recv().ok()) {
            let waiting = self.gather(first, &mut records);
            if waiting.is_empty() {
                continue;
            }
            match self.append(&records) {
                Ok(offsets) => {
                    let mut rest = offsets.into_iter();
                    for Waiting { count, answer, .. } in waiting {
                        // A client that left meanwhile doesn't want its answer.
                        let _ = answer.send(Ok(rest.by_ref().take(count).collect()));
                    }
                }
                Err(error) => {
                    for Waiting { answer, .. } in waiting {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
            records.clear();
            if self.lost.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Moves the records of `first` and of all that is waiting into one batch. Requests that gave
    /// up meanwhile are left out: they were told to send their events again.
    fn gather(&mut self, first: Job, records: &mut Vec<Outgoing>) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let size: usize = job.records.iter().map(|r| r.body.as_bytes().len()).sum();
            let full =
                records.len() + job.records.len() > BATCH_RECORDS || bytes + size > BATCH_BYTES;
            if full && !waiting.is_empty() {
                self.held = Some(job);
                break;
            }
            if !job.waiting.answer.is_closed() {
                bytes += size;
                waiting.push(job.waiting);
                records.extend(job.records);
            }
            next = self.queue.try_recv().ok();
        }
        waiting
    }

    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, IngestError> {
        let begun = clock::now();
        for attempt in 1..=ATTEMPTS {
            match self.appender.append(records) {
                Ok(offsets) => {
                    telemetry::ingest_appended(records.len(), begun.elapsed().as_secs_f64());
                    assert_eq!(offsets.len(), records.len(), "one offset per record appended");
                    return Ok(offsets);
                }
                Err(LogError::Retry(cause)) if attempt < ATTEMPTS => {
                    tracing::warn!(%cause, attempt, "an append is repeated");
                    clock::pause(ATTEMPT_PAUSE);
                }
                Err(error) => {
                    tracing::error!(%error, records = records.len(), "events were not appended");
                    if matches!(error, LogError::Fatal(..) | LogError::Fenced(_)) {
                        self.lost.store(true, Ordering::Relaxed);
                    }
                    return Err(IngestError::NotConfirmed);
                }
            }
        }
        Err(IngestError::NotConfirmed)
    }
}
