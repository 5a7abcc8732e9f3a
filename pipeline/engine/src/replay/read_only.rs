//! A log that can be read, and nothing else.
//!
//! The one idea: what must not happen can't be said. There is no verb here that creates, appends,
//! transacts or joins, and the log inside can't be had back.

use std::sync::Arc;

use crate::port::{Bounds, Isolation, Log, LogError, Reader, TopicInfo};
use crate::record::{Millis, Offset, TopicPartition};

/// A log to look at.
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
    /// This log, to look at.
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

    /// A reader of what is committed, which belongs to no group.
    pub fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader(Isolation::Committed)
    }
}
