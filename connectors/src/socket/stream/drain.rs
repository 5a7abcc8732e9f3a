//! The end of a worker's streams, spread over a window.
//!
//! WebSocket clients are told to move, a few at a time, so that they don't all knock at the same
//! door at once; when the window is over, whoever is still here is closed. Each client knows the
//! position of what it got last, so it resumes wherever it goes.

use std::time::{Duration, Instant};

/// How a drain goes on, as values of time.
#[derive(Clone, Copy, Debug)]
pub struct DrainSchedule {
    since: Instant,
    window: Duration,
    moved: usize,
    closing: bool,
}

/// What a drain has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// Tell the connections in these slots to move.
    Move {
        /// From this slot.
        from: usize,
        /// Up to this one, without it.
        to: usize,
        /// The milliseconds they have left.
        within_ms: u64,
    },
    /// Close everyone; said once.
    Close,
    /// Nothing.
    Nothing,
}

impl DrainSchedule {
    /// Begins.
    pub fn begin(now: Instant, window: Duration) -> Self {
        Self { since: now, window, moved: 0, closing: false }
    }

    /// What is due, with so many slots in use.
    pub fn next_step(&mut self, now: Instant, slots: usize) -> DrainStep {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= self.window {
            return if std::mem::replace(&mut self.closing, true) {
                DrainStep::Nothing
            } else {
                DrainStep::Close
            };
        }
        // Everyone is told in the first half and has at least the second to go.
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

    /// Whether even those who linger have had their time.
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
    fn without_a_window_everyone_is_closed_at_once() {
        let start = clock::now();
        assert_eq!(
            DrainSchedule::begin(start, Duration::ZERO).next_step(start, 10),
            DrainStep::Close
        );
    }
}
