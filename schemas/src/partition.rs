//! Maps record keys and entities to partitions with murmur2, as Kafka's Java client does.
//!
//! A producer that keys by the same bytes therefore writes to the partition that our own records
//! use. The partition is chosen here and never left to a log, because lanes must be co-partitioned
//! and a channel's outputs must stay in one partition. The mapping never changes while a topic
//! exists.
//!
//! An entity is a key of an account. The lanes are partitioned by both, because accounts number
//! what they own alike: by the key alone, campaign `1` of every account would be in one task. What
//! is hashed for an entity:
//!
//! ```text
//! length   bytes of the account, a varint (7 bits a byte, the lowest first, the high bit set in
//!          all but the last)
//! account  its bytes
//! key      the rest
//! ```
//!
//! The length keeps account `ab` with key `c` apart from account `a` with key `bc`.

use crate::position::put_varint;

/// Kafka's murmur2 (32 bit, seed `0x9747b28c`; `org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut h = SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (i, byte) in tail.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !tail.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of `key` among `partitions` (at least one): the hash's sign bit is dropped, as
/// Kafka's default partitioner does.
pub fn partition_for(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Bytes of an entity that are put together without an allocation, since every event needs it on
/// its way into a lane and out of it: more than most accounts and keys have.
const SHORT_ENTITY_BYTES: usize = 128;

/// The partition of an entity, the key of an account, among `partitions` (at least one).
pub fn entity_partition(account: &str, key: &str, partitions: u32) -> u32 {
    let (account_len, len) = (account.len(), account.len() + key.len() + 1);
    if account_len >= 0x80 || len > SHORT_ENTITY_BYTES {
        return partition_for(&entity_bytes(account, key), partitions);
    }
    let mut bytes = [0; SHORT_ENTITY_BYTES];
    bytes[0] = account_len as u8;
    bytes[1..=account_len].copy_from_slice(account.as_bytes());
    bytes[account_len + 1..len].copy_from_slice(key.as_bytes());
    partition_for(&bytes[..len], partitions)
}

/// What is hashed for an entity; its layout is at the top of this file.
fn entity_bytes(account: &str, key: &str) -> Vec<u8> {
    // Two bytes hold the length of any account of up to 16 KiB.
    let mut bytes = Vec::with_capacity(2 + account.len() + key.len());
    put_varint(&mut bytes, account.len() as u64);
    bytes.extend_from_slice(account.as_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn murmur2_agrees_with_kafka() {
        // From Kafka's own UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for n in 0..1000u32 {
            assert!(partition_for(&n.to_le_bytes(), 7) < 7);
        }
    }

    #[test]
    fn entities_have_the_bytes_and_hashes_of_these_vectors() {
        let long = "a".repeat(200);
        for (account, key, bytes, hash) in [
            ("", "", &b"\x00"[..], 0x1661_97bc),
            ("a", "1", b"\x01a1", 0x2c17_8b43),
            ("ab", "c", b"\x02abc", 0xb29b_f4f2),
            ("a", "bc", b"\x01abc", 0x70ce_d13f),
            ("acme", "campaign-1", b"\x04acmecampaign-1", 0xdf56_f550),
            ("\u{fc}", "1", b"\x02\xc3\xbc1", 0xcf01_702c),
            (&long, "1", &[&b"\xc8\x01"[..], long.as_bytes(), b"1"].concat(), 0xed7a_424e),
        ] {
            assert_eq!(entity_bytes(account, key), bytes, "{account} {key}");
            assert_eq!(murmur2(bytes), hash, "{account} {key}");
            assert_eq!(entity_partition(account, key, 8), (hash & 0x7fff_ffff) % 8);
        }
    }

    #[test]
    fn one_key_of_many_accounts_is_in_every_partition() {
        let partitions: std::collections::BTreeSet<u32> =
            (0..64).map(|n| entity_partition(&format!("account-{n}"), "1", 8)).collect();
        assert_eq!(partitions.len(), 8, "{partitions:?}");
    }

    proptest! {
        #[test]
        fn different_entities_have_different_bytes(
            account in ".{0,150}", key in ".{0,20}", other_account in ".{0,150}", shift in 0..4usize
        ) {
            // The account can be read back, so no two entities have the same bytes.
            let bytes = entity_bytes(&account, &key);
            let prefix = if account.len() < 128 { 1 } else { 2 };
            prop_assert_eq!(&bytes[prefix..], [account.as_bytes(), key.as_bytes()].concat());
            let differs = (&other_account, &key) != (&account, &key);
            prop_assert_eq!(entity_bytes(&other_account, &key) != bytes, differs);
            // The same text, divided elsewhere.
            let text = format!("{account}{key}");
            let at = text.char_indices().map(|(at, _)| at).nth(shift).unwrap_or(text.len());
            let (first, rest) = text.split_at(at);
            prop_assert_eq!(entity_bytes(first, rest) == bytes, first == account);
            let partition = entity_partition(&account, &key, 7);
            prop_assert!(partition < 7);
            prop_assert_eq!(partition, partition_for(&bytes, 7));
        }
    }
}
