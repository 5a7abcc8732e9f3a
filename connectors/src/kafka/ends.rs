//! A request for the ends of partitions, which nobody waits for.
//!
//! One `ListOffsets` per broker serves all partitions. It names its isolation; that of the client
//! does not matter. librdkafka answers it on its own threads; without an answer it reports a
//! timeout after [`CALL_LIMIT`]. Errors are classified by their code alone, since a probe of a
//! broker would wait.

use std::sync::Arc;

use tidewire_engine::port::{EndsRequest, Isolation, LogError};
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
    pub(super) fn new(
        core: &Arc<KafkaCore>,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        of.iter().try_for_each(|at| core.check(at))?;
        core.serve(&core.stable);
        let pending = PendingOffsets::request(&core.stable, of, isolation, CALL_LIMIT);
        let pending = pending.map_err(|code| core.failed_now(DOING, code))?;
        Ok(Self { core: Arc::clone(core), of: of.to_vec(), pending })
    }
}

impl EndsRequest for KafkaEndsRequest {
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        let Some(answer) = self.pending.poll() else { return Ok(None) };
        self.core.serve(&self.core.stable);
        let answer = answer.map_err(|code| self.core.failed_now(DOING, code))?;
        let ends = self.of.iter().map(|at| {
            let found = answer.iter().find(|found| found.at == *at);
            let Some(Err(code)) = found.map(|found| &found.end) else {
                return Ok(found.and_then(|found| found.end.as_ref().ok()).copied());
            };
            match self.core.failed_now(format_args!("reading the end of {at}"), *code) {
                // For example a partition without a leader: the others have ends.
                LogError::Retry(_) => Ok(None),
                error => Err(error),
            }
        });
        ends.collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::kafka::config::Config;
    use rdkafka::mocking::MockCluster;
    use std::time::Duration;
    use tidewire_engine::record::{Partition, Topic};

    const TIME_LIMIT: Duration = Duration::from_secs(20);

    /// Requests the ends until they are these; returns the last answer.
    fn ends(
        core: &Arc<KafkaCore>,
        of: &[TopicPartition],
        until: [Option<Offset>; 2],
    ) -> Vec<Option<Offset>> {
        let deadline = clock::now() + TIME_LIMIT;
        loop {
            let mut request = KafkaEndsRequest::new(core, of, Isolation::Uncommitted).unwrap();
            let ends = loop {
                assert!(clock::now() < deadline, "there is no answer");
                match request.poll() {
                    Ok(None) => std::thread::yield_now(),
                    Ok(Some(ends)) => break ends,
                    Err(LogError::Retry(_)) => break Vec::new(),
                    Err(error) => panic!("{error}"),
                }
            };
            if ends == until || clock::now() + TIME_LIMIT / 10 > deadline {
                return ends;
            }
        }
    }

    #[test]
    fn a_partition_without_a_leader_leaves_the_ends_of_the_others() {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("t", 2, 2).unwrap();
        cluster.partition_leader("t", 0, Some(1)).unwrap();
        cluster.partition_leader("t", 1, None).unwrap();
        let config = Config::new(&cluster.bootstrap_servers(), "t");
        let core = Arc::new(KafkaCore::open(config).unwrap());
        let of = [0, 1].map(|n| TopicPartition::new(&Topic::new("t"), Partition(n)));
        let [one, both] = [[Some(Offset(0)), None], [Some(Offset(0)); 2]];
        assert_eq!(ends(&core, &of, one), one);
        // Elected, and then moved.
        cluster.partition_leader("t", 1, Some(1)).unwrap();
        assert_eq!(ends(&core, &of, both), both);
        cluster.partition_leader("t", 1, Some(2)).unwrap();
        assert_eq!(ends(&core, &of, both), both);
    }
}
