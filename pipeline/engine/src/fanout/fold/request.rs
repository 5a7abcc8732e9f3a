//! Requests for snapshots of channels, and the bounded mailbox in which they wait for the fold.
//!
//! Each request that the mailbox accepts is answered once. It accepts none while there is no fold,
//! so that nobody waits for one that can't be opened. Requests that a fold has taken count as long
//! as they are not answered. If a fold ends with an error they return to the mailbox, and the next
//! fold takes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::snapshot::ChannelSnapshot;
use crate::fanout::identity::Accounts;
use crate::port::Wake;
use crate::record::Partition;

/// Requests that may wait for an answer. Above it a shard asks again a second later.
const SNAPSHOT_REQUESTS_MAX: usize = 65_536;

/// A request for the state of a channel.
pub(crate) struct SnapshotRequest {
    /// The channel's name.
    pub channel: Box<str>,
    /// The partition of its outputs.
    pub partition: Partition,
    /// Entries of other accounts are left out.
    pub accounts: Accounts,
    /// Called once, on the fold's thread: it must not wait.
    pub answer: Box<dyn FnOnce(SnapshotAnswer) + Send>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum SnapshotAnswer {
    /// The channel's state.
    Found(Arc<ChannelSnapshot>),
    /// The fold could not read up to the end within 2 s, or the process ends.
    Unavailable,
}

/// Which fold takes the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FoldNumber(u64);

/// Requests that wait for the fold.
#[derive(Default)]
pub(crate) struct SnapshotMailbox(Mutex<MailboxState>);

#[derive(Default)]
struct MailboxState {
    asked: Vec<SnapshotRequest>,
    /// Requests that the fold has taken and not answered.
    taken: usize,
    /// Counts the folds so far.
    last_fold: FoldNumber,
    /// Wakes the fold, while there is one.
    fold_wake: Option<Arc<dyn Wake>>,
}

impl SnapshotMailbox {
    /// Posts a request and wakes the fold. Gives it back if too many wait, or if there is no fold.
    pub(crate) fn ask(&self, request: SnapshotRequest) -> Result<(), SnapshotRequest> {
        let mut state = self.lock();
        let is_full = state.asked.len() + state.taken >= SNAPSHOT_REQUESTS_MAX;
        let Some(wake) = state.fold_wake.clone().filter(|_| !is_full) else {
            return Err(request);
        };
        state.asked.push(request);
        drop(state);
        wake.wake();
        Ok(())
    }

    /// Registers a fold in place of the one before.
    pub(super) fn set_fold(&self, wake: Arc<dyn Wake>) -> FoldNumber {
        let mut state = self.lock();
        state.last_fold.0 += 1;
        state.fold_wake = Some(wake);
        state.last_fold
    }

    /// Moves all requests to the fold.
    pub(super) fn take(&self) -> Vec<SnapshotRequest> {
        let mut state = self.lock();
        state.taken += state.asked.len();
        std::mem::take(&mut state.asked)
    }

    /// Says that the fold has answered requests that it had taken.
    pub(super) fn answered(&self, count: usize) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(count);
    }

    /// Ends a fold: what it has taken and not answered waits for the next one.
    pub(super) fn give_back(&self, fold: FoldNumber, mut unanswered: Vec<SnapshotRequest>) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(unanswered.len());
        unanswered.append(&mut state.asked);
        state.asked = unanswered;
        if state.last_fold == fold {
            state.fold_wake = None;
        }
        // The next fold may be there already.
        if let Some(wake) = state.fold_wake.clone() {
            drop(state);
            wake.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct CountedWake(AtomicUsize);

    impl Wake for CountedWake {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn request() -> SnapshotRequest {
        let answer = Box::new(|_| ());
        SnapshotRequest {
            channel: "c:1".into(),
            partition: Partition(0),
            accounts: Accounts::All,
            answer,
        }
    }

    #[test]
    fn the_mailbox_is_bounded_and_requests_that_are_taken_and_not_answered_count() {
        let mailbox = SnapshotMailbox::default();
        let fold = mailbox.set_fold(Arc::<CountedWake>::default());
        for _ in 0..SNAPSHOT_REQUESTS_MAX {
            assert!(mailbox.ask(request()).is_ok());
        }
        assert!(mailbox.ask(request()).is_err());
        let mut taken = mailbox.take();
        assert!(mailbox.ask(request()).is_err(), "none is answered");
        taken.pop();
        mailbox.answered(1);
        assert!(mailbox.ask(request()).is_ok());
        assert!(mailbox.ask(request()).is_err());
        mailbox.give_back(fold, taken);
        mailbox.set_fold(Arc::<CountedWake>::default());
        assert!(mailbox.ask(request()).is_err(), "those that were given back wait");
        assert_eq!(mailbox.take().len(), SNAPSHOT_REQUESTS_MAX);
    }

    #[test]
    fn requests_wake_the_fold_and_are_refused_without_one() {
        let mailbox = SnapshotMailbox::default();
        assert!(mailbox.ask(request()).is_err());
        let (one, two) = (Arc::new(CountedWake::default()), Arc::new(CountedWake::default()));
        let wakes = |of: &CountedWake| of.0.load(Ordering::Relaxed);
        let first = mailbox.set_fold(one.clone());
        assert!(mailbox.ask(request()).is_ok());
        assert_eq!(wakes(&one), 1);
        // The next one is opened before the former is dropped.
        let second = mailbox.set_fold(two.clone());
        let taken = mailbox.take();
        mailbox.give_back(first, taken);
        assert_eq!((wakes(&one), wakes(&two)), (1, 1));
        assert!(mailbox.ask(request()).is_ok());
        mailbox.give_back(second, Vec::new());
        assert!(mailbox.ask(request()).is_err());
        assert_eq!(mailbox.take().len(), 2);
    }
}
