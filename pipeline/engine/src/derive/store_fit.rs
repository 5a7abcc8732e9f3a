//! Opens a task's store and decides whether its contents fit the changelogs.
//!
//! Compaction removes tombstones after [`TOMBSTONE_RETENTION_MS`]. A store that misses records for
//! longer would keep removed keys, so it is destroyed and rebuilt. Its age alone says nothing: a
//! store of a partition to which nothing was written is complete, however old it is.
//!
//! The end of `state` cannot tell the two apart. On Kafka control records lie behind the progress
//! of a complete store, and compaction may have removed the tombstones that an incomplete one
//! misses. `order` can: it is never compacted, and each transaction writes a record to it. So a
//! store of such an age fits as long as the replay finds no record behind its progress.

use crate::derive::lane_times::LaneTimes;
use crate::derive::progress::TaskProgress;
use crate::port::{Bounds, Store, StoreError, Stores, TableSpec};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::topology::{Lane, TOMBSTONE_RETENTION_MS};
use crate::verdict::TopicId;

/// Milliseconds of which a store that was closed, and a replay, may each use one span: together
/// they stay within [`TOMBSTONE_RETENTION_MS`].
pub(super) const STALE_MS_MAX: u64 = TOMBSTONE_RETENTION_MS / 2;

/// The reason for rebuilding a store that misses records for longer than [`STALE_MS_MAX`].
pub(super) const AWAY_TOO_LONG: &str = "away for longer than tombstones stay";

/// The bounds of a task's changelogs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangelogBounds {
    pub(super) state: Bounds,
    pub(super) windows: Bounds,
    pub(super) order: Bounds,
}

impl ChangelogBounds {
    /// The progress of an empty store.
    fn fresh(&self) -> TaskProgress {
        TaskProgress {
            state: self.state.start,
            windows: self.windows.start,
            order: self.order.start,
            times: LaneTimes::default(),
            lane_ids: [TopicId::default(); Lane::COUNT],
            lanes: [None; Lane::COUNT],
        }
    }
}

/// The stores of a process, and which of them to open.
#[derive(Clone, Copy)]
pub(super) struct StoreLocation<'a> {
    pub(super) stores: &'a dyn Stores,
    pub(super) partition: Partition,
    pub(super) tables: &'a [TableSpec],
}

/// An open store that fits the changelogs.
pub(super) struct FittingStore {
    pub(super) store: Box<dyn Store>,
    pub(super) progress: TaskProgress,
    /// Whether it fits only if no record is behind its progress: it is older than
    /// [`STALE_MS_MAX`].
    pub(super) must_be_complete: bool,
}

/// Whether a replay from a store's progress gives the committed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreFit {
    Fits,
    /// It does if it finds no record.
    FitsIfComplete,
    /// It does not, for this reason.
    Misfit(&'static str),
}

impl StoreLocation<'_> {
    /// Opens the store; destroys it and opens an empty one if it does not fit the changelogs.
    pub(super) fn open(
        self,
        bounds: ChangelogBounds,
        now: Millis,
    ) -> Result<FittingStore, StoreError> {
        let mut store = self.stores.open(self.partition, self.tables)?;
        let Some(stored) = store.progress()? else {
            let progress = bounds.fresh();
            return Ok(FittingStore { store, progress, must_be_complete: false });
        };
        if let Some(layout) = TaskProgress::later(&stored) {
            store.close()?;
            return Err(of_a_later_build(self.partition, layout));
        }
        let reason = match TaskProgress::decode(&stored) {
            Some(progress) => match fit(&progress, bounds, now) {
                StoreFit::Misfit(reason) => reason,
                fits => {
                    let must_be_complete = fits == StoreFit::FitsIfComplete;
                    return Ok(FittingStore { store, progress, must_be_complete });
                }
            },
            None => "unreadable",
        };
        store.close()?;
        self.rebuild(bounds, reason)
    }

    /// Destroys the store, which must be closed, and opens an empty one.
    pub(super) fn rebuild(
        self,
        bounds: ChangelogBounds,
        reason: &'static str,
    ) -> Result<FittingStore, StoreError> {
        telemetry::store_rebuilt(self.partition, reason);
        self.stores.destroy(self.partition)?;
        let store = self.stores.open(self.partition, self.tables)?;
        Ok(FittingStore { store, progress: bounds.fresh(), must_be_complete: false })
    }
}

/// Such a store is not rebuilt automatically: a short return to an older build would cost two
/// rebuilds.
fn of_a_later_build(partition: Partition, layout: u8) -> StoreError {
    let message = format!(
        "the state of partition {} was written by a later build (layout {layout}): start that \
         build again, or remove the state with `tidewire state rebuild` to have it rebuilt from \
         the log",
        partition.0
    );
    StoreError { message, source: None }
}

fn fit(progress: &TaskProgress, bounds: ChangelogBounds, now: Millis) -> StoreFit {
    let ChangelogBounds { state, windows, order } = bounds;
    let ahead = progress.state > state.end || progress.windows > windows.end;
    if ahead || progress.order > order.end {
        return StoreFit::Misfit("ahead of the log");
    }
    if progress.state < state.start || progress.order < order.start {
        return StoreFit::Misfit("older than the log's start");
    }
    let away = u64::try_from(now.0.saturating_sub(progress.times.latest().0)).unwrap_or(0);
    // One that has nothing of the changelogs yet has no row that was removed.
    let is_past = |at, bounds: Bounds| at > bounds.start;
    let has_rows = is_past(progress.state, state)
        || is_past(progress.windows, windows)
        || is_past(progress.order, order);
    if has_rows && progress.state < state.end && away > STALE_MS_MAX {
        return StoreFit::FitsIfComplete;
    }
    StoreFit::Fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Offset;

    const DAY_MS: i64 = 24 * 3_600_000;

    fn bounds(start: u64, end: u64) -> ChangelogBounds {
        let bounds = Bounds { start: Offset(start), end: Offset(end) };
        ChangelogBounds { state: bounds, windows: bounds, order: bounds }
    }

    fn at(offset: u64) -> TaskProgress {
        let offset = Offset(offset);
        TaskProgress { state: offset, windows: offset, order: offset, ..TaskProgress::default() }
    }

    #[test]
    fn an_old_store_fits_if_nothing_or_only_control_records_are_behind_its_progress() {
        assert_eq!(fit(&at(8), bounds(0, 8), Millis(30 * DAY_MS)), StoreFit::Fits);
        assert_eq!(fit(&at(7), bounds(0, 8), Millis(DAY_MS)), StoreFit::FitsIfComplete);
        assert_eq!(fit(&at(7), bounds(0, 8), Millis(DAY_MS / 2)), StoreFit::Fits);
    }

    #[test]
    fn a_store_that_has_no_rows_yet_fits_however_late_it_is() {
        let late = Millis(30 * DAY_MS);
        assert_eq!(fit(&at(3), bounds(3, 8), late), StoreFit::Fits);
        let windows_alone = TaskProgress { windows: Offset(5), ..at(3) };
        assert_eq!(fit(&windows_alone, bounds(3, 8), late), StoreFit::FitsIfComplete);
    }

    #[test]
    fn a_store_outside_the_changelogs_does_not_fit() {
        let misfit = |progress| match fit(&progress, bounds(4, 8), Millis(0)) {
            StoreFit::Misfit(reason) => reason,
            other => panic!("{progress:?}: {other:?}"),
        };
        assert_eq!(misfit(at(9)), "ahead of the log");
        assert_eq!(misfit(at(3)), "older than the log's start");
    }
}
