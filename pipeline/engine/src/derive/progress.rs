//! The progress of a task's store: the offsets it is complete up to, written atomically with the
//! state.
//!
//! Layout, version 3 (`n` unsigned LEB128, `z` zigzag LEB128):
//!
//! ```text
//! 03 · next offset of `state` n · of `state.windows` n · of `order` n · task time z
//! · per lane (critical, high, normal, low, facts, urgent facts): next offset to read + 1 n
//!   (0: none read yet)
//! ```
//!
//! Version 2 had no urgent facts; it is read as if none were read yet. Version 1 had no windows
//! either; it is read as if none were replayed yet.
//!
//! A restore replays the changelogs from here. The lanes' offsets are only compared with the
//! group's committed offsets, which decide.

use bytes::Bytes;

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::record::{Millis, Offset, put_varint};
use crate::topology::Lane;

const VERSION: u8 = 3;

/// The lanes of versions 1 and 2.
const LANES_BEFORE_3: usize = 5;

/// The offsets up to which a task's state is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskProgress {
    /// The next record of `state` to replay.
    pub state: Offset,
    /// The next record of `state.windows` to replay.
    pub windows: Offset,
    /// The next record of `order` to replay.
    pub order: Offset,
    /// Task time.
    pub time: Millis,
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
        put_signed(&mut out, self.time.0);
        for lane in self.lanes {
            put_varint(&mut out, lane.map_or(0, |offset| offset.0 + 1));
        }
        out.into()
    }

    /// The layout version, if it is one that only a later build can read.
    pub(super) fn later(bytes: &[u8]) -> Option<u8> {
        bytes.first().copied().filter(|version| *version > VERSION)
    }

    /// Decodes stored progress; `None` if it is damaged or of a later version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        let version = from.byte()?;
        let state = Offset(from.varint()?);
        let windows = match version {
            1 => Offset(0),
            2 | VERSION => Offset(from.varint()?),
            _ => return None,
        };
        let order = Offset(from.varint()?);
        let time = Millis(from.signed()?);
        let mut lanes = [None; Lane::COUNT];
        let stored = if version == VERSION { Lane::COUNT } else { LANES_BEFORE_3 };
        for lane in &mut lanes[..stored] {
            *lane = from.varint()?.checked_sub(1).map(Offset);
        }
        from.end()?;
        Some(Self { state, windows, order, time, lanes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn progress_reads_back(
            state: u64, windows: u64, order: u64, time: i64,
            lanes in proptest::array::uniform6(proptest::option::of(0..u64::MAX)),
        ) {
            let progress = TaskProgress {
                state: Offset(state),
                windows: Offset(windows),
                order: Offset(order),
                time: Millis(time),
                lanes: lanes.map(|lane| lane.map(Offset)),
            };
            prop_assert_eq!(TaskProgress::decode(&progress.encode()), Some(progress));
        }

        #[test]
        fn progress_of_version_1_is_read_as_if_no_window_was_replayed(
            state in 0..128u8, order in 0..128u8,
        ) {
            let progress = TaskProgress::decode(&[1, state, order, 6, 0, 8, 0, 0, 0]);
            prop_assert_eq!(progress, Some(TaskProgress {
                state: Offset(u64::from(state)),
                windows: Offset(0),
                order: Offset(u64::from(order)),
                time: Millis(3),
                lanes: [None, Some(Offset(7)), None, None, None, None],
            }));
        }

        #[test]
        fn progress_of_version_2_is_read_as_if_no_urgent_fact_was_read(
            state in 0..128u8, windows in 0..128u8, order in 0..128u8,
        ) {
            let progress = TaskProgress::decode(&[2, state, windows, order, 6, 0, 8, 0, 0, 9]);
            prop_assert_eq!(progress, Some(TaskProgress {
                state: Offset(u64::from(state)),
                windows: Offset(u64::from(windows)),
                order: Offset(u64::from(order)),
                time: Millis(3),
                lanes: [None, Some(Offset(7)), None, None, Some(Offset(8)), None],
            }));
        }

        #[test]
        fn damaged_progress_never_panics(bytes: Vec<u8>) {
            let read = TaskProgress::decode(&bytes);
            prop_assert!(read.is_none() || TaskProgress::later(&bytes).is_none());
        }
    }
}
