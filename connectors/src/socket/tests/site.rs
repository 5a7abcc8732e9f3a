//! A gateway on a free port, and the smallest log that keeps what it is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidewire_engine::port::{Appender, Clock, LogError};
use tidewire_engine::record::{Millis, Offset, Outgoing, Partition, Topic};

use crate::clock;
use crate::socket::events::IngestTopics;
use crate::socket::gateway::{Gateway, GatewayConfig, GatewayHandle, GatewayParts, Ingress};
use crate::socket::guard::Guard;
use crate::socket::limits::{Limits, Patience};
use crate::socket::routes::{Asset, Pages};
use crate::socket::worker::{self, WorkerHandle};

use super::script::Script;

pub(super) const LIMITS: Limits =
    Limits { connections: 5_000, per_address: 5_000, per_user: 5_000, loopback_is_free: true };

/// What was appended, and a gate that can hold appends back.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) batches: Mutex<Vec<Vec<Outgoing>>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Kept {
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

struct Memory {
    kept: Arc<Kept>,
    ends: HashMap<(Topic, Partition), u64>,
}

impl Appender for Memory {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let shut = self.kept.shut.lock().unwrap();
        drop(self.kept.opened.wait_while(shut, |shut| *shut).unwrap());
        self.kept.batches.lock().unwrap().push(records.to_vec());
        let offsets = records.iter().map(|record| {
            let end = self.ends.entry((record.topic.clone(), record.partition)).or_default();
            *end += 1;
            Offset(*end - 1)
        });
        Ok(offsets.collect())
    }
}

pub(super) struct Noon;

impl Clock for Noon {
    fn now(&self) -> Millis {
        Millis(1_767_607_200_000)
    }
}

pub(super) struct TestSite {
    pub(super) gateway: GatewayHandle,
    pub(super) kept: Arc<Kept>,
    pub(super) script: Script,
}

impl TestSite {
    pub(super) fn new(limits: Limits) -> Self {
        let kept = Arc::new(Kept::default());
        let script = Script::default();
        let worker = worker::start(0, Arc::new(Noon), |wake| script.streams(wake));
        let gateway = start(limits, &kept, vec![worker.expect("a thread")]);
        Self { gateway, kept, script }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }
}

/// A gateway around these workers that appends to `kept`.
pub(super) fn start(limits: Limits, kept: &Arc<Kept>, workers: Vec<WorkerHandle>) -> GatewayHandle {
    let ingress = Ingress {
        appender: Box::new(Memory { kept: Arc::clone(kept), ends: HashMap::new() }),
        topics: IngestTopics {
            input: Topic::new("tw.in"),
            urgent: Topic::new("tw.in.urgent"),
            dead_letters: Topic::new("tw.dead-letters"),
            partitions: 8,
        },
        clock: Arc::new(Noon),
        registry: None,
    };
    start_parts(limits, GatewayParts { ingress: Some(ingress), pages: pages(), workers })
}

/// A gateway of these parts on a free port.
pub(super) fn start_parts(limits: Limits, parts: GatewayParts) -> GatewayHandle {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let limit = Duration::from_secs(2);
    let patience = Patience { head: limit, body: limit, append: limit };
    let config = GatewayConfig { listen, limits, guard: Guard::default(), patience };
    Gateway::start(config, parts).expect("a free port")
}

pub(super) fn pages() -> Pages {
    Pages {
        ready: Box::new(|| Ok(())),
        metrics: Box::new(|| "tidewire_up 1\n".to_owned()),
        stats: Box::new(|| json!({"heads": 7})),
        serves: Box::new(|| true),
        verbs: Vec::new(),
        assets: vec![Asset {
            path: "/".to_owned(),
            kind: "text/html; charset=utf-8",
            content: Bytes::from_static(b"<!doctype html>"),
        }],
    }
}

/// Asks again until there is something; fails after a time no machine needs.
pub(super) fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(found) = ask() {
            return found;
        }
        clock::pause(Duration::from_millis(10));
    }
    panic!("nothing came within 20 s");
}
