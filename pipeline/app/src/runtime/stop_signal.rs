//! The flag that asks every thread of the process to end.
//!
//! Threads check it between two pieces of work and in their pauses; nothing blocks on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::runtime::clock::{self, Stopwatch};

/// How often a pausing thread checks the flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the process is ending. Cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<StopFlags>);

#[derive(Debug, Default)]
struct StopFlags {
    requested: AtomicBool,
    failed: AtomicBool,
}

impl StopSignal {
    /// Whether to stop.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Whether the process ends because of a failure.
    pub fn is_failure(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Asks every holder of a clone to stop.
    pub(crate) fn request(&self) {
        self.0.requested.store(true, Ordering::Release);
    }

    /// The same, because something failed.
    pub(crate) fn request_after_failure(&self) {
        self.0.failed.store(true, Ordering::Relaxed);
        self.request();
    }

    /// Waits for `time` or until asked to stop.
    pub fn pause(&self, time: Duration) {
        let since = Stopwatch::start();
        while !self.is_requested() {
            let left = time.saturating_sub(since.elapsed());
            if left.is_zero() {
                return;
            }
            clock::pause(left.min(POLL_INTERVAL));
        }
    }
}
