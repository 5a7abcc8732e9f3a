//! The crate's one source of elapsed time: what a wait or a deadline is measured with.
//!
//! Nothing that is stored or sent comes from here. The wall clock is a port
//! (`tidewire_engine::port::Clock`), passed in by the wiring.

#![expect(clippy::disallowed_methods, reason = "this file owns elapsed time and pauses")]

use std::time::{Duration, Instant};

/// Now, on a clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits where there is nothing to wait on, such as a log that asked for a moment.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
