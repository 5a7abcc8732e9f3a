//! Topics in another layout on Kafka: refused by every role and command, and created by one build.

use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Log, LogError};
use tidewire_engine::record::{Body, Outgoing, Partition};
use tidewire_engine::topics_layout::{
    CreateTopicsError, FoundLayout, LayoutNumber, create_topics, find_layout,
};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_tests::broker;
use tidewire_tests::server;

use super::fixture::{TopicNamespace, serve};
use crate::topics_layout::check_creators;

fn open(at: TopicNamespace<'_>) -> Arc<dyn Log> {
    let wrapping = vec![format!("{}dead-letters", at.prefix)];
    let config = Config { wrapping, ..Config::new(at.bootstrap, at.prefix) };
    KafkaLog::open(config).expect("the configuration is right")
}

/// A command on these topics, with a folder of its own.
fn command(at: TopicNamespace<'_>, words: &[&str], dir: &TempDir) -> Command {
    let mut command = server::command();
    command.args(words).args(["--log", &format!("kafka://{}", at.bootstrap)]);
    command.args(["--listen", "127.0.0.1:0"]).current_dir(dir.path());
    command.env("TIDEWIRE_TOPICS_PREFIX", at.prefix).env("TIDEWIRE_INSECURE_DEV", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn folder() -> TempDir {
    TempDir::new().expect("the temporary folder can be written")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Topics as the former build created them.
fn create_former(log: &dyn Log, topology: &Topology) {
    for mut spec in topology.specs() {
        if spec.topic != *topology.catalogues() {
            spec.partitions = topology.partitions();
            log.create(&spec).expect("a new topic");
        }
    }
    let body = Body::new(Some(b"k"), Some(b"v"), &[]);
    let topic = topology.lane(Lane::Normal).clone();
    let record = Outgoing { topic, partition: Partition(0), body };
    log.appender().expect("an appender").append(&[record]).expect("appended");
}

#[test]
fn every_role_and_command_refuses_topics_of_the_former_layout_with_the_command_to_run() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "former.");
    let (log, topology, dir) = (open(at), Topology::new(at.prefix, 8), folder());
    create_former(&*log, &topology);
    let other = format!(
        "run `TIDEWIRE_TOPICS_PREFIX=former3. tidewire topics create --log kafka://{bootstrap}` \
         with the other settings as they are, and start every process with topics.prefix = \"former3.\""
    );
    for (words, code) in [
        (&["dev"][..], 2),
        (&["admit"], 2),
        (&["derive"], 2),
        (&["gateway"], 2),
        (&["topics", "create"], 2),
        (&["doctor"], 1),
    ] {
        let output = command(at, words, &dir).output().expect("the binary starts");
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        for part in ["in layout 1 (former.control has 8", "needs layout 4", &other] {
            assert!(text.contains(part), "{words:?}: {part:?} is in {text}");
        }
        let fixes = text.lines().filter(|line| line.starts_with("fix:")).count();
        assert_eq!(fixes, usize::from(code == 1), "{words:?}: {text}");
    }
    let topics = log.topics().expect("it answers");
    assert!(topics.iter().all(|info| info.spec.topic != *topology.catalogues()));
}

#[test]
fn topics_without_records_get_their_layout_record_from_topics_create() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "cut-short.");
    let (log, topology, dir) = (open(at), Topology::new(at.prefix, 8), folder());
    for spec in topology.specs() {
        log.create(&spec).expect("a new topic");
    }
    let output = command(at, &["doctor"], &dir).output().expect("the binary starts");
    let text = printed(&output);
    assert!(text.contains("fix:  the topics are empty and cut-short.catalogues has no"), "{text}");
    let output = command(at, &["topics", "create"], &dir).output().expect("the binary starts");
    assert!(output.status.success(), "{}", printed(&output));
    let found = find_layout(&*log, &topology).expect("it answers");
    assert_eq!(found, FoundLayout::Marked(LayoutNumber::CURRENT));
    drop(serve("gateway", at, "g1"));
}

#[test]
fn processes_that_create_topics_at_once_all_succeed() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "at-once.");
    let dirs = [(); 4].map(|()| folder());
    let spawn =
        |dir: &TempDir| command(at, &["topics", "create"], dir).spawn().expect("the binary starts");
    let children: Vec<Child> = dirs.iter().map(spawn).collect();
    for child in children {
        let output = child.wait_with_output().expect("it is our child");
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn builds_that_create_topics_at_once_agree_on_one_layout() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "two-builds.");
    check_creators(&open(at), &Topology::new(at.prefix, 2));
}

#[test]
fn a_broker_that_does_not_answer_is_no_statement_about_the_layout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let log = open(TopicNamespace::new(&address, "silent."));
    let begun = std::time::Instant::now();
    let outcome = create_topics(
        &*log,
        &Topology::new("silent.", 1),
        LayoutNumber::CURRENT,
        ValueLevel::FIRST,
    );
    assert!(matches!(outcome, Err(CreateTopicsError::Layout(LogError::Retry(_)))), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
}
