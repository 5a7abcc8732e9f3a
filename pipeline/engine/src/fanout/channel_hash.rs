//! Hashes of channel names (xxh3), and the map hasher that uses them unchanged.
//!
//! A segment stores both hashes of each entry, so that looking an entry up in a shard's lists or in
//! a sweep's index hashes nothing again. Equal hashes do not mean equal channels: the owner of a
//! map compares the names.

use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Tells the hash of a channel's state from that of its events. Any number but 0 does.
const STATE_MASK: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a channel's name.
pub(super) fn channel_hash(channel: &str) -> u64 {
    xxh3_64(channel.as_bytes())
}

/// The hash of the state of a channel, from the channel's hash.
pub(super) fn state_hash(channel: u64) -> u64 {
    channel ^ STATE_MASK
}

/// The hash of one account's share of a channel, from the channel's hash.
pub(super) fn scoped_hash(channel: u64, account: &str) -> u64 {
    xxh3_64_with_seed(account.as_bytes(), channel)
}

/// Uses a 64-bit key as its own hash: the keys are xxh3 hashes already.
#[derive(Default)]
pub(super) struct PassThroughHasher(u64);

impl Hasher for PassThroughHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Builds [`PassThroughHasher`].
pub(super) type BuildPassThrough = BuildHasherDefault<PassThroughHasher>;
