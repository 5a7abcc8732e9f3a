//! The stored catalogues: what DERIVE stores at its start, and which folder each role refuses.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_engine::catalogues::{CatalogueAccess, CatalogueError, put_in_force};
use tidewire_engine::port::Log;
use tidewire_engine::topology::Topology;
use tidewire_schemas::catalogue::{Catalogue, decode_stored};
use tidewire_tests::server::Server;
use tidewire_tests::wall_clock::SystemWallClock;

use super::dead_letters::fixture::read;
use super::topics_layout::run;

const ORDERS: &str =
    "[types.\"order.placed\"]\nkey = [\"order_id\"]\ndata = \"order_id, shop_id\"\n";
const PAYMENTS: &str = "[types.\"order.paid\"]\nkey = [\"order_id\"]\ndata = \"order_id\"\n";

struct CatalogueLog {
    log: Arc<dyn Log>,
    topology: Topology,
    _dir: TempDir,
}

impl CatalogueLog {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        let log = EmbeddedLog::open(Config::new(dir.path()), Arc::new(SystemWallClock));
        let log: Arc<dyn Log> = log.expect("a new folder");
        let topology = Topology::new("t.", 1);
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        Self { log, topology, _dir: dir }
    }

    /// A process starts with these files; what it answers.
    fn start(&self, access: CatalogueAccess, files: &[(&str, &str)]) -> Result<(), CatalogueError> {
        let catalogue = Catalogue::extended(files).expect("valid");
        put_in_force(&*self.log, &self.topology, &catalogue, access)
    }

    /// The names of the files of every stored catalogue.
    fn stored(&self) -> Vec<Vec<String>> {
        let files = |value: &[u8]| decode_stored(value).expect("stored files");
        let names = |value: &[u8]| files(value).into_iter().map(|file| file.name).collect();
        let records = read(&*self.log, &self.topology, self.topology.catalogues());
        records.iter().map(|(_, record)| names(record.body.value().expect("a value"))).collect()
    }
}

#[test]
fn derive_stores_each_catalogue_once_and_refuses_a_changed_key() {
    use CatalogueAccess::Writes;
    let log = CatalogueLog::new();
    log.start(Writes, &[]).expect("the first");
    log.start(Writes, &[("dir/orders", ORDERS)]).expect("an addition");
    log.start(Writes, &[("other/orders", ORDERS)]).expect("the same again");
    assert_eq!(log.stored(), [vec![], vec!["orders".to_owned()]]);
    let both = [("orders", ORDERS), ("payments", PAYMENTS)];
    log.start(Writes, &both).expect("an addition");

    let changed = ORDERS.replace("key = [\"order_id\"]", "key = [\"shop_id\"]");
    let changed = [("orders", &changed[..]), ("payments", PAYMENTS)];
    for (files, says) in [
        (&changed[..], "type `order.placed`: the key changed"),
        (&both[..1], "type `order.paid` is removed"),
        (&[], "type `order.placed` is removed"),
    ] {
        let error = log.start(Writes, files).expect_err(says);
        assert!(matches!(error, CatalogueError::Refused(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("topics.prefix"), "{text}");
    }
    assert_eq!(log.stored().len(), 3, "what is refused is not stored");
    log.start(Writes, &both).expect("the catalogue in force");
}

#[test]
fn other_roles_may_be_behind_derive_and_not_ahead_of_it() {
    use CatalogueAccess::{Reads, Writes};
    let log = CatalogueLog::new();
    log.start(Reads, &[]).expect("nothing is added");
    let ahead = log.start(Reads, &[("orders", ORDERS)]).expect_err("nothing is stored");
    assert!(matches!(ahead, CatalogueError::Ahead(_)), "{ahead:?}");
    log.start(Writes, &[("orders", ORDERS)]).expect("the first");
    log.start(Reads, &[("orders", ORDERS)]).expect("the same");
    log.start(Reads, &[]).expect("behind");
    let both = [("orders", ORDERS), ("payments", PAYMENTS)];
    let ahead = log.start(Reads, &both).expect_err("not stored yet");
    assert!(matches!(ahead, CatalogueError::Ahead(_)), "{ahead:?}");
    let changed = ORDERS.replace("key = [\"order_id\"]", "key = [\"shop_id\"]");
    let refused = log.start(Reads, &[("orders", &changed)]).expect_err("another key");
    assert!(matches!(refused, CatalogueError::Refused(_)), "{refused:?}");
    assert_eq!(log.stored().len(), 1, "a reader stores nothing");
}

fn check(data: &Path, (words, code): (&[&str], i32), part: &str) -> String {
    let (ended, printed) = run(data, words);
    assert_eq!(ended, Some(code), "{words:?}: {printed}");
    assert!(printed.contains(part), "{words:?}: {part:?} is in {printed}");
    printed
}

#[test]
fn the_catalogue_in_force_is_exported_as_a_folder_that_starts_again() {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (folder, out) = (path("shop"), path("out"));
    fs::create_dir(&folder).expect("writable");
    for (name, text) in [("orders", ORDERS), ("payments", PAYMENTS)] {
        fs::write(format!("{folder}/{name}.toml"), text).expect("writable");
    }
    let mut server = Server::start(&["--catalogue-dir", &folder]);
    let data = server.data_dir();
    let export = ["catalogue", "export", &out];
    check(&data, (&export, 1), "stop it");
    server.stop();
    // The folder is lost, or changed beyond use.
    fs::write(format!("{folder}/orders.toml"), "[types").expect("writable");
    let further = ["--catalogue-dir", &folder];
    let printed = check(&data, (&[&export[..], &further].concat(), 0), "2 files written");
    for (name, text) in [("orders", ORDERS), ("payments", PAYMENTS)] {
        let written = fs::read_to_string(format!("{out}/{name}.toml")).expect("it is written");
        assert_eq!(written, text);
    }
    let hash = printed.trim().rsplit(' ').next().expect("the last word").to_owned();
    let output = tidewire_tests::server::command().args(["catalogue", "check", &out]).output();
    let checked = String::from_utf8(output.expect("it starts").stdout).expect("text");
    assert!(checked.contains(&hash), "{checked} and {printed}");
    check(&data, (&export, 2), "is not empty");
    check(&data, (&["replay", "verify", "--catalogue-dir", &out], 0), "");
    check(&data, (&["dev", "--catalogue-dir", &folder], 2), "orders.toml");
}

#[test]
fn commands_that_need_no_catalogue_work_whatever_the_folder_holds() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.addr());
    let broken = ["--catalogue-dir", "/no/such/folder"];
    for words in [
        &["ready", "--url", &url][..],
        &["topics", "list", "--url", &url],
        &["dead-letters", "list", "--url", &url],
        &["dead-letters", "drop", "--all-open", "--url", &url],
    ] {
        check(&server.data_dir(), (&[words, &broken].concat(), 0), "");
    }
    drop(server);
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let data = dir.path().join("data");
    check(&data, (&[&["topics", "create"][..], &broken].concat(), 0), "topics created");
    check(&data, (&[&["topics", "list"][..], &broken].concat(), 0), "tw.in");
    check(&data, (&[&["dead-letters", "drop", "--all-open"][..], &broken].concat(), 0), "");
    let export = [&["catalogue", "export", "out"][..], &broken].concat();
    check(&data, (&export, 1), "has no catalogue");
    check(&data, (&[&["doctor"][..], &broken].concat(), 2), "/no/such/folder");
}
