//! Kafka clients of six projects and five languages, unmodified, against the pipeline.
//!
//! First against the broker alone, so that a later failure is the pipeline's: each client reads
//! back what each other writes, byte for byte. Then through a running Tidewire: what each writes to
//! `in` a subscriber gets once, and what Tidewire writes to `out.stream` each reads once.

pub(super) mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tidewire_schemas::event::EventView;
use tidewire_tests::broker::{self, Broker};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::query_escape;
use tidewire_tests::server::Server;

use self::program::{
    ClientProgram, ConsumedRecord, IsolationArgument, ProducedRecord, TopicAddress, TransactionEnd,
    WriteOptions, all,
};
use super::fixture::{TopicNamespace, serve};

/// Records written at once.
const BATCH: usize = 200;

/// Keys of one batch, so that several records share one and some have none.
const KEYS: usize = 7;

/// Authors of one client's events.
const AUTHORS: usize = 5;

/// A compression that not every client supports; it has a topic of its own.
const RARE_COMPRESSION: &str = "zstd";

/// How long all events may take to arrive on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// How long a subscriber waits after its last expected event for one that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// kafkajs returns aborted records where aborted transactions overlap in a partition: it assumes
/// that the broker lists them by first offset, but they are listed by end.
static ONE_ABORT: Mutex<()> = Mutex::new(());

/// Prefix of the topics of the Tidewire under test.
const PREFIX: &str = "clients.";

#[test]
fn every_client_reads_back_what_every_other_writes_byte_for_byte() {
    let bootstrap = broker::shared().bootstrap();
    for topic in ["plain.usual", "plain.rare"] {
        create(broker::shared(), topic, &[]);
    }
    let usual = TopicAddress { bootstrap: &bootstrap, topic: "plain.usual" };
    let rare = TopicAddress { bootstrap: &bootstrap, topic: "plain.rare" };
    let (mut expected, mut expected_rare) = (Vec::new(), Vec::new());
    for written in at_once(|writer| write_plain(writer, usual, rare)) {
        expected.extend(written.0);
        expected_rare.extend(written.1);
    }
    at_once(|reader| {
        same(
            reader,
            &reader.consume(usual, expected.len(), IsolationArgument::Committed),
            &expected,
        );
        if reader.can(RARE_COMPRESSION) {
            same(
                reader,
                &reader.consume(rare, expected_rare.len(), IsolationArgument::Committed),
                &expected_rare,
            );
        }
    });
    let everything = all()[0].consume(usual, expected.len() + 1, IsolationArgument::Uncommitted);
    for writer in all() {
        let mark = format!("{}/aborted", writer.name);
        let there =
            everything.iter().filter(|got| String::from_utf8_lossy(got.bytes()).contains(&mark));
        assert!(there.count() > 0, "{}: the aborted records were never written", writer.name);
    }
}

#[test]
fn a_client_does_not_report_a_refused_record_as_acknowledged() {
    let bootstrap = broker::shared().bootstrap();
    create(broker::shared(), "plain.narrow", &["--config", "max.message.bytes=10000"]);
    let narrow = TopicAddress { bootstrap: &bootstrap, topic: "plain.narrow" };
    let value = "wide ".repeat(4_000);
    let wide = ProducedRecord { key: None, value, headers: BTreeMap::new() };
    at_once(|client| {
        let options = WriteOptions { compression: "none", transaction_end: TransactionEnd::Plain };
        let output = client.fail_to_produce(narrow, options, std::slice::from_ref(&wide));
        assert!(!output.is_empty(), "{} prints no reason", client.name);
    });
}

#[test]
fn every_client_writes_events_that_arrive_once_and_reads_every_delivery_once() {
    let bootstrap = broker::shared().bootstrap();
    let server = serve("dev", TopicNamespace::new(&bootstrap, PREFIX), "only");
    let into = TopicAddress { bootstrap: &bootstrap, topic: &format!("{PREFIX}in") };
    let written = at_once(|client| {
        let mut subscriber = subscribe(&server, client);
        let events = write(client, into);
        check_subscriber(client, &mut subscriber, &events);
        events
    });
    let expected: BTreeMap<_, _> = written.into_iter().flatten().collect();
    let from = TopicAddress { bootstrap: &bootstrap, topic: &format!("{PREFIX}out.stream") };
    at_once(|client| {
        let got = client.consume(from, expected.len(), IsolationArgument::Committed);
        check_deliveries(client, &got, &expected);
    });
}

/// A delivery: the channel, and the event's id.
type DeliveryId = (String, String);

fn create(broker: &Broker, topic: &str, further: &[&str]) {
    let arguments = [&["--create", "--topic", topic, "--partitions", "4"], further].concat();
    broker.tool("org.apache.kafka.tools.TopicCommand", &arguments);
}

