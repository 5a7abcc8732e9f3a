//! Position tokens: up to where a client has received the outputs, for resuming.
//!
//! A position holds offsets of the log, so any gateway can serve it after any restart. It says
//! where to read, never what may be read, so a forged one gives no access; the checksum only
//! detects damage. It contains only the partitions the client has received something from.
//!
//! Layout, version 1, in base64url without padding; numbers are unsigned LEB128:
//!
//! ```text
//! version (1 byte, 1) · epoch · number of partitions · per partition: number (the first as it is,
//! each further one as the difference to the one before) · next urgent · next stream · next state
//! · CRC-32C of all before (4 bytes, little-endian)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// The longest token that is read, in characters: it must fit an HTTP header beside others. 64
/// partitions, the most a topology may have, with offsets below 2⁴² fit.
pub const TOKEN_MAX_CHARS: usize = 2048;

/// The next offsets to read in partition `partition` of the three output topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartitionPosition {
    /// The partition number, the same in all three topics.
    pub partition: u32,
    /// The next offset of the urgent, the stream and the state topic, in this order.
    pub next: [u64; 3],
}

/// A position in the output topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Changes when the output topics were created again and offsets mean other records.
    pub epoch: u32,
    /// One entry per partition, by ascending partition.
    pub partitions: Vec<PartitionPosition>,
}

/// Why a token is not a valid position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The token is empty.
    #[error("the position is empty: send the one the server gave, or `latest` or `earliest`")]
    Empty,
    /// Longer than any position.
    #[error("the position has {chars} characters; at most {TOKEN_MAX_CHARS} are allowed")]
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// Characters outside base64url, or padding.
    #[error("the position is not base64url: send the server's position unchanged")]
    NotBase64,
    /// Truncated, extended or altered.
    #[error("the position is damaged: send the server's position unchanged")]
    Damaged,
    /// From another version of the server.
    #[error("the position has version {version}; this server reads version {VERSION}")]
    Version {
        /// The version it says.
        version: u8,
    },
}

impl Position {
    /// The token.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        self.encode_to(&mut out);
        out
    }

    /// Appends the token to `out`. Entries must be in ascending order of partitions.
    pub fn encode_to(&self, out: &mut String) {
        let mut bytes = Vec::with_capacity(16 + self.partitions.len() * 20);
        bytes.push(VERSION);
        put_varint(&mut bytes, u64::from(self.epoch));
        put_varint(&mut bytes, self.partitions.len() as u64);
        let mut before = 0;
        for at in &self.partitions {
            debug_assert!(at.partition >= before, "entries are in ascending order");
            put_varint(&mut bytes, u64::from(at.partition.wrapping_sub(before)));
            before = at.partition;
            for next in at.next {
                put_varint(&mut bytes, next);
            }
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        URL_SAFE_NO_PAD.encode_string(&bytes, out);
    }

    /// Reads a token. Its offsets may be outside the log.
    pub fn decode(token: &str) -> Result<Self, PositionError> {
        if token.is_empty() {
            return Err(PositionError::Empty);
        }
        if token.len() > TOKEN_MAX_CHARS {
            return Err(PositionError::TooLong { chars: token.len() });
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PositionError::NotBase64)?;
        match bytes[0] {
            VERSION => {}
            version => return Err(PositionError::Version { version }),
        }
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(PositionError::Damaged)?;
        let (content, checksum) = bytes.split_at(split);
        if checksum != crc32c::crc32c(content).to_le_bytes() {
            return Err(PositionError::Damaged);
        }
        read(content.get(1..).unwrap_or_default()).ok_or(PositionError::Damaged)
    }

    /// The entry of a partition, if the position has one.
    pub fn partition(&self, partition: u32) -> Option<&PartitionPosition> {
        let at = self.partitions.binary_search_by_key(&partition, |entry| entry.partition).ok()?;
        self.partitions.get(at)
    }
}

