//! The transactions of the embedded log that are open, and the partitions that they write to.
//!
//! Their records are in memory and have no offsets, so no end is behind them. A request for
//! uncommitted ends waits for them instead (`ends.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// The open transactions of a log.
#[derive(Default)]
pub(super) struct OpenTransactions(Mutex<NumberedTransactions>);

#[derive(Default)]
struct NumberedTransactions {
    next: u64,
    /// The partitions of each, by `PartitionLog::head_index`.
    open: BTreeMap<u64, BTreeSet<usize>>,
}

impl OpenTransactions {
    /// The numbers of those that have records for one of these partitions.
    pub(super) fn that_write_to(&self, partitions: &BTreeSet<usize>) -> BTreeSet<u64> {
        let state = self.lock();
        let writes = state.open.iter().filter(|(_, to)| !to.is_disjoint(partitions));
        writes.map(|(number, _)| *number).collect()
    }

    /// Whether one of these is still open.
    pub(super) fn is_any_open(&self, numbers: &BTreeSet<u64>) -> bool {
        let state = self.lock();
        numbers.iter().any(|number| state.open.contains_key(number))
    }

    fn lock(&self) -> MutexGuard<'_, NumberedTransactions> {
        self.0.lock().expect("no holder panics")
    }
}

/// An open transaction; it ends when this is dropped.
pub(super) struct OpenTransaction {
    of: Arc<OpenTransactions>,
    number: u64,
    /// How many partitions are noted.
    noted: usize,
}

impl OpenTransaction {
    /// Begins a transaction without records.
    pub(super) fn begin(of: &Arc<OpenTransactions>) -> Self {
        let mut state = of.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, BTreeSet::new());
        Self { of: of.clone(), number, noted: 0 }
    }

    /// Notes the partitions of all its records so far, in the order in which they were first
    /// written to.
    pub(super) fn writes_to(&mut self, partitions: impl ExactSizeIterator<Item = usize>) {
        let count = partitions.len();
        if count > self.noted {
            let mut state = self.of.lock();
            state.open.entry(self.number).or_default().extend(partitions.skip(self.noted));
            self.noted = count;
        }
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.of.lock().open.remove(&self.number);
    }
}
