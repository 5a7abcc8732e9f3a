//! An operator that fails on some events, its dead letters on the command line, and its fix.
//!
//! The binary has no operator that fails alone, so DERIVE runs here with one of the test's, on both
//! logs; `list`, `show` and `requeue` are the binary's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::admit::{PoisonBreaker, PoisonLimit};
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts,
    Flow, Input, Operator, OperatorError, TableDecl, dedup::Dedup,
};
use tidewire_engine::port::{Log, Table, TableExpiry, TableSpec};
use tidewire_engine::record::Outgoing;
use tidewire_engine::topology::Topology;
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_tests::wall_clock::SystemWallClock;

use super::fixture::{
    VerbOutput, admit, append, check_delivered, event, input, open, read, run, settle, wait_until,
};

/// Events sent; those whose number ends with 0 fail until the fix.
const EVENTS: usize = 40;

/// Bytes of a value above the default limit of a broker.
const LARGE_BYTES: usize = 1_200_000;

const SEEN: Table = Table(42);

/// Whether the operators are fixed, of each log under test.
pub(crate) static FIXED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Counts events, and fails in three ways.
pub(crate) struct Counting(pub(crate) &'static AtomicBool);

impl Operator for Counting {
    fn number(&self) -> u8 {
        42
    }

    fn name(&self) -> &'static str {
        "counting"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const SPEC: TableSpec = TableSpec { table: SEEN, name: "seen", expiry: TableExpiry::Never };
        &[TableDecl {
            spec: SPEC,
            changelog: Changelog::State,
            window_ms: 0,
            level: ValueLevel::FIRST,
        }]
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let id = event.event_id.as_bytes();
        let count = context.get(SEEN, id)?.map_or(0, |count| count[0]) + 1;
        context.put(SEEN, id, &[count]);
        if event.event_id.ends_with('0') && !self.0.load(Ordering::SeqCst) {
            match event.event_id {
                "e-0" | "e-10" => context.put(SEEN, b"large", &[7; LARGE_BYTES]),
                "e-20" => panic!("a panic on purpose"),
                _ => return Err(OperatorError::Failed("not fixed yet".to_owned())),
            }
        }
        Ok(Flow::Continue)
    }
}

/// A log, the binary's commands on it, and the operators to run.
pub(crate) struct OperatorRound<'a> {
    pub(crate) topology: Topology,
    /// Opens the log, which no one has open.
    pub(crate) open: &'a dyn Fn() -> Arc<dyn Log>,
    /// Runs a subcommand of `dead-letters` on it.
    pub(crate) command: &'a dyn Fn(&[&str]) -> VerbOutput,
    pub(crate) operators: &'static [&'static dyn Operator],
    pub(crate) fixed: &'static AtomicBool,
    pub(crate) state: &'a Path,
}

impl OperatorRound<'_> {
    /// Events fail in one operator; the command requeues them once it is fixed.
    pub(crate) fn check(&self) {
        let log = (self.open)();
        append(&*log, &(0..EVENTS).map(|n| self.event(n)).collect::<Vec<_>>());
        self.derive(&log, EVENTS - EVENTS / 10);
        check_delivered(&*log, &self.topology, EVENTS);
        drop(log);

        let found = (self.command)(&["list", "--operator", "counting", "--json"]);
        let found: Vec<Value> =
            found.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(found.len(), EVENTS / 10, "{found:?}");
        let large = found.iter().filter(|one| one["detail"].to_string().contains("1200000 bytes"));
        assert_eq!(large.count(), 2, "{found:?}");
        let id = found[0]["id"].as_str().expect("an id");
        let shown = (self.command)(&["show", id]);
        for part in ["operator   counting", "trigger    event", "account    acc", "after 0 events"]
        {
            assert!(shown.out.contains(part), "{part}: {}", shown.out);
        }
        self.fixed.store(true, Ordering::SeqCst);
        let done = (self.command)(&["requeue", "--operator", "counting"]);
        assert!(done.out.contains("requeued 4 dead letters: processing_failed 4"), "{}", done.out);
        let done = (self.command)(&["requeue", "--operator", "counting"]);
        assert!(done.out.contains("requeued 0 dead letters"), "{}", done.out);

        let log = (self.open)();
        self.derive(&log, EVENTS);
        check_delivered(&*log, &self.topology, EVENTS);
        assert!(self.seen(&*log).values().all(|times| *times == 1));
    }

    fn event(&self, n: usize) -> Outgoing {
        let mut value: Value = serde_json::from_slice(&event(n)).expect("JSON");
        value["event_id"] = format!("e-{n}").into();
        input(&self.topology, value["key"].as_str().expect("a key"), value.to_string().as_bytes())
    }

    /// Runs ADMIT and DERIVE until the operator has seen so many events.
    fn derive(&self, log: &Arc<dyn Log>, seen: usize) {
        let ports = DerivePorts {
            log: log.clone(),
            stores: RocksStores::new(rocks::Config::new(self.state.to_owned())),
            clock: Arc::new(SystemWallClock),
        };
        let config = DeriveConfig {
            topology: self.topology.clone(),
            instance: "one".to_owned(),
            thread: 0,
            build: "test".to_owned(),
            catalogue: Catalogue::builtin(),
            settings_hash: 1,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        let mut derive = Derive::new(config, ports, self.operators).expect("joined");
        let mut admit = admit(log, &self.topology, &PoisonBreaker::new(PoisonLimit::OFF));
        settle(&mut admit);
        wait_until("the operator has seen the events", || {
            for _ in 0..20 {
                derive.turn(Duration::from_millis(5)).expect("no faults");
            }
            settle(&mut admit);
            self.seen(&**log).len() == seen
        });
        derive.close().expect("closed");
    }

    /// How often the operator has seen each event, from the changelog.
    fn seen(&self, log: &dyn Log) -> BTreeMap<Vec<u8>, u8> {
        let records = read(log, &self.topology, self.topology.state());
        let row = |record: &tidewire_engine::record::Record| {
            let (table, key) = record.body.key()?.split_first()?;
            (*table == SEEN.0).then_some((key.to_vec(), record.body.value()?[0]))
        };
        records.iter().filter_map(|(_, record)| row(record)).collect()
    }
}

#[test]
fn an_operator_that_fails_alone_gets_its_events_back_alone_once_it_is_fixed() {
    const COUNTING: Counting = Counting(&FIXED[0]);
    let topology = Topology::default();
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let log = open(dir.path());
    for spec in topology.specs() {
        log.create(&spec).expect("a new topic");
    }
    drop(log);
    let data = dir.path().to_str().expect("a path of text");
    let at = ["--data-dir", data, "--listen", "127.0.0.1:1"];
    OperatorRound {
        topology,
        open: &|| open(dir.path()),
        command: &|args| run(&[&["dead-letters"], args, &at[..]].concat()),
        operators: &[&Dedup, &COUNTING, &ChannelDelivery],
        fixed: &FIXED[0],
        state: &dir.path().join("state"),
    }
    .check();
}
