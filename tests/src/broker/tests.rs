//! Tests of the broker harness on real brokers, because other tests rely on it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use rustix::process::{Pid, Signal, kill_process};

use crate::child_process;

use super::node::{NotReady, responds};
use super::ports::Port;
use super::*;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
/// The full name of the child that the test about killed processes starts.
const CHILD: &str = "broker::tests::child_with_a_broker";

/// Set for the child process.
const CHILD_VARIABLE: &str = "TIDEWIRE_TEST_BROKER_CHILD";

const TIMEOUT: Duration = Duration::from_secs(30);

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    config
}

/// Makes a topic of one partition with these settings.
fn create_with(broker: &Broker, topic: &str, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let give_up = Instant::now() + TIMEOUT;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT / 6));
    loop {
        // A cluster that is electing its leaders responds late, and may have created the topic all
        // the same; a request to a controller that has died gets no response.
        let admin: AdminClient<_> = client(broker).create().unwrap();
        match block_on(admin.create_topics([&new], &options)) {
            Ok(made) => match &made[0] {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return,
                Err(error) => panic!("{error:?}"),
            },
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    }
}

fn create(broker: &Broker, topic: &str) {
    create_with(broker, topic, &[]);
}

/// The names of all topics but the broker's own.
fn topics(broker: &Broker) -> Vec<String> {
    let consumer: BaseConsumer = client(broker).create().unwrap();
    let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("__")).collect();
    names.sort();
    names
}

/// Appends one batch to partition 0; no value is a tombstone.
fn append(broker: &Broker, topic: &str, records: &[(&str, Option<&str>)]) {
    let producer: BaseProducer = client(broker).create().unwrap();
    for (key, value) in records {
        let mut record = BaseRecord::to(topic).key(*key).partition(0);
        record.payload = *value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// The first offset and the end of partition 0.
fn bounds(broker: &Broker, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = client(broker).create().unwrap();
    consumer.fetch_watermarks(topic, 0, TIMEOUT).unwrap()
}

/// The records of partition 0 as `offset:key=value`.
fn read(broker: &Broker, topic: &str) -> Vec<String> {
    let consumer: BaseConsumer = client(broker)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut records = Vec::new();
    while let Ok(message) = consumer.poll(TIMEOUT).expect("records or the end") {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
        let (key, value) = (text(message.key()), text(message.payload()));
        records.push(format!("{}:{key}={value}", message.offset()));
    }
    records
}

/// Whether a process runs, and is not a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < give_up, "waited too long: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn data_survives_a_stop_and_a_kill_at_the_same_address() {
    let mut broker = Broker::start();
    let bootstrap = broker.bootstrap();
    create(&broker, "kept");
    broker.restart();
    assert_eq!(topics(&broker), ["kept"]);
    let pid = broker.pid();
    broker.kill9();
    assert!(!is_alive(pid));
    let address = bootstrap.parse().unwrap();
    assert!(responds(address).is_err(), "a killed broker does not respond");
    let taken = TcpListener::bind(&bootstrap).unwrap();
    broker.launch();
    assert!(
        matches!(broker.wait_ready(), Err(NotReady::PortTaken)),
        "a taken port is reported as such"
    );
    drop(taken);
    broker.restart();
    assert_eq!(topics(&broker), ["kept"]);
    assert_eq!(broker.bootstrap(), bootstrap);
    responds(address).unwrap();
}

#[test]
fn a_paused_broker_accepts_connections_and_responds_after_it_is_resumed() {
    let broker = Broker::start();
    let address = broker.bootstrap();
    broker.pause();
    let mut stream = TcpStream::connect(&address).expect("the kernel still takes connections");
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "a paused broker sends nothing");
    broker.resume();
    responds(address.parse().unwrap()).unwrap();
}

#[test]
fn a_broker_outlives_the_thread_that_started_it_and_ends_with_its_value_and_folder() {
    let broker = thread::spawn(Broker::start).join().unwrap();
    responds(broker.bootstrap().parse().unwrap()).unwrap();
    let (pid, folder) = (broker.pid(), broker.folder().to_owned());
    assert!(is_alive(pid) && folder.join("data/meta.properties").exists());
    drop(broker);
    assert!(!is_alive(pid) && !folder.exists());
}

