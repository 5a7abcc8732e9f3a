//! The value level of a deployment: which versions of stored values its builds write.
//!
//! Each version of a value is written from some level on, and a build reads all versions up to its
//! own. So processes of two builds can run side by side: the later build reads what the former one
//! writes, and writes no newer version before the level in force allows it.
//!
//! ```text
//! topic  catalogues (compacted, kept for ever, one partition)
//! key    the 11 bytes `value-level`
//! value  the level in decimal digits, 1 to 255, without a sign or leading zeros, such as `2`
//! ```
//!
//! New topics get the highest level of the build that creates them. Topics without the record are
//! at level 1. `tidewire finalize` raises the level, once no older build will start again. It never
//! falls, because values of that level may be stored.
//!
//! A task reads the record after its partition was assigned. A former owner that wrote values of a
//! level had read the record before that. So an older build finds the level too high and stops, and
//! never meets a value that it can't read, whatever the order in which processes start.
//!
//! The record is written under the transactional id of the layout record: a process that takes the
//! id over sees what its predecessor has committed, and the predecessor can't commit later.

use crate::committed_read::read_committed;
use crate::committed_write::write_committed;
use crate::port::{Log, LogError};
use crate::record::{Body, Outgoing, Partition, TopicPartition};
use crate::topology::Topology;

/// The key of the record.
pub const VALUE_LEVEL_KEY: &str = "value-level";

/// A value level, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueLevel(pub u8);

impl Default for ValueLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl ValueLevel {
    /// The level of topics without a record, from which every first version is written.
    pub const FIRST: Self = Self(1);

    /// The record's value.
    fn encode(self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Reads the record's value; `None` for any other form of a number.
    fn decode(value: &[u8]) -> Option<Self> {
        (1..=u8::MAX).map(Self).find(|level| level.encode() == value)
    }
}

/// The level in force. [`LogError::Invalid`] if a build with this highest level must not run with
/// it: it could not read all values.
pub fn level_in_force(
    log: &dyn Log,
    topology: &Topology,
    highest: ValueLevel,
) -> Result<ValueLevel, LogError> {
    let catalogues = topology.catalogues();
    let at = TopicPartition::new(catalogues, Partition(0));
    let mut value = ValueLevel::FIRST.encode();
    read_committed(log, &at, |record| {
        if record.body.key() == Some(VALUE_LEVEL_KEY.as_bytes()) {
            // The newest, as compaction keeps it.
            value = record.body.value().unwrap_or_default().to_vec();
        }
    })?;
    let level = ValueLevel::decode(&value).ok_or_else(|| {
        LogError::Invalid(format!(
            "the record {VALUE_LEVEL_KEY} of {catalogues} is {:?}, which is no level; start the \
             build that wrote it",
            String::from_utf8_lossy(&value)
        ))
    })?;
    if level > highest {
        return Err(LogError::Invalid(format!(
            "value level {} is in force in {catalogues}, and this build reads values up to level \
             {}; start the build with which `tidewire finalize` was run or the topics were \
             created, or a later one",
            level.0, highest.0
        )));
    }
    Ok(level)
}

/// Says which level is in force, and what to do if a build can write a higher one.
pub fn level_text(in_force: ValueLevel, highest: ValueLevel) -> String {
    let level = in_force.0;
    match in_force == highest {
        true => format!("value level {level} is in force, the highest of this build"),
        false => format!(
            "value level {level} is in force, and this build writes values up to level {}; run \
             `tidewire finalize` once no older build will be started again",
            highest.0
        ),
    }
}

/// Raises the level in force to the highest of a build; returns the level before.
pub fn finalize(
    log: &dyn Log,
    topology: &Topology,
    highest: ValueLevel,
) -> Result<ValueLevel, LogError> {
    let mut transactor = log.transactor(&topology.layout_transactional_id())?;
    // A process that had the id before can't commit any more. What it has committed is seen now,
    // which a read before this might have missed.
    let before = level_in_force(log, topology, highest)?;
    if before < highest {
        write_committed(&mut *transactor, &[level_record(topology, highest)])?;
    }
    Ok(before)
}

/// The record of a level.
pub(crate) fn level_record(topology: &Topology, level: ValueLevel) -> Outgoing {
    let body = Body::new(Some(VALUE_LEVEL_KEY.as_bytes()), Some(&level.encode()), &[]);
    Outgoing { topic: topology.catalogues().clone(), partition: Partition(0), body }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_reads_back_and_no_other_form_of_it_does() {
        for level in (1..=u8::MAX).map(ValueLevel) {
            assert_eq!(ValueLevel::decode(&level.encode()), Some(level));
        }
        for wrong in [&b""[..], b"0", b"02", b"+2", b" 2", b"2\n", b"256", b"two", b"\xff"] {
            assert_eq!(ValueLevel::decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_reads_as_a_level_is_what_would_be_written(value in "[ +0-9a]{0,5}") {
            if let Some(level) = ValueLevel::decode(value.as_bytes()) {
                prop_assert_eq!(level.encode(), value.as_bytes());
            }
        }
    }
}
