//! The schema registry client: gets Avro schemas by id over Confluent's API, and registers ours.
//!
//! In reading order: `config` (addresses, credentials, time limits), `exchange` (one HTTP question
//! with its tries), `outage` (when a registry that is away is asked again), `cache` (known schemas
//! and faults), `resolve` (a schema with all references), `client` (the `Registry` port) and
//! `subjects` (for `tidewire schemas`). What becomes of a record whose schema is missing is decided
//! elsewhere.

mod cache;
mod client;
mod config;
mod exchange;
mod outage;
mod resolve;
mod subjects;

pub use client::SchemaRegistry;
pub use config::{Config, Credentials, QueryPolicy};
pub use subjects::{Registered, SubjectFault, SubjectStatus};
