//! Failures of brokers and processes on Kafka: restarts, pauses, kills.
//!
//! Afterwards every event is delivered once and in order. Each test has a broker of its own, since
//! it interferes with it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use tidewire_tests::broker::{self, Broker, Cluster};
use tidewire_tests::server::{Server, command};
use tidewire_tests::test_rng::TestRng;

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve};
use super::stalls::Stalls;

/// The prefix of the topics.
const PREFIX: &str = "tw.";

/// The session time-out of a member, which is also the transaction time-out.
const SESSION: Duration = Duration::from_secs(10);

/// What a take-over may cost besides the session on a busy machine; measured is less than a
/// second. Waiting for the dead process's transactions to time out would take 10.
const A_MOMENT: Duration = Duration::from_secs(5);

/// Longer than the session and transaction time-outs of 10 s each.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(13);

/// Kills of the process with all roles in one run.
const KILLS: usize = 30;

#[test]
fn a_broker_that_restarts_pauses_or_dies_only_delays_delivery() {
    // The outage is shorter than the session: the writer is an ordinary client and would not find
    // its broker again (see the next test). Ours do.
    let mut broker = Broker::start_with(&[("broker.session.timeout.ms", "15000")]);
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 300);
    thread::sleep(Duration::from_secs(2));
    broker.stop();
    // A late restart: sessions and open transactions have timed out by then.
    thread::sleep(LONGER_THAN_A_SESSION);
    broker.restart();
    thread::sleep(Duration::from_secs(2));
    broker.pause();
    thread::sleep(LONGER_THAN_A_SESSION);
    broker.resume();
    thread::sleep(Duration::from_secs(2));
    broker.kill9();
    broker.restart();
    thread::sleep(Duration::from_secs(2));
    let numbers = writer.finish();
    assert!(numbers > 1_000, "{numbers} events in all this time");
    check(at, numbers);
    drop(server);
}

/// After a pause longer than its session, a single broker briefly reports that there are no brokers
/// at all, and librdkafka believes that for ever.
#[test]
fn a_single_broker_is_found_again_after_an_outage() {
    let broker = Broker::start_with(&[("broker.session.timeout.ms", "2000")]);
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let server = serve("dev", at, "only");
    for round in 0..3 {
        // Traffic before, so that clients send requests at once when the broker resumes.
        let writer = EventWriter::start(at, 300);
        thread::sleep(Duration::from_secs(1));
        broker.pause();
        thread::sleep(Duration::from_secs(4));
        broker.resume();
        thread::sleep(Duration::from_secs(1));
        drop(writer);
        // A new client, which knows the broker: it is our clients that must recover.
        let resumed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let another = EventWriter::start(at, 300);
        let admitted = has_one_since(OutputReader::open(at, &["out.stream"]), resumed);
        assert!(admitted, "round {round}: nothing is delivered");
        another.finish();
    }
    drop(server);
}

#[test]
fn thirty_kills_of_the_whole_process_lose_duplicate_and_reorder_nothing() {
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    eprintln!("repeat with TIDEWIRE_SEED={seed}");
    let mut rng = TestRng::new(seed);
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let mut server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 500);
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(rng.below(1_200)));
        server.kill9();
        server.restart();
    }
    let numbers = writer.finish();
    check(at, numbers);
}

#[test]
fn a_killed_derive_process_is_taken_over_and_rejoins_at_once() {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    create_topics(at);
    let admits = [serve("admit", at, "a1"), serve("admit", at, "a2")];
    let mut first = serve("derive", at, "d1");
    let second = serve("derive", at, "d2");
    let gateways = [serve("gateway", at, "g1"), serve("gateway", at, "g2")];
    let writer = EventWriter::start(at, 300);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(3_000, Duration::from_secs(60)), "two of each work");
    first.kill9();
    let stalls = longest_stalls(&mut outputs, &writer, Duration::from_secs(16));
    eprintln!("killed and taken over: {stalls:?}");
    assert!(stalls.all < SESSION, "{stalls:?}: the other continues");
    // Transactions that the dead process left open are ended by the new owner of its partitions.
    assert!(stalls.worst < SESSION + A_MOMENT, "{stalls:?}: at most a session and a moment");
    first.restart();
    assert_works_soon_after_assignment(&first);
    thread::sleep(Duration::from_secs(2));
    first.kill9();
    thread::sleep(Duration::from_millis(500));
    first.restart();
    let stalls = longest_stalls(&mut outputs, &writer, Duration::from_secs(5));
    eprintln!("killed and restarted at once: {stalls:?}");
    assert!(stalls.worst < SESSION, "{stalls:?}: less than a session");
    assert_works_soon_after_assignment(&first);
    let numbers = writer.finish();
    check(at, numbers);
    drop((admits, first, second, gateways));
}

