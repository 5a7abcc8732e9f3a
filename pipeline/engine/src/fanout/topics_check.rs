//! Compares the output topics with those that a hub was opened on.
//!
//! The ids of the topics become the epoch of every position, so that a token of topics that were
//! deleted and created again is recognised. The same check is repeated while the gateway runs: see
//! `catchup/lookup_worker.rs` for when its result counts.

use xxhash_rust::xxh3::xxh3_64;

use crate::port::TopicInfo;
use crate::record::Topic;
use crate::topology::misfit_sentence;

/// What the log says about the output topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicsState {
    /// They exist with the right number of partitions.
    Fits {
        /// The hash of their ids.
        epoch: u32,
    },
    /// One is missing, or has no partition yet; the text says which.
    Missing(String),
    /// One has another number of partitions; the text says what to do.
    Misfit(String),
}

/// Looks for the topics among all topics of the log.
pub(super) fn check(infos: &[TopicInfo], topics: &[&Topic; 3], partitions: u32) -> TopicsState {
    let mut ids = Vec::with_capacity(48);
    for topic in topics {
        let info = infos.iter().find(|info| info.spec.topic == **topic);
        let Some(info) = info.filter(|info| info.spec.partitions > 0) else {
            return TopicsState::Missing(format!(
                "topic {topic} is missing: run `tidewire topics create`"
            ));
        };
        if info.spec.partitions != partitions {
            let text = misfit_sentence(topic, info.spec.partitions, partitions);
            return TopicsState::Misfit(text);
        }
        ids.extend_from_slice(&info.id.to_le_bytes());
    }
    TopicsState::Fits { epoch: xxh3_64(&ids) as u32 }
}
