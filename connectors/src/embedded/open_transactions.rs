//! The partitions that open transactions write to, and the request for uncommitted ends.
//!
//! The records of an open transaction are in memory and have no offsets, so no end is behind them.
//! A request for uncommitted ends waits instead until the transactions that had records for one of
//! its partitions have ended: then the ends are behind what was committed. Transactions that begin
//! later are not waited for, so an answer always comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_engine::port::{EndsRequest, LogError};
use tidewire_engine::record::{Offset, TopicPartition};

use super::core::Core;

/// The open transactions of a log.
#[derive(Default)]
pub(super) struct OpenTransactions(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    next: u64,
    /// The partitions of each, by `PartitionLog::head_index`.
    of: BTreeMap<u64, BTreeSet<usize>>,
}

impl OpenTransactions {
    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().expect("no holder panics")
    }
}

/// An open transaction; it ends when this is dropped.
pub(super) struct OpenTransaction {
    core: Arc<Core>,
    number: u64,
    known: usize,
}

impl OpenTransaction {
    /// Begins a transaction without records.
    pub(super) fn begin(core: &Arc<Core>) -> Self {
        let mut registered = core.open_transactions.lock();
        let number = registered.next;
        registered.next += 1;
        registered.of.insert(number, BTreeSet::new());
        Self { core: core.clone(), number, known: 0 }
    }

    /// Notes the partitions of all its records so far, in the order in which they were first
    /// written to.
    pub(super) fn writes_to(&mut self, partitions: impl ExactSizeIterator<Item = usize>) {
        let count = partitions.len();
        if count > self.known {
            let mut registered = self.core.open_transactions.lock();
            let of = registered.of.entry(self.number).or_default();
            of.extend(partitions.skip(self.known));
            self.known = count;
        }
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.core.open_transactions.lock().of.remove(&self.number);
    }
}

/// A request for ends that are behind every transaction which was open when it was made.
pub(super) struct EndsBehindOpen {
    core: Arc<Core>,
    of: Vec<TopicPartition>,
    /// The transactions that it waits for.
    open: BTreeSet<u64>,
}

impl EndsBehindOpen {
    /// Makes the request.
    pub(super) fn new(core: &Arc<Core>, of: &[TopicPartition]) -> Result<Self, LogError> {
        let index = |at| Ok(core.partition(at)?.1.head_index);
        let asked = of.iter().map(index).collect::<Result<BTreeSet<usize>, LogError>>()?;
        let registered = core.open_transactions.lock();
        let writes = registered.of.iter().filter(|(_, to)| !to.is_disjoint(&asked));
        let open = writes.map(|(number, _)| *number).collect();
        drop(registered);
        Ok(Self { core: core.clone(), of: of.to_vec(), open })
    }
}

impl EndsRequest for EndsBehindOpen {
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        self.core.check_failure()?;
        let registered = self.core.open_transactions.lock();
        if self.open.iter().any(|number| registered.of.contains_key(number)) {
            return Ok(None);
        }
        drop(registered);
        let end = |at| Ok(Some(self.core.partition(at)?.1.bounds().end));
        self.of.iter().map(end).collect::<Result<_, LogError>>().map(Some)
    }
}
