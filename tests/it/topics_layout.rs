//! Data folders in another layout are refused by every command, with the command to run instead.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use tidewire_engine::port::{Isolation, Log};
use tidewire_engine::record::{Body, Outgoing, Partition, Topic, TopicPartition};
use tidewire_engine::topics_layout::{
    CreateTopicsError, FoundLayout, LAYOUT_KEY, LayoutNumber, create_topics, find_layout,
};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_tests::server;

use crate::dead_letters::fixture::{append, open};

/// Processes that create topics at the same time.
const CREATORS: u32 = 8;

/// Runs a command on a data folder; returns its exit code and what it printed.
pub(crate) fn run(data: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = server::command();
    command.args(words).arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0"]);
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

fn record(topic: &Topic, key: &str, value: &[u8]) -> Outgoing {
    let body = Body::new(Some(key.as_bytes()), Some(value), &[]);
    Outgoing { topic: topic.clone(), partition: Partition(0), body }
}

/// Every command refuses the folder and says this, and no topic is created.
fn check_refused(data: &Path, parts: &[&str]) {
    let topics = || open(data).topics().expect("it lists them").len();
    let before = topics();
    let other = format!("run `tidewire dev --data-dir {}-4`", data.display());
    for (words, code) in [
        (&["dev"][..], 2),
        (&["topics", "create"], 2),
        (&["replay", "verify"], 2),
        (&["doctor"], 1),
    ] {
        let (ended, printed) = run(data, words);
        assert_eq!(ended, Some(code), "{words:?}: {printed}");
        for part in parts.iter().chain(&["needs layout 4", &other]) {
            assert!(printed.contains(part), "{words:?}: {part:?} is in {printed}");
        }
    }
    assert_eq!(topics(), before, "nothing is created");
}

#[test]
fn a_folder_of_the_former_layout_is_refused_with_the_command_to_run() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let (data, topology) = (dir.path().join("data"), Topology::default());
    let log = open(&data);
    for mut spec in topology.specs() {
        if spec.topic != *topology.catalogues() {
            spec.partitions = topology.partitions();
            log.create(&spec).expect("a new topic");
        }
    }
    append(&*log, &[record(topology.lane(Lane::Normal), "k", b"v")]);
    drop(log);
    check_refused(&data, &["are in layout 1 (tw.control has 8 partitions, and tw.catalogues has"]);
}

#[test]
fn a_folder_of_a_later_layout_is_refused_and_both_numbers_are_named() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let (data, topology) = (dir.path().join("data"), Topology::default());
    let log = open(&data);
    create_topics(&*log, &topology, LayoutNumber(7), ValueLevel::FIRST).expect("new topics");
    drop(log);
    check_refused(&data, &["are in layout 7,", "Start the build that created them"]);
    let log = open(&data);
    append(&*log, &[record(topology.catalogues(), LAYOUT_KEY, b"seven")]);
    drop(log);
    check_refused(&data, &["are in an unknown layout (\"seven\" in the layout record"]);
}

#[test]
fn a_creation_that_was_cut_short_is_completed() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let (data, topology) = (dir.path().join("data"), Topology::default());
    let log = open(&data);
    for spec in topology.specs().iter().filter(|spec| spec.topic != *topology.order()) {
        log.create(spec).expect("a new topic");
    }
    // Producers may be faster.
    append(&*log, &[record(topology.input(), "k", b"v")]);
    drop(log);
    let (code, printed) = run(&data, &["topics", "create"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("1 topics created, 19 existed"), "{printed}");
    let (code, printed) = run(&data, &["topics", "create"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("0 topics created, 20 existed"), "{printed}");
    let (code, printed) = run(&data, &["doctor"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("opens, 20 topics in the layout of this build"), "{printed}");
    let found = find_layout(&*open(&data), &topology).expect("it is read");
    assert_eq!(found, FoundLayout::Marked(LayoutNumber::CURRENT));
}

#[test]
fn builds_that_create_topics_at_once_agree_on_one_layout() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    check_creators(&open(dir.path()), &Topology::default());
}

/// Lets processes of two builds create the same topics at once: those of one build succeed.
pub(crate) fn check_creators(log: &Arc<dyn Log>, topology: &Topology) {
    let creators = (0..CREATORS).map(|n| {
        let (log, topology) = (log.clone(), topology.clone());
        thread::spawn(move || create_until_decided(&*log, &topology, LayoutNumber(2 + n % 2)))
    });
    let creators: Vec<_> = creators.collect();
    let succeeded: Vec<LayoutNumber> =
        creators.into_iter().filter_map(|creator| creator.join().expect("no panic")).collect();
    assert_eq!(succeeded.len() as u32, CREATORS / 2, "{succeeded:?}");
    assert!(succeeded.iter().all(|layout| *layout == succeeded[0]), "{succeeded:?}");
    let found = find_layout(&**log, topology).expect("it is read");
    assert_eq!(found, FoundLayout::Marked(succeeded[0]));
    let at = TopicPartition::new(topology.catalogues(), Partition(0));
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    let bounds = log.bounds(&at, Isolation::Committed).expect("bounds");
    let slot = reader.add(&at, bounds.start).expect("from the start");
    let mut records = Vec::new();
    let limit = tidewire_engine::port::ReadLimit { records: 100, bytes: 1 << 20 };
    while reader.position(slot).expect("a position") < bounds.end {
        if reader.take(slot, limit, &mut records).expect("taken") == 0 {
            reader.wait(std::time::Duration::from_millis(20)).expect("waited");
        }
    }
    assert_eq!(records.len(), 2, "one layout record and one value level");
}

/// The layout if these topics could be created in it; `None` if they are in another.
fn create_until_decided(
    log: &dyn Log,
    topology: &Topology,
    layout: LayoutNumber,
) -> Option<LayoutNumber> {
    for _ in 0..100 {
        match create_topics(log, topology, layout, ValueLevel::FIRST) {
            Ok(_) => return Some(layout),
            Err(CreateTopicsError::Refused(_)) => return None,
            Err(_) => {}
        }
    }
    panic!("the creators fence each other for ever");
}
