//! Requests for uncommitted ends: they wait until the transactions that were open have ended.
//!
//! Then the ends are behind what these have committed. Transactions that begin later are not waited
//! for, so an answer always comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewire_engine::port::{EndsRequest, LogError};
use tidewire_engine::record::{Offset, TopicPartition};

use super::core::Core;

/// A request for ends that are behind every transaction which was open when it was made.
pub(super) struct EndsBehindOpen {
    core: Arc<Core>,
    of: Vec<TopicPartition>,
    /// The numbers of the transactions that it waits for.
    open: BTreeSet<u64>,
}

impl EndsBehindOpen {
    /// Makes the request.
    pub(super) fn new(core: &Arc<Core>, of: &[TopicPartition]) -> Result<Self, LogError> {
        let index = |at| Ok(core.partition(at)?.1.head_index);
        let asked = of.iter().map(index).collect::<Result<BTreeSet<usize>, LogError>>()?;
        let open = core.open_transactions.that_write_to(&asked);
        Ok(Self { core: core.clone(), of: of.to_vec(), open })
    }
}

impl EndsRequest for EndsBehindOpen {
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        self.core.check_failure()?;
        if self.core.open_transactions.is_any_open(&self.open) {
            return Ok(None);
        }
        let end = |at| Ok(Some(self.core.partition(at)?.1.bounds().end));
        self.of.iter().map(end).collect::<Result<_, LogError>>().map(Some)
    }
}
