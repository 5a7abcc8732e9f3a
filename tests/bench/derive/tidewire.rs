//! Tidewire's side: the loop of DERIVE on its real connectors with one operator that counts.
//!
//! `bench-derive tidewire BOOTSTRAP PREFIX FOLDER`. It runs until its standard input ends. When its
//! partitions are restored it prints how many microseconds that took from their assignment
//! (`running 1234`). There is no de-duplication, because the peer has none.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::derive::{
    Changelog, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts, Emission, Flow,
    Input, Operator, OperatorError, StateKey, TableDecl,
};
use tidewire_engine::port::{Table, TableExpiry, TableSpec};
use tidewire_engine::topology::{DEFAULT_PARTITIONS, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_tests::wall_clock::SystemWallClock;

/// The first argument that selects Tidewire's side.
pub(crate) const SUBCOMMAND: &str = "tidewire";

/// How long a turn waits for records.
const WAIT: Duration = Duration::from_millis(100);

/// Events per key, 8 bytes big-endian.
const COUNTS: Table = Table(50);

struct Count;

impl Operator for Count {
    fn number(&self) -> u8 {
        50
    }

    fn name(&self) -> &'static str {
        "count"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[TableDecl {
            spec: TableSpec { table: COUNTS, name: "counts", expiry: TableExpiry::Never },
            changelog: Changelog::State,
            window_ms: 0,
            level: ValueLevel::FIRST,
        }];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let key = event.key.as_bytes();
        let before = context.get(COUNTS, key)?;
        let before = before.and_then(|value| value.first_chunk().copied());
        let count = before.map_or(0, u64::from_be_bytes) + 1;
        context.put(COUNTS, key, &count.to_be_bytes());
        let at = StateKey { channel: event.key, state_key: "" };
        context.publish(event, at, &count.to_be_bytes());
        if event.priority == Priority::Critical {
            // Like a delivery: to the type's channels, in the topic for its priority.
            context.emit(&Emission {
                event_type: event.event_type,
                account_id: event.account_id,
                key: event.key,
                timestamp_ms: event.timestamp_ms,
                priority: event.priority,
                data: event.data,
            })?;
        }
        Ok(Flow::Continue)
    }
}

pub(crate) fn run(words: &[String]) -> io::Result<()> {
    let [bootstrap, prefix, folder] = words else {
        return Err(io::Error::other("usage: bench-derive tidewire BOOTSTRAP PREFIX FOLDER"));
    };
    let log = KafkaLog::open(Config::new(bootstrap, prefix)).map_err(io::Error::other)?;
    let stores = RocksStores::new(rocks::Config::new(folder));
    let ports = DerivePorts { log, stores, clock: Arc::new(SystemWallClock) };
    let config = DeriveConfig {
        topology: Topology::new(prefix, DEFAULT_PARTITIONS),
        catalogue: Catalogue::builtin(),
        instance: "bench".to_owned(),
        thread: 0,
        build: "bench".to_owned(),
        settings_hash: 0,
        standby: false,
        dedup_filter_bytes: DEDUP_FILTER_BYTES,
        hash_seed: 0,
    };
    let derive = Derive::new(config, ports, &[&Count]).map_err(io::Error::other)?;
    turn(derive)
}

/// Turns until standard input ends.
fn turn(mut derive: Derive) -> io::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let (stop, waker) = (Arc::clone(&over), derive.waker());
    thread::spawn(move || {
        // Whether it ended or failed, the parent is gone.
        io::stdin().read_to_end(&mut Vec::new()).ok();
        stop.store(true, Ordering::Relaxed);
        waker.wake();
    });
    let (mut assigned, mut running) = (None, false);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let turned = derive.turn(WAIT).map_err(io::Error::other)?;
        if turned.joined {
            // The time includes the turn that receives the assignment.
            let assigned = assigned.get_or_insert(begun);
            if !turned.restoring && !std::mem::replace(&mut running, true) {
                println!("running {}", assigned.elapsed().as_micros());
            }
        }
    }
    derive.close().map_err(io::Error::other)
}
