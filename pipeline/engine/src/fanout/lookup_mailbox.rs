//! The mailbox of questions to the log that only a blocking call answers.
//!
//! Bounds of a partition and offsets of a time cost a request to a broker, which may take seconds.
//! The sweeper posts a [`Lookup`] here and continues; the lookup worker answers on a thread of its
//! own. The mailbox is bounded by partition: the sweeper keeps what does not fit and posts it
//! later, and lookups in a partition that the log does not answer for take no room from others.
//!
//! A lookup is removed only with its answer, so a worker that is rebuilt continues with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::offsets::LOG_TOPICS;
use crate::port::{Bounds, Wake};
use crate::record::{Millis, Offset, Partition};

/// Lookups and answers of one partition in the mailbox together: about a second of work for a
/// broker.
const LOOKUPS_PER_PARTITION_MAX: usize = 32;

/// Where a partition's topics start and end, and which offsets a time has in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lookup {
    pub(super) partition: Partition,
    pub(super) time: Option<Millis>,
}

/// The answer, by topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookupAnswer {
    /// The stable bounds.
    pub(super) bounds: [Bounds; LOG_TOPICS],
    /// The first offset at or after the time; the end if there is none.
    pub(super) at_time: [Offset; LOG_TOPICS],
}

/// Lookups that wait for the worker, and answers that wait for the sweeper.
#[derive(Default)]
pub(super) struct LookupMailbox {
    queues: Mutex<MailboxQueues>,
    worker_wake: Mutex<Option<Arc<dyn Wake>>>,
}

#[derive(Default)]
struct MailboxQueues {
    asked: VecDeque<Lookup>,
    answers: Vec<(Lookup, LookupAnswer)>,
}

impl MailboxQueues {
    /// Lookups and answers of a partition.
    fn of_partition(&self, partition: Partition) -> usize {
        let asked = self.asked.iter().filter(|lookup| lookup.partition == partition).count();
        let answers = self.answers.iter().filter(|(lookup, _)| lookup.partition == partition);
        asked + answers.count()
    }

    /// Removes a lookup; returns whether it was there.
    fn remove(&mut self, lookup: Lookup) -> bool {
        let at = self.asked.iter().position(|asked| *asked == lookup);
        at.and_then(|at| self.asked.remove(at)).is_some()
    }
}

impl LookupMailbox {
    /// Posts a lookup; `false` if the mailbox has no room for its partition.
    pub(super) fn ask(&self, lookup: Lookup) -> bool {
        {
            let mut queues = lock(&self.queues);
            if queues.of_partition(lookup.partition) >= LOOKUPS_PER_PARTITION_MAX {
                return false;
            }
            queues.asked.push_back(lookup);
        }
        if let Some(wake) = &*lock(&self.worker_wake) {
            wake.wake();
        }
        true
    }

    /// The first lookup in one of the partitions that are wanted. It stays in the mailbox.
    pub(super) fn first_of(&self, wanted: impl Fn(Partition) -> bool) -> Option<Lookup> {
        lock(&self.queues).asked.iter().find(|lookup| wanted(lookup.partition)).copied()
    }

    /// Answers a lookup. Without effect if it is no longer in the mailbox.
    pub(super) fn answer(&self, lookup: Lookup, answer: LookupAnswer) {
        let mut queues = lock(&self.queues);
        if queues.remove(lookup) {
            queues.answers.push((lookup, answer));
        }
    }

    /// Moves a lookup behind all others. Without effect if it is no longer in the mailbox.
    pub(super) fn postpone(&self, lookup: Lookup) {
        let mut queues = lock(&self.queues);
        if queues.remove(lookup) {
            queues.asked.push_back(lookup);
        }
    }

    pub(super) fn take_answers(&self) -> Vec<(Lookup, LookupAnswer)> {
        std::mem::take(&mut lock(&self.queues).answers)
    }

    /// Empties the mailbox: a new sweeper asks for what it needs.
    pub(super) fn clear(&self) {
        *lock(&self.queues) = MailboxQueues::default();
    }

    /// Registers the worker.
    pub(super) fn set_worker(&self, wake: Arc<dyn Wake>) {
        *lock(&self.worker_wake) = Some(wake);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(n: i64) -> Lookup {
        Lookup { partition: Partition(0), time: Some(Millis(n)) }
    }

    fn answer() -> LookupAnswer {
        let bounds = Bounds { start: Offset(0), end: Offset(0) };
        LookupAnswer { bounds: [bounds; LOG_TOPICS], at_time: [Offset(0); LOG_TOPICS] }
    }

    #[test]
    fn the_mailbox_is_bounded_by_partition_and_answers_count() {
        let mailbox = LookupMailbox::default();
        for n in 0..LOOKUPS_PER_PARTITION_MAX as i64 {
            assert!(mailbox.ask(lookup(n)));
        }
        assert!(!mailbox.ask(lookup(-1)));
        let other = Lookup { partition: Partition(1), time: None };
        assert!(mailbox.ask(other), "a full partition takes no room from others");
        mailbox.answer(lookup(0), answer());
        assert!(!mailbox.ask(lookup(-1)), "its answer is still there");
        assert_eq!(mailbox.take_answers().len(), 1);
        assert!(mailbox.ask(lookup(-1)));
    }

    #[test]
    fn a_lookup_stays_until_it_is_answered_whatever_its_place() {
        let mailbox = LookupMailbox::default();
        let first = || mailbox.first_of(|_| true);
        let elsewhere = Lookup { partition: Partition(1), time: None };
        for lookup in [lookup(1), lookup(2), elsewhere] {
            mailbox.ask(lookup);
        }
        assert_eq!(first(), Some(lookup(1)));
        assert_eq!(mailbox.first_of(|partition| partition.0 == 1), Some(elsewhere));
        mailbox.postpone(lookup(1));
        assert_eq!(first(), Some(lookup(2)));
        mailbox.answer(elsewhere, answer());
        mailbox.answer(lookup(2), answer());
        assert_eq!(first(), Some(lookup(1)), "it is behind the others");
        mailbox.answer(lookup(1), answer());
        mailbox.answer(lookup(1), answer());
        mailbox.postpone(lookup(1));
        assert_eq!(first(), None);
        assert_eq!(mailbox.take_answers().len(), 3);
    }
}
