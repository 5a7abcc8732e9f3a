//! Checkpoints: copies of a task's store at a transaction boundary, from which a replay can begin.
//!
//! ```text
//! checkpoints/task-N/ORDER-TIME    a RocksDB directory; ORDER is the next record of `order` (20
//!                                  digits), TIME the latest append time in ms
//! ```
//!
//! They are hard links, so they use only the space of what the store has rewritten since. A few are
//! kept, spread over the time for which `order` keeps its records; an older checkpoint is of no
//! use. A checkpoint that can't be created is counted and logged, and never stops a task.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::port::StoreError;
use tidewire_engine::record::{Millis, Offset, Partition};
use tidewire_engine::topology::ORDER_RETENTION_MS;

use super::config::{CHECKPOINTS_MAX, Config};
use super::database::{TaskDatabase, remove_dir, task_dir_name};
use crate::telemetry;

const CHECKPOINTS: &str = "checkpoints";

/// A copy of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The next record of `order` after what it contains.
    pub order: Offset,
    /// The latest append time it has.
    pub time: Millis,
    /// Its directory. It belongs to the task, which may delete it at any time.
    pub dir: PathBuf,
}

/// The checkpoints of a task in this directory of stores, oldest first.
pub fn checkpoints(stores: &Path, partition: Partition) -> io::Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder(stores, partition)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let dir = entry?.path();
        found.extend(parse(&dir).map(|(order, time)| Checkpoint { order, time, dir }));
    }
    found.sort_by_key(|checkpoint| checkpoint.order);
    Ok(found)
}

impl Checkpoint {
    /// Creates a store from it in another directory of stores. Files that never change are linked
    /// where that is possible, the others are copied, so that the two are independent.
    pub fn restore(&self, stores: &Path, partition: Partition) -> io::Result<()> {
        let to = stores.join(task_dir_name(partition));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&self.dir)? {
            let from = entry?.path();
            let Some(file) = from.file_name() else { continue };
            let to = to.join(file);
            let linked = from.extension().is_some_and(|kind| kind == "sst")
                && fs::hard_link(&from, &to).is_ok();
            if !linked {
                fs::copy(&from, &to)?;
            }
        }
        Ok(())
    }
}

/// Removes all checkpoints of a task.
pub(super) fn remove_all(stores: &Path, partition: Partition) -> Result<(), StoreError> {
    remove_dir(&folder(stores, partition))
}

fn folder(stores: &Path, partition: Partition) -> PathBuf {
    stores.join(CHECKPOINTS).join(task_dir_name(partition))
}

fn parse(dir: &Path) -> Option<(Offset, Millis)> {
    let (order, time) = dir.file_name()?.to_str()?.split_once('-')?;
    Some((Offset(order.parse().ok()?), Millis(time.parse().ok()?)))
}

/// The checkpoints of one task.
pub(super) struct TaskCheckpoints {
    folder: PathBuf,
    partition: Partition,
    every_ms: i64,
    /// Oldest first.
    kept: Vec<Checkpoint>,
}

impl TaskCheckpoints {
    /// Lists the existing checkpoints and removes incomplete ones.
    pub(super) fn open(config: &Config, partition: Partition) -> Result<Self, StoreError> {
        let folder = folder(&config.dir, partition);
        let kept = checkpoints(&config.dir, partition).and_then(|kept| {
            remove_incomplete(&folder, &kept)?;
            Ok(kept)
        });
        let kept = kept.map_err(|error| StoreError {
            message: format!(
                "can't read the checkpoints in {}; check its permissions, or remove it",
                folder.display()
            ),
            source: Some(Box::new(error)),
        })?;
        let every_ms = i64::try_from(config.checkpoint_every.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { folder, partition, every_ms, kept })
    }

