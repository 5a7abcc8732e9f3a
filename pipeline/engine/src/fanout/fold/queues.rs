//! Requests that the fold has taken and not answered, by partition, oldest first.
//!
//! A snapshot must have all that was in the log when it was asked for. So the end of the partition,
//! open transactions included, is requested after the request has come, and the request is answered
//! once the fold has read up to there. One request for the end is in flight per partition; what
//! comes after it waits for the next one. Ends and deadlines ascend along a queue:
//!
//! ```text
//! answered ◀── end known ◀── end requested ◀── new
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::request::{FoldNumber, SnapshotAnswer, SnapshotRequest};
use crate::fanout::hub::Hub;
use crate::fanout::offsets::STATE_TOPIC;
use crate::port::{EndsRequest, Isolation, Log, LogError, Wake};
use crate::record::{MonotonicMillis, Offset, Partition, TopicPartition};

/// Milliseconds within which the fold must have read up to the end.
const ANSWER_MS: i64 = 2_000;

/// Milliseconds until an end that the log did not tell is requested again.
const ASK_AGAIN_MS: i64 = 100;

/// Milliseconds between two looks at a request for an end: nothing wakes the fold when it is
/// answered.
const POLL_MS: i64 = 1;

/// The queues of all partitions. Dropped, they give their requests back to the mailbox.
pub(super) struct RequestQueues {
    hub: Arc<Hub>,
    fold: FoldNumber,
    queues: Vec<PartitionQueue>,
}

impl RequestQueues {
    /// Empty queues of a new fold, which `wake` wakes when there are requests.
    pub(super) fn new(hub: &Arc<Hub>, wake: Arc<dyn Wake>) -> Self {
        let partitions = (0..hub.partitions()).map(Partition);
        let queues = partitions.map(|partition| PartitionQueue {
            at: hub.topic_partition(STATE_TOPIC, partition),
            waiting: VecDeque::new(),
            pending: None,
            ask_at: MonotonicMillis::NEVER,
        });
        let queues = queues.collect();
        Self { hub: Arc::clone(hub), fold: hub.snapshots.set_fold(wake), queues }
    }

    /// Takes the requests in the mailbox.
    pub(super) fn receive(&mut self, now: MonotonicMillis) {
        for request in self.hub.snapshots.take() {
            let deadline = now.plus(ANSWER_MS);
            let waiting = WaitingRequest { request, deadline, end: NeededEnd::New };
            self.queues[waiting.request.partition.0 as usize].waiting.push_back(waiting);
        }
    }

    pub(super) fn of(&mut self, partition: usize) -> &mut PartitionQueue {
        &mut self.queues[partition]
    }

    /// Answers a request that came from one of the queues.
    pub(super) fn answer(&self, request: SnapshotRequest, answer: SnapshotAnswer) {
        self.hub.snapshots.answered(1);
        (request.answer)(answer);
    }

    /// When there is something to do although no record and no request comes.
    pub(super) fn due_at(&self, now: MonotonicMillis) -> Option<MonotonicMillis> {
        self.queues.iter().filter_map(|queue| queue.due_at(now)).min()
    }

    /// Answers all requests, those in the mailbox too: the process ends.
    pub(super) fn end(&mut self) {
        self.give_back();
        for request in self.hub.snapshots.take() {
            self.answer(request, SnapshotAnswer::Unavailable);
        }
    }

    fn give_back(&mut self) {
        let waiting = self.queues.iter_mut().flat_map(|queue| queue.waiting.drain(..));
        let requests = waiting.map(|waiting| waiting.request).collect();
        self.hub.snapshots.give_back(self.fold, requests);
    }
}

impl Drop for RequestQueues {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The requests of one partition.
pub(super) struct PartitionQueue {
    at: TopicPartition,
    waiting: VecDeque<WaitingRequest>,
    pending: Option<Box<dyn EndsRequest>>,
    /// No end is requested before.
    ask_at: MonotonicMillis,
}

struct WaitingRequest {
    request: SnapshotRequest,
    /// When it is answered although the end is not reached.
    deadline: MonotonicMillis,
    end: NeededEnd,
}

/// How far the fold must have read to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NeededEnd {
    /// Not requested.
    New,
    /// Requested.
    Requested,
    /// Up to this offset.
    Known(Offset),
}

/// A request that can be answered.
pub(super) struct ReadyRequest {
    pub(super) request: SnapshotRequest,
    /// The snapshot must have the records before this offset.
    pub(super) end: Offset,
}

impl PartitionQueue {
    /// Requests the end for those who need it, and takes the answer if it is there.
    pub(super) fn ask_for_end(
        &mut self,
        log: &dyn Log,
        now: MonotonicMillis,
    ) -> Result<(), LogError> {
        let has_new = self.waiting.back().is_some_and(|last| last.end == NeededEnd::New);
        if self.pending.is_none() && has_new && self.ask_at <= now {
            match log.request_ends(std::slice::from_ref(&self.at), Isolation::Uncommitted) {
                Ok(pending) => {
                    self.pending = Some(pending);
                    self.replace_ends(NeededEnd::New, NeededEnd::Requested);
                }
                Err(error) => self.not_told(error, now)?,
            }
        }
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let end = match pending.poll() {
            Ok(None) => return Ok(()),
            Ok(Some(ends)) => ends.first().copied().flatten(),
            Err(error) => {
                self.not_told(error, now)?;
                None
            }
        };
        self.pending = None;
        let to = match end {
            Some(end) => NeededEnd::Known(end),
            None => {
                self.ask_at = now.plus(ASK_AGAIN_MS);
                NeededEnd::New
            }
        };
        self.replace_ends(NeededEnd::Requested, to);
        Ok(())
    }

    /// The log did not tell the end. Whether the topic is gone is decided by the check of topics.
    fn not_told(&mut self, error: LogError, now: MonotonicMillis) -> Result<(), LogError> {
        self.ask_at = now.plus(ASK_AGAIN_MS);
        match error {
            LogError::Retry(_) | LogError::Invalid(_) => Ok(()),
            error => Err(error),
        }
    }

    /// Replaces an end that is not known. Older requests than one with a known end have one too.
    fn replace_ends(&mut self, from: NeededEnd, to: NeededEnd) {
        let newest = self.waiting.iter_mut().rev();
        for waiting in newest.take_while(|one| !matches!(one.end, NeededEnd::Known(_))) {
            if waiting.end == from {
                waiting.end = to;
            }
        }
    }

    /// The oldest request, if all that it needs is before `position`.
    pub(super) fn next_ready(&mut self, position: Offset) -> Option<ReadyRequest> {
        let NeededEnd::Known(end) = self.waiting.front()?.end else { return None };
        if end > position {
            return None;
        }
        let request = self.waiting.pop_front()?.request;
        Some(ReadyRequest { request, end })
    }

    /// The oldest request, if it has waited too long.
    pub(super) fn next_late(&mut self, now: MonotonicMillis) -> Option<SnapshotRequest> {
        self.waiting.front().filter(|first| first.deadline <= now)?;
        Some(self.waiting.pop_front()?.request)
    }

    fn due_at(&self, now: MonotonicMillis) -> Option<MonotonicMillis> {
        let deadline = self.waiting.front()?.deadline;
        let has_new = self.waiting.back().is_some_and(|last| last.end == NeededEnd::New);
        let ask = match self.pending {
            Some(_) => Some(now.plus(POLL_MS)),
            None => has_new.then_some(self.ask_at),
        };
        Some(ask.map_or(deadline, |ask| ask.min(deadline)))
    }
}
