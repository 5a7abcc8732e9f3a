//! `tidewire doctor` with Kafka: every problem it knows, and the line it prints for it.
//!
//! Real brokers are used wherever one can be brought into that state; a fake one imitates the rest
//! (too old, not a broker).

mod fake_broker;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use tempfile::TempDir;
use tidewire_tests::broker::ports::Port;
use tidewire_tests::broker::secure::{GUEST, OWNER, PASSWORD};
use tidewire_tests::broker::{self, Broker, Setup};
use tidewire_tests::server;

use fake_broker::{FakeBroker, start_fake_broker};

/// How long the doctor may take: no check waits for more than a few seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long a test's own requests to a broker may take.
const ASKING: Duration = Duration::from_secs(20);

type Variables<'a> = [(&'a str, &'a str)];

/// The doctor's output and exit code.
struct DoctorOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

impl DoctorOutput {
    /// Asserts that it printed all of this and this many fixes, with the right exit code.
    fn check(&self, fixes: usize, parts: &[&str]) {
        let Self { code, out, err } = self;
        for line in out.lines() {
            assert!(
                ["ok    ", "warn  ", "fix:  "].iter().any(|kind| line.starts_with(kind)),
                "{out}{err}"
            );
        }
        let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("fix:")).collect();
        for part in parts {
            assert!(out.contains(part), "{part:?} is printed:\n{out}{err}");
        }
        assert_eq!(lines.len(), fixes, "{out}{err}");
        assert_eq!(*code, Some(i32::from(fixes > 0)), "{out}{err}");
    }
}