    /// Creates a checkpoint if one is due. The store is at `progress`.
    pub(super) fn create_if_due(&mut self, database: &TaskDatabase, progress: &[u8]) {
        let Some(TaskProgress { order, times, .. }) = TaskProgress::decode(progress) else {
            return;
        };
        let time = times.latest();
        let due = self.kept.last().is_none_or(|last| {
            order > last.order && time.0.saturating_sub(last.time.0) >= self.every_ms
        });
        if !due {
            return;
        }
        match self.create_checkpoint(database, order, time) {
            Ok(()) => telemetry::checkpoint_kept(self.partition.0, self.bytes()),
            Err(error) => telemetry::checkpoint_failed(&error),
        }
    }

    fn create_checkpoint(
        &mut self,
        database: &TaskDatabase,
        order: Offset,
        time: Millis,
    ) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(|error| StoreError {
            message: format!(
                "can't create the directory {}; check its permissions",
                self.folder.display()
            ),
            source: Some(Box::new(error)),
        })?;
        let dir = self.folder.join(format!("{:020}-{}", order.0, time.0));
        database.create_checkpoint(&dir)?;
        self.kept.push(Checkpoint { order, time, dir });
        while let Some(at) = superfluous(&self.kept) {
            remove_dir(&self.kept[at].dir)?;
            self.kept.remove(at);
        }
        Ok(())
    }

    /// Bytes of all files, each counted once.
    fn bytes(&self) -> u64 {
        let files = self.kept.iter().filter_map(|kept| fs::read_dir(&kept.dir).ok()).flatten();
        let sizes = files.filter_map(|file| file.ok()?.metadata().ok());
        sizes.map(|data| (data.ino(), data.len())).collect::<BTreeMap<_, _>>().values().sum()
    }
}

/// Removes checkpoints that a killed process left incomplete.
fn remove_incomplete(folder: &Path, kept: &[Checkpoint]) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if kept.iter().all(|kept| kept.dir != path) {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Which checkpoint to remove: one older than the retention of `order`, or, if there are too many,
/// the one whose neighbours are closest to each other. The oldest and the newest stay.
fn superfluous(kept: &[Checkpoint]) -> Option<usize> {
    let newest = kept.last()?.time.0;
    let retention_ms = i64::try_from(ORDER_RETENTION_MS).unwrap_or(i64::MAX);
    if newest.saturating_sub(kept[0].time.0) > retention_ms {
        return Some(0);
    }
    if kept.len() <= CHECKPOINTS_MAX {
        return None;
    }
    (1..kept.len() - 1).min_by_key(|at| kept[at + 1].time.0 - kept[at - 1].time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    fn keep_at(minutes: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut kept = Vec::new();
        for minute in minutes {
            let (order, time) = (Offset(minute as u64), Millis(minute * MINUTE_MS));
            kept.push(Checkpoint { order, time, dir: PathBuf::new() });
            while let Some(at) = superfluous(&kept) {
                kept.remove(at);
            }
        }
        kept.iter().map(|kept| kept.time.0 / MINUTE_MS).collect()
    }

    #[test]
    fn a_few_are_kept_spread_over_what_there_is() {
        assert_eq!(keep_at((0..4).map(|n| n * 15)), [0, 15, 30, 45]);
        let day = keep_at((0..96).map(|n| n * 15));
        assert_eq!((day.len(), day[0], day[3]), (CHECKPOINTS_MAX, 0, 95 * 15));
        let widest = day.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < 16 * 60, "{day:?}");
    }

    #[test]
    fn checkpoints_older_than_the_order_records_are_removed() {
        let week = keep_at((0..7 * 24).map(|n| n * 60));
        let days = ORDER_RETENTION_MS as i64 / MINUTE_MS;
        assert!(week.len() >= 2, "{week:?}");
        assert!(week[0] >= 167 * 60 - days, "{week:?}");
    }

    #[test]
    fn names_are_parsed_and_an_incomplete_directory_is_no_checkpoint() {
        let time = |name: &str| parse(Path::new(name));
        assert_eq!(time("00000000000000000042-1767607200000").unwrap().0, Offset(42));
        assert_eq!(time("00000000000000000042-1767607200000.tmp"), None);
    }
}
