//! Finds out in which layout the topics of a deployment are.

use crate::committed_read::read_committed;
use crate::port::{Isolation, Log, LogError, TopicInfo};
use crate::record::{Partition, Topic, TopicPartition};
use crate::topics_layout::record::{LAYOUT_KEY, LayoutNumber};
use crate::topology::Topology;

/// What the log says about the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundLayout {
    /// The layout record has this number.
    Marked(LayoutNumber),
    /// There is no layout record, and no record that only our processes write either: the topics
    /// do not exist, or their creation is not complete.
    Empty,
    /// There is no layout record, although the topics are in use; the text says what shows it.
    Unmarked(String),
    /// The layout record is no number; the text is its value.
    Unreadable(String),
}

/// Reads the layout record, and looks for other records if there is none.
pub fn find_layout(log: &dyn Log, topology: &Topology) -> Result<FoundLayout, LogError> {
    let infos = log.topics()?;
    if let Some(found) = read_record(log, topology, &infos)? {
        return Ok(found);
    }
    let Some(in_use) = find_use(log, topology, &infos)? else { return Ok(FoundLayout::Empty) };
    // Another process may have completed the creation meanwhile and then written records. The
    // layout record was there before them.
    let marked = read_record(log, topology, &log.topics()?)?;
    Ok(marked.unwrap_or(FoundLayout::Unmarked(in_use)))
}

/// The layout record; `None` if there is none.
fn read_record(
    log: &dyn Log,
    topology: &Topology,
    infos: &[TopicInfo],
) -> Result<Option<FoundLayout>, LogError> {
    if partitions_of(topology.catalogues(), infos) == 0 {
        return Ok(None);
    }
    let at = TopicPartition::new(topology.catalogues(), Partition(0));
    let mut found = None;
    read_committed(log, &at, |record| {
        if record.body.key() == Some(LAYOUT_KEY.as_bytes()) {
            // The newest, as compaction keeps it.
            let value = record.body.value().unwrap_or_default();
            found = Some(match LayoutNumber::decode(value) {
                Ok(number) => FoundLayout::Marked(number),
                Err(invalid) => FoundLayout::Unreadable(invalid.0),
            });
        }
    })?;
    Ok(found)
}

/// What shows that the topics are in use, if anything does.
///
/// The inputs do not: producers may write before the first start, and the layout does not concern
/// them. Neither does `ephemeral`, to which `doctor` writes.
fn find_use(
    log: &dyn Log,
    topology: &Topology,
    infos: &[TopicInfo],
) -> Result<Option<String>, LogError> {
    let control = topology.control();
    let partitions = partitions_of(control, infos);
    if partitions > 1 {
        return Ok(Some(format!("{control} has {partitions} partitions")));
    }
    let further = [
        topology.order(),
        topology.state(),
        topology.windows(),
        topology.out_urgent(),
        topology.out_stream(),
        topology.out_state(),
        topology.dead_letters(),
    ];
    for topic in topology.lanes().iter().chain(further) {
        for partition in (0..partitions_of(topic, infos)).map(Partition) {
            let at = TopicPartition::new(topic, partition);
            // Not the number of records: retention may have removed them.
            if log.bounds(&at, Isolation::Uncommitted)?.end.0 > 0 {
                return Ok(Some(format!("{topic} is in use")));
            }
        }
    }
    Ok(None)
}

/// The partitions of a topic; 0 if it does not exist.
fn partitions_of(topic: &Topic, infos: &[TopicInfo]) -> u32 {
    infos.iter().find(|info| info.spec.topic == *topic).map_or(0, |info| info.spec.partitions)
}
