//! When a transaction is full or has waited long enough.
//!
//! A loop with nothing more to take commits at once; while more is waiting it goes on until one of
//! these is reached. Big transactions cost less per record, small ones wait less: under a backlog
//! throughput counts, unless somebody waits for a critical or high output.

use crate::record::Millis;

/// Milliseconds a critical or high output may wait for more to come with it.
pub const URGENT_WAIT_MS: i64 = 2;

/// Milliseconds a transaction goes on taking records. The lines take one after the other, so a
/// critical record meets at most twice as much that is on its way before it.
pub const MAX_OPEN_MS: i64 = 10;

/// Records a transaction takes at most: beyond this nothing is left to win by coalescing.
pub const MAX_RECORDS: usize = 20_000;

/// Bytes of outputs and of changed state a transaction makes at most.
pub const MAX_BYTES: usize = 8 << 20;

/// One transaction's use of its limits.
#[derive(Debug, Default)]
pub(super) struct TransactionLimits {
    pub(super) records: usize,
    pub(super) bytes: usize,
    opened: Option<Millis>,
    urgent: Option<Millis>,
}

impl TransactionLimits {
    /// Notes that there is something in the transaction.
    pub(super) fn opened(&mut self, now: Millis) {
        self.opened.get_or_insert(now);
    }

    /// Notes that an urgent output waits.
    pub(super) fn urgent(&mut self, now: Millis) {
        self.urgent.get_or_insert(now);
    }

    /// Whether an urgent output waits.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// Whether to commit though more is waiting.
    pub(super) fn reached(&self, now: Millis) -> bool {
        let waited = |since: Option<Millis>, limit| since.is_some_and(|s| now.0 - s.0 >= limit);
        self.records >= MAX_RECORDS
            || self.bytes >= MAX_BYTES
            || waited(self.opened, MAX_OPEN_MS)
            || waited(self.urgent, URGENT_WAIT_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_alone_ends_a_transaction() {
        let mut limits = TransactionLimits::default();
        assert!(!limits.reached(Millis(1_000)));
        limits.opened(Millis(1_000));
        assert!(!limits.reached(Millis(1_009)));
        assert!(limits.reached(Millis(1_010)));
        limits.urgent(Millis(1_005));
        assert!(limits.reached(Millis(1_007)));
        assert!(
            TransactionLimits { records: MAX_RECORDS, ..TransactionLimits::default() }
                .reached(Millis(0))
        );
        assert!(
            TransactionLimits { bytes: MAX_BYTES, ..TransactionLimits::default() }
                .reached(Millis(0))
        );
    }
}
