//! What touches the world: logs, stores and sockets. Connectors carry, they never decide.
//!
//! In reading order.

mod clock;
mod notify;

pub mod embedded;

pub mod kafka;

pub mod registry;

pub mod rocks;

pub mod socket;

pub mod telemetry;
