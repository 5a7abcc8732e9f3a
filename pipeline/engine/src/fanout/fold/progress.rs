//! The progress of a partition's store of state: the offset it is complete up to, and of which
//! topic.
//!
//! Layout, version 1 (numbers big-endian):
//!
//! ```text
//! 01 · id of the topic u128 · next offset to read u64 · append time of the newest record read i64
//! ```
//!
//! It is written atomically with the state. A store of another version is removed: all that it has
//! is in the log.

use bytes::Bytes;

use crate::record::{Millis, Offset};

const VERSION: u8 = 1;

/// What a store of state is complete up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoldProgress {
    /// The topic's id: offsets of another one mean other records.
    pub(super) topic_id: u128,
    /// The next record to read.
    pub(super) next: Offset,
    /// The append time of the newest record that was read; the epoch before the first.
    pub(super) newest: Millis,
}

impl FoldProgress {
    /// Encodes the progress.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.topic_id.to_be_bytes());
        out.extend_from_slice(&self.next.0.to_be_bytes());
        out.extend_from_slice(&self.newest.0.to_be_bytes());
        out.into()
    }

    /// Decodes stored progress; `None` if it is damaged or of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (topic_id, rest) = rest.split_first_chunk()?;
        let (next, rest) = rest.split_first_chunk()?;
        let newest = rest.try_into().ok()?;
        Some(Self {
            topic_id: u128::from_be_bytes(*topic_id),
            next: Offset(u64::from_be_bytes(*next)),
            newest: Millis(i64::from_be_bytes(newest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn progress_reads_back(topic_id: u128, next: u64, newest: i64) {
            let (next, newest) = (Offset(next), Millis(newest));
            let progress = FoldProgress { topic_id, next, newest };
            prop_assert_eq!(FoldProgress::decode(&progress.encode()), Some(progress));
        }

        #[test]
        fn progress_of_another_length_or_version_is_no_progress(
            topic_id: u128, len in 0usize..40, version: u8,
        ) {
            let (next, newest) = (Offset(1), Millis(2));
            let mut stored = FoldProgress { topic_id, next, newest }.encode().to_vec();
            stored[0] = version;
            stored.resize(len, 0);
            let fits = len == 33 && version == VERSION;
            prop_assert_eq!(FoldProgress::decode(&stored).is_some(), fits);
        }
    }
}
