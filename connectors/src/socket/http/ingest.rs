//! Appends the events of HTTP requests to the log: a bounded queue and one ingest thread.
//!
//! An append costs about the same for one record as for thousands, so the thread waits for one
//! request and appends the records of all others that are queued with it.
//!
//! A request keeps the permit of its body's bytes until the thread is done with it, so bodies and
//! queue together never exceed the budget. With a full queue, or if the log does not confirm in
//! time, the request fails at once (503); it never waits. A request that timed out in the queue is
//! not appended. If the log does not take a record, the requests of its batch are appended one by
//! one, so that only its own request fails. Once the log is lost, every request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};
use tokio::sync::oneshot;

use super::body_budget::BodyPermit;
use crate::{clock, telemetry};

/// Requests waiting for the thread. This bounds small bodies; their budget bounds large ones.
const QUEUE_REQUESTS: usize = 1_024;

/// The most that one append takes, so that the first request of a burst does not wait for all.
const BATCH_RECORDS: usize = 10_000;
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// How often, and how far apart, an append is tried while the log asks to retry.
const ATTEMPTS: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);

/// Why records were not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Too many requests are waiting; the request may be sent again.
    #[error("too many events are waiting for the log; send the request again after Retry-After")]
    Overloaded,
    /// The log did not confirm them, though it may have stored some. The request may be sent again
    /// with the same event ids: duplicates are dropped.
    #[error("the log did not confirm the events; send them again with the same event_id")]
    NotConfirmed,
    /// The log does not take one of the records; those of other requests are not concerned. Some of
    /// the others may have been stored.
    #[error(
        "the log does not take an event of this request, and may have stored others; the log \
         output of this process has the cause. Send smaller events, each in a request of its own, \
         with the same event_id"
    )]
    Invalid,
    /// The log is lost, or the process is stopping.
    #[error(
        "this process is stopping or has lost its log; send the request again after Retry-After, \
         or to another gateway"
    )]
    Closed,
}

struct IngestRequest {
    records: Vec<Outgoing>,
    pending: PendingReply,
}

/// Where the result of a request goes, and the permit its body holds until then.
struct PendingReply {
    count: usize,
    reply: oneshot::Sender<Result<Vec<Offset>, IngestError>>,
    _permit: BodyPermit,
}

/// The queue of the ingest thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct IngestQueue {
    requests: SyncSender<IngestRequest>,
    lost: Arc<AtomicBool>,
    reply_timeout: Duration,
}

impl IngestQueue {
    /// Starts the thread, which the gateway joins. Requests wait for the log up to `reply_timeout`.
    #[expect(clippy::disallowed_methods, reason = "the gateway joins what is started here")]
    pub fn start(
        appender: Box<dyn Appender>,
        reply_timeout: Duration,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (requests, queue) = sync_channel(QUEUE_REQUESTS);
        let lost = Arc::new(AtomicBool::new(false));
        let mut writer =
            IngestWriter { appender, queue, lost: Arc::clone(&lost), carried_over: None };
        let thread =
            std::thread::Builder::new().name("ingest".to_owned()).spawn(move || writer.run())?;
        Ok((Self { requests, lost, reply_timeout }, thread))
    }

    /// Appends records and returns their offsets in the same order. The permit is released when the
    /// thread is done with the records, even if this has timed out before.
    pub async fn append(
        &self,
        records: Vec<Outgoing>,
        permit: BodyPermit,
    ) -> Result<Vec<Offset>, IngestError> {
        let (reply, replied) = oneshot::channel();
        let pending = PendingReply { count: records.len(), reply, _permit: permit };
        match self.requests.try_send(IngestRequest { records, pending }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                telemetry::ingest_overloaded("queue");
                return Err(IngestError::Overloaded);
            }
            Err(TrySendError::Disconnected(_)) => return Err(IngestError::Closed),
        }
        match tokio::time::timeout(self.reply_timeout, replied).await {
            Ok(reply) => reply.unwrap_or(Err(IngestError::Closed)),
            Err(_) => Err(IngestError::NotConfirmed),
        }
    }

    /// Whether the log is lost.
    pub fn has_lost_log(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

struct IngestWriter {
    appender: Box<dyn Appender>,
    queue: Receiver<IngestRequest>,
    lost: Arc<AtomicBool>,
    /// A request that was dequeued but did not fit into the batch before.
    carried_over: Option<IngestRequest>,
}

impl IngestWriter {
    fn run(&mut self) {
        let mut records = Vec::new();
        while let Some(first) = self.carried_over.take().or_else(|| self.queue.recv().ok()) {
            let pending = self.gather(first, &mut records);
            if pending.is_empty() {
                continue;
            }
            match self.append(&records) {
                Ok(offsets) => {
                    let mut rest = offsets.into_iter();
                    for PendingReply { count, reply, .. } in pending {
                        // Fails if the request was dropped or timed out; nothing is left to do.
                        let _ = reply.send(Ok(rest.by_ref().take(count).collect()));
                    }
                }
                Err(IngestError::Invalid) if pending.len() > 1 => {
                    self.append_each(&records, pending);
                }
                Err(error) => {
                    for PendingReply { reply, .. } in pending {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
            records.clear();
            if self.lost.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Moves the records of `first` and of all queued requests into one batch. Requests that timed
    /// out are left out: their clients were asked to send the events again.
    fn gather(&mut self, first: IngestRequest, records: &mut Vec<Outgoing>) -> Vec<PendingReply> {
        let mut bytes = 0;
        let mut pending = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            let size: usize = request.records.iter().map(|r| r.body.as_bytes().len()).sum();
            let full =
                records.len() + request.records.len() > BATCH_RECORDS || bytes + size > BATCH_BYTES;
            if full && !pending.is_empty() {
                self.carried_over = Some(request);
                break;
            }
            if !request.pending.reply.is_closed() {
                bytes += size;
                pending.push(request.pending);
                records.extend(request.records);
            }
            next = self.queue.try_recv().ok();
        }
        pending
    }

    /// Appends the records of each request by themselves, so that only the requests fail that the
    /// log does not take. Records that were stored with the batch are then stored twice, as when a
    /// client sends them again.
    fn append_each(&mut self, records: &[Outgoing], pending: Vec<PendingReply>) {
        let mut rest = records;
        for PendingReply { count, reply, .. } in pending {
            let (own, others) = rest.split_at(count);
            rest = others;
            if reply.is_closed() {
                continue;
            }
            let is_lost = self.lost.load(Ordering::Relaxed);
            let result = if is_lost { Err(IngestError::Closed) } else { self.append(own) };
            let _ = reply.send(result);
        }
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
                    tracing::warn!(%cause, attempt, "an append failed and is repeated");
                    clock::pause(ATTEMPT_PAUSE);
                }
                Err(LogError::Invalid(cause)) => {
                    let records = records.len();
                    tracing::error!(%cause, records, "the log does not take a record of a batch");
                    return Err(IngestError::Invalid);
                }
                Err(error) => {
                    let records = records.len();
                    tracing::error!(%error, records, "events not appended; requests get 503");
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
