//! Runs the conformance suite on a real Kafka broker.
//!
//! All clauses share one broker; each has its own topic prefix and groups. "Restart" means this
//! process's clients, as after a crash; restarts of brokers are tested with the whole pipeline in
//! `failures`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::Log;
use tidewire_engine::record::Topic;
use tidewire_tests::broker;

use crate::conformance::conformance;
use crate::conformance::log_under_test::{Capability, LogUnderTest};

/// Makes every prefix unique.
static LOGS: AtomicU32 = AtomicU32::new(0);

struct Kafka {
    prefix: String,
    log: Option<Arc<KafkaLog>>,
}

impl Kafka {
    fn open(bootstrap: &str, prefix: &str) -> Arc<KafkaLog> {
        KafkaLog::open(Config::new(bootstrap, prefix)).expect("the configuration is right")
    }
}

impl LogUnderTest for Kafka {
    const CAPABILITIES: &'static [Capability] = &[Capability::Restart, Capability::Kill];

    fn new() -> Self {
        let prefix = format!("c{}.", LOGS.fetch_add(1, Ordering::Relaxed));
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

    fn hand_to_child(&mut self) -> String {
        format!("{}/{}", broker::shared().bootstrap(), self.prefix)
    }

    fn take_back(&mut self) {
        self.log = Some(Self::open(&broker::shared().bootstrap(), &self.prefix));
    }

    fn open_in_child(location: &str) -> Arc<dyn Log> {
        let (bootstrap, prefix) = location.split_once('/').expect("written by `hand_to_child`");
        Self::open(bootstrap, prefix)
    }
}

conformance!(Kafka);

/// The same on a broker whose clock is set, for retention and compaction. One clause at a time,
/// since they share the clock.
mod with_clock {
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

    use tidewire_tests::broker::Broker;

    use super::*;

    static EXCLUSIVE: Mutex<()> = Mutex::new(());

    /// The broker of all these clauses. It ends with the process, like every broker of the harness.
    fn broker() -> &'static Broker {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(Broker::with_clock)
    }

    struct KafkaWithClock {
        kafka: Kafka,
        _exclusive: MutexGuard<'static, ()>,
    }

    impl LogUnderTest for KafkaWithClock {
        const CAPABILITIES: &'static [Capability] = &[Capability::AdvanceTime, Capability::Restart];

        fn new() -> Self {
            // A failed clause leaves nothing behind that affects the next.
            let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
            let prefix = format!("t{}.", LOGS.fetch_add(1, Ordering::Relaxed));
            let log = Some(Kafka::open(&broker().bootstrap(), &prefix));
            Self { kafka: Kafka { prefix, log }, _exclusive: exclusive }
        }

        fn log(&self) -> Arc<dyn Log> {
            self.kafka.log()
        }

        fn name(&self, name: &str) -> Topic {
            self.kafka.name(name)
        }

        fn restart(&mut self) {
            self.kafka.log = None;
            self.kafka.log = Some(Kafka::open(&broker().bootstrap(), &self.kafka.prefix));
        }

        fn advance_time(&self, ms: u64) {
            broker().advance_time(ms);
        }
    }

    conformance!(@clauses KafkaWithClock;
        records: the_offset_of_a_time_is_the_first_record_at_or_after_it,
        cleanup: compaction_keeps_the_newest_record_of_each_key,
        cleanup: a_tombstone_is_removed_after_its_retention,
        cleanup: retention_by_age_moves_the_start_and_keeps_offsets_contiguous,
        cleanup: retention_by_size_keeps_at_least_that_much,
        cleanup: an_emptied_partition_continues_at_its_next_offset,
        cleanup: a_reader_behind_retention_gets_out_of_range,
        cleanup: compaction_with_retention_removes_old_keys,
        restart: starts_moved_by_retention_survive_a_restart,
        restart: compaction_continues_after_a_restart,
    );
}

/// The clauses about groups, with the broker assigning partitions (KIP-848).
mod kip_848 {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tidewire_connectors::kafka::GroupProtocol;

    use crate::conformance::log_under_test::{FOR_EVER, changes, member, topic, until};

    use super::*;

    struct Kip848(Kafka);

    impl LogUnderTest for Kip848 {
        const CAPABILITIES: &'static [Capability] = &[];

        fn new() -> Self {
            let prefix = format!("k{}.", LOGS.fetch_add(1, Ordering::Relaxed));
            let mut config = Config::new(&broker::shared().bootstrap(), &prefix);
            config.protocol = GroupProtocol::Consumer;
            let log = Some(KafkaLog::open(config).expect("the configuration is right"));
            Self(Kafka { prefix, log })
        }

        fn log(&self) -> Arc<dyn Log> {
            self.0.log()
        }

        fn name(&self, name: &str) -> Topic {
            self.0.name(name)
        }

        fn group(&self, name: &str) -> String {
            format!("{}{name}", self.0.prefix)
        }
    }

    conformance!(@clauses Kip848;
        groups: a_single_member_gets_every_partition_of_every_topic,
        groups: partitions_are_revoked_before_another_member_gets_them,
        groups: committed_offsets_are_read_back_with_their_metadata,
        transactions: offsets_in_a_transaction_are_committed_or_aborted_with_it,
    );

    /// The broker decides which member gets which partitions; we require the same numbers per
    /// topic.
    #[test]
    fn each_of_two_members_gets_the_same_partition_numbers_of_each_topic() {
        let subject = Kip848::new();
        let topics = ["a", "b"].map(|name| topic(&subject, name, (5, FOR_EVER)));
        let group = subject.group("both");
        let log = subject.log();
        let mut members = ["one", "two"].map(|name| member(&*log, &group, name, &topics));
        let mut holds = [BTreeSet::new(), BTreeSet::new()];
        until("both have a share", || {
            for (member, holds) in members.iter_mut().zip(&mut holds) {
                for change in changes(&mut **member) {
                    let (sign, name) = change.split_at(1);
                    match sign {
                        "+" => holds.insert(name.to_owned()),
                        _ => holds.remove(name),
                    };
                }
                member.wait(Duration::from_millis(10)).expect("waited");
            }
            (holds.iter().map(BTreeSet::len).eq([4, 6])
                || holds.iter().map(BTreeSet::len).eq([6, 4]))
            .then_some(())
        });
        for holds in &holds {
            let numbers = |topic: &Topic| -> BTreeSet<&str> {
                let prefix = format!("{topic}/");
                holds.iter().filter_map(|name| name.strip_prefix(&prefix)).collect()
            };
            assert_eq!(numbers(&topics[0]), numbers(&topics[1]));
        }
    }
}
