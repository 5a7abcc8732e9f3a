//! The schedule of a worker's drain: move requests spread over a window, then closes.
//!
//! WebSocket clients get their move requests a few at a time, in the first half of the window, so
//! that they don't all reconnect to another gateway at once. Those still connected at the end of
//! the window are closed. A client resumes elsewhere from its last position.
//!
//! It only computes what is due from the times it is given; the event loop does it.

use std::time::{Duration, Instant};

/// The state of a drain.
#[derive(Clone, Copy, Debug)]
pub struct DrainSchedule {
    since: Instant,
    window: Duration,
    moved: usize,
    closing: bool,
}

/// What is due in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// Send a move request to the connections in these slots.
    Move {
        /// From this slot.
        from: usize,
        /// Up to this one, without it.
        to: usize,
        /// Milliseconds until they are closed.
        within_ms: u64,
    },
    /// Close all connections; returned once.
    Close,
    /// Nothing.
    Nothing,
}

impl DrainSchedule {
    /// Starts a drain.
    pub fn begin(now: Instant, window: Duration) -> Self {
        Self { since: now, window, moved: 0, closing: false }
    }

    /// What is due now, in a table of this many slots.
    pub fn next_step(&mut self, now: Instant, slots: usize) -> DrainStep {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= self.window {
            return if std::mem::replace(&mut self.closing, true) {
                DrainStep::Nothing
            } else {
                DrainStep::Close
            };
        }
        // All are asked in the first half of the window, so each has at least the second to move.
        let share = (elapsed.as_secs_f64() * 2.0 / self.window.as_secs_f64()).min(1.0);
        let to = (slots as f64 * share).ceil() as usize;
        let from = self.moved;
        self.moved = from.max(to);
        if from >= to {
            return DrainStep::Nothing;
        }
        let left = self.window - elapsed;
        DrainStep::Move { from, to, within_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Whether the lingering connections have had their time, too.
    pub fn is_over(&self, now: Instant, linger: Duration) -> bool {
        now.saturating_duration_since(self.since) > self.window + linger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn each_connection_is_moved_once_in_the_first_half_and_closed_at_the_end() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut draining = DrainSchedule::begin(start, Duration::from_secs(2));
        assert_eq!(
            draining.next_step(at(250), 100),
            DrainStep::Move { from: 0, to: 25, within_ms: 1_750 }
        );
        assert_eq!(draining.next_step(at(250), 100), DrainStep::Nothing);
        assert_eq!(
            draining.next_step(at(1_500), 100),
            DrainStep::Move { from: 25, to: 100, within_ms: 500 }
        );
        assert_eq!(draining.next_step(at(1_900), 100), DrainStep::Nothing);
        assert_eq!(draining.next_step(at(2_000), 100), DrainStep::Close);
        assert_eq!(draining.next_step(at(2_001), 100), DrainStep::Nothing);
        assert!(!draining.is_over(at(2_900), Duration::from_secs(1)));
        assert!(draining.is_over(at(3_100), Duration::from_secs(1)));
    }

    #[test]
    fn without_a_window_all_are_closed_at_once() {
        let start = clock::now();
        assert_eq!(
            DrainSchedule::begin(start, Duration::ZERO).next_step(start, 10),
            DrainStep::Close
        );
    }
}
