//! The progress of a task's store: the offsets it is complete up to, written atomically with the
//! state.
//!
//! Layout, version 6 (`n` unsigned LEB128, `z` zigzag LEB128, `u64` big-endian):
//!
//! ```text
//! 06 · next offset of `state` n · of `state.windows` n · of `order` n
//! · time that each lane was consumed up to z (critical, high, normal, low, facts, urgent facts)
//! · per lane: id of its topic u64 · next offset to read + 1 n (0: none read yet)
//! ```
//!
//! A store of an earlier version is rebuilt from the log: rows of tables that the build which wrote
//! it did not have are missing or have another layout, and before version 4 so have its ids.
//!
//! A restore replays the changelogs from here. The lanes' offsets are only compared with the
//! group's committed offsets, which decide. They mean nothing if a lane has another id.

use bytes::Bytes;

use crate::derive::encoding::FieldDecoder;
use crate::derive::lane_times::LaneTimes;
use crate::record::{Offset, put_varint};
use crate::topology::Lane;
use crate::verdict::TopicId;

const VERSION: u8 = 6;

/// The offsets up to which a task's state is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskProgress {
    /// The next record of `state` to replay.
    pub state: Offset,
    /// The next record of `state.windows` to replay.
    pub windows: Offset,
    /// The next record of `order` to replay.
    pub order: Offset,
    /// The task's time.
    pub times: LaneTimes,
    /// The ids of the lanes' topics.
    pub lane_ids: [TopicId; Lane::COUNT],
    /// The next record to read of each lane.
    pub lanes: [Option<Offset>; Lane::COUNT],
}

impl TaskProgress {
    /// Encodes the progress.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.state.0);
        put_varint(&mut out, self.windows.0);
        put_varint(&mut out, self.order.0);
        self.times.put(&mut out);
        for (id, lane) in self.lane_ids.iter().zip(self.lanes) {
            out.extend_from_slice(&id.0.to_be_bytes());
            put_varint(&mut out, lane.map_or(0, |offset| offset.0 + 1));
        }
        out.into()
    }

    /// The layout version, if it is one that only a later build can read.
    pub(super) fn later(bytes: &[u8]) -> Option<u8> {
        bytes.first().copied().filter(|version| *version > VERSION)
    }

    /// Decodes stored progress; `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let [state, windows, order] = [from.varint()?, from.varint()?, from.varint()?].map(Offset);
        let times = LaneTimes::read(&mut from)?;
        let mut lane_ids = [TopicId::default(); Lane::COUNT];
        let mut lanes = [None; Lane::COUNT];
        for (id, lane) in lane_ids.iter_mut().zip(&mut lanes) {
            *id = TopicId(from.u64()?);
            *lane = from.varint()?.checked_sub(1).map(Offset);
        }
        from.end()?;
        Some(Self { state, windows, order, times, lane_ids, lanes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Millis;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn progress_reads_back(
            ends: [u64; 3], times: [i64; Lane::COUNT], lane_ids: [u64; Lane::COUNT],
            lanes in proptest::array::uniform6(proptest::option::of(0..u64::MAX)),
        ) {
            let [state, windows, order] = ends.map(Offset);
            let progress = TaskProgress {
                state,
                windows,
                order,
                times: LaneTimes(times.map(Millis)),
                lane_ids: lane_ids.map(TopicId),
                lanes: lanes.map(|lane| lane.map(Offset)),
            };
            prop_assert_eq!(TaskProgress::decode(&progress.encode()), Some(progress));
        }

        #[test]
        fn progress_of_an_earlier_version_is_no_progress_and_no_later_one(version in 0..VERSION) {
            let mut stored = TaskProgress::default().encode().to_vec();
            stored[0] = version;
            prop_assert_eq!(TaskProgress::decode(&stored), None);
            prop_assert_eq!(TaskProgress::later(&stored), None);
        }

        #[test]
        fn damaged_progress_never_panics(bytes: Vec<u8>) {
            let read = TaskProgress::decode(&bytes);
            prop_assert!(read.is_none() || TaskProgress::later(&bytes).is_none());
        }
    }
}
