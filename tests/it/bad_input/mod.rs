//! Invalid input of every kind, sent to the real binary.
//!
//! Nothing ends the process, nothing is lost, valid events around it arrive in order, and every
//! response says what was wrong. In reading order: `samples` (records), `kafka` (written to Kafka),
//! `http` (posted), `sockets` (subscribers that misbehave).

mod http;
mod kafka;
mod samples;
mod sockets;
