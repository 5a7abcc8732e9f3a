//! The pipeline and its log on real Apache Kafka.

mod clients;
mod clock;
mod dead_letters;
mod disk;
mod doctor;
mod failures;
pub(crate) mod fixture;
mod formats;
mod input_topics;
mod log;
mod open_transaction;
mod output_topics;
mod partitions;
mod peer_reports;
mod real_posts;
mod rebalance;
mod record_headers;
mod replay;
mod replicas;
mod security;
mod silent_broker;
mod stalls;
mod standby;
mod stopped_input;
mod topics_layout;
mod unreadable;
mod zombie;
