//! The name of this build: its version and a hash of the sources that decide its outputs.

/// `VERSION+HASH`; `build.rs` of this package says what the hash covers. It is in every record of
/// `order` and of a changelog, and a replay refuses what another build wrote.
pub const BUILD_NAME: &str = env!("TIDEWIRE_BUILD");
