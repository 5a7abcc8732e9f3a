//! Kafka goes through the contract, on a real broker.
//!
//! All clauses share one broker; each has topics of its own prefix, and groups of its own by name.
//! What restarts here is this process's side, as after a crash of ours; what a broker's restart
//! does is tried with the whole pipeline in `trouble`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::Log;
use tidewire_engine::record::Topic;
use tidewire_tests::broker;

use crate::conformance::conformance;
use crate::conformance::subject::{Can, Subject};

/// Makes every subject's prefix another one.
static SUBJECTS: AtomicU32 = AtomicU32::new(0);

struct Kafka {
    prefix: String,
    log: Option<Arc<KafkaLog>>,
}

impl Kafka {
    fn open(bootstrap: &str, prefix: &str) -> Arc<KafkaLog> {
        KafkaLog::open(Config::new(bootstrap, prefix)).expect("the configuration is right")
    }
}

impl Subject for Kafka {
    const CAN: &'static [Can] = &[Can::Restart, Can::BeKilled];

    fn new() -> Self {
        let prefix = format!("c{}.", SUBJECTS.fetch_add(1, Ordering::Relaxed));
        let log = Some(Self::open(&broker::shared().bootstrap(), &prefix));
        Self { prefix, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(self.log.as_ref().expect("not lent")) as Arc<dyn Log>
    }

    fn name(&self, name: &str) -> Topic {
        Topic::new(format!("{}{name}", self.prefix))
    }

    fn restart(&mut self) {
        self.log = None;
        self.take_back();
    }

    fn lend(&mut self) -> String {
        format!("{}/{}", broker::shared().bootstrap(), self.prefix)
    }

    fn take_back(&mut self) {
        self.log = Some(Self::open(&broker::shared().bootstrap(), &self.prefix));
    }

    fn borrowed(place: &str) -> Arc<dyn Log> {
        let (bootstrap, prefix) = place.split_once('/').expect("as it was lent");
        Self::open(bootstrap, prefix)
    }
}

conformance!(Kafka);
