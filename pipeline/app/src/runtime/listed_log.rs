//! A log for tests of the process: it lists topics and read problems, as a test sets them.

use std::sync::{Mutex, PoisonError};

use tidewire_engine::port::{
    Appender, Bounds, Committed, Isolation, Log, LogError, Member, MemberSpec, Reader, TopicInfo,
    TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, TopicPartition};

/// The log. Any other call is an error.
pub(crate) struct ListedLog {
    /// The topics, or the reason why they can't be listed.
    topics: Mutex<Result<Vec<TopicInfo>, String>>,
    read_problems: Mutex<Vec<String>>,
}

impl Default for ListedLog {
    fn default() -> Self {
        Self { topics: Mutex::new(Ok(Vec::new())), read_problems: Mutex::default() }
    }
}

impl ListedLog {
    /// What the next listings return.
    pub(crate) fn set_topics(&self, topics: Result<Vec<TopicInfo>, String>) {
        *self.topics.lock().unwrap_or_else(PoisonError::into_inner) = topics;
    }

    /// What can't be read from now on.
    pub(crate) fn set_read_problems(&self, problems: &[&str]) {
        *self.read_problems.lock().unwrap_or_else(PoisonError::into_inner) =
            problems.iter().map(|&problem| problem.to_owned()).collect();
    }
}

fn unlisted<T>() -> Result<T, LogError> {
    Err(LogError::Invalid("this log only lists".to_owned()))
}

impl Log for ListedLog {
    fn create(&self, _: &TopicSpec) -> Result<bool, LogError> {
        unlisted()
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.clone().map_err(|reason| LogError::Retry(reason.into()))
    }

    fn bounds(&self, _: &TopicPartition, _: Isolation) -> Result<Bounds, LogError> {
        unlisted()
    }

    fn offset_at(&self, _: &TopicPartition, _: Millis) -> Result<Option<Offset>, LogError> {
        unlisted()
    }

    fn committed(&self, _: &str, _: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        unlisted()
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        unlisted()
    }

    fn transactor(&self, _: &str) -> Result<Box<dyn Transactor>, LogError> {
        unlisted()
    }

    fn reader(&self, _: Isolation) -> Result<Box<dyn Reader>, LogError> {
        unlisted()
    }

    fn member(&self, _: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        unlisted()
    }

    fn read_problems(&self) -> Vec<String> {
        self.read_problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
