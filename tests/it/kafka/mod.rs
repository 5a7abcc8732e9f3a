//! The pipeline and its log on real Apache Kafka.

mod clients;
mod doctor;
mod formats;
pub(crate) mod ground;
mod letters;
mod log;
mod real_posts;
mod replay;
mod security;
mod trouble;
