//! Internal types on Kafka: what a client writes to each input.

use std::sync::Arc;

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::Log;
use tidewire_engine::topology::Topology;
use tidewire_tests::broker;

use super::fixture::{TopicNamespace, serve};
use crate::dead_letters::fixture::append;
use crate::internal_types::{check, records};

const PREFIX: &str = "internal.";

#[test]
fn internal_types_enter_kafka_by_their_topic_alone() {
    let bootstrap = broker::shared().bootstrap();
    let server = serve("dev", TopicNamespace::new(&bootstrap, PREFIX), "only");
    let topology = Topology::new(PREFIX, Topology::default().partitions());
    let log: Arc<dyn Log> =
        KafkaLog::open(Config::new(&bootstrap, PREFIX)).expect("the configuration is right");
    append(&*log, &records(&topology));
    check(&server, &topology);
}
