//! Turns librdkafka's callbacks into values that are read later.
//!
//! A callback decides nothing: a rebalance is added to a list, a delivery report is counted, and
//! the newest error is kept, so that a call without an answer can report the cause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use tidewire_engine::record::TopicPartition;

use super::partition_list::partitions_of;
use crate::{clock, telemetry};

/// librdkafka's log facility for a connection that failed or was closed.
const DISCONNECT_FACILITY: &str = "FAIL";

/// How often a process logs lost connections, however many there are.
const DISCONNECT_LOG_EVERY: Duration = Duration::from_secs(10);

/// How long an error may be the cause of a later failure. librdkafka reports a failure that lasts
/// at least every 30 s.
const ERROR_KEPT: Duration = Duration::from_secs(60);

/// What a group decided about a member.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    /// To be given up; the group waits for the acknowledgement.
    Revoked(Vec<TopicPartition>),
    /// Assigned to others already.
    Lost(Vec<TopicPartition>),
}

/// The acknowledgements a producer waits for, in numbered slots.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// The round of the slots. Acknowledgements of an earlier round are ignored.
    generation: u32,
    /// Records without an acknowledgement.
    pub(super) pending: usize,
    /// One past the largest acknowledged offset, by slot.
    pub(super) ends: Vec<u64>,
    /// The first delivery that failed.
    pub(super) failed: Option<RDKafkaErrorCode>,
}

impl Deliveries {
    /// Begins a round with this many slots.
    pub(super) fn begin(&mut self, slots: usize) {
        self.generation = self.generation.wrapping_add(1);
        self.pending = 0;
        self.ends.clear();
        self.ends.resize(slots, 0);
        self.failed = None;
    }

    /// Counts a record; returns what it carries so that its acknowledgement finds the slot.
    pub(super) fn expect(&mut self, slot: usize) -> usize {
        self.pending += 1;
        (self.generation as usize) << 32 | slot
    }

    /// An expected record was not accepted by librdkafka.
    pub(super) fn cancel(&mut self) {
        self.pending -= 1;
    }

    fn answer(&mut self, opaque: usize, outcome: Result<i64, RDKafkaErrorCode>) {
        let slot = opaque & 0xffff_ffff;
        if opaque >> 32 != self.generation as usize || slot >= self.ends.len() {
            return;
        }
        self.pending -= 1;
        match outcome {
            Ok(offset) => {
                let end = u64::try_from(offset).map_or(0, |offset| offset + 1);
                self.ends[slot] = self.ends[slot].max(end);
            }
            Err(code) => {
                self.failed.get_or_insert(code);
            }
        }
    }
}

/// An error of a broker or a connection.
#[derive(Clone, Debug)]
pub(super) struct NewestError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
    at: Instant,
}

impl NewestError {
    /// Whether a login or a certificate was rejected.
    pub(super) fn is_rejected_login(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(self.code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
    }
}

/// The context of every client.
#[derive(Debug, Default)]
pub(super) struct KafkaContext {
    /// Whether the client is closing and nobody reads rebalances any more.
    closing: AtomicBool,
    newest_error: Mutex<Option<NewestError>>,
    rebalances: Mutex<Vec<Rebalanced>>,
    deliveries: Mutex<Deliveries>,
}

/// Whether a lost connection is logged now.
fn may_log_disconnect() -> bool {
    static LAST_LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last_logged = lock(&LAST_LOGGED);
    let due = last_logged.is_none_or(|at| at.elapsed() >= DISCONNECT_LOG_EVERY);
    if due {
        *last_logged = Some(clock::now());
    }
    due
}

/// Locks a mutex whose value stays consistent even if a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaContext {
    /// The newest error of a broker or a connection, unless it is out of date.
    pub(super) fn newest_error(&self) -> Option<NewestError> {
        self.newest_error_at(clock::now())
    }

