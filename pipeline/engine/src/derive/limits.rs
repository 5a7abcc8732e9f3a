//! The limits of a transaction: when it is full, or has waited long enough.
//!
//! A loop that finds no further record commits at once; under a backlog it processes records until
//! one of these limits is reached. Large transactions cost less per record, small ones add less
//! latency: a backlog favours throughput, unless an output of a critical event waits.

use crate::record::Millis;

/// Milliseconds an output of a critical event may wait for others to join its transaction.
pub const URGENT_WAIT_MS: i64 = 2;

/// Milliseconds during which a transaction accepts records. Commit groups are processed one after
/// the other, so a critical record waits behind at most two such spans.
pub const MAX_OPEN_MS: i64 = 10;

/// Records of one transaction at most: larger ones gain nothing by coalescing.
pub const MAX_RECORDS: usize = 20_000;

/// Bytes of outputs and of changed state of one transaction at most.
pub const MAX_BYTES: usize = 8 << 20;

/// How much of its limits one transaction has used.
#[derive(Debug, Default)]
pub(super) struct TransactionLimits {
    pub(super) records: usize,
    pub(super) bytes: usize,
    opened: Option<Millis>,
    urgent: Option<Millis>,
}

impl TransactionLimits {
    /// Notes that the transaction is no longer empty.
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

    /// Whether to commit although records are waiting.
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
