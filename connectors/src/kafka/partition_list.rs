//! Converts partitions and offsets between the engine's types and librdkafka's.
//!
//! Kafka numbers partitions with `i32`, so a number it can't represent becomes one that no topic
//! has.

use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tidewire_engine::port::{Committed, LogError};
use tidewire_engine::record::{Partition, Topic, TopicPartition};

/// A partition's number in Kafka's type.
pub(super) fn partition_number(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition.0).unwrap_or(i32::MAX)
}

/// Offsets with their metadata, as a list of librdkafka.
pub(super) fn offset_list(
    offsets: &[(TopicPartition, Committed)],
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (at, committed) in offsets {
        let offset = i64::try_from(committed.offset.0).unwrap_or(i64::MAX);
        let mut element = list.add_partition(at.topic.as_str(), partition_number(at));
        let set = element.set_offset(KafkaOffset::Offset(offset));
        set.map_err(|error| LogError::Invalid(format!("{at}: {error}")))?;
        element.set_metadata(&committed.metadata);
    }
    Ok(list)
}

/// The partitions of a list of librdkafka.
pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let partitions = elements.iter().filter_map(|element| {
        let partition = u32::try_from(element.partition()).ok()?;
        Some(TopicPartition::new(&Topic::new(element.topic()), Partition(partition)))
    });
    partitions.collect()
}
