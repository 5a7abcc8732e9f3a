//! Makes random names and seeds; the only file of the binary that uses randomness.
//!
//! Names are for ids that must differ between runs, seeds for hash tables whose keys come from
//! outside. No processing of an event depends on them.

use std::hash::BuildHasher;

/// A random name of 16 hexadecimal digits.
pub fn token() -> String {
    format!("{:016x}", seed())
}

/// A random number.
#[expect(clippy::disallowed_types, reason = "this file owns randomness")]
pub fn seed() -> u64 {
    use std::hash::RandomState;

    // The standard library seeds this hasher from the system's entropy.
    RandomState::new().hash_one("tidewire")
}
