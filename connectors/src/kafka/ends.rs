//! A request for the committed ends of partitions, which nobody waits for.
//!
//! One `ListOffsets` per broker serves all partitions. librdkafka answers it on its own threads;
//! without an answer it reports a timeout after [`CALL_LIMIT`].

use std::sync::Arc;

use tidewire_engine::port::{EndsRequest, LogError};
use tidewire_engine::record::{Offset, TopicPartition};

use super::core::{CALL_LIMIT, KafkaCore};
use super::native::PendingOffsets;

/// What is being done, for errors.
const DOING: &str = "reading the ends of partitions";

/// A pending request.
pub(super) struct KafkaEndsRequest {
    core: Arc<KafkaCore>,
    of: Vec<TopicPartition>,
    pending: PendingOffsets,
}

impl KafkaEndsRequest {
    /// Sends the request.
    pub(super) fn new(core: &Arc<KafkaCore>, of: &[TopicPartition]) -> Result<Self, LogError> {
        of.iter().try_for_each(|at| core.check(at))?;
        core.serve(&core.stable);
        let pending = PendingOffsets::request(&core.stable, of, CALL_LIMIT);
        let pending = pending.map_err(|code| core.failed(DOING, code))?;
        Ok(Self { core: Arc::clone(core), of: of.to_vec(), pending })
    }
}

impl EndsRequest for KafkaEndsRequest {
    fn poll(&mut self) -> Result<Option<Vec<Offset>>, LogError> {
        let Some(answer) = self.pending.poll() else { return Ok(None) };
        let answer = answer.map_err(|code| {
            self.core.serve(&self.core.stable);
            self.core.failed(DOING, code)
        })?;
        let mut ends = Vec::with_capacity(self.of.len());
        for at in &self.of {
            let end = answer.iter().find(|found| found.at == *at).map(|found| found.end);
            let missing = || LogError::Retry(format!("{DOING}: no answer for {at}").into());
            let end = end.ok_or_else(missing)?;
            ends.push(
                end.map_err(|code| self.core.failed(format!("reading the end of {at}"), code))?,
            );
        }
        Ok(Some(ends))
    }
}
