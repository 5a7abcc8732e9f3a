//! `tidewire finalize` on the embedded log, and every command at a level that it can't read.

use std::path::Path;

use tidewire_engine::derive::highest_level;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::record::{Body, Outgoing, Partition};
use tidewire_engine::topics_layout::{LAYOUT_KEY, LayoutNumber};
use tidewire_engine::topology::Topology;
use tidewire_engine::value_level::{VALUE_LEVEL_KEY, ValueLevel, finalize, level_in_force};
use tidewire_tests::server::Server;

use crate::dead_letters::fixture::{append, open};
use crate::topics_layout::run;

fn write(data: &Path, key: &str, value: &[u8]) {
    let body = Body::new(Some(key.as_bytes()), Some(value), &[]);
    let topic = Topology::default().catalogues().clone();
    append(&*open(data), &[Outgoing { topic, partition: Partition(0), body }]);
}

fn check(data: &Path, (words, code): (&[&str], i32), parts: &[&str]) {
    let (ended, printed) = run(data, words);
    assert_eq!(ended, Some(code), "{words:?}: {printed}");
    for part in parts {
        assert!(printed.contains(part), "{words:?}: {part:?} is in {printed}");
    }
}

#[test]
fn finalize_shows_both_levels_and_may_be_repeated() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let (data, topology) = (dir.path().join("data"), Topology::default());
    let highest = highest_level(OPERATORS);
    check(&data, (&["finalize"], 1), &["there is no data in"]);
    assert!(!data.exists(), "it creates nothing");
    // What a build that did not write the level has created.
    let log = open(&data);
    for spec in topology.specs() {
        log.create(&spec).expect("a new topic");
    }
    drop(log);
    check(&data, (&["finalize"], 2), &["has no layout record", "tidewire topics create"]);
    write(&data, LAYOUT_KEY, &LayoutNumber::CURRENT.encode());
    check(&data, (&["doctor"], 0), &["value level 1 is in force"]);
    let writes = format!("writes values up to level {}", highest.0);
    check(&data, (&["finalize"], 0), &["value level 1 was in force", &writes]);
    let stays = format!("value level {} stays in force; nothing was changed", highest.0);
    check(&data, (&["finalize"], 0), &[&writes, &stays]);
    assert_eq!(level_in_force(&*open(&data), &topology, highest).expect("read"), highest);
    let doctor = format!("value level {} is in force, the highest of this build", highest.0);
    check(&data, (&["doctor"], 0), &[&doctor]);
}

#[test]
fn topics_of_this_build_have_its_level_and_a_running_process_must_be_stopped_first() {
    let mut server = Server::start(&[]);
    let data = server.data_dir();
    check(&data, (&["finalize"], 1), &["could not open the log", "stop it"]);
    server.stop();
    let highest = highest_level(OPERATORS);
    let found = level_in_force(&*open(&data), &Topology::default(), highest);
    assert_eq!(found.expect("read"), highest);
}

#[test]
fn a_level_above_this_build_is_refused_by_every_command() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let (data, topology) = (dir.path().join("data"), Topology::default());
    check(&data, (&["topics", "create"], 0), &["topics created"]);
    finalize(&*open(&data), &topology, ValueLevel(7)).expect("raised");
    let writes = format!("up to level {}", highest_level(OPERATORS).0);
    let says =
        ["value level 7 is in force in tw.catalogues", &writes, "start the build with which"];
    for command in [(&["dev"][..], 2), (&["finalize"], 2), (&["doctor"], 1)] {
        check(&data, command, &says);
    }
    let found = level_in_force(&*open(&data), &topology, ValueLevel(7)).expect("read");
    assert_eq!(found, ValueLevel(7), "it does not fall");
    write(&data, VALUE_LEVEL_KEY, b"seven");
    check(&data, (&["dev"], 2), &["the record value-level of tw.catalogues is \"seven\""]);
}
