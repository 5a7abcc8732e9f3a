//! The growing wait between two attempts at a partition that the log does not answer for.
//!
//! A failed attempt may take longer than the wait after it, and its end is not known here: a wait
//! begins at the next time that is passed in.

use crate::record::MonotonicMillis;

/// Milliseconds after the first failure; each further wait is twice as long.
const WAIT_FIRST_MS: i64 = 500;

/// The longest wait: as long as a call to Kafka may take.
const WAIT_LONGEST_MS: i64 = 10_000;

/// Failures in a row after which an administrator has to know: a leader that moves causes fewer.
const FAILURES_LISTED: u32 = 3;

/// The failures in a row of one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryWait {
    failures: u32,
    /// The end of the wait, once it has begun.
    until: Option<MonotonicMillis>,
}

impl RetryWait {
    /// Counts a failure.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.until = None;
    }

    /// When the next attempt is due. After a failure, the first call begins the wait.
    pub(super) fn due_at(&mut self, now: MonotonicMillis) -> MonotonicMillis {
        let wait = match self.failures {
            0 => 0,
            more => (WAIT_FIRST_MS << (more - 1).min(16)).min(WAIT_LONGEST_MS),
        };
        *self.until.get_or_insert(now.plus(wait))
    }

    /// Whether it has failed so often that `/readyz` has to say so.
    pub(super) fn is_listed(&self) -> bool {
        self.failures >= FAILURES_LISTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_after_the_attempt_and_grow_to_a_limit() {
        let mut wait = RetryWait::default();
        assert_eq!(wait.due_at(MonotonicMillis(7)), MonotonicMillis(7));
        wait.failed();
        // The attempt took ten seconds.
        assert_eq!(wait.due_at(MonotonicMillis(10_007)), MonotonicMillis(10_507));
        assert_eq!(wait.due_at(MonotonicMillis(10_600)), MonotonicMillis(10_507));
        wait.failed();
        assert_eq!(wait.due_at(MonotonicMillis(0)), MonotonicMillis(1_000));
        assert!(!wait.is_listed());
        (0..1_000).for_each(|_| wait.failed());
        assert!(wait.is_listed());
        assert_eq!(wait.due_at(MonotonicMillis(0)), MonotonicMillis(WAIT_LONGEST_MS));
    }
}