fn read(mut bytes: &[u8]) -> Option<Position> {
    let epoch = u32::try_from(varint(&mut bytes)?).ok()?;
    let count = varint(&mut bytes)?;
    let mut partitions = Vec::new();
    let mut before = 0u32;
    for n in 0..count {
        let distance = u32::try_from(varint(&mut bytes)?).ok()?;
        if n > 0 && distance == 0 {
            return None;
        }
        let partition = before.checked_add(distance)?;
        before = partition;
        let next = [varint(&mut bytes)?, varint(&mut bytes)?, varint(&mut bytes)?];
        partitions.push(PartitionPosition { partition, next });
    }
    bytes.is_empty().then_some(Position { epoch, partitions })
}

/// Appends a number as a varint: 7 bits a byte, the lowest first, the high bit set in all but the
/// last.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number from the front; `None` at the end or beyond 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        value |= low.checked_shl(shift).filter(|shifted| shifted >> shift == low)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Position {
        Position {
            epoch: 7,
            partitions: vec![
                PartitionPosition { partition: 0, next: [0, 1, u64::MAX] },
                PartitionPosition { partition: 5, next: [1 << 41, 300, 0] },
            ],
        }
    }

    /// A token of these bytes with a valid checksum.
    fn sealed(content: &[u8]) -> String {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    proptest! {
        #[test]
        fn a_token_decodes_to_the_encoded_position(
            epoch: u32,
            partitions in proptest::collection::btree_map(any::<u32>(), any::<[u64; 3]>(), 0..20),
        ) {
            let partitions = partitions
                .into_iter()
                .map(|(partition, next)| PartitionPosition { partition, next })
                .collect();
            let position = Position { epoch, partitions };
            prop_assert_eq!(Position::decode(&position.encode()), Ok(position));
        }

        #[test]
        fn no_text_panics(token in "[A-Za-z0-9_=-]{0,80}") {
            let _ = Position::decode(&token);
        }

        #[test]
        fn no_content_with_a_valid_checksum_panics(
            content in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = Position::decode(&sealed(&[&[VERSION], &content[..]].concat()));
        }
    }

    #[test]
    fn a_truncated_or_altered_token_is_damaged() {
        let token = some().encode();
        for len in 2..token.len() {
            assert!(Position::decode(&token[..len]).is_err(), "first {len} characters");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("own token");
        for at in 1..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let token = URL_SAFE_NO_PAD.encode(altered);
            assert_eq!(Position::decode(&token), Err(PositionError::Damaged), "byte {at}");
        }
    }

    #[test]
    fn an_invalid_token_gives_its_error() {
        let check = |token: &str, error| assert_eq!(Position::decode(token), Err(error), "{token}");
        check("", PositionError::Empty);
        check("not base64!", PositionError::NotBase64);
        check(&format!("{}==", some().encode()), PositionError::NotBase64);
        check(&"A".repeat(2049), PositionError::TooLong { chars: 2049 });
        check(&sealed(&[2, 0, 0]), PositionError::Version { version: 2 });
        check(&sealed(&[1, 0, 1]), PositionError::Damaged);
        check(&sealed(&[1, 0, 0, 9]), PositionError::Damaged);
        check(&sealed(&[1, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0]), PositionError::Damaged);
        check(&sealed(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), PositionError::Damaged);
    }

    #[test]
    fn the_largest_topology_fits_the_limit() {
        let next = [(1 << 42) - 1; 3];
        let partitions = (0..64).map(|partition| PartitionPosition { partition, next }).collect();
        let token = Position { epoch: u32::MAX, partitions }.encode();
        assert!(token.len() <= TOKEN_MAX_CHARS, "{}", token.len());
    }

    #[test]
    fn a_position_is_found_by_its_partition() {
        assert_eq!(some().partition(5).map(|at| at.next[1]), Some(300));
        assert_eq!(some().partition(4), None);
    }
}
