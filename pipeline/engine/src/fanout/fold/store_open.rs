//! Opens a partition's store of state and decides whether its contents fit the state topic.
//!
//! Compaction removes tombstones after [`TOMBSTONE_RETENTION_MS`]. A store that has not read for
//! longer may have missed one and would keep a removed key, so it is removed and read again. It
//! fits however old it is if the topic has nothing behind its progress.

use crate::port::{Bounds, Store, StoreError, Stores, Table, TableExpiry, TableSpec};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::topology::TOMBSTONE_RETENTION_MS;

use super::progress::FoldProgress;

/// The only table: key and value of the topic's records, as they are.
pub(super) const ENTRIES: Table = Table(1);

const TABLES: &[TableSpec] =
    &[TableSpec { table: ENTRIES, name: "entries", expiry: TableExpiry::Never }];

/// Milliseconds since the newest record that a store has read, above which it is read again. What
/// is left of [`TOMBSTONE_RETENTION_MS`] is for reading what it has missed.
const STALE_MS_MAX: i64 = (TOMBSTONE_RETENTION_MS / 2) as i64;

/// The stores of a gateway, and which of them to open.
#[derive(Clone, Copy)]
pub(super) struct FoldStoreLocation<'a> {
    pub(super) stores: &'a dyn Stores,
    pub(super) partition: Partition,
    /// The id of the state topic.
    pub(super) topic_id: u128,
}

/// A store that fits the topic.
pub(super) struct OpenedFoldStore {
    pub(super) store: Box<dyn Store>,
    pub(super) progress: FoldProgress,
}

impl FoldStoreLocation<'_> {
    /// Opens the store; destroys it and opens an empty one if it does not fit or can't be read: all
    /// of it is in the log.
    pub(super) fn open(self, bounds: Bounds, now: Millis) -> Result<OpenedFoldStore, StoreError> {
        let fresh =
            FoldProgress { topic_id: self.topic_id, next: bounds.start, newest: Millis::default() };
        let reason = match self.stores.open(self.partition, TABLES) {
            Ok(mut store) => {
                let stored = match store.progress() {
                    Ok(None) => return Ok(OpenedFoldStore { store, progress: fresh }),
                    Ok(Some(stored)) => FoldProgress::decode(&stored),
                    Err(_) => None,
                };
                let reason = match stored {
                    Some(progress) => match self.misfit(&progress, bounds, now) {
                        None => return Ok(OpenedFoldStore { store, progress }),
                        Some(reason) => reason,
                    },
                    None => "unreadable",
                };
                // Before it is removed. What it says is of no use any more.
                store.close().ok();
                reason
            }
            Err(_) => "unreadable",
        };
        telemetry::fold_rebuilt(self.partition, reason);
        self.stores.destroy(self.partition)?;
        let store = self.stores.open(self.partition, TABLES)?;
        Ok(OpenedFoldStore { store, progress: fresh })
    }

    /// Why a store of this progress does not fit; `None` if it does.
    fn misfit(self, progress: &FoldProgress, bounds: Bounds, now: Millis) -> Option<&'static str> {
        let age = now.0.saturating_sub(progress.newest.0);
        if progress.topic_id != self.topic_id {
            Some("another topic")
        } else if progress.next > bounds.end {
            Some("ahead of the log")
        } else if progress.next < bounds.start {
            Some("older than the log's start")
        } else if progress.next < bounds.end && age > STALE_MS_MAX {
            Some("away for longer than tombstones stay")
        } else {
            None
        }
    }
}
