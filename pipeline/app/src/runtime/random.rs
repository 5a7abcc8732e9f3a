//! Chance: the one room of the binary that is not the same on every run.
//!
//! Names that must differ between runs come from here. Nothing that is decided about an event may
//! depend on them.

use std::hash::BuildHasher;

/// A name that no other run has, 16 hexadecimal digits.
#[expect(clippy::disallowed_types, reason = "this file owns randomness")]
pub fn token() -> String {
    use std::hash::RandomState;

    // The standard library seeds this hasher from the system's entropy.
    format!("{:016x}", RandomState::new().hash_one("tidewire"))
}
