//! A log that can only be read.
//!
//! It has no method that creates, appends, transacts or joins, and does not give access to the log
//! inside, so a replay can't write by mistake.

use std::sync::Arc;

use crate::port::{Bounds, Isolation, Log, LogError, Reader, TopicInfo};
use crate::record::{Millis, Offset, TopicPartition};

/// A log that can only be read.
///
/// ```
/// fn look(log: tidewire_engine::replay::ReadOnlyLog) {
///     log.reader().ok();
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn write(log: tidewire_engine::replay::ReadOnlyLog) {
///     log.transactor("anyone");
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn write(log: tidewire_engine::replay::ReadOnlyLog) {
///     log.appender();
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn join(log: tidewire_engine::replay::ReadOnlyLog, spec: tidewire_engine::port::MemberSpec) {
///     log.member(&spec);
/// }
/// ```
#[derive(Clone)]
pub struct ReadOnlyLog(Arc<dyn Log>);

impl ReadOnlyLog {
    /// Wraps a log.
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self(log)
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.0.topics()
    }

    /// Start and end of a partition.
    pub fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.0.bounds(at, isolation)
    }

    /// The first offset whose record's time is at or after `time`.
    pub fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.0.offset_at(at, time)
    }

    /// A reader of committed records that belongs to no group.
    pub fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader(Isolation::Committed)
    }
}
