//! Reads the clock and sleeps; the only file of the binary that does.
//!
//! Loops get the wall clock through the engine's port `Clock`; everything else uses the functions
//! and types here.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewire_engine::port::Clock;
use tidewire_engine::record::{Millis, MonotonicMillis};

/// The machine's wall clock, UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
    fn now(&self) -> Millis {
        // A clock set before 1970 reads as 1970, so that time is never negative.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Blocks this thread for `time`.
#[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// Measures the time since its creation.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start, for deadlines of the engine.
    pub fn monotonic(&self) -> MonotonicMillis {
        MonotonicMillis(i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Spreads work evenly: `rate` pieces a second, counted from the start, so that a late piece does
/// not delay those after it.
#[derive(Debug)]
pub struct Pacer {
    since: Stopwatch,
    rate: f64,
}

impl Pacer {
    /// A pace of `rate` pieces a second, from now on.
    pub fn new(rate: f64) -> Self {
        Self { since: Stopwatch::start(), rate }
    }

    /// How many pieces should have been done by now.
    pub fn due(&self) -> u64 {
        (self.since.elapsed().as_secs_f64() * self.rate) as u64
    }

    /// How long until piece number `piece` (counted from 0) is due.
    pub fn until(&self, piece: u64) -> Duration {
        let at = Duration::from_secs_f64((piece + 1) as f64 / self.rate);
        at.saturating_sub(self.since.elapsed())
    }
}