fn run(mut command: Command, variables: &Variables<'_>) -> DoctorOutput {
    let dir = TempDir::new().expect("the temporary folder can be written");
    command.envs(variables.iter().copied()).current_dir(dir.path()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    DoctorOutput { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Runs the doctor for these brokers.
fn doctor(brokers: &str, variables: &Variables<'_>) -> DoctorOutput {
    let mut command = server::command();
    command.args(["doctor", "--listen", "127.0.0.1:0", "--log", &format!("kafka://{brokers}")]);
    let begun = Instant::now();
    let output = run(command, variables);
    eprintln!("in {:?}:\n{}{}", begun.elapsed(), output.out, output.err);
    assert!(begun.elapsed() < TIMEOUT, "it hung for {:?}", begun.elapsed());
    output
}

fn create_topics(brokers: &str, variables: &Variables<'_>) {
    let mut command = server::command();
    command.args(["topics", "create", "--log", &format!("kafka://{brokers}")]);
    let output = run(command, variables);
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
}

/// The number of topics with this prefix.
fn topics(brokers: &str, prefix: &str) -> usize {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let metadata = client.fetch_metadata(None, ASKING).expect("the broker answers");
    metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix)).count()
}

/// A broker confirms a changed setting before it describes the topic with it.
fn wait_until_described(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    name: &str,
    value: &str,
) {
    let give_up = Instant::now() + ASKING;
    loop {
        let of = [ResourceSpecifier::Topic(topic)];
        let described = block_on(admin.describe_configs(&of, &AdminOptions::new()));
        let described = described.expect("the broker answers").remove(0).expect("described");
        if described.get(name).and_then(|entry| entry.value.as_deref()) == Some(value) {
            return;
        }
        assert!(Instant::now() < give_up, "{topic}: {name} is not {value}");
    }
}

#[test]
fn a_healthy_broker_passes_and_missing_topics_are_not_created() {
    let brokers = broker::shared().bootstrap();
    let variables = [("TIDEWIRE_TOPICS_PREFIX", "doc-sound.")];
    doctor(&brokers, &variables).check(
        1,
        &[
            &format!("ok    Kafka at {brokers} answers: one broker, of a supported version"),
            "fix:  20 of 20 topics do not exist, such as doc-sound.in; create them with",
            "warn  the clocks were not compared",
        ],
    );
    assert_eq!(topics(&brokers, "doc-sound."), 0, "it creates none");
    create_topics(&brokers, &variables);
    doctor(&brokers, &variables).check(
        0,
        &[
            "ok    20 topics exist with the required settings",
            "ok    this user has every permission",
            "warn  the brokers have no authorizer, so anybody who reaches them can write to \
             doc-sound.in.internal",
            "ok    the brokers keep the offsets of groups for as long as their input",
            "ok    the clocks of the brokers are within 3 s of this machine's",
            "are for the state of 8 partitions and for 1 broker,",
        ],
    );
    let port = Port::reserve();
    let down = format!("127.0.0.1:{}", port.number());
    let both = format!("{brokers},{down}");
    let refuses = format!("fix:  {down} refuses connections");
    doctor(&both, &variables).check(1, &[&refuses, "ok    20 topics exist"]);
}

#[test]
fn topics_with_wrong_settings_are_named_with_the_difference() {
    let brokers = broker::shared().bootstrap();
    let prefix = ("TIDEWIRE_TOPICS_PREFIX", "doc-wrong.");
    let four = ("TIDEWIRE_TOPICS_PARTITIONS", "4");
    create_topics(&brokers, &[prefix, four]);
    let partitions = "fix:  4 partitions instead of 8 in the 18 topics, such as doc-wrong.in; set \
                      topics.partitions = 4, or another topics.prefix";
    doctor(&brokers, &[prefix]).check(1, &[partitions]);
    let copies = "fix:  one replica of each partition instead of 2 in the 20 topics, such as";
    doctor(&brokers, &[prefix, four, ("TIDEWIRE_KAFKA_REPLICATION", "2")]).check(1, &[copies]);
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    for (topic, name, value) in [
        ("doc-wrong.in", "message.timestamp.type", "CreateTime"),
        ("doc-wrong.state", "cleanup.policy", "delete"),
    ] {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let changed = block_on(admin.alter_configs([&change], &AdminOptions::new()));
        changed.expect("the broker answers")[0].as_ref().expect("changed");
        wait_until_described(&admin, topic, name, value);
    }
    doctor(&brokers, &[prefix, four]).check(
        2,
        &[
            "fix:  message.timestamp.type is CreateTime and must be LogAppendTime in the topic \
             doc-wrong.in; correct it with `kafka-configs.sh --bootstrap-server",
            "fix:  cleanup.policy is delete and must be compact, message.timestamp.type is",
            "--alter --topic doc-wrong.in --add-config message.timestamp.type=[LogAppendTime]`, or",
        ],
    );
    let output = doctor(&brokers, &[prefix, four, ("TIDEWIRE_KAFKA_MIN_INSYNC", "2")]);
    let alike = "fix:  min.insync.replicas is 1 and must be 2 in the 18 topics, such as";
    output
        .check(3, &[alike, "--add-config min.insync.replicas=[2]` and likewise for each of them"]);
    let more = [("TIDEWIRE_TOPICS_PREFIX", "doc-more."), ("TIDEWIRE_KAFKA_REPLICATION", "3")];
    let fails = "fix:  creating fails for the 20 topics, such as doc-more.in: \
                 InvalidReplicationFactor";
    doctor(&brokers, &more).check(2, &["20 of 20 topics do not exist", fails]);
}

#[test]
fn an_unreachable_address_is_reported_with_its_cause() {
    let port = Port::reserve();
    let down = format!("127.0.0.1:{}", port.number());
    doctor(&down, &[]).check(
        1,
        &[&format!("fix:  {down} refuses connections: nothing listens there; start the broker")],
    );
    let nameless = doctor("broker.invalid:9092", &[]);
    nameless.check(1, &["fix:  broker.invalid:9092 can't be resolved (", "correct the name"]);
    let http = start_fake_broker(FakeBroker::Http);
    doctor(&http, &[]).check(
        1,
        &[&format!(
            "fix:  {http} is not Kafka: it answers \"HTTP/1.1 400 Bad Request\"; set `log`"
        )],
    );
    let silent = start_fake_broker(FakeBroker::Silent);
    doctor(&silent, &[]).check(
        1,
        &[&format!(
            "fix:  {silent} accepts connections and does not answer within 5 s; restart that broker"
        )],
    );
    let closing = start_fake_broker(FakeBroker::Closing);
    doctor(&closing, &[]).check(1, &[&format!("fix:  {closing} closes every connection")]);
}

#[test]
fn missing_features_of_an_old_broker_are_named() {
    // The API versions of Apache Kafka 2.4: Metadata 9, JoinGroup 6, TxnOffsetCommit 2.
    let old = start_fake_broker(FakeBroker::Kafka(vec![(3, 9), (11, 6), (18, 3), (28, 2)]));
    doctor(&old, &[]).check(
        1,
        &[&format!(
            "fix:  the broker at {old} is too old: it lacks transactions with group metadata \
         (Kafka 2.5), topic ids (Kafka 2.8); run Apache Kafka 2.8 or newer there"
        )],
    );
    let of_3_9 = start_fake_broker(FakeBroker::Kafka(vec![(3, 12), (11, 9), (18, 4), (28, 3)]));
    doctor(&of_3_9, &[("TIDEWIRE_KAFKA_GROUP_PROTOCOL", "consumer")]).check(
        1,
        &["it lacks the group protocol of KIP-848 (Kafka 4.0); run Apache Kafka 4.0 or newer there, \
         or set kafka.group_protocol = \"classic\""],
    );
    let controller = start_fake_broker(FakeBroker::Kafka(vec![(1, 17), (18, 4), (52, 2)]));
    doctor(&controller, &[])
        .check(1, &["is the listener of a controller, which does not serve clients"]);
}

#[test]
fn an_unreachable_advertised_address_is_named() {
    let port = Port::reserve();
    let down = format!("127.0.0.1:{}", port.number());
    let listeners = format!("PLAINTEXT://{down}");
    let broker = Broker::start_with(&[("advertised.listeners", &listeners)]);
    doctor(&broker.bootstrap(), &[]).check(
        1,
        &[
            &format!(
                "fix:  {} advertises broker 1 as {down}, which refuses connections",
                broker.bootstrap()
            ),
            "correct advertised.listeners of that broker",
        ],
    );
}

#[test]
fn clock_skew_and_short_offset_retention_are_reported_in_numbers() {
    let forgetful = [("offsets.retention.minutes", "60")];
    let broker = Setup::quick().with(&forgetful).with_clock(90_000).start();
    let brokers = broker.bootstrap();
    create_topics(&brokers, &[]);
    let output = doctor(&brokers, &[]);
    output.check(
        2,
        &[
            "fix:  the brokers delete the offsets of a group 60 minutes after its last member left",
            "set offsets.retention.minutes=10080 or more",
            "synchronise both with NTP",
        ],
    );
    let clock = format!("fix:  the clock of the broker {brokers} is ");
    let (_, rest) = output.out.split_once(&clock).expect("it names the broker");
    let (seconds, _) = rest.split_once(" s ahead of this machine's").expect("it says how much");
    let seconds: u32 = seconds.parse().expect("a number");
    assert!((60..=91).contains(&seconds), "{seconds} s");
}

/// The settings for the listener with TLS and SCRAM.
fn as_user<'a>(user: &'a str, password: &'a str, ca: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("TIDEWIRE_KAFKA_PROPERTIES_SECURITY_PROTOCOL", "SASL_SSL"),
        ("TIDEWIRE_KAFKA_PROPERTIES_SASL_MECHANISM", "SCRAM-SHA-256"),
        ("TIDEWIRE_KAFKA_PROPERTIES_SASL_USERNAME", user),
        ("TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD", password),
        ("TIDEWIRE_KAFKA_PROPERTIES_SSL_CA_LOCATION", ca),
    ]
}

