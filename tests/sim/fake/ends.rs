//! A request for ends: with faults, the answer may take some polls and lack some ends.

use tidewire_engine::port::{EndsRequest, Isolation, LogError};
use tidewire_engine::record::{Offset, TopicPartition};

use super::faults::Call;
use super::injection::LAZY_ONCE_IN;
use super::log::FakeLog;

pub(super) struct FakeEndsRequest {
    pub(super) log: FakeLog,
    pub(super) of: Vec<TopicPartition>,
    pub(super) isolation: Isolation,
}

impl EndsRequest for FakeEndsRequest {
    /// The ends at the time of the answer, as the port allows.
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        self.log.call(Call::PollEnds, |log_state| {
            let late = log_state.answers_are_late
                || (log_state.faults && log_state.random.one_in(LAZY_ONCE_IN));
            if late {
                return Ok(None);
            }
            let end = |at: &TopicPartition| {
                let end = log_state.end(at, self.isolation)?;
                let unknown = log_state.leaderless.contains(at)
                    || (log_state.faults && log_state.random.one_in(LAZY_ONCE_IN));
                Ok((!unknown).then_some(Offset(end)))
            };
            self.of.iter().map(end).collect::<Result<_, _>>().map(Some)
        })
    }
}
