//! Has the linker send librdkafka's call of one function of its own to
//! `connectors/src/kafka/native.rs`, which says why. Cargo hands such a wish on to nobody, so every
//! package that makes programs with a Kafka client in them runs this file.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafka_metadata_update_op");
}
