//! Everything that does IO: logs, task stores, the schema registry and sockets.
//!
//! Connectors implement the ports of the engine. They never decide what becomes of an event.
//!
//! Modules in reading order.

mod clock;
mod notify;

pub mod embedded;

pub mod kafka;

pub mod registry;

pub mod rocks;

pub mod socket;

pub mod telemetry;
