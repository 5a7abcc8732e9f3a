//! How a reader waits: each has a notifier of its own, and only the notifiers of the partitions
//! that grew are touched, so a write never wakes a crowd.
//!
//! No wake-up is missed, because waiting is in three steps: forget old signals, look whether there
//! is something (ends of partitions, pending group changes), then sleep until a signal. A signal
//! that comes between the last two stays in the flag. An explicit wake is remembered until a wait
//! consumes it; signals of data are not, because looking finds the data.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tidewire_engine::port::Wake;

use crate::clock;

/// One reader's bell.
#[derive(Default)]
pub(crate) struct Notifier {
    state: Mutex<NotifierState>,
    condvar: Condvar,
}

#[derive(Default)]
struct NotifierState {
    /// Data came or a group changed since the last look.
    signalled: bool,
    /// Somebody wants the wait to end whatever there is.
    woken: bool,
    /// The reader sleeps; without it ringing would cost a system call for nothing.
    sleeping: bool,
}

impl Notifier {
    /// Says that there may be something to read.
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

    /// Waits until `ready` says so, a signal comes, or the time is over.
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
    fn a_wake_before_the_wait_is_remembered_once() {
        let notifier = Notifier::default();
        notifier.wake();
        notifier.wait(LONG, || false);
        let before = clock::now();
        notifier.wait(Duration::from_millis(5), || false);
        assert!(before.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_signal_between_looking_and_sleeping_ends_the_wait() {
        let notifier = Notifier::default();
        notifier.wait(LONG, || {
            notifier.signal();
            false
        });
    }
}
