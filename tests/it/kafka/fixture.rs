//! What the Kafka tests share: a writer of numbered events to `in`, and checks of the outputs.
//!
//! Both are plain Kafka clients and use nothing of ours but the event's encoding.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_schemas::event::EventView;
use tidewire_tests::server::Server;

/// Entity keys, so that some share a partition.
const KEYS: usize = 40;

/// How long everything may take to be delivered on a machine under load.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// How long a check waits for records that should not come.
const QUIET: Duration = Duration::from_secs(1);

/// Channels that carry one of our events.
const CHANNELS_PER_EVENT: usize = 3;

/// The topics of one pipeline: a broker, and the prefix of their names.
#[derive(Clone, Copy)]
pub(crate) struct TopicNamespace<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) prefix: &'a str,
}

impl<'a> TopicNamespace<'a> {
    pub(crate) fn new(bootstrap: &'a str, prefix: &'a str) -> Self {
        Self { bootstrap, prefix }
    }
}

/// Starts a serving verb on these topics.
pub(crate) fn serve(verb: &str, at: TopicNamespace<'_>, instance: &str) -> Server {
    serve_with(verb, at, instance, &[])
}

/// The same with further variables.
pub(crate) fn serve_with(
    verb: &str,
    at: TopicNamespace<'_>,
    instance: &str,
    further: &[(&str, &str)],
) -> Server {
    let TopicNamespace { bootstrap, prefix } = at;
    let log = format!("kafka://{bootstrap}");
    let mut variables = vec![
        ("TIDEWIRE_TOPICS_PREFIX", prefix),
        ("TIDEWIRE_INSTANCE", instance),
        // Needed by the gateway; the other roles ignore it.
        ("TIDEWIRE_INSECURE_DEV", "true"),
    ];
    variables.extend_from_slice(further);
    Server::start_as(verb, &["--log", &log], &variables)
}

/// Writes numbered events at a steady rate until it is stopped, with rotating keys, priorities and
/// authors. It retries for ever, like a producer that must not lose a record.
pub(crate) struct EventWriter {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: Option<JoinHandle<usize>>,
}

impl EventWriter {
    pub(crate) fn start(at: TopicNamespace<'_>, per_second: u32) -> Self {
        let TopicNamespace { bootstrap, prefix } = at;
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        let topic = format!("{prefix}in");
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let interval = Duration::from_secs(1) / per_second;
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                write_one(&producer, &topic, n);
                n += 1;
                count.store(n, Ordering::Relaxed);
                let due = begun + interval * u32::try_from(n).expect("few events");
                producer.poll(due.saturating_duration_since(Instant::now()));
            }
            if let Err(error) = producer.flush(TIMEOUT) {
                let client = producer.client();
                eprintln!("{:?}", client.fetch_metadata(Some(&topic), TIMEOUT));
                panic!(
                    "of {n} events {} are not acknowledged: {error}",
                    producer.in_flight_count()
                );
            }
            n
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Events given to the producer so far.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops and returns the number of acknowledged events, which are numbered from 0.
    pub(crate) fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        thread.join().expect("the writer ends well")
    }
}

/// A writer that is dropped stops; unacknowledged events do not matter then.
impl Drop for EventWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_one(producer: &BaseProducer, topic: &str, n: usize) {
    let key = format!("k{}", n % KEYS);
    let value = serde_json::json!({
        "event_id": format!("e-{n}"),
        "event_type": "post.created",
        "account_id": "acc",
        "priority": n / KEYS % 4,
        "key": key,
        "data": {"post_id": format!("p{n}"), "author_id": key, "text": n.to_string()},
    })
    .to_string();
    loop {
        match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("event {n} is refused: {error}"),
        }
    }
}

/// Reads topics from their beginning, read_committed.
pub(crate) struct OutputReader {
    consumer: BaseConsumer,
    pub(crate) all: Vec<OwnedMessage>,
}

