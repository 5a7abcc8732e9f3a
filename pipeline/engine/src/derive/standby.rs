//! Standby: follows the changelogs of partitions that another process owns, so that a takeover is
//! short.
//!
//! A follower is a restore that never ends. It fetches no committed offsets, so it fences nobody;
//! it reads committed records and writes nothing but its own store. When its partition is assigned,
//! the restore continues from the follower. A follower that is dropped hands nothing more over: its
//! changelogs may be replayed up to different transactions, and the log still has everything.

use std::collections::BTreeMap;

use crate::derive::restore::{ChangelogReader, RestoreContext};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::turn::EngineError;

/// Milliseconds between the starts of two followers, a failed one included, so that the loop's
/// tasks are not delayed.
const BEGIN_EVERY_MS: i64 = 1_000;

/// The followers of a loop.
#[derive(Default)]
pub(super) struct Standby {
    followers: BTreeMap<Partition, ChangelogReader>,
    begun: Millis,
}

impl Standby {
    /// Advances every follower, and starts one for a partition that is not a task here.
    pub(super) fn follow(
        &mut self,
        context: RestoreContext<'_>,
        is_ours: impl Fn(Partition) -> bool,
    ) -> Result<(), EngineError> {
        self.begun = self.begun.min(context.now);
        let mut failed = Vec::new();
        for (partition, follower) in &mut self.followers {
            if let Err(error) = follower.follow(context) {
                restart_follower(*partition, error)?;
                failed.push(*partition);
            }
        }
        for partition in failed {
            self.followers.remove(&partition);
        }
        let next = (0..context.rules.topology.partitions())
            .map(Partition)
            .find(|partition| !is_ours(*partition) && !self.followers.contains_key(partition));
        if let Some(partition) = next
            && context.now.0.saturating_sub(self.begun.0) >= BEGIN_EVERY_MS
        {
            self.begun = context.now;
            match ChangelogReader::open(context, partition) {
                Ok(follower) => drop(self.followers.insert(partition, follower)),
                Err(error) => restart_follower(partition, error)?,
            }
        }
        telemetry::followers(self.followers.len());
        Ok(())
    }

    /// Removes a partition's follower, for the restore that continues from it.
    pub(super) fn take(&mut self, partition: Partition) -> Option<ChangelogReader> {
        self.followers.remove(&partition)
    }
}

/// A failure of the log only drops the follower, which starts again later; a failure of the disk
/// ends the process.
fn restart_follower(partition: Partition, error: EngineError) -> Result<(), EngineError> {
    match error {
        EngineError::Retry { .. } => {
            telemetry::follower_failed(partition, &error);
            Ok(())
        }
        EngineError::Fatal { .. } => Err(error),
    }
}
