//! Redirects librdkafka's calls of `rd_kafka_metadata_update_op` to ours, at link time.
//!
//! `connectors/src/kafka/native.rs` says why. Cargo does not pass linker arguments on to dependent
//! packages, so every package that builds programs with a Kafka client runs this script.

pub(crate) fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafka_metadata_update_op");
}
