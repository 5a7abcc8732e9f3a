//! The `Log` port on Apache Kafka, through librdkafka.
//!
//! It implements [`tidewire_engine::port::Log`] as the embedded log does; one conformance suite
//! states the contract for both.
//!
//! A member of a consumer group is two clients of librdkafka. One holds the membership and
//! acknowledges assignments without ever fetching; the other reads partitions one by one, at the
//! offsets the engine asks for. So a rebalance discards nothing that was read ahead, and readers
//! with and without a group work in the same way.
//!
//! Callbacks become values (`context`), and errors are classified by what to do next (`log_error`).
//! Nothing here decides about events.
//!
//! Modules in reading order.

mod bootstrap_refresh;
mod config;
mod context;
mod log_error;
mod native;
mod partition_list;

mod admin;
mod core;
mod ends;

mod produce;
mod reachability;
mod read;
mod read_ahead;
mod read_retry;

mod append;
mod member;
mod transact;

mod log;

mod diagnose;

pub use config::{Config, GroupProtocol};
pub use diagnose::{DoctorTarget, Finding, diagnose};
pub use log::KafkaLog;
