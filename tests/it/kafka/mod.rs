//! The pipeline and its log on real Apache Kafka.

mod clients;
mod ground;
mod log;
mod trouble;