#[test]
fn wrong_security_settings_and_each_missing_acl_are_reported() {
    let broker = Broker::secure();
    let ca = broker.ca_pem();
    let ca = ca.to_str().expect("a path of text");
    check_security_settings(&broker, ca);
    check_acls(&broker, ca);
}

fn check_security_settings(broker: &Broker, ca: &str) {
    let (plain, secure) = (broker.bootstrap(), broker.secure_bootstrap());
    doctor(&secure, &[]).check(
        1,
        &[&format!(
            "fix:  {secure} uses TLS, and none is configured; set security.protocol = \
         \"SSL\""
        )],
    );
    let protocol = |name| ("TIDEWIRE_KAFKA_PROPERTIES_SECURITY_PROTOCOL", name);
    let owner = as_user(OWNER, PASSWORD, ca);
    doctor(&plain, &owner).check(
        1,
        &[&format!(
            "fix:  {plain} uses no TLS, and security.protocol requires it; use the port \
         of its listener with TLS, or set security.protocol = \"SASL_PLAINTEXT\""
        )],
    );
    let login = [&owner[1..4], &[protocol("SASL_PLAINTEXT")]].concat();
    doctor(&plain, &login).check(
        1,
        &[&format!(
            "fix:  {plain} has no SASL, and security.protocol requires it; set \
         security.protocol = \"PLAINTEXT\""
        )],
    );
    doctor(&secure, &owner[..4]).check(
        1,
        &[
            &format!("fix:  the certificate of {secure} is not trusted ("),
            "set ssl.ca.location in kafka.properties to the certificate of its authority",
        ],
    );
    doctor(&secure, &[protocol("SSL"), owner[4]]).check(
        1,
        &[&format!(
            "fix:  {secure} requires a login and none is configured; set security.protocol = \
         \"SASL_SSL\""
        )],
    );
    let output = doctor(&secure, &as_user(OWNER, "not-the-secret", ca));
    output.check(1, &[&format!("fix:  {secure} rejects the login ("), "correct sasl.username"]);
    assert!(!output.out.contains("not-the-secret") && !output.err.contains("not-the-secret"));
    let unusual = ("TIDEWIRE_KAFKA_PROPERTIES_SASL_MECHANISM", "PLAIN");
    let output = doctor(&secure, &[&owner[..], &[unusual]].concat());
    output.check(1, &[&format!("fix:  {secure} rejects the login ("), "sasl.mechanism"]);
    // A listener with SASL and without TLS, which this broker does not have.
    let wants = start_fake_broker(FakeBroker::Login(
        vec![(3, 13), (11, 9), (17, 1), (18, 4), (28, 5)],
        "PLAIN",
    ));
    doctor(&wants, &[]).check(
        1,
        &[&format!(
            "fix:  {wants} requires a login (PLAIN), and none is configured; set security.protocol \
         = \"SASL_PLAINTEXT\""
        )],
    );
    doctor(&wants, &login).check(
        1,
        &[&format!("fix:  {wants} offers SASL with PLAIN, and SCRAM-SHA-256 is configured")],
    );
}

