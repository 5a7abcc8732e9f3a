//! Starts a gateway on a free port, with an appender that keeps its records in memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidewire_engine::port::{Appender, Clock, LogError};
use tidewire_engine::record::{Millis, Offset, Outgoing, Partition, Topic};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;

use crate::clock;
use crate::socket::gateway::{Gateway, GatewayConfig, GatewayHandle, GatewayParts, PublishParts};
use crate::socket::http::guard::Guard;
use crate::socket::http::publish::IngestTopics;
use crate::socket::http::state::{AppHooks, Asset};
use crate::socket::limits::{ConnectionLimits, RequestTimeouts};
use crate::socket::memory::{CONNECTIONS_BYTES, MemoryBudget};
use crate::socket::stream::worker::{self, WorkerHandle};

use super::scripted_shard::ShardScript;

/// An origin whose pages may use the gateway.
pub(super) const LISTED_ORIGIN: &str = "http://app.example";

pub(super) const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 5_000,
    per_address: 5_000,
    per_user: 5_000,
    loopback_exempt: true,
};

/// The appended records, and a switch that blocks appends.
#[derive(Default)]
pub(super) struct AppendedRecords {
    pub(super) batches: Mutex<Vec<Vec<Outgoing>>>,
    shut: Mutex<bool>,
    opened: Condvar,
    /// The log takes no record with this key.
    pub(super) refused_key: Mutex<Option<&'static [u8]>>,
}

impl AppendedRecords {
    pub(super) fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub(super) fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    pub(super) fn records(&self) -> Vec<Outgoing> {
        self.batches.lock().unwrap().concat()
    }
}

struct MemoryAppender {
    appended: Arc<AppendedRecords>,
    ends: HashMap<(Topic, Partition), u64>,
}

impl Appender for MemoryAppender {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let shut = self.appended.shut.lock().unwrap();
        drop(self.appended.opened.wait_while(shut, |shut| *shut).unwrap());
        let refused = *self.appended.refused_key.lock().unwrap();
        if refused.is_some() && records.iter().any(|record| record.body.key() == refused) {
            return Err(LogError::Invalid("this key is refused".to_owned()));
        }
        self.appended.batches.lock().unwrap().push(records.to_vec());
        let offsets = records.iter().map(|record| {
            let end = self.ends.entry((record.topic.clone(), record.partition)).or_default();
            *end += 1;
            Offset(*end - 1)
        });
        Ok(offsets.collect())
    }
}

pub(super) struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Millis {
        Millis(1_767_607_200_000)
    }
}

/// Memory for connections that no test fills.
pub(super) fn memory() -> Arc<MemoryBudget> {
    MemoryBudget::new(CONNECTIONS_BYTES, || 0)
}

pub(super) struct GatewayFixture {
    pub(super) gateway: GatewayHandle,
    pub(super) appended: Arc<AppendedRecords>,
    pub(super) script: ShardScript,
}

/// How long clients may take in most tests: so short that a test can wait for the end.
const LIMIT: Duration = Duration::from_secs(2);
pub(super) const TIMEOUTS: RequestTimeouts = RequestTimeouts {
    head: LIMIT,
    body: LIMIT,
    body_window: Duration::from_secs(1),
    response: LIMIT,
    stall: LIMIT,
    append: LIMIT,
};

impl GatewayFixture {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self::with(limits, TIMEOUTS, memory())
    }

    /// With this memory for connections.
    pub(super) fn with_memory(limits: ConnectionLimits, memory: Arc<MemoryBudget>) -> Self {
        Self::with(limits, TIMEOUTS, memory)
    }

    pub(super) fn with_timeouts(limits: ConnectionLimits, timeouts: RequestTimeouts) -> Self {
        Self::with(limits, timeouts, memory())
    }

    fn with(
        limits: ConnectionLimits,
        timeouts: RequestTimeouts,
        memory: Arc<MemoryBudget>,
    ) -> Self {
        let appended = Arc::new(AppendedRecords::default());
        let script = ShardScript::default();
        let worker = worker::start(0, memory, |wake| script.shard(wake));
        let parts = parts(&appended, vec![worker.expect("a thread")]);
        let gateway = start_within(limits, parts, timeouts);
        Self { gateway, appended, script }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }
}

/// Starts a gateway with these workers that appends to `appended`.
pub(super) fn start(
    limits: ConnectionLimits,
    appended: &Arc<AppendedRecords>,
    workers: Vec<WorkerHandle>,
) -> GatewayHandle {
    start_parts(limits, parts(appended, workers))
}

fn parts(appended: &Arc<AppendedRecords>, workers: Vec<WorkerHandle>) -> GatewayParts {
    let publish = publish_parts(appended, None);
    GatewayParts { publish: Some(publish), hooks: hooks(), workers, hub: None }
}

/// What a gateway publishes with.
pub(super) fn publish_parts(
    appended: &Arc<AppendedRecords>,
    registry: Option<Arc<dyn Registry>>,
) -> PublishParts {
    PublishParts {
        appender: Box::new(MemoryAppender { appended: Arc::clone(appended), ends: HashMap::new() }),
        topics: IngestTopics {
            input: Topic::new("tw.in"),
            urgent: Topic::new("tw.in.urgent"),
            dead_letters: Topic::new("tw.dead-letters"),
            partitions: 8,
        },
        clock: Arc::new(FixedClock),
        registry,
    }
}

/// Starts a gateway of these parts on a free port.
pub(super) fn start_parts(limits: ConnectionLimits, parts: GatewayParts) -> GatewayHandle {
    start_within(limits, parts, TIMEOUTS)
}

fn start_within(
    limits: ConnectionLimits,
    parts: GatewayParts,
    timeouts: RequestTimeouts,
) -> GatewayHandle {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let guard = Guard { origins: vec![LISTED_ORIGIN.to_owned()], ..Guard::default() };
    let config = GatewayConfig { listen, limits, guard, timeouts, catalogue: Catalogue::builtin() };
    Gateway::start(config, parts).expect("a free port")
}

pub(super) fn hooks() -> AppHooks {
    AppHooks {
        ready: Box::new(|| Ok(())),
        metrics: Box::new(|| "tidewire_up 1\n".to_owned()),
        stats: Box::new(|| json!({"heads": 7})),
        accepts_subscribers: Box::new(|| true),
        admin_endpoints: Vec::new(),
        assets: vec![Asset {
            path: "/".to_owned(),
            kind: "text/html; charset=utf-8",
            content: Bytes::from_static(b"<!doctype html>"),
        }],
    }
}

/// Repeats `ask` until it returns a value; panics after 20 s.
pub(super) fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(found) = ask() {
            return found;
        }
        clock::pause(Duration::from_millis(10));
    }
    panic!("no value within 20 s");
}
