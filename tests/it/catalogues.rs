//! The stored catalogues: what DERIVE stores at its start, and which folder each role refuses.

use std::sync::Arc;

use tempfile::TempDir;
use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_engine::catalogues::{CatalogueAccess, CatalogueError, put_in_force};
use tidewire_engine::port::Log;
use tidewire_engine::topology::Topology;
use tidewire_schemas::catalogue::{Catalogue, decode_stored};
use tidewire_tests::wall_clock::SystemWallClock;

use super::dead_letters::fixture::read;

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
