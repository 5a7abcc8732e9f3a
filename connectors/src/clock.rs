//! The crate's monotonic clock and its pauses, for waits and deadlines.
//!
//! Nothing that is stored or sent comes from here. Wall-clock time comes through the port
//! `tidewire_engine::port::Clock`, which the application passes in.

#![expect(clippy::disallowed_methods, reason = "this file owns elapsed time and pauses")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tidewire_engine::record::MonotonicMillis;

/// Now, on a clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Now, for deadlines of the engine.
pub(crate) fn monotonic() -> MonotonicMillis {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    MonotonicMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Sleeps, where there is nothing to wait on, such as before a retry.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
