//! Wakes readers: a reader has one notifier, and a write signals only readers of its partitions.
//!
//! A wait misses no signal because it has three steps: clear old signals, check whether there is
//! something to read (ends of partitions, pending group changes), then sleep until a signal. A
//! signal between the last two steps stays set. An explicit wake-up stays set until a wait consumes
//! it; a signal of data need not, because the check finds the data.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tidewire_engine::port::Wake;

use crate::clock;

/// Wakes one reader.
#[derive(Default)]
pub(crate) struct Notifier {
    state: Mutex<NotifierState>,
    condvar: Condvar,
}

#[derive(Default)]
struct NotifierState {
    /// Data arrived or a group changed since the last check.
    signalled: bool,
    /// The wait has to end even if there is nothing to read.
    woken: bool,
    /// The reader sleeps. If it does not, a signal needs no system call.
    sleeping: bool,
}

impl Notifier {
    /// Signals that there may be something to read.
    pub(crate) fn signal(&self) {
        self.update(|state| state.signalled = true);
    }

    fn update(&self, set: impl FnOnce(&mut NotifierState)) {
        let mut state = self.state.lock().expect("no holder panics");
        set(&mut state);
        if std::mem::take(&mut state.sleeping) {
            self.condvar.notify_one();
        }
    }

    /// Waits until `ready` returns true, a signal arrives, or `at_most` has passed.
    pub(crate) fn wait(&self, at_most: Duration, ready: impl FnOnce() -> bool) {
        {
            let mut state = self.state.lock().expect("no holder panics");
            state.signalled = false;
            if std::mem::take(&mut state.woken) {
                return;
            }
        }
        if ready() {
            return;
        }
        let until = clock::now().checked_add(at_most);
        let mut state = self.state.lock().expect("no holder panics");
        while !state.signalled && !std::mem::take(&mut state.woken) {
            let left = match until {
                Some(until) => until.saturating_duration_since(clock::now()),
                None => at_most,
            };
            if left.is_zero() {
                break;
            }
            state.sleeping = true;
            state = self.condvar.wait_timeout(state, left).expect("no holder panics").0;
            state.sleeping = false;
        }
    }
}

impl Wake for Notifier {
    fn wake(&self) {
        self.update(|state| state.woken = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_wake_before_the_wait_ends_exactly_one_wait() {
        let notifier = Notifier::default();
        notifier.wake();
        notifier.wait(LONG, || false);
        let before = clock::now();
        notifier.wait(Duration::from_millis(5), || false);
        assert!(before.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_signal_between_the_check_and_the_sleep_ends_the_wait() {
        let notifier = Notifier::default();
        notifier.wait(LONG, || {
            notifier.signal();
            false
        });
    }
}
