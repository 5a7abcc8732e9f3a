//! The schema registry: what the ids in producers' records stand for, asked over Confluent's API.
//!
//! In reading order: `config` (where it is, and how long it is waited for), `exchange` (one
//! question over HTTP, with its tries), `cache` (what was answered, and what was not), `resolve`
//! (from an id to a schema with all it refers to), `client` (the port), and `subjects` (what the
//! command line asks). Nothing here decides what becomes of a record whose schema is not there.

mod cache;
mod client;
mod config;
mod exchange;
mod resolve;
mod subjects;

pub use client::SchemaRegistry;
pub use config::{Config, Credentials, QueryPolicy};
pub use subjects::{Registered, SubjectFault, SubjectStatus};