#[test]
fn a_broker_dies_with_a_killed_test_process() {
    let this = env::current_exe().unwrap();
    // In another folder, another test process might remove it, which also ends a broker.
    let temp_dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(this)
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .env(CHILD_VARIABLE, "1")
        .env("TMPDIR", temp_dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let printed = lines.map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("broker of ")?;
        rest.split_once(" in ").map(|(pid, folder)| (pid.parse().unwrap(), folder.to_owned()))
    });
    let (pid, folder): (u32, String) = printed.expect("the child starts a broker");
    assert!(is_alive(pid) && folder.starts_with(temp_dir.path().to_str().unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the broker is gone", || !is_alive(pid));
    folder::remove_orphans(temp_dir.path());
    assert!(!Path::new(&folder).exists(), "what a killed process left is removed");
}

#[test]
#[ignore = "the child of the test above, which starts it by name"]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn child_with_a_broker() {
    if env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    let broker = shared();
    println!("broker of {} in {}", broker.pid(), broker.folder().display());
    loop {
        thread::park();
    }
}

#[test]
fn later_properties_win() {
    let broker = Broker::start_with(&[("num.partitions", "7"), ("num.partitions", "3")]);
    broker.tool(TOPICS, &["--create", "--topic", "three"]);
    let described = broker.tool(TOPICS, &["--describe", "--topic", "three"]);
    assert!(described.contains("PartitionCount: 3"), "{described}");
}

#[test]
fn three_brokers_continue_when_one_is_killed() {
    let mut cluster = Cluster::start(3);
    create(&cluster.brokers()[0], "replicated");
    let describe = |broker: &Broker| broker.tool(TOPICS, &["--describe", "--topic", "replicated"]);
    let described = describe(&cluster.brokers()[0]);
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    assert!(described.contains("min.insync.replicas=2"), "{described}");
    cluster.broker(1).kill9();
    until("its partitions have other leaders", || {
        let described = describe(&cluster.brokers()[1]);
        !described.contains("Leader: 1\t") && !described.contains("Leader: none")
    });
    create(cluster.broker(2), "made-by-two");
    cluster.broker(1).restart();
    assert_eq!(topics(cluster.broker(1)), ["made-by-two", "replicated"]);
}

/// Kafka's own client with these credentials on the secure listener.
fn secure_list(broker: &Broker, user: &str, password: &str) -> Result<String, String> {
    let config = broker.folder().join(format!("{user}.properties"));
    let text = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nssl.truststore.type=PEM\n\
         ssl.truststore.location={}\nsasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required \
         username=\"{user}\" password=\"{password}\";\n",
        broker.ca_pem().display()
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let bootstrap = broker.secure_bootstrap();
    let arguments = ["--bootstrap-server", &bootstrap, "--command-config", config, "--list"];
    java::try_run(TOPICS, &arguments)
}

#[test]
fn the_secure_listener_knows_its_users_and_their_rights() {
    use secure::{GUEST, OWNER, PASSWORD};
    let broker = Broker::secure();
    create(&broker, "a");
    create(&broker, "b");
    assert_eq!(secure_list(&broker, OWNER, PASSWORD).unwrap(), "a\nb\n");
    assert_eq!(secure_list(&broker, GUEST, PASSWORD).unwrap().trim(), "");
    broker.grant(&["--operation", "Describe", "--topic", "b"]);
    until("the right is granted", || {
        secure_list(&broker, GUEST, PASSWORD).is_ok_and(|list| list == "b\n")
    });
    let refused = secure_list(&broker, OWNER, "wrong").unwrap_err();
    assert!(refused.contains("invalid credentials"), "{refused}");
}

const APPEND_TIME: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

#[test]
fn advanced_time_drives_retention_and_survives_restarts() {
    let mut broker = Broker::with_clock();
    create_with(&broker, "aged", &[("retention.ms", "3600000"), APPEND_TIME]);
    append(&broker, "aged", &[("k", Some("a")), ("k", Some("b"))]);
    broker.advance_time(1_800_000);
    append(&broker, "aged", &[("k", Some("c"))]);
    assert_eq!(bounds(&broker, "aged"), (0, 3));
    broker.restart();
    broker.advance_time(1_860_000);
    assert_eq!(bounds(&broker, "aged"), (2, 3));
    assert_eq!(read(&broker, "aged"), ["2:k=c"]);
    broker.advance_time(3_600_000);
    assert_eq!(bounds(&broker, "aged"), (3, 3), "the newest segment is no exception");
}