/// Whether a record arrives that was appended after this time (since 1970).
fn has_one_since(mut outputs: OutputReader, time: Duration) -> bool {
    let time = i64::try_from(time.as_millis()).expect("a time of this age");
    let deadline = Instant::now() + TIMEOUT;
    while outputs.read(outputs.all.len() + 1, deadline.saturating_duration_since(Instant::now())) {
        let newest = outputs.all.last().and_then(|m| m.timestamp().to_millis());
        if newest.is_some_and(|at| at > time) {
            return true;
        }
    }
    false
}

/// Separate roles need existing topics.
pub(super) fn create_topics(at: TopicNamespace<'_>) {
    let TopicNamespace { bootstrap, prefix } = at;
    let log = format!("kafka://{bootstrap}");
    let output = command()
        .args(["topics", "create", "--log", &log])
        .env("TIDEWIRE_TOPICS_PREFIX", prefix)
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Measures for this long the times without output. Every partition has some before and after.
fn longest_stalls(outputs: &mut OutputReader, writer: &EventWriter, over: Duration) -> Stalls {
    let (begun, before) = (Instant::now(), writer.written());
    let of = |message: &OwnedMessage| (message.topic().to_owned(), message.partition());
    let mut last: BTreeMap<_, _> = outputs.all.iter().map(|m| (of(m), begun)).collect();
    let mut stalls = Stalls { all: Duration::ZERO, worst: Duration::ZERO };
    let mut any = begun;
    while begun.elapsed() < over {
        if outputs.read(outputs.all.len() + 1, Duration::from_millis(50)) {
            let now = Instant::now();
            stalls.all = stalls.all.max(now - any);
            any = now;
            let message = outputs.all.last().expect("one was read");
            let before = last.insert(of(message), now).expect("a partition known before");
            stalls.worst = stalls.worst.max(now - before);
        }
    }
    assert!(writer.written() > before, "the writer continued");
    let still = last.values().map(Instant::elapsed).max().expect("there are partitions");
    Stalls { all: stalls.all.max(any.elapsed()), worst: stalls.worst.max(still) }
}

/// Every task of a process read records soon after its assignment, by its metrics: a fifth of a
/// second on an idle machine, and anywhere without waiting for a time-out.
fn assert_works_soon_after_assignment(server: &Server) {
    let metrics = server.http().get("/metrics").expect("an answer").text();
    let number = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
    };
    let all = number("tidewire_derive_restore_seconds_count");
    let sum = number("tidewire_derive_restore_seconds_sum");
    eprintln!("{all} tasks restored, {:.3} s each after their assignment", sum / all);
    let in_time = number("tidewire_derive_restore_seconds_bucket{le=\"5\"}");
    assert!(all > 0.0 && in_time >= all, "{in_time} of {all} within 5 s");
}

#[test]
fn five_threads_share_the_partitions_and_hand_them_to_a_second_process() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "threads.");
    let log = format!("kafka://{bootstrap}");
    let threads = |instance| {
        let variables = [
            ("TIDEWIRE_TOPICS_PREFIX", at.prefix),
            ("TIDEWIRE_INSTANCE", instance),
            ("TIDEWIRE_DERIVE_THREADS", "5"),
        ];
        Server::start_as("dev", &["--log", &log], &variables)
    };
    let first = threads("t1");
    let writer = EventWriter::start(at, 200);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(600, Duration::from_secs(60)), "five threads work");
    let second = threads("t2");
    thread::sleep(Duration::from_secs(3));
    let mut first = first;
    first.stop();
    thread::sleep(Duration::from_secs(1));
    first.restart();
    thread::sleep(Duration::from_secs(2));
    let numbers = writer.finish();
    check(at, numbers);
    drop((first, second));
}

#[test]
fn one_of_three_brokers_killed_under_load_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let bootstrap = cluster.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let log = format!("kafka://{bootstrap}");
    let variables = [("TIDEWIRE_KAFKA_REPLICATION", "3"), ("TIDEWIRE_KAFKA_MIN_INSYNC", "2")];
    let server = Server::start_as("dev", &["--log", &log], &variables);
    let writer = EventWriter::start(at, 300);
    thread::sleep(Duration::from_secs(3));
    cluster.broker(1).kill9();
    thread::sleep(Duration::from_secs(8));
    let numbers = writer.finish();
    check(at, numbers);
    drop(server);
}
