//! The pipeline and its log on real Apache Kafka.

mod clients;
mod clock;
mod disk;
mod doctor;
mod formats;
pub(crate) mod ground;
mod letters;
mod log;
mod partitions;
mod real_posts;
mod rebalance;
mod replay;
mod replicas;
mod security;
mod stalls;
mod standby;
mod trouble;
mod zombie;
