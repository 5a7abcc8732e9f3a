//! What touches the world: logs, stores and sockets. Connectors carry, they never decide.
//!
//! In reading order.

mod clock;

pub mod embedded;

pub mod rocks;

pub mod socket;

pub mod telemetry;
