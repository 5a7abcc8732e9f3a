//! What people send by mistake or in anger, to the real binary. Nothing ends it, nothing is lost,
//! the good events around arrive in order, and every answer says what was wrong.
//!
//! In reading order: `samples` (records), `kafka` (they are written to Kafka), `http` (they are
//! posted), `sockets` (subscribers that misbehave).

mod http;
mod kafka;
mod samples;
mod sockets;