fn check_acls(broker: &Broker, ca: &str) {
    let secure = broker.secure_bootstrap();
    let guest = as_user(GUEST, PASSWORD, ca);
    let prefixed = ["--resource-pattern-type", "prefixed"];
    doctor(&secure, &guest).check(3, &[
        "fix:  this user is not allowed to Describe, DescribeConfigs, Read or Write the 20 topics",
        "--add --allow-principal User:NAME --operation Describe --operation DescribeConfigs \
         --operation Read --operation Write --topic tw. --resource-pattern-type prefixed`",
        "fix:  this user is not allowed to Read the 2 groups, such as tw.admit; grant it: \
         `kafka-acls.sh --bootstrap-server",
        "fix:  this user is not allowed to Write the transactional ids that begin with tw.derive;",
    ]);
    let some = ["--operation", "Read", "--topic", "tw.", "--group", "tw."];
    broker.grant(&[&some[..], &prefixed].concat());
    doctor(&secure, &guest).check(
        3,
        &[
            "fix:  20 of 20 topics do not exist, such as tw.in",
            "fix:  this user is not allowed to Create the 20 topics, such as tw.in; grant it",
            "fix:  this user is not allowed to Write the transactional ids",
        ],
    );
    create_topics(&secure, &as_user(OWNER, PASSWORD, ca));
    doctor(&secure, &guest).check(
        2,
        &[
            "fix:  this user is not allowed to DescribeConfigs or Write the 20 topics, such as",
            "fix:  this user is not allowed to Write the transactional ids",
            "warn  the settings of 0 of 20 topics were checked",
            "warn  the clocks were not compared",
        ],
    );
    let all = ["--operation", "All", "--topic", "tw.", "--group", "tw."];
    broker.grant(&[&all[..], &prefixed].concat());
    let of_derive = ["--operation", "All", "--transactional-id", "tw.derive"];
    broker.grant(&[&of_derive[..], &prefixed].concat());
    doctor(&secure, &guest).check(
        0,
        &["warn  this user may not Write ids that begin like the transactional id tw.layout, which \
           `topics create`, `dev` and `finalize` need, or tw.dead-letters, which"],
    );
    let all_ids = ["--operation", "All", "--transactional-id", "tw."];
    broker.grant(&[&all_ids[..], &prefixed].concat());
    doctor(&secure, &guest).check(
        0,
        &[
            "ok    Kafka at ",
            "one broker, of a supported version",
            "ok    20 topics exist with the required settings",
            "ok    this user has every permission on topics, groups and transactional ids",
            "warn  who may write to tw.in.internal was not checked, which needs Describe on the",
            "warn  offsets.retention.minutes was not checked",
            "ok    the clocks of the brokers are within",
        ],
    );
    check_nobody_is_fenced(&secure, &guest);
    let owner = as_user(OWNER, PASSWORD, ca);
    let named = "ok    only super users and User:guest may write to tw.in.internal; each of them";
    doctor(&secure, &owner).check(0, &[named]);
    broker.grant_to("*", &["--operation", "Write", "--topic", "*"]);
    let open = "fix:  an ACL allows every user to write to tw.in.internal, and what is written";
    doctor(&secure, &owner).check(1, &[open]);
}