impl OutputReader {
    pub(crate) fn open(at: TopicNamespace<'_>, topics: &[&str]) -> Self {
        let TopicNamespace { bootstrap, prefix } = at;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "onlooker")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let topic = format!("{prefix}{topic}");
            let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT).expect("metadata");
            for partition in metadata.topics()[0].partitions() {
                assignment
                    .add_partition_offset(&topic, partition.id(), Offset::Beginning)
                    .expect("a partition");
            }
        }
        consumer.assign(&assignment).expect("assigned");
        Self { consumer, all: Vec::new() }
    }

    /// Prints partitions without a leader: their records have to wait.
    fn report_leaderless(&self) {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT).expect("metadata");
        for topic in metadata.topics() {
            for partition in topic.partitions().iter().filter(|partition| partition.leader() < 0) {
                eprintln!("{}/{} has no leader", topic.name(), partition.id());
            }
        }
    }

    /// Reads for at most this long or until this many records have been read in all.
    pub(crate) fn read(&mut self, until: usize, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.all.len() < until {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Errors are temporary: a broker that is down.
            if let Some(Ok(message)) = self.consumer.poll(left.min(Duration::from_millis(100))) {
                self.all.push(message.detach());
            }
        }
        true
    }
}

/// Prints where these numbers are in the input, the lanes and the outputs.
fn report_records(at: TopicNamespace<'_>, numbers: &[usize]) {
    let lanes = ["lane.critical", "lane.high", "lane.normal", "lane.low"];
    for topic in ["in"].iter().chain(&lanes).chain(&["out.urgent", "out.stream"]) {
        let mut records = OutputReader::open(at, &[topic]);
        records.read(usize::MAX, QUIET * 5);
        for message in &records.all {
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
            let names = |n: &&usize| {
                let id = format!("e-{n}");
                let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
                value.match_indices(&id).any(|(from, _)| ends(&value[from + id.len()..]))
            };
            if let Some(n) = numbers.iter().find(names) {
                let (partition, offset) = (message.partition(), message.offset());
                eprintln!("{n}: {topic}/{partition}/{offset} at {:?}", message.timestamp());
            }
        }
    }
}

/// Asserts that every number was delivered once to each of its channels, in order per channel, key
/// and priority, and that there are no dead letters.
pub(crate) fn check(at: TopicNamespace<'_>, numbers: usize) {
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    let expected_outputs = numbers * CHANNELS_PER_EVENT;
    let complete = outputs.read(expected_outputs, TIMEOUT);
    if !complete {
        outputs.report_leaderless();
    }
    outputs.read(usize::MAX, QUIET);
    let mut times = BTreeMap::<(String, usize), u32>::new();
    let mut last = BTreeMap::new();
    for message in &outputs.all {
        let channel = String::from_utf8(message.key().expect("a channel").to_vec()).expect("text");
        let event = EventView::decode(message.payload().expect("an event")).expect("an event");
        let n: usize = event.event_id[2..].parse().expect("a number");
        let kind = channel.split(':').next().expect("a kind").to_owned();
        *times.entry((kind, n)).or_default() += 1;
        let order = (channel, event.key.to_owned(), event.priority.number());
        if let Some(before) = last.insert(order, n).filter(|before| *before >= n) {
            report_records(at, &[before, n]);
            panic!("{n} comes after {before}");
        }
    }
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(doubled.is_empty(), "delivered more than once: {doubled:?}");
    let missing = (0..numbers)
        .filter(|n| {
            ["account", "posts", "timeline"]
                .iter()
                .any(|k| !times.contains_key(&((*k).to_owned(), *n)))
        })
        .collect::<Vec<_>>();
    assert!(
        complete && missing.is_empty(),
        "{} of {numbers} missing, the first: {:?}",
        missing.len(),
        missing.first()
    );
    assert_eq!(outputs.all.len(), expected_outputs);
    let mut dead_letters = OutputReader::open(at, &["dead-letters"]);
    dead_letters.read(1, QUIET);
    assert!(dead_letters.all.is_empty(), "there are dead letters");
}
