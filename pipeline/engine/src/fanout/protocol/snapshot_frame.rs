//! Whether a snapshot of a channel's state has all its entries, as clients are told.

/// Whether a snapshot has every entry of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotExtent {
    /// It does.
    Whole,
    /// The channel has more than a snapshot may have.
    Truncated,
}
