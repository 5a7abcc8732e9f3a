//! The table of accepted ids, and the value of an id in it.
//!
//! ```text
//! kept since, 8 bytes big-endian · append time of its event, 8 bytes big-endian
//! ```
//!
//! The first is the time since which its window counts: the append time, or the settled time at
//! which it was accepted if that was later. It comes first because the store removes by it.
//!
//! It has no version: its changelog is `order`, from which every build makes the rows it reads. A
//! change of it is a change of the topics' layout (`topics_layout/record.rs`).

use crate::port::Table;
use crate::record::Millis;

/// The table of accepted ids.
pub const IDS: Table = Table(1);

/// Milliseconds between the append times of two events of one id within which the second one taken
/// is a duplicate.
pub const WINDOW_MS: i64 = 24 * 3_600_000;

/// The value of an accepted id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AcceptedId {
    /// The time since which its window counts.
    pub(super) since: Millis,
    /// The append time of its event.
    pub(super) at: Millis,
}

impl AcceptedId {
    /// Encodes the value.
    pub(super) fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.since.0.to_be_bytes());
        out[8..].copy_from_slice(&self.at.0.to_be_bytes());
        out
    }

    /// Decodes the value; `None` if the bytes are not one.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let value: [u8; 16] = value.try_into().ok()?;
        let (since, at) = value.split_first_chunk()?;
        let since = Millis(i64::from_be_bytes(*since));
        Some(Self { since, at: Millis(i64::from_be_bytes(*at.first_chunk()?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_accepted_id_reads_back(since: i64, at: i64, damaged: Vec<u8>) {
            let accepted = AcceptedId { since: Millis(since), at: Millis(at) };
            prop_assert_eq!(AcceptedId::decode(&accepted.encode()), Some(accepted));
            prop_assert_eq!(AcceptedId::decode(&damaged).is_some(), damaged.len() == 16);
        }
    }
}