/// A running process keeps its transactional ids whatever the doctor checks.
fn check_nobody_is_fenced(brokers: &str, guest: &Variables<'_>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("transactional.id", "tw.derive-here-0-a");
    for (name, value) in guest {
        let name = name.trim_start_matches("TIDEWIRE_KAFKA_PROPERTIES_");
        config.set(name.to_lowercase().replace('_', "."), *value);
    }
    let producer: BaseProducer = config.create().expect("a producer");
    producer.init_transactions(ASKING).expect("its id is free");
    doctor(brokers, &[guest, &[("TIDEWIRE_INSTANCE", "here")]].concat()).check(0, &[]);
    producer.begin_transaction().expect("its own");
    let record = rdkafka::producer::BaseRecord::to("tw.in").key("k").payload("v");
    producer.send::<str, str>(record).expect("taken");
    producer.commit_transaction(ASKING).expect("nobody fenced it");
}

#[test]
fn a_low_limit_of_open_files_is_reported_with_the_number_needed() {
    let port = Port::reserve();
    let down = format!("127.0.0.1:{}", port.number());
    let doctor = server::command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 2000 && exec \"$0\" \"$@\""]).arg(doctor.get_program());
    command.args(["doctor", "--listen", "127.0.0.1:0", "--log", &format!("kafka://{down}")]);
    for (name, value) in doctor.get_envs().filter(|(_, value)| value.is_none()) {
        assert!(value.is_none());
        command.env_remove(name);
    }
    // 16 × 176 files of stores, and 23 clients with 3 connections of 3 files each.
    let output = run(command, &[("TIDEWIRE_TOPICS_PARTITIONS", "16")]);
    output.check(
        2,
        &[
            "fix:  only 2000 open files are allowed; 3023 are for the state of 16 partitions",
            "raise the hard limit to 6095 or more: `ulimit -Hn 6095`",
        ],
    );
}
