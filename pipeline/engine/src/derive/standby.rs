//! Standing by: a loop that follows the changelogs of partitions it does not own, so that it takes
//! one over with a short tail instead of a whole restore.
//!
//! The one idea: a follower is the first half of a restore that never ends. It asks for no offsets,
//! so it fences nobody; it reads what is committed and writes nothing but its own store. When the
//! partition comes, the restore goes on where its follower stands. A follower that ends writes
//! nothing more: its changelogs may stand at different transactions, and the log has it all.

use std::collections::BTreeMap;

use crate::derive::restore::{ChangelogReader, RestoreContext};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::turn::EngineError;

/// Milliseconds between the beginnings of two followers, and before one that failed begins again: a
/// loop that has tasks must not be kept from them.
const BEGIN_EVERY_MS: i64 = 1_000;

/// The partitions a loop follows.
#[derive(Default)]
pub(super) struct Standby {
    followers: BTreeMap<Partition, ChangelogReader>,
    begun: Millis,
}

impl Standby {
    /// Replays what is there of every partition, of so many, that is nobody's task here.
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

    /// Gives a partition's follower away, for the restore that goes on from there.
    pub(super) fn take(&mut self, partition: Partition) -> Option<ChangelogReader> {
        self.followers.remove(&partition)
    }
}

/// A log that does not answer costs a follower; a disk that fails costs the process, as ever.
fn restart_follower(partition: Partition, error: EngineError) -> Result<(), EngineError> {
    match error {
        EngineError::Retry { .. } => {
            telemetry::follower_failed(partition, &error);
            Ok(())
        }
        EngineError::Fatal { .. } => Err(error),
    }
}