    fn newest_error_at(&self, now: Instant) -> Option<NewestError> {
        let newest = lock(&self.newest_error);
        newest.as_ref().filter(|error| now.duration_since(error.at) < ERROR_KEPT).cloned()
    }

    /// A broker answered: its login was accepted, so an earlier rejection has passed.
    pub(super) fn answered(&self) {
        lock(&self.newest_error).take_if(|error| error.is_rejected_login());
    }

    /// Acknowledges rebalances at once from now on, which a closing client has to.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The rebalances since the last call, oldest first.
    pub(super) fn rebalances(&self) -> Vec<Rebalanced> {
        std::mem::take(&mut *lock(&self.rebalances))
    }

    /// The acknowledgements so far.
    pub(super) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        lock(&self.deliveries)
    }
}

impl ClientContext for KafkaContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Every connection to a broker that is away logs this several times a second.
        if facility == DISCONNECT_FACILITY && !may_log_disconnect() {
            tracing::debug!(target: "librdkafka", facility, "{message}");
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // The end of a partition is not an error.
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        telemetry::kafka_error(code);
        let at = clock::now();
        // `AllBrokersDown` only summarises errors of single brokers before it.
        if code != RDKafkaErrorCode::AllBrokersDown || self.newest_error_at(at).is_none() {
            let newest = NewestError { code, text: reason.to_owned(), at };
            *lock(&self.newest_error) = Some(newest);
        }
    }
}

impl ConsumerContext for KafkaContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let of = partitions_of(partitions);
        let rebalanced = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalanced::Assigned(of),
            _ if consumer.assignment_lost() => Rebalanced::Lost(of),
            _ => Rebalanced::Revoked(of),
        };
        if self.closing.load(Ordering::Acquire) {
            // If this fails, the group notices that the member left.
            let _ = consumer.unassign();
        }
        lock(&self.rebalances).push(rebalanced);
    }
}

impl ProducerContext for KafkaContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, opaque: usize) {
        let outcome = match delivered {
            Ok(message) => {
                self.answered();
                Ok(message.offset())
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        lock(&self.deliveries).answer(opaque, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_find_their_slots_and_those_of_an_earlier_round_are_ignored() {
        let mut deliveries = Deliveries::default();
        deliveries.begin(2);
        let early = deliveries.expect(0);
        deliveries.begin(2);
        let opaques = [deliveries.expect(0), deliveries.expect(1), deliveries.expect(1)];
        deliveries.answer(early, Ok(99));
        assert_eq!(deliveries.pending, 3);
        deliveries.answer(opaques[0], Ok(7));
        deliveries.answer(opaques[2], Ok(4));
        deliveries.answer(opaques[1], Err(RDKafkaErrorCode::MessageSizeTooLarge));
        assert_eq!((deliveries.pending, &deliveries.ends[..]), (0, &[8, 5][..]));
        assert_eq!(deliveries.failed, Some(RDKafkaErrorCode::MessageSizeTooLarge));
    }

    fn rejected() -> KafkaContext {
        let context = KafkaContext::default();
        let code = RDKafkaErrorCode::Authentication;
        context.error(KafkaError::Global(code), "kafka-1:9093/1: wrong password");
        context
    }

    #[test]
    fn a_rejected_login_that_passed_is_not_the_cause_of_a_later_timeout() {
        let context = rejected();
        let old = clock::now() + ERROR_KEPT;
        assert!(context.newest_error().is_some_and(|error| error.is_rejected_login()));
        assert!(context.newest_error_at(old).is_none());
        context.answered();
        assert!(context.newest_error().is_none());
    }

    #[test]
    fn an_answer_of_one_broker_keeps_the_error_of_another() {
        let context = KafkaContext::default();
        let down = RDKafkaErrorCode::BrokerTransportFailure;
        context.error(KafkaError::Global(down), "kafka-2:9092/2: refused");
        context.answered();
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "all are down");
        assert_eq!(context.newest_error().map(|error| error.code), Some(down));
    }
}
