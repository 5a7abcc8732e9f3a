//! Standing by: a loop that follows the changelogs of partitions it does not own, so that it takes
//! one over with a short tail instead of a whole restore.
//!
//! The one idea: a follower is the first half of a restore that never ends. It asks for no offsets,
//! so it fences nobody; it reads what is committed and writes nothing but its own store. When the
//! partition comes, the follower closes its store and the task restores from there.

use std::collections::BTreeMap;

use crate::derive::assign::Task;
use crate::derive::restore::{Ground, Tails};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::turn::EngineError;

/// Milliseconds between the beginnings of two followers, and before one that failed begins again: a
/// loop that has tasks must not be kept from them.
const BEGIN_EVERY_MS: i64 = 1_000;

/// The partitions a loop follows.
#[derive(Default)]
pub(super) struct Standby {
    followers: BTreeMap<Partition, Tails>,
    begun: Millis,
}

impl Standby {
    /// Replays what is there of every partition, of so many, that is nobody's task here.
    pub(super) fn follow(
        &mut self,
        ground: Ground<'_>,
        (tasks, partitions): (&BTreeMap<Partition, Task>, u32),
    ) {
        let mut failed = Vec::new();
        for (partition, follower) in &mut self.followers {
            if let Err(error) = follower.step(ground) {
                telemetry::follower_failed(*partition, &error);
                failed.push(*partition);
            }
        }
        for partition in failed {
            self.followers.remove(&partition);
        }
        let ours = |partition: &Partition| tasks.contains_key(partition);
        let next = (0..partitions)
            .map(Partition)
            .find(|partition| !ours(partition) && !self.followers.contains_key(partition));
        if let Some(partition) = next
            && ground.now.0.saturating_sub(self.begun.0) >= BEGIN_EVERY_MS
        {
            self.begun = ground.now;
            match Tails::open(ground, partition) {
                Ok(follower) => drop(self.followers.insert(partition, follower)),
                Err(error) => telemetry::follower_failed(partition, &error),
            }
        }
        telemetry::followers(self.followers.len());
    }

    /// Closes the store of a partition, for whoever opens it now.
    pub(super) fn let_go(&mut self, partition: Partition) -> Result<(), EngineError> {
        let Some(follower) = self.followers.remove(&partition) else { return Ok(()) };
        follower.close().map_err(|error| EngineError::of_store("closing a follower's store", error))
    }

    /// Closes every store.
    pub(super) fn close(mut self) -> Result<(), EngineError> {
        let all: Vec<Partition> = self.followers.keys().copied().collect();
        all.into_iter().try_for_each(|partition| self.let_go(partition))
    }
}
