//! Apache Kafka behind the port, on librdkafka. It implements [`tidewire_engine::port::Log`] as the
//! embedded log does; one conformance suite states the contract for both.
//!
//! The one idea: librdkafka's consumer that reads and its consumer that is a member of a group are
//! two clients. The member holds the place in the group and acknowledges assignments without ever
//! fetching; the reader takes partitions one by one, at the offsets the engine asks for. So nothing
//! that is read ahead is thrown away by a rebalance elsewhere, and a member and a reader that
//! belongs to no group read in one and the same way.
//!
//! Callbacks become values (`context`); errors become what to do next (`log_error`). Nothing here
//! decides about events.
//!
//! Parts in reading order.

mod bootstrap_refresh;
mod config;
mod context;
mod log_error;
mod native;
mod partition_list;

mod admin;
mod core;

mod produce;
mod read;

mod append;
mod member;
mod transact;

mod log;

mod diagnose;

pub use config::{Config, GroupProtocol};
pub use diagnose::{DoctorTarget, Finding, diagnose};
pub use log::KafkaLog;
