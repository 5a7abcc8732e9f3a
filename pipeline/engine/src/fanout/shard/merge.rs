//! The order in which a connection's followed lists are written.
//!
//! Within a partition it is the hub's order. Partitions come by rank, and the rank rotates between
//! fills that end early, so that no partition starves.

use super::mirror::EntryRef;

/// The next reference of one followed list, while a connection is filled.
pub(super) struct ListHead {
    pub(super) rank: u32,
    pub(super) reference: EntryRef,
    /// The list's cursor at the reference.
    pub(super) cursor: u64,
    /// The subscription's index in its connection.
    pub(super) sub: usize,
}

/// The index of the head to write next.
pub(super) fn next_head(heads: &[ListHead]) -> Option<usize> {
    if heads.len() <= 1 {
        return heads.len().checked_sub(1);
    }
    let key = |at: &usize| (heads[*at].rank, heads[*at].reference);
    (0..heads.len()).min_by_key(key)
}
