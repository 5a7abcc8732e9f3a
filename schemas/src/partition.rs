//! Maps keys to partitions with murmur2, as Kafka's Java client does.
//!
//! A producer that keys by the same bytes therefore writes to the partition that our own records
//! use. The partition is chosen here and never left to a log, because lanes must be co-partitioned
//! and a channel's outputs must stay in one partition. The mapping never changes while a topic
//! exists.

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

#[cfg(test)]
mod tests {
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
}
