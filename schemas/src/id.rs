//! 128-bit hashes of event ids, for de-duplication and the order record.
//!
//! Sixteen bytes identify (account, event id): the probability that two of a day's billion ids
//! collide is below 10⁻²⁰. The hash is persisted, so it never changes. It is not cryptographic.

use xxhash_rust::xxh3::Xxh3;

/// XXH3-128 over both parts, each preceded by its length as four little-endian bytes, so that
/// different pairs never give the same input. Big-endian, the canonical form of the hash.
pub fn hash128(account_id: &str, event_id: &str) -> [u8; 16] {
    let mut hash = Xxh3::new();
    for part in [account_id, event_id] {
        hash.update(&(part.len() as u32).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest128().to_be_bytes()
}

/// These bytes as text: two lower-case digits each.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; 2 * bytes.len()];
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    String::from_utf8(text).expect("digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_the_same_concatenation_hash_differently() {
        assert_ne!(hash128("ab", "c"), hash128("a", "bc"));
        assert_eq!(hash128("a", "b"), hash128("a", "b"));
    }

    #[test]
    fn the_persisted_hash_does_not_change() {
        assert_eq!(hex(&hash128("acc-1", "evt-1")), "6b2307fffe7549da92c3e060c21a78c4");
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!((hex(&[]), hex(&[0, 9, 0xa0, 0xff])), (String::new(), "0009a0ff".to_owned()));
    }
}