/// Runs the same for every client in parallel: most of the time they wait.
fn at_once<T: Send>(each: impl Fn(&ClientProgram) -> T + Sync) -> Vec<T> {
    let each = &each;
    thread::scope(|scope| {
        let runs: Vec<_> = all().iter().map(|client| scope.spawn(move || each(client))).collect();
        let ended = runs.into_iter().map(|run| run.join());
        ended.map(|run| run.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Writes batches in every way the client has, those with the rare compression separately;
/// returns what must be read from each topic.
fn write_plain(
    writer: &ClientProgram,
    usual: TopicAddress<'_>,
    rare: TopicAddress<'_>,
) -> (Vec<ProducedRecord>, Vec<ProducedRecord>) {
    let (mut expected, mut expected_rare) = (Vec::new(), Vec::new());
    for compression in &writer.compressions {
        let records = numbered(&writer.name, compression);
        let is_rare = compression == RARE_COMPRESSION;
        let place = if is_rare { rare } else { usual };
        writer.produce(
            place,
            WriteOptions { compression, transaction_end: TransactionEnd::Plain },
            &records,
        );
        if is_rare { &mut expected_rare } else { &mut expected }.extend(records);
    }
    let aborted = numbered(&writer.name, "aborted");
    {
        let _alone = ONE_ABORT.lock();
        writer.produce(
            usual,
            WriteOptions { compression: "none", transaction_end: TransactionEnd::Abort },
            &aborted,
        );
    }
    let committed = numbered(&writer.name, "committed");
    writer.produce(
        usual,
        WriteOptions { compression: "gzip", transaction_end: TransactionEnd::Commit },
        &committed,
    );
    expected.extend(committed);
    (expected, expected_rare)
}

/// A batch of unique records: with keys and without, in several scripts, with characters that
/// JSON escapes.
fn numbered(client: &str, batch: &str) -> Vec<ProducedRecord> {
    let record = |n: usize| {
        let text = "Flut 🌊 \"höher\"\n\t\\ 潮の満ち引き\u{1} ".repeat(n % 20);
        let value = json!({"n": n, "batch": format!("{client}/{batch}"), "text": text});
        ProducedRecord { key: key(n), value: value.to_string(), headers: headers(client, batch) }
    };
    (0..BATCH).map(record).collect()
}

fn key(n: usize) -> Option<String> {
    (!n.is_multiple_of(KEYS)).then(|| format!("schlüssel {}", n % KEYS))
}

/// The same header for a whole batch, since kcat can't do otherwise.
fn headers(client: &str, batch: &str) -> BTreeMap<String, String> {
    let headers = [("origin", client), ("batch", batch), ("größe", "klein 小")];
    headers.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

/// The missing or surplus records, by batch.
struct RecordDifference<'a>(Vec<&'a ProducedRecord>);

impl fmt::Display for RecordDifference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batches: BTreeSet<_> = self.0.iter().map(|record| &record.headers).collect();
        let first = self.0.first().map(|record| (&record.key, &record.value));
        write!(f, "{} records of {batches:?}, the first {first:?}", self.0.len())
    }
}

/// Asserts that a reader got exactly these records, in order per batch and key.
fn same(reader: &ClientProgram, got: &[ConsumedRecord], expected: &[ProducedRecord]) {
    let name = &reader.name;
    let text =
        |got: &ConsumedRecord| String::from_utf8(got.bytes().to_vec()).expect("we write text");
    let sent = |got: &ConsumedRecord| ProducedRecord {
        key: got.key.clone(),
        value: text(got),
        headers: got.headers.clone(),
    };
    let came: BTreeSet<_> = got.iter().map(sent).collect();
    let wanted: BTreeSet<_> = expected.iter().cloned().collect();
    let missing = RecordDifference(wanted.difference(&came).collect());
    let surplus = RecordDifference(came.difference(&wanted).collect());
    let complete = missing.0.is_empty() && surplus.0.is_empty();
    assert!(complete, "{name} did not read {missing}; but read {surplus}");
    assert_eq!(got.len(), expected.len(), "{name} read some twice");
    let mut last_offset = BTreeMap::new();
    let mut last_number = BTreeMap::new();
    for record in got {
        let before = last_offset.insert(record.partition, record.offset);
        assert!(before < Some(record.offset), "{name}: {before:?} before {}", record.offset);
        let value: serde_json::Value = serde_json::from_str(&text(record)).expect("we write JSON");
        let number = value["n"].as_u64();
        if let Some(key) = &record.key {
            let batch = value["batch"].to_string();
            let before = last_number.insert((batch, key), number).flatten();
            assert!(before < number, "{name}: {before:?} of {key} before {number:?}");
        }
    }
}

/// Subscribes to all channels of one client's events.
fn subscribe(server: &Server, client: &ClientProgram) -> EventSource {
    let path =
        format!("/v1/sse?from=latest&channels={}", query_escape(&channels(client).join(",")));
    EventSource::open(server.addr(), &path, None, None).expect("the server serves")
}

fn channels(client: &ClientProgram) -> Vec<String> {
    let name = &client.name;
    let mut channels = vec![format!("account:{name}"), format!("timeline:{name}")];
    channels.extend((0..AUTHORS).map(|author| posts_of(client, author)));
    channels
}

fn posts_of(client: &ClientProgram, author: usize) -> String {
    format!("posts:{}-{author}", client.name)
}

/// Writes events in every way the client has, one batch twice and one aborted; returns what must
/// be delivered, with each event's text.
fn write(client: &ClientProgram, into: TopicAddress<'_>) -> BTreeMap<DeliveryId, String> {
    let mut expected = BTreeMap::new();
    let plain = |compression| WriteOptions { compression, transaction_end: TransactionEnd::Plain };
    for compression in &client.compressions {
        let batch = events(client, compression, &mut expected);
        client.produce(into, plain(compression), &batch);
        if compression == "gzip" {
            // Like a producer that does not know whether its first attempt succeeded.
            client.produce(into, plain("none"), &batch);
        }
    }
    let aborted = events(client, "aborted", &mut BTreeMap::new());
    client.produce(
        into,
        WriteOptions { compression: "none", transaction_end: TransactionEnd::Abort },
        &aborted,
    );
    let committed = events(client, "committed", &mut expected);
    client.produce(
        into,
        WriteOptions { compression: "gzip", transaction_end: TransactionEnd::Commit },
        &committed,
    );
    expected
}

fn events(
    client: &ClientProgram,
    batch: &str,
    expected: &mut BTreeMap<DeliveryId, String>,
) -> Vec<ProducedRecord> {
    let name = &client.name;
    let event = |n: usize| {
        let (event_id, author) = (format!("{name}-{batch}-{n}"), n % AUTHORS);
        let text = format!("{n} 潮 \"über\" {batch}\n🌊");
        let channels = ["account", "timeline"].map(|kind| format!("{kind}:{name}"));
        for channel in channels.into_iter().chain([posts_of(client, author)]) {
            expected.insert((channel, event_id.clone()), text.clone());
        }
        let data = json!({
            "post_id": format!("{batch}-{n}"),
            "author_id": format!("{name}-{author}"),
            "text": text,
        });
        let value = json!({
            "event_id": event_id,
            "event_type": "post.created",
            "account_id": name,
            "data": data,
        });
        ProducedRecord { key: key(n), value: value.to_string(), headers: headers(name, batch) }
    };
    (0..BATCH).map(event).collect()
}

/// Asserts that the subscriber gets everything once, and nothing else.
fn check_subscriber(
    client: &ClientProgram,
    subscriber: &mut EventSource,
    expected: &BTreeMap<DeliveryId, String>,
) {
    let mut missing = expected.clone();
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    let mut next = |limit| subscriber.next_event(limit).expect("the stream goes on");
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let first = missing.first_key_value();
        let Some(event) = next(left) else {
            panic!("{}: {} lost, the first: {first:?}", client.name, missing.len());
        };
        let delivery = (event.channel.clone(), event.event_id.clone());
        let text = missing.remove(&delivery);
        let text = text.unwrap_or_else(|| panic!("{}: twice, or aborted: {event:?}", client.name));
        assert_eq!(event.data_str("text"), text, "{}", client.name);
    }
    let surplus = next(QUIET);
    assert!(surplus.is_none(), "{}: more than it wrote: {surplus:?}", client.name);
}

/// Asserts that a client read every delivery of every client once, keyed by its channel.
fn check_deliveries(
    client: &ClientProgram,
    got: &[ConsumedRecord],
    expected: &BTreeMap<DeliveryId, String>,
) {
    let name = &client.name;
    let mut missing = expected.clone();
    for record in got {
        let event = EventView::decode(record.bytes())
            .unwrap_or_else(|error| panic!("{name} read {record:?}: {error}"));
        let channel = record.key.clone().expect("the key is the channel");
        let text = missing.remove(&(channel, event.event_id.to_owned()));
        let text =
            text.unwrap_or_else(|| panic!("{name} read twice, or an aborted record: {event:?}"));
        let data: serde_json::Value = serde_json::from_str(event.data).expect("data is JSON");
        assert_eq!(data["text"], text, "{name}");
    }
    let first = missing.first_key_value();
    assert!(missing.is_empty(), "{name}: {} not read, the first: {first:?}", missing.len());
}
