//! Appends outside transactions, and the grouping of records into one run per partition.
//!
//! Records are checked before anything is queued: unknown topic, body too large, no key for a
//! compacted topic. So a batch is appended whole or rejected whole.

use std::collections::HashMap;
use std::sync::Arc;

use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};

use super::config::{BODY_BYTES_MAX, WRITE_BYTES_MAX};
use super::core::Core;
use super::topic::TopicLog;
use super::write_queue::{AtomicWrite, PartitionAppend};
use super::writer;

/// Gathers records into runs, one per partition.
#[derive(Default)]
pub(super) struct WriteBuilder {
    /// The write so far.
    pub(super) write: AtomicWrite,
    /// The run of each partition, by `PartitionLog::head_index`.
    appends: HashMap<usize, usize>,
    topic: Option<Arc<TopicLog>>,
}

impl WriteBuilder {
    /// Adds all records or none; calls `placed` with the run and the index in it of each, in order.
    pub(super) fn add(
        &mut self,
        core: &Core,
        records: &[Outgoing],
        mut placed: impl FnMut(usize, usize),
    ) -> Result<(), LogError> {
        let mut bytes = self.write.bytes;
        for record in records {
            bytes += self.check(core, record)?;
        }
        if bytes > WRITE_BYTES_MAX {
            return Err(LogError::Invalid(format!(
                "an append or a transaction of {bytes} bytes; at most {WRITE_BYTES_MAX} are \
                 accepted: write less at a time"
            )));
        }
        self.write.bytes = bytes;
        for record in records {
            let topic = self.topic(core, record)?;
            let log = &topic.partitions[record.partition.0 as usize];
            let next = self.write.appends.len();
            let append = *self.appends.entry(log.head_index).or_insert(next);
            if append == next {
                let (topic, log) = (topic.clone(), log.clone());
                self.write.appends.push(PartitionAppend { topic, log, bodies: Vec::new() });
            }
            let bodies = &mut self.write.appends[append].bodies;
            placed(append, bodies.len());
            bodies.push(record.body.clone());
        }
        Ok(())
    }

    /// The size of a record that may be appended.
    fn check(&mut self, core: &Core, record: &Outgoing) -> Result<usize, LogError> {
        let topic = self.topic(core, record)?;
        let count = topic.partitions.len();
        let bytes = record.body.as_bytes().len();
        let problem = if record.partition.0 as usize >= count {
            format!(
                "partition {} does not exist; the topic has {count}, numbered from 0",
                record.partition.0
            )
        } else if bytes > BODY_BYTES_MAX {
            format!("a record of {bytes} bytes; at most {BODY_BYTES_MAX} are accepted")
        } else if topic.families.keys.is_some() && record.body.key().is_none() {
            "a record of a compacted topic needs a key".to_owned()
        } else {
            return Ok(bytes);
        };
        Err(LogError::Invalid(format!("{}: {problem}", record.topic)))
    }

    fn topic(&mut self, core: &Core, record: &Outgoing) -> Result<Arc<TopicLog>, LogError> {
        match &self.topic {
            Some(topic) if topic.spec.topic == record.topic => Ok(topic.clone()),
            _ => {
                let topic = core.topic(&record.topic)?;
                self.topic = Some(topic.clone());
                Ok(topic)
            }
        }
    }
}

/// A producer outside transactions.
pub(super) struct EmbeddedAppender(pub(super) Arc<Core>);

impl Appender for EmbeddedAppender {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let mut builder = WriteBuilder::default();
        let mut positions = Vec::with_capacity(records.len());
        builder.add(&self.0, records, |append, at| positions.push((append, at)))?;
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let firsts = writer::submit(&self.0, builder.write)?;
        Ok(positions.into_iter().map(|(append, at)| Offset(firsts[append] + at as u64)).collect())
    }
}