#[test]
fn advanced_time_drives_compaction_and_tombstones() {
    let broker = Broker::with_clock();
    let compact = [("cleanup.policy", "compact"), ("delete.retention.ms", "3600000"), APPEND_TIME];
    create_with(&broker, "state", &compact);
    append(&broker, "state", &[("a", Some("1")), ("b", Some("1"))]);
    append(&broker, "state", &[("a", None), ("b", Some("2"))]);
    broker.advance_time(1_000);
    assert_eq!(read(&broker, "state"), ["2:a=-", "3:b=2"], "the newest segment is no exception");
    broker.advance_time(3_000_000);
    assert_eq!(read(&broker, "state"), ["2:a=-", "3:b=2"]);
    broker.advance_time(600_000);
    assert_eq!(read(&broker, "state"), ["3:b=2"], "the tombstone's time is over");
    append(&broker, "state", &[("b", Some("3"))]);
    broker.advance_time(0);
    assert_eq!(read(&broker, "state"), ["4:b=3"]);
}

#[test]
fn segments_of_a_compacted_topic_age_separately() {
    let broker = Broker::with_clock();
    let windows = [("cleanup.policy", "compact,delete"), ("retention.ms", "7200000"), APPEND_TIME];
    create_with(&broker, "windows", &windows);
    append(&broker, "windows", &[("old", Some("1")), ("a", Some("1"))]);
    broker.advance_time(3_600_000);
    append(&broker, "windows", &[("a", Some("2"))]);
    broker.advance_time(60_000);
    assert_eq!(read(&broker, "windows"), ["0:old=1", "2:a=2"]);
    broker.advance_time(3_600_000);
    assert_eq!(read(&broker, "windows"), ["2:a=2"]);
    append(&broker, "windows", &[("large", Some(&"v".repeat(2_000)))]);
    assert_eq!(bounds(&broker, "windows").1, 4, "its segments have their size back");
}

/// The append time of a record, minus this machine's time.
fn clock_ahead_s(broker: &Broker) -> i64 {
    create_with(broker, "clock", &[APPEND_TIME]);
    append(broker, "clock", &[("k", Some("v"))]);
    let consumer: BaseConsumer = client(broker).set("group.id", "none").create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("clock", 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let message = consumer.poll(TIMEOUT).expect("a record").unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    (message.timestamp().to_millis().unwrap() - now_ms + 500).div_euclid(1_000)
}

#[test]
fn a_skewed_broker_has_the_wrong_time() {
    let found = [90, -3_600].map(|skew| clock_ahead_s(&Broker::skewed(skew)));
    assert!((70..=90).contains(&found[0]), "{found:?}");
    assert!((-3_620..=-3_600).contains(&found[1]), "{found:?}");
}

/// `scripts/kafka.sh run`, as `make kafka` starts it, and its ready line.
fn run_script(port: u16, data: &Path) -> (Child, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
    let mut command = child_process::command(script.to_str().unwrap());
    command.args(["run", &port.to_string()]).env("TIDEWIRE_KAFKA_DIR", data);
    let mut child = child_process::spawn(command_with_output(command)).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.next().expect("a ready line").unwrap())
}

fn command_with_output(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Two consecutive ports, the second for the controller.
fn two_in_a_row() -> [Port; 2] {
    let mut before = Port::reserve();
    loop {
        let after = Port::reserve();
        if after.number() == before.number() + 1 {
            return [before, after];
        }
        before = after;
    }
}

#[test]
fn the_broker_of_make_kafka_prints_the_next_step_and_keeps_its_data() {
    let [port, _controller] = two_in_a_row();
    let data = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    for round in ["first", "second"] {
        let (mut script, line) = run_script(port.number(), data.path());
        assert!(line.ends_with(&format!("tidewire dev --log kafka://{address}")), "{line}");
        responds(address.parse().unwrap()).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address);
        let metadata = config.create::<BaseConsumer>().unwrap().fetch_metadata(None, TIMEOUT);
        let known = metadata.unwrap().topics().len();
        assert_eq!(known, usize::from(round == "second"), "{round}");
        if round == "first" {
            let admin: AdminClient<_> = config.create().unwrap();
            let new = NewTopic::new("kept", 1, TopicReplication::Fixed(1));
            block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        }
        kill_process(Pid::from_child(&script), Signal::TERM).unwrap();
        script.wait().unwrap();
        until("the broker ends with the script", || responds(address.parse().unwrap()).is_err());
    }
}
