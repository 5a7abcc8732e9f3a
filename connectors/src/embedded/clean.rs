//! Compaction of a topic: of each key only the newest record stays, and a tombstone leaves after
//! its time. Placeholder until the key index is in.

use tidewire_engine::port::LogError;
use tidewire_engine::record::Millis;

use super::core::Core;
use super::topic::{PartitionLog, TopicLog};
use super::upkeep::Depth;

/// Compacts a partition.
pub(super) fn clean(
    _: &Core,
    _: (&TopicLog, &PartitionLog),
    _: (Millis, Depth),
) -> Result<(), LogError> {
    Ok(())
}
