//! DERIVE: from lanes to outputs, exactly once, with state.
//!
//! The one idea: what a transaction took, what it wrote and what it changed become visible
//! together or not at all, and the local store only ever follows what the log has said yes to.
//!
//! Parts in reading order.

mod turn;

pub use turn::{Derive, DeriveConfig, DerivePorts};
