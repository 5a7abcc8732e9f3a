//! Appends outside transactions, and how any list of records becomes runs per partition. Checks
//! stand here, before anything is queued: an unknown topic, a body too large, a compacted topic
//! without a key.

use std::collections::HashMap;
use std::sync::Arc;

use tidewire_engine::port::{Appender, LogError};
use tidewire_engine::record::{Offset, Outgoing};

use super::config::{BODY_BYTES_MAX, WRITE_BYTES_MAX};
use super::core::Core;
use super::topic::TopicLog;
use super::writer::{Run, Work};

/// Gathers records into runs, one per partition.
#[derive(Default)]
pub(super) struct Gather {
    /// What was gathered.
    pub(super) work: Work,
    /// Which run a partition has, by its place.
    runs: HashMap<usize, usize>,
    topic: Option<Arc<TopicLog>>,
}

impl Gather {
    /// Adds all of these or none; calls `stands` with run and index for each, in order.
    pub(super) fn add(
        &mut self,
        core: &Core,
        records: &[Outgoing],
        mut stands: impl FnMut(usize, usize),
    ) -> Result<(), LogError> {
        let mut bytes = self.work.bytes;
        for record in records {
            bytes += self.check(core, record)?;
        }
        if bytes > WRITE_BYTES_MAX {
            return Err(LogError::Invalid(format!(
                "{bytes} bytes are to be written together; at most {WRITE_BYTES_MAX} can be"
            )));
        }
        self.work.bytes = bytes;
        for record in records {
            let topic = self.topic(core, record)?;
            let log = &topic.partitions[record.partition.0 as usize];
            let next = self.work.runs.len();
            let run = *self.runs.entry(log.place).or_insert(next);
            if run == next {
                let (topic, log) = (topic.clone(), log.clone());
                self.work.runs.push(Run { topic, log, bodies: Vec::new() });
            }
            let bodies = &mut self.work.runs[run].bodies;
            stands(run, bodies.len());
            bodies.push(record.body.clone());
        }
        Ok(())
    }

    /// The bytes of a record that may be appended.
    fn check(&mut self, core: &Core, record: &Outgoing) -> Result<usize, LogError> {
        let topic = self.topic(core, record)?;
        let count = topic.partitions.len();
        let bytes = record.body.as_bytes().len();
        let complaint = if record.partition.0 as usize >= count {
            format!("{}: the topic has {count} partitions", record.partition.0)
        } else if bytes > BODY_BYTES_MAX {
            format!("a record of {bytes} bytes; at most {BODY_BYTES_MAX} are taken")
        } else if topic.families.keys.is_some() && record.body.key().is_none() {
            "a record of a compacted topic needs a key".to_owned()
        } else {
            return Ok(bytes);
        };
        Err(LogError::Invalid(format!("{}: {complaint}", record.topic)))
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
pub(super) struct LogAppender(pub(super) Arc<Core>);

impl Appender for LogAppender {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let mut gather = Gather::default();
        let mut places = Vec::with_capacity(records.len());
        gather.add(&self.0, records, |run, at| places.push((run, at)))?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let firsts = self.0.writer.submit(&self.0, gather.work)?;
        Ok(places.into_iter().map(|(run, at)| Offset(firsts[run] + at as u64)).collect())
    }
}
