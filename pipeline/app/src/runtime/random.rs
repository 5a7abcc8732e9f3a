//! Makes random names; the only file of the binary that uses randomness.
//!
//! They are for ids that must differ between runs. No processing of an event depends on them.

use std::hash::BuildHasher;

/// A random name of 16 hexadecimal digits.
#[expect(clippy::disallowed_types, reason = "this file owns randomness")]
pub fn token() -> String {
    use std::hash::RandomState;

    // The standard library seeds this hasher from the system's entropy.
    format!("{:016x}", RandomState::new().hash_one("tidewire"))
}
