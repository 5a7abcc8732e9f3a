//! The mailbox of questions to the log that only a blocking call answers.
//!
//! Bounds of a partition and offsets of a time cost a request to a broker, which may take seconds.
//! The sweeper posts a [`Lookup`] here and continues; the lookup worker answers on a thread of its
//! own. The mailbox is bounded: the sweeper keeps what does not fit and posts it later.
//!
//! A lookup is removed only with its answer, so a worker that is rebuilt continues with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::offsets::SERVED_TOPICS;
use crate::port::{Bounds, Wake};
use crate::record::{Millis, Offset, Partition};

/// Lookups and answers in the mailbox together: a few seconds of work for a broker.
const LOOKUPS_MAX: usize = 256;

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
    pub(super) bounds: [Bounds; SERVED_TOPICS],
    /// The first offset at or after the time; the end if there is none.
    pub(super) at_time: [Offset; SERVED_TOPICS],
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

impl LookupMailbox {
    /// Posts a lookup; `false` if the mailbox is full.
    pub(super) fn ask(&self, lookup: Lookup) -> bool {
        {
            let mut queues = lock(&self.queues);
            if queues.asked.len() + queues.answers.len() >= LOOKUPS_MAX {
                return false;
            }
            queues.asked.push_back(lookup);
        }
        if let Some(wake) = &*lock(&self.worker_wake) {
            wake.wake();
        }
        true
    }

    /// The lookup to answer next. It stays in the mailbox.
    pub(super) fn first(&self) -> Option<Lookup> {
        lock(&self.queues).asked.front().copied()
    }

    /// Answers the first lookup. Without effect if another one is first by now.
    pub(super) fn answer(&self, lookup: Lookup, answer: LookupAnswer) {
        let mut queues = lock(&self.queues);
        if queues.asked.front() == Some(&lookup) {
            queues.asked.pop_front();
            queues.answers.push((lookup, answer));
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
        LookupAnswer { bounds: [bounds; SERVED_TOPICS], at_time: [Offset(0); SERVED_TOPICS] }
    }

    #[test]
    fn the_mailbox_is_bounded_and_answers_count() {
        let mailbox = LookupMailbox::default();
        for n in 0..LOOKUPS_MAX as i64 {
            assert!(mailbox.ask(lookup(n)));
        }
        assert!(!mailbox.ask(lookup(-1)));
        mailbox.answer(lookup(0), answer());
        assert!(!mailbox.ask(lookup(-1)), "its answer is still there");
        assert_eq!(mailbox.take_answers().len(), 1);
        assert!(mailbox.ask(lookup(-1)));
    }

    #[test]
    fn a_lookup_stays_until_it_is_answered_and_only_the_first_can_be() {
        let mailbox = LookupMailbox::default();
        mailbox.ask(lookup(1));
        mailbox.ask(lookup(2));
        assert_eq!(mailbox.first(), Some(lookup(1)));
        mailbox.answer(lookup(2), answer());
        assert_eq!(mailbox.first(), Some(lookup(1)));
        mailbox.answer(lookup(1), answer());
        assert_eq!(mailbox.first(), Some(lookup(2)));
    }
}
