//! An outage of the registry: when it is asked again, and by whom.
//!
//! The waits grow and are spread, so that the processes do not ask a registry that comes back all
//! at once. When a wait is over, one thread asks, with one try for each address; the others go on
//! to get the same fault, so that at most one thread waits for a registry that hangs.

use std::time::{Duration, Instant};

use super::config::QueryPolicy;

/// The first wait is the longest one divided by this; each further one is twice as long.
const FIRST_WAIT_PART: u32 = 4;

/// The registry could not be asked.
#[derive(Debug)]
pub(super) struct Outage {
    /// Why, and what to do.
    pub(super) why: String,
    began: Instant,
    failed: Instant,
    failures: u32,
    ask_at: Instant,
}

impl Outage {
    /// The first failure, of a thread that began to ask at `asked`.
    pub(super) fn new(why: String, asked: Instant, now: Instant, policy: &QueryPolicy) -> Self {
        let ask_at = now + spread(wait_after(1, policy), now.saturating_duration_since(asked));
        Self { why, began: now, failed: now, failures: 1, ask_at }
    }

    /// A further failure of a thread that began to ask at `asked`. One that began before the last
    /// failure belongs to that one: it makes the wait no longer.
    pub(super) fn repeat(
        &mut self,
        why: String,
        asked: Instant,
        now: Instant,
        policy: &QueryPolicy,
    ) {
        if asked < self.failed {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        self.failed = now;
        let wait = wait_after(self.failures, policy);
        self.ask_at = now + spread(wait, now.saturating_duration_since(asked));
    }

    /// Whether the caller is the one that asks now.
    pub(super) fn begin_asking(&mut self, now: Instant, policy: &QueryPolicy) -> bool {
        let due = now >= self.ask_at;
        if due {
            // Nobody else asks until this one has failed for certain.
            self.ask_at = now + policy.limit;
        }
        due
    }

    /// How long it has lasted.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// The wait after this many failures in a row.
fn wait_after(failures: u32, policy: &QueryPolicy) -> Duration {
    let longest = policy.unavailable_pause;
    let first = longest / FIRST_WAIT_PART;
    first.saturating_mul(1 << (failures.max(1) - 1).min(16)).min(longest)
}

/// The time or up to a quarter less. The nanoseconds that a failed question took differ between
/// processes, which is as good as chance here.
fn spread(time: Duration, took: Duration) -> Duration {
    // The multiplier of Fibonacci hashing: close values give distant results.
    let mixed = u64::from(took.subsec_nanos()).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    time.mul_f64(1.0 - mixed as f64 / 4_096.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn waits_grow_to_a_limit_and_are_spread() {
        let policy = QueryPolicy::default();
        for (failures, longest) in [(1, 1_250), (2, 2_500), (3, 5_000), (u32::MAX, 5_000)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(wait_after(failures, &policy), longest);
            let of_each = (0..100).map(|nanos| spread(longest, Duration::from_nanos(nanos)));
            let waits: Vec<Duration> = of_each.collect();
            assert!(waits.iter().all(|wait| (longest * 3 / 4..=longest).contains(wait)));
            let early = waits.iter().filter(|wait| **wait < longest * 7 / 8).count();
            assert!((30..70).contains(&early), "{failures}: {early}");
        }
    }

    #[test]
    fn one_thread_asks_when_a_wait_is_over_and_late_failures_make_no_wait_longer() {
        let (policy, now) = (QueryPolicy::default(), clock::now());
        let mut outage = Outage::new("away".to_owned(), now, now, &policy);
        assert!(!outage.begin_asking(now, &policy));
        let due = now + Duration::from_millis(1_250);
        assert!(outage.begin_asking(due, &policy));
        assert!(!outage.begin_asking(due, &policy), "another thread asks already");
        assert!(outage.begin_asking(due + policy.limit, &policy), "unless that one is lost");
        outage.repeat("still away".to_owned(), due, due, &policy);
        assert_eq!((outage.failures, outage.why.as_str()), (2, "still away"));
        outage.repeat("late".to_owned(), now, due, &policy);
        assert_eq!((outage.failures, outage.why.as_str()), (2, "still away"));
        assert_eq!(outage.lasted(due), Duration::from_millis(1_250));
    }
}
