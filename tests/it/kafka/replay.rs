//! `tidewire replay verify` on Kafka, with the pipeline running and after a kill.
//!
//! The outputs must be the same bytes, and the broker must show no trace of the replay.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::Log;
use tidewire_tests::broker;

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve};
use crate::dead_letters::fixture::wait_until;
use crate::replay::{kept, verify};

const PREFIX: &str = "replay.";

/// Channels that carry one of the writer's events.
const CHANNELS_PER_EVENT: usize = 3;

/// Where the broker stores group membership and transactional ids.
const INTERNAL: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Reads what the broker writes about groups and transactions from now on.
struct InternalTopics {
    consumer: BaseConsumer,
    ends: TopicPartitionList,
}

impl InternalTopics {
    fn begin(bootstrap: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "onlooker")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_uncommitted")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer");
        let ends = ends(&consumer);
        Self { consumer, ends }
    }

    /// How many of its records since then name topics, groups or ids of this prefix.
    fn about(&self, prefix: &str) -> usize {
        let mut left = self.ends.count();
        self.consumer.assign(&self.ends).expect("assigned");
        let mut about = 0;
        while left > 0 {
            match self.consumer.poll(TIMEOUT).expect("every partition has an end") {
                Ok(note) => {
                    let key = note.key().unwrap_or_default();
                    let ours = key.windows(prefix.len()).any(|part| part == prefix.as_bytes());
                    about += usize::from(ours);
                }
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => left -= 1,
                Err(error) => panic!("{error}"),
            }
        }
        about
    }
}

fn ends(consumer: &BaseConsumer) -> TopicPartitionList {
    let mut ends = TopicPartitionList::new();
    for topic in INTERNAL {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
        for partition in metadata.topics()[0].partitions() {
            let (_, end) =
                consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).expect("an end");
            ends.add_partition_offset(topic, partition.id(), Offset::Offset(end)).expect("valid");
        }
    }
    ends
}

#[test]
fn verifying_a_running_pipeline_leaves_no_trace() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let log = format!("kafka://{bootstrap}");
    let mut server = serve("dev", at, "only");
    let data = server.data_dir();
    let writer = EventWriter::start(at, 200);
    let came_out = |count| {
        let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
        assert!(outputs.read(count, TIMEOUT), "{} of {count} were delivered", outputs.all.len());
    };
    came_out(600);
    let running = verify(&data, &["--log", &log], PREFIX);
    assert_eq!(running.code, Some(0));
    assert!(running.sum(" outputs") >= 600, "{}", running.out);
    server.kill9();
    server.restart();
    let before = writer.written();
    wait_until("the pipeline continues", || writer.written() > before + 200);
    let numbers = writer.finish();
    check(at, numbers);
    // What the pipeline itself causes in these topics is written by now.
    std::thread::sleep(Duration::from_secs(2));

    let notes = InternalTopics::begin(&bootstrap);
    let whole = verify(&data, &["--log", &log], PREFIX);
    assert_eq!(whole.code, Some(0));
    // And a copy for the operators that keep the author of the post.
    assert_eq!(whole.sum(" outputs"), numbers * (CHANNELS_PER_EVENT + 1));
    // A task without events has one too, at the start.
    let (task, kept) = kept(&data)
        .into_iter()
        .max_by_key(|(_, kept)| kept.order)
        .expect("a checkpoint is kept within a second or two");
    let (task, from) = (task.to_string(), kept.order.0.to_string());
    let part = verify(&data, &["--log", &log, "--task", &task, "--from", &from], PREFIX);
    assert_eq!(part.code, Some(0));
    assert!(part.out.contains(&format!("from the checkpoint at {from})")), "{}", part.out);
    assert_eq!(notes.about(PREFIX), 0, "it joined no group and took no transactional id");
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    outputs.read(usize::MAX, Duration::from_secs(1));
    assert_eq!(outputs.all.len(), numbers * CHANNELS_PER_EVENT, "it wrote no output");
    let id = format!("{PREFIX}somebody");
    drop(KafkaLog::open(Config::new(&bootstrap, PREFIX)).expect("right").transactor(&id));
    assert!(notes.about(PREFIX) > 0, "using an id is recorded");
    let elsewhere = tempfile::tempdir().expect("the temporary folder can be written");
    let bare = verify(elsewhere.path(), &["--log", &log], PREFIX);
    assert_eq!(bare.code, Some(0), "the start of the log needs no state");
    assert_eq!(bare.sum(" outputs"), whole.sum(" outputs"));
}
